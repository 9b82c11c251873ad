"""Forms: what programs send comes back as it was sent, and no bytes whatever are a failure of ours."""

from __future__ import annotations

import contextlib

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as some

from giclee.intake.multipart import PARTS_MAX, parts_of
from giclee.schemas.strict import InvalidInput

names = some.text(some.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters='"\\%'), min_size=1)
bodies = some.binary() | some.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n\r\n", b"\r\n--b--\r\n"])


@given(some.dictionaries(names, bodies, min_size=1, max_size=PARTS_MAX))
def test_what_a_client_sends_is_what_arrives(parts: dict[str, bytes]) -> None:
    """Any bytes under any names, as the client library frames them."""
    files = {name: ("f", body, "image/png") for name, body in parts.items()}
    request = httpx2.Request("POST", "http://x", files=files)
    found = parts_of(request.read(), request.headers["content-type"])

    assert {name: part.body for name, part in found.items()} == parts
    assert {part.content_type for part in found.values()} == {"image/png"}


_FORM = (
    b'preamble\r\n--b\r\nContent-Disposition: form-data; name="a"\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\nend'
)


def test_preamble_and_epilogue_are_nobodys() -> None:
    """RFC 2046 allows both."""
    assert {name: part.body for name, part in parts_of(_FORM, "multipart/form-data; boundary=b").items()} == {"a": b"x"}


@given(some.binary() | some.integers(0, len(_FORM)).map(lambda cut: _FORM[:cut]), some.text(max_size=80))
def test_no_bytes_are_more_than_a_bad_form(raw: bytes, kind: str) -> None:
    """Refused with a reason, whatever they are and whatever the header says."""
    for content_type in (kind, f"multipart/form-data; boundary={kind}", "multipart/form-data; boundary=b"):
        with contextlib.suppress(InvalidInput):
            parts_of(raw, content_type)


@given(some.integers(0, len(_FORM) - 1), some.integers(0, 255))
def test_a_changed_byte_is_a_form_or_refused(at: int, byte: int) -> None:
    """Nothing else comes of it."""
    changed = _FORM[:at] + bytes([byte]) + _FORM[at + 1 :]
    with contextlib.suppress(InvalidInput):
        parts_of(changed, "multipart/form-data; boundary=b")


@pytest.mark.parametrize("boundary", ["", '""', "x" * 71, '"a\tb"', "ü"])
def test_a_boundary_that_cannot_be_one_is_refused(boundary: str) -> None:
    """RFC 2046: 1 to 70 characters of a few kinds."""
    with pytest.raises(InvalidInput):
        parts_of(_FORM, f"multipart/form-data; boundary={boundary}")
