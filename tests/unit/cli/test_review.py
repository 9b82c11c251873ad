"""`giclee review` and `giclee assets revoke`: who says what about which bytes, and labels that calibration reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app
from giclee.scorer.labels import read
from tests.kit.ops_stub import OpsStub

ONE, TWO = "0413d340-c2f1-500b-a853-8d58f15a0078", "0413d340-c2f1-500b-a853-8d58f15a0079"
SHA = "ab" * 32


@pytest.fixture(autouse=True)
def reviewer(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub answers for the publisher, and mira sits before it."""
    monkeypatch.setenv("GICLEE_ASSETS_URL", ops.url)
    monkeypatch.setenv("GICLEE_ACTOR", "mira")


def review(candidate: str = ONE, **changed: Any) -> dict[str, Any]:
    score = {"value": 0.62, "threshold": 0.7, "verdict": "unsure", "evaluator": "clip", "evaluator_version": "1"}
    unmeasured = {**score, "value": None}
    return {
        "candidate_id": candidate, "request_id": "r", "kind": "doubt", "state": "pending", "asset_type": "generic",
        "sha256": SHA, "age_s": 7500.0, "due_at": "2026-11-21T12:00:00+00:00", "overdue": True, "leased_by": None,
        "passed_by": None, "verdict": None, "reviewer": None, "reason_codes": [], "note": None, "prompt": "a circle",
        "reasons": [{"code": "review_doubt"}, {"code": "dimension_unsure", "dimension": "alignment"}],
        "scores": {"alignment": score, "safety": unmeasured}, "provider": "diffusion", "image": {},
        "model": {"name": "final", "revision": "1"}, "long_side_px": 64, **changed,
    }  # fmt: skip


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_queue_says_why_and_for_how_long(ops: OpsStub) -> None:
    """Dimension, age and lateness at a glance; filters go as they were written."""
    ops.answers["GET /v1/reviews"] = [{"items": [review()], "next_cursor": None}]
    done = run("review", "ls", "--asset-type", "email-hero", "--kind", "doubt")

    assert done.exit_code == 0, done.output
    assert all(word in done.stdout for word in (ONE, "alignment", "2 h", "yes"))
    query = ops.asked[0].query
    assert (query["state"], query["asset_type"], query["kind"]) == ("pending", "email-hero", "doubt")


def test_a_verdict_names_the_bytes_and_the_reviewer(ops: OpsStub) -> None:
    """The sha256 of the review, unless another is named; reason codes, note and seconds go along."""
    ops.answers[f"GET /v1/reviews/{ONE}"] = [review()]
    ops.answers[f"POST /v1/reviews/{ONE}"] = [review(state="given", verdict="fail", reviewer="mira")]
    done = run("review", "reject", ONE, "-r", "hands", "-r", "other", "--note", "six fingers", "--seconds", "3.5")

    assert done.exit_code == 0, done.output
    assert ops.bodies(f"/v1/reviews/{ONE}") == [
        {"verdict": "fail", "sha256": SHA, "reason_codes": ["hands", "other"], "note": "six fingers", "seconds": 3.5}
    ]
    assert ops.asked[-1].actor == "mira"
    assert f"giclee review undo {ONE}" in done.stderr
    run("review", "approve", ONE, "--sha256", "cd" * 32)
    assert ops.bodies(f"/v1/reviews/{ONE}")[-1] == {"verdict": "pass", "sha256": "cd" * 32, "reason_codes": []}


def test_a_rejection_without_a_reason_is_not_sent(ops: OpsStub) -> None:
    """Exit code 2, and nothing was asked."""
    assert run("review", "reject", ONE).exit_code == 2
    assert ops.asked == []


def test_the_first_of_two_is_told_that_another_is_needed(ops: OpsStub) -> None:
    """What the gate failed stays pending after one pass."""
    ops.answers[f"GET /v1/reviews/{ONE}"] = [review(kind="override")]
    ops.answers[f"POST /v1/reviews/{ONE}"] = [review(kind="override", passed_by="mira")]

    assert "second person" in run("review", "approve", ONE).stderr


def test_next_takes_a_lease_and_undo_gives_one_verdict_back(ops: OpsStub) -> None:
    """Both in the name of the reviewer."""
    ops.answers["POST /v1/reviews/lease"] = [{"items": [review(), review(TWO)]}]
    ops.answers[f"POST /v1/reviews/{ONE}/undo"] = [review()]
    taken = json.loads(run("review", "next", "-n", "2", "--json").stdout)
    undone = run("review", "undo", ONE)

    assert [one["candidate_id"] for one in taken] == [ONE, TWO]
    assert undone.exit_code == 0
    assert ops.bodies("/v1/reviews/lease") == [{"count": 2}]
    assert [one.actor for one in ops.asked] == ["mira", "mira"]


def test_a_conflict_is_one_sentence(ops: OpsStub) -> None:
    """Whoever was too late is told why; exit code 1."""
    problem = {"code": "review_withdrawn", "detail": "the request ended", "errors": []}
    ops.answers[f"POST /v1/reviews/{ONE}/undo"] = [(409, problem)]
    done = run("review", "undo", ONE)

    assert done.exit_code == 1
    assert "the request ended (409 review_withdrawn)" in str(done.exception)


def test_labels_are_what_calibration_reads(ops: OpsStub, tmp_path: Path) -> None:
    """Over pages, whether each was right, with what was measured; the scorer's own reader takes the file."""
    first = review(state="done", verdict="pass", reviewer="mira")
    second = review(TWO, state="done", verdict="fail", reviewer="noor", reason_codes=["hands"], model=None)
    ops.answers["GET /v1/reviews"] = [
        {"items": [first], "next_cursor": "n"},
        {"items": [second], "next_cursor": None},
    ]
    file = tmp_path / "labels.jsonl"
    done = run("review", "labels", "--out", str(file))

    assert done.exit_code == 0, done.output
    assert {one.query["state"] for one in ops.asked} == {"done"}
    found = read(file)
    assert [(one.id, one.right, one.model) for one in found] == [(ONE, True, "final@1"), (TWO, False, "")]
    assert found[0].long_side_px == 64
    assert found[0].scores == {"alignment": 0.62}


def test_no_verdicts_are_no_labels(ops: OpsStub) -> None:
    """Exit code 1 instead of an empty file."""
    ops.answers["GET /v1/reviews"] = [{"items": [], "next_cursor": None}]

    assert run("review", "labels").exit_code == 1


def test_a_revocation_has_a_reason_and_a_name(ops: OpsStub) -> None:
    """Code, sentence and who; without a sentence nothing is sent."""
    answer = {"asset_id": ONE, "status": "revoked", "version": 2, "request_id": "r"}
    ops.answers[f"POST /v1/assets/{ONE}/revoke"] = [answer]
    assert run("assets", "revoke", ONE).exit_code == 2
    done = run("assets", "revoke", ONE, "--reason", "the licence ended", "--reason-code", "rights")

    assert done.exit_code == 0, done.output
    assert ops.asked[0].body == {"reason": "the licence ended", "reason_code": "rights"}
    assert ops.asked[0].actor == "mira"
