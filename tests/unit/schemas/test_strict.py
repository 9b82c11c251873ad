"""The strict door: every bad value is refused with its pointer, and good ones keep their meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giclee.schemas import events, reasons
from giclee.schemas.strict import InvalidInput, parse_json, request_from

RID = '"request_id":"0f9f7d2e-6a3c-4c1e-9a55-3d2a6f0c8b11"'


def errors_of(raw: bytes | str) -> set[tuple[str, str]]:
    """(pointer, code) of everything wrong with a request in `raw`."""
    try:
        request_from(parse_json(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")))
    except InvalidInput as error:
        return {(one.pointer, one.code) for one in error.errors}
    return set()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("{", ("", "not_json")),
        (b"\xff\xfe{}", ("", "not_utf8")),
        ("[" * 100_000, ("", "too_deep")),
        ('{"a":' * 40 + "1" + "}" * 40, ("/a/a/a/a", "too_deep")),
        ('{"prompt":"x","prompt":"y"}', ("/prompt", "duplicate_key")),
        ('{"labels":{"a":"1","a":"2"}}', ("/labels/a", "duplicate_key")),
        ('{"prompt":"a\\u0000b"}', ("/prompt", "invalid_text")),
        ('{"prompt":"\\ud800"}', ("/prompt", "invalid_text")),
        ('{"budget_usd":NaN}', ("/budget_usd", "not_finite")),
        ('{"budget_usd":1e999}', ("/budget_usd", "not_finite")),
        ('{"wanted":' + "9" * 5000 + "}", ("", "not_json")),
        ("null", ("", "invalid_field")),
        (f'{{{RID},"prompt":"x","wanted":0}}', ("/wanted", "invalid_field")),
        (f'{{{RID},"prompt":"x","wanted":1000000000}}', ("/wanted", "invalid_field")),
        (f'{{{RID},"prompt":"x","wanted":"3"}}', ("/wanted", "invalid_field")),
        (f'{{{RID},"prompt":"x","wanted":true}}', ("/wanted", "invalid_field")),
        (f'{{{RID},"prompt":"x","budgt_usd":1}}', ("/budgt_usd", "unknown_field")),
        (f'{{{RID},"prompt":"x","size":{{"width":1,"height":64}}}}', ("/size/width", "invalid_field")),
        (f'{{{RID},"prompt":"x","deadline":"2199-01-01T00:00:00Z"}}', ("/deadline", "invalid_field")),
        (f'{{{RID},"prompt":"x","deadline":"2026-11-21T17:00:00"}}', ("/deadline", "invalid_field")),
        (f'{{{RID},"prompt":"x","tenant":"Acme"}}', ("/tenant", "invalid_field")),
        (f'{{{RID},"prompt":"x","extensions":{{"a":"{"x" * 9000}"}}}}', ("/extensions", "too_large")),
        (
            f'{{{RID},"prompt":"x","formats":[{{"name":"a","width":64,"height":64}}]}}',
            ("/formats", "formats_unsupported"),
        ),
        (f'{{{RID},"prompt":"x","inputs":[]}}', ("/inputs", "inputs_unsupported")),
        (f'{{{RID},"prompt":"x","webhook":{{"url":"https://a"}}}}', ("/webhook", "webhook_unsupported")),
        (f'{{{RID},"prompt":"x","parent":{{}}}}', ("/parent", "parent_unsupported")),
        (f'{{{RID},"prompt":"x","strict":"true"}}', ("/strict", "invalid_field")),
        (f"{{{RID}}}", ("", "invalid_field")),
    ],
)
def test_a_bad_request_is_refused_by_pointer(raw: bytes | str, expected: tuple[str, str]) -> None:
    """Each kind of bad input names where it is and what it is."""
    assert expected in errors_of(raw)


def test_a_large_value_is_refused_unread() -> None:
    """Two megabytes of prompt end before anything parses them."""
    raw = ('{"prompt":"' + "x" * 2_000_000 + '"}').encode()

    assert errors_of(raw) == {("", "too_large")}


def test_all_errors_come_at_once() -> None:
    """A caller fixes everything in one go."""
    found = errors_of(f'{{{RID},"wanted":0,"selection":"worst","budgt":1,"formats":[]}}')

    assert {"/wanted", "/selection", "/budgt", "/formats"} <= {where for where, _ in found}


def test_a_good_request_keeps_its_values() -> None:
    """Money is exact, times have a zone, defaults are the contract's."""
    request = request_from(
        parse_json(
            f'{{{RID},"prompt":"x","budget_usd":0.0004,"wanted":3,"deadline":"2026-11-22T10:00:00+01:00"}}'.encode()
        ),
        now=datetime(2026, 11, 21, tzinfo=UTC),
    )

    assert request.budget_usd == Decimal("0.0004")
    assert request.candidate_cap() == 12
    assert request.deadline == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert (request.tenant, request.selection, request.quality) == ("default", "best", "final")


def test_values_compare_after_defaults() -> None:
    """A default that is spelled out is the same request."""
    terse = request_from(parse_json(f'{{{RID},"prompt":"x"}}'.encode()))
    wordy = request_from(parse_json(f'{{{RID},"prompt":"x","wanted":1,"max_candidates":8,"labels":{{}}}}'.encode()))

    assert terse.values() == wordy.values()


@given(st.binary(max_size=300))
def test_no_bytes_break_the_door(raw: bytes) -> None:
    """Whatever comes is a value or an InvalidInput whose codes are in the table."""
    try:
        parse_json(raw)
    except InvalidInput as error:
        assert all(one.code in reasons.TABLE for one in error.errors)


def test_codes_are_in_the_table() -> None:
    """Every code the door can give has its sentence."""
    assert {f"{name}_unsupported" for name in (*events.UNSUPPORTED, "batches")} <= set(reasons.TABLE)
