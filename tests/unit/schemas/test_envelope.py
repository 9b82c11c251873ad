"""Reading headers: what our own records carry, and what anybody may write."""

from __future__ import annotations

import pytest

from giclee.schemas import envelope
from giclee.schemas.envelope import ATTRIBUTE_MAX_BYTES, Envelope

OURS = (("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_type", b"t"), ("ce_subject", b"r"), ("traceparent", b"00-1"))

ODD: tuple[tuple[str, bytes | None], ...] = (
    ("x-foreign", b"1"),
    ("x-foreign", b"\xff"),
    ("x-foreign", "é".encode()),
    ("x-foreign", b"\x00"),
    ("x-foreign", b"x" * 5000),
    ("value", b"not ours"),
    ("headers", b"not ours"),
    ("discard", b"1"),
    ("ce_source", None),
    ("ce_source", b"\xff"),
    ("ce_source", b"a\x00b"),
    ("ce_source", b"x" * (ATTRIBUTE_MAX_BYTES + 1)),
)
"""Headers beside ours that leave the envelope as it would be without them."""


def seen(found: Envelope) -> tuple[object, ...]:
    return (found.id, found.type, found.subject, found.traceparent, found.source, found.content_type, found.value)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_header_that_is_odd_changes_nothing_else(odd: tuple[str, bytes | None]) -> None:
    """The rest is read as if it were not there; the bytes of all that have any are kept."""
    for headers in ((*OURS, odd), (odd, *OURS)):
        found = envelope.read(headers)
        assert seen(found) == ("7", "t", "r", "00-1", None, envelope.JSON, None)
        assert (found.replay_for, found.replay_count, found.discard) == (None, 0, False)
        assert found.headers == tuple(one for one in headers if one[1] is not None)


@pytest.mark.parametrize("beside", [(), (("x", b"\xff"),)], ids=["plain", "beside odd bytes"])
def test_the_last_readable_header_of_a_name_counts(beside: tuple[tuple[str, bytes], ...]) -> None:
    """Whether all headers are plain or not."""
    assert envelope.read((*beside, ("ce_id", b"1"), ("ce_id", b"2"))).id == "2"
    assert envelope.read((*beside, ("ce_id", b"1"), ("ce_id", b"\xff"))).id == "1"
    assert envelope.read((*beside, ("ce_id", "é".encode()))).id == "é"


def test_a_replay_is_read_with_its_count_and_its_discard() -> None:
    """A discard without a stage to decide it is none."""
    back = ((envelope.REPLAY_FOR, b"policy"), (envelope.REPLAY_COUNT, b"3"), (envelope.DISCARD, b"1"))
    found = envelope.read((*OURS, *back))
    assert (found.replay_for, found.replay_count, found.discard) == ("policy", 3, True)
    assert not envelope.read((*OURS, back[2])).discard


def test_a_record_without_headers_has_an_envelope_without_attributes() -> None:
    """As a producer without CloudEvents sends it."""
    assert seen(envelope.read(())) == (None, None, None, None, None, envelope.JSON, None)
