"""`giclee requests show`: the decision of each wave, everybody who lost and why, and which hop was taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub

ID = "5f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11"
CHAIN = [
    {"provider": "fal", "model": "flux", "price_usd": "0.012", "per_approved_usd": "0.0193", "acceptance": 0.71,
     "why": "costs least for an approved image"},
    {"provider": "own", "model": "sdxl", "price_usd": "0.01", "per_approved_usd": "0.0251", "acceptance": 0.44,
     "why": "costs 1.30 times what flux does"},
]  # fmt: skip
LOSER = {"provider": "replicate", "code": "price_unknown", "message": "sd3 has no known price"}
RATE = {"code": "provider", "stage": "gpu-worker.hosted", "message": "rate: slow down", "provider": "fal"}


def route(wave: int, *losers: dict[str, Any]) -> dict[str, Any]:
    fixed = {"asset_type": "generic", "quality": "final", "limit_usd": "0.05", "hedge_after_s": None}
    return {**fixed, "wave": wave, "chain": CHAIN, "losers": list(losers)}


def candidate(index: int, wave: int, *hops: str, **values: Any) -> dict[str, Any]:
    asked = [{"provider": step["provider"], "model": step["model"]} for step in CHAIN if step["model"] in hops]
    for then in asked[1:]:
        then["reason"] = RATE
    last = asked[-1] if asked else {}
    return {
        "index": index, "wave": wave, "state": "scoring", "cost_usd": "0.012", "hops": asked, "sha256": "0" * 64,
        "provider": last.get("provider"), "model": {"name": last.get("model")}, "scores": {}, **values,
    }  # fmt: skip


@pytest.fixture
def shown(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The request as intake answers; what a test changes of it is answered too."""
    monkeypatch.setenv("GICLEE_API_URL", ops.url)
    body: dict[str, Any] = {
        "request_id": ID, "state": "generating", "progress": {}, "cost_usd": "0.024", "client_ref": None,
        "candidates": [candidate(0, 0, "flux"), candidate(1, 0, "flux", "sdxl"), candidate(2, 1, "flux")],
        "routes": [route(0, LOSER), route(1, LOSER)],
    }  # fmt: skip
    ops.answers[f"GET /v1/requests/{ID}"] = [body]
    return body


def lines(*words: str) -> list[list[str]]:
    done = CliRunner().invoke(app, ["requests", "show", ID, *words])
    assert done.exit_code == 0, done.output
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in done.stdout.splitlines()]


def test_the_chain_is_shown_with_what_it_should_cost_and_who_made_what(shown: dict[str, Any]) -> None:
    """Waves that were decided alike are one row a member: how many it was asked for and made, its cost, its why."""
    rows = [row for row in lines() if row[0] == "0-1"]
    assert rows[0] == ["0-1", "3", "fal", "flux", "0.012", "0.0193", "71%", "2", CHAIN[0]["why"]]
    assert rows[1] == ["0-1", "1", "own", "sdxl", "0.01", "0.0251", "44%", "1", CHAIN[1]["why"]]
    assert rows[2] == ["0-1", "replicate", "price_unknown", "sd3 has no known price"]


def test_waves_that_were_decided_otherwise_are_told_apart(shown: dict[str, Any]) -> None:
    """A loser of one wave only is a loser of that wave."""
    shown["routes"] = [route(0), route(1, LOSER)]
    firsts = [row[0] for row in lines() if row[0] in ("0", "1", "0-1") and row[1] in ("2", "1", "0", "replicate")]
    assert firsts.count("1") == 3  # two members of the chain, one loser
    assert [row[0] for row in lines() if "price_unknown" in row] == ["1"]


def test_a_fallback_is_named_with_its_reason(shown: dict[str, Any]) -> None:
    """At the candidate: who made it, and who was asked before."""
    (row,) = [row for row in lines() if "own/sdxl" in row]
    assert "fal/flux (provider)" in row


def test_where_nobody_could_serve_every_reason_is_shown_once(shown: dict[str, Any]) -> None:
    """Candidates that failed alike share their reasons; a request without any decision has no such table."""
    no = {"code": "no_route", "stage": "router", "message": "no provider can make this image: a is a; b is b"}
    small = {"code": "size_unsupported", "stage": "router", "provider": "own", "message": "sdxl makes sides of 512"}
    shown["routes"] = []
    shown["candidates"] = [candidate(at, 0, state="failed", reasons=[no, small], provider=None) for at in range(4)]
    said = [row for row in lines() if row[0] == "0-3"]
    assert [(row[1], row[3] if row[2] == "own" else row[2]) for row in said] == [
        ("router", "–"), ("router", "size_unsupported"),
    ]  # fmt: skip
    assert "no_route" in said[0]


def test_json_is_whole(shown: dict[str, Any]) -> None:
    """What the service said, unchanged."""
    done = CliRunner().invoke(app, ["requests", "show", ID, "--json"])
    assert json.loads(done.stdout) == shown
