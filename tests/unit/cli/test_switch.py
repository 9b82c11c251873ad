"""`giclee switch`: what is set, for how long, and what it holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub


def test_a_hold_has_a_reason_and_an_end(ops: OpsStub) -> None:
    """`--expires 2h` is two hours from now; the scope goes as it was written."""
    ops.answers["PUT /v1/switches/tenant%3Aacme"] = [{"scope": "tenant:acme", "mode": "hold"}]
    words = ["switch", "set", "tenant:acme", "--hold", "--reason", "they asked", "--expires", "2h"]
    done = CliRunner().invoke(app, words)

    assert done.exit_code == 0, done.output
    body = ops.asked[0].body
    assert (body["mode"], body["reason"]) == ("hold", "they asked")
    until = datetime.fromisoformat(body["expires_at"])
    assert abs(until - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)
    assert "giclee switch clear tenant:acme" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--reason", "x"),
        ("--hold", "--refuse", "--reason", "x"),
        ("--hold",),
        ("--hold", "--reason", "x", "--expires", "2 h"),
    ],
)
def test_half_a_switch_is_not_set(ops: OpsStub, words: tuple[str, ...]) -> None:
    """Which kind, why, and until when must be clear; exit code 2."""
    assert CliRunner().invoke(app, ["switch", "set", "all", *words]).exit_code == 2
    assert ops.asked == []


def test_what_is_held_is_listed_over_pages(ops: OpsStub) -> None:
    """All pages, up to the limit, for one switch or for all."""
    row = {"held_at": "t", "scope": "all", "stage": "policy", "topic": "t", "request_id": "r", "size_bytes": 7}
    ops.answers["GET /v1/held"] = [{"items": [row] * 100, "next_cursor": "n"}, {"items": [row], "next_cursor": None}]
    done = CliRunner().invoke(app, ["switch", "held", "all", "--limit", "150", "--json"])

    assert len(json.loads(done.stdout)) == 101
    assert [one.query.get("cursor") for one in ops.asked] == [None, "n"]
    assert {one.query["scope"] for one in ops.asked} == {"all"}
