"""The door of the HTTP API: the key decides the tenant, every error is named at once."""

from __future__ import annotations

import json

import pytest

from giclee.intake.accept import is_key, note_of, request_of
from giclee.schemas.strict import InvalidInput


def pointers(raw: bytes) -> set[str]:
    with pytest.raises(InvalidInput) as caught:
        request_of(raw, "default")
    return {error.pointer for error in caught.value.errors}


def test_a_missing_id_is_made() -> None:
    """Two bodies without an id are two requests."""
    raw = b'{"prompt": "a red circle", "request_id": null}'

    assert request_of(raw, "acme").request_id != request_of(raw, "acme").request_id
    assert request_of(raw, "acme").tenant == "acme"


def test_another_tenant_is_refused_together_with_every_other_error() -> None:
    """A body that names a tenant that is not the key's is refused, with its pointer, and nothing hides behind it."""
    assert pointers(b'{"prompt": "x", "tenant": "other", "wanted": 0, "budget": 1}') == {
        "/tenant",
        "/wanted",
        "/budget",
    }


def test_the_keys_own_tenant_may_be_named() -> None:
    """Naming the right tenant is no error."""
    assert request_of(b'{"prompt": "x", "tenant": "default"}', "default").tenant == "default"


@pytest.mark.parametrize("field", ["formats", "inputs", "webhook", "parent"])
def test_what_this_release_cannot_do_is_refused_by_name(field: str) -> None:
    """A field of the contract that is not honoured yet is never ignored."""
    raw = json.dumps({"prompt": "x", field: {"a": 1}}).encode()
    with pytest.raises(InvalidInput) as caught:
        request_of(raw, "default")

    assert [(e.pointer, e.code) for e in caught.value.errors] == [(f"/{field}", f"{field}_unsupported")]


def test_a_strict_request_is_taken() -> None:
    """Whether it can be kept is the line's to find out."""
    assert request_of(b'{"prompt": "x", "strict": true}', "default").strict


@pytest.mark.parametrize("text", ["", "a b", "ä", "x" * 256, "a\x00"])
def test_a_malformed_key_is_no_key(text: str) -> None:
    """Keys are 1 to 255 printable ASCII characters."""
    assert not is_key(text)
    assert is_key("order-7/1")


def test_a_cancel_may_carry_a_note_and_nothing_else() -> None:
    """The body of a cancel is optional and strict."""
    assert note_of(b"  ") is None
    assert note_of(b'{"note": "wrong colour"}') == "wrong colour"
    for raw in (b'{"reason": "x"}', b"[]", b'{"note": 1}', b'{"note": "\\u0000"}', b"{"):
        with pytest.raises(InvalidInput):
            note_of(raw)
