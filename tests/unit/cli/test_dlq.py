"""`giclee dlq`: what is asked of the service, what is refused before it, what people and pipes see."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from giclee.cli import dlq, dlq_runs
from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub

RUN = {
    "run_id": "0b6e1c53-5a7e-4c8e-a5d0-9f4f5c1d7f10", "action": "replay", "state": "running", "why": None,
    "actor": "ada", "reason": "mended", "total": 4, "sent": 0, "came_back": 0, "refused": 0, "left": 4,
}  # fmt: skip
LOOK = {"totals": {"go": 4, "go_with_changes": 0, "refuse": 0}, "counted": 4, "cost_max_usd": "0.02", "items": []}
ID = str(uuid.uuid4())


@pytest.fixture
def ops(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> OpsStub:
    """With a preflight that lets everything go, and a run that ends well."""
    monkeypatch.setenv("GICLEE_ACTOR", "ada")
    monkeypatch.setattr(dlq_runs, "LOOK_EVERY_S", 0.01)
    ops.answers["POST /v1/dead-letters/preflight"] = [LOOK]
    ops.answers["POST /v1/runs"] = [(202, RUN)]
    path = f"GET /v1/runs/{RUN['run_id']}"
    ops.answers[path] = [{**RUN, "sent": 2, "left": 2}, {**RUN, "state": "done", "sent": 4, "left": 0}]
    return ops


def giclee(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def letter(**fields: Any) -> dict[str, Any]:
    place = {"topic": "image.requested.v1", "partition": 1, "offset": 7}
    return {
        "dlq_id": ID, "state": "open", "stage": "policy", "class": "poison", "error_type": "Poison",
        "message": "a long  story " * 20, "tenant": "acme", "request_id": ID, "replay_count": 0,
        "died_at": "2026-11-21T09:00:01.5+00:00", "original": place, "dead_letter": place, **fields,
    }  # fmt: skip


def test_a_run_is_followed_to_its_end(ops: OpsStub) -> None:
    """Counts and money first, then the run with everything that was said, in the operator's name; exit code 0."""
    done = giclee(
        "dlq", "replay", "--class", "exhausted", "--stage", "policy", "--reason", "mended", "--canary", "5",
        "--rate", "50/s", "--max-cost-usd", "2.50", "--limit", "100", "--patch", '[{"op": "remove", "path": "/x"}]',
    )  # fmt: skip

    assert done.exit_code == 0, done.output
    assert "4 go, 0 go with changes, 0 refuse; at most 0.02 USD" in done.stderr
    assert ops.bodies("/v1/runs") == [
        {
            "selection": {"class": "exhausted", "stage": "policy", "state": "open"}, "limit": 100, "reason": "mended",
            "again": False, "canary": 5, "rate_per_s": 50.0, "max_cost_usd": "2.50",
            "patch": [{"op": "remove", "path": "/x"}],
        }
    ]  # fmt: skip
    assert {one.actor for one in ops.asked} == {"ada"}


@pytest.mark.parametrize(
    "words",
    [
        ("replay", "--stage", "policy"),
        ("replay", "--reason", "x"),
        ("park", "--reason", "x"),
        ("discard", ID),
        ("replay", ID, "--stage", "policy", "--reason", "x"),
        ("replay", ID, "--reason", "x", "--rate", "fast"),
        ("replay", ID, "--reason", "x", "--max-cost-usd", "NaN"),
        ("replay", ID, "--reason", "x", "--patch", "/no/such/file"),
        ("replay", ID, "--reason", "x", "--patch", "[}"),
        ("ls", "--class", "poisoned"),
        ("ls", "--state", "closed"),
        ("ls", "--since", "yesterday"),
        ("ls", "--since", "2026-11-21T09:00:00"),
        ("ls", "--offsets", "5-"),
        ("ls", "--request", "5f0c"),
        ("export", "--form", "xml"),
        ("runs", "pause", ID),
    ],
)
def test_wrong_use_changes_nothing_and_is_explained(ops: OpsStub, words: tuple[str, ...]) -> None:
    """Exit code 2, one sentence, and not one call that writes."""
    done = giclee("dlq", *words)

    assert done.exit_code == 2
    assert done.stderr.strip()
    assert ops.asked == []


def test_everything_needs_to_be_said(ops: OpsStub) -> None:
    """Without a selection, `--yes` is the only way where nobody can be asked."""
    assert giclee("dlq", "replay", "--reason", "x", "--yes").exit_code == 0
    assert ops.bodies("/v1/runs")[0]["all"] is True


def test_a_dry_run_starts_nothing(ops: OpsStub) -> None:
    """It shows who is refused and why; exit code 1 when somebody is."""
    refused = {"dlq_id": ID, "verdict": "refuse", "stage": "policy", "topic": "t", "why": ["the order has ended"]}
    ops.answers["POST /v1/dead-letters/preflight"] = [
        {**LOOK, "totals": {"go": 3, "go_with_changes": 0, "refuse": 1}, "items": [refused]}
    ]
    done = giclee("dlq", "replay", "--stage", "policy", "--dry-run")

    assert done.exit_code == 1
    assert "1 refused: the order has ended" in done.stderr
    assert ops.bodies("/v1/runs") == []


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ({"state": "stopped", "why": "9 of 10 came straight back"}, "9 of 10 came straight back"),
        ({"state": "paused", "why": "the money is used up"}, "giclee dlq runs resume"),
        ({"state": "done", "sent": 3, "came_back": 1}, "1 came back"),
        ({"state": "aborted"}, "aborted"),
    ],
)
def test_a_run_that_did_not_do_everything_is_no_success(ops: OpsStub, end: dict[str, Any], said: str) -> None:
    """Exit code 1, why it stands still, and what to type."""
    ops.answers[f"GET /v1/runs/{RUN['run_id']}"] = [{**RUN, **end}]
    done = giclee("dlq", "replay", ID, "--reason", "x")

    assert done.exit_code == 1
    assert said in done.output


def test_ctrl_c_pauses_the_run_and_says_how_to_go_on(ops: OpsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent stays sent; nothing is lost by looking away."""

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("giclee.cli.dlq_runs.time.sleep", interrupted)
    path = f"/v1/runs/{RUN['run_id']}/pause"
    ops.answers[f"POST {path}"] = [{**RUN, "state": "paused", "why": "interrupted at the keyboard"}]
    done = giclee("dlq", "replay", ID, "--reason", "x")

    assert done.exit_code == 1
    assert ops.bodies(path) == [{"reason": "interrupted at the keyboard"}]
    assert f"giclee dlq runs resume {RUN['run_id']}" in done.stderr


def test_a_service_that_starts_again_does_not_end_the_watch(ops: OpsStub) -> None:
    """The run goes on there; we ask again."""
    done = {**RUN, "state": "done", "sent": 4, "left": 0}
    ops.answers[f"GET /v1/runs/{RUN['run_id']}"] = [(503, {"title": "unavailable"}), (502, {}), done]
    assert giclee("dlq", "replay", ID, "--reason", "x").exit_code == 0


def test_json_is_all_that_a_pipe_gets(ops: OpsStub) -> None:
    """Standard output parses; what is told on the way goes to standard error."""
    done = giclee("dlq", "replay", ID, "--reason", "x", "--json")
    assert json.loads(done.stdout)["state"] == "done"


@pytest.mark.parametrize(("verb", "state"), [("park", "open"), ("release", "parked")])
def test_setting_aside_says_how_many_before_and_after(ops: OpsStub, verb: str, state: str) -> None:
    """Counts of the selection first; nothing changed is exit code 1."""
    counts = [{"stage": "policy", "class": "poison", "state": state, "count": 12}]
    ops.answers["GET /v1/dead-letters"] = [{"counts": counts, "items": [], "next_cursor": None}]
    ops.answers[f"POST /v1/dead-letters/{verb}"] = [{"changed": 12, "run_id": None}, {"changed": 0, "run_id": None}]
    first = giclee("dlq", verb, "--fingerprint", "ab12", "--reason", "bad release")

    assert first.exit_code == 0
    assert f"12 {state} poison at policy" in first.stderr
    assert ops.bodies(f"/v1/dead-letters/{verb}") == [
        {"selection": {"state": state, "fingerprint": "ab12"}, "reason": "bad release"}
    ]
    assert giclee("dlq", verb, "--fingerprint", "ab12", "--reason", "bad release").exit_code == 1


def test_so_long_ago_is_a_time(ops: OpsStub) -> None:
    """`--since 2h` is two hours before now, with its zone."""
    ops.answers["GET /v1/dead-letters"] = [{"counts": [], "items": [], "next_cursor": None}]
    giclee("dlq", "ls", "--since", "2h")
    since = datetime.fromisoformat(ops.asked[-1].query["since"])
    assert abs(datetime.now(UTC) - timedelta(hours=2) - since) < timedelta(minutes=1)


def test_a_list_shows_a_line_a_letter(ops: OpsStub) -> None:
    """Long messages are cut in a table and whole in JSON."""
    counts = [{"stage": "policy", "class": "poison", "state": "open", "count": 1}]
    ops.answers["GET /v1/dead-letters"] = [{"counts": counts, "items": [letter()], "next_cursor": None}]
    table = giclee("dlq", "ls")
    assert len(table.stdout.splitlines()) == 2
    assert "1 open poison at policy" in table.stderr
    assert json.loads(giclee("dlq", "ls", "--json").stdout)[0]["message"] == letter()["message"]


def test_one_letter_shows_what_is_wrong_with_it(ops: OpsStub) -> None:
    """Errors of the schema, history, headers without our own, and the value."""
    more = {
        "errors": [{"pointer": "/wanted", "detail": "must be at least 1"}], "history": [], "value": {"wanted": 0},
        "headers": [["dlq-id", ID], ["ce_type", "giclee.ImageRequested.v1"]], "size_bytes": 12, "missing": None,
    }  # fmt: skip
    ops.answers[f"GET /v1/dead-letters/{ID}"] = [letter(**more)]
    shown = giclee("dlq", "show", ID).stdout
    assert "/wanted" in shown
    assert "image.requested.v1/1/7" in shown
    assert '"wanted": 0' in shown
    assert "ce_type" in shown


def test_an_export_is_written_as_it_comes(ops: OpsStub, tmp_path: Path) -> None:
    """Byte for byte, to a file or to standard output."""
    ops.answers["GET /v1/dead-letters/export"] = [(200, b"one\ntwo\n")]
    target = tmp_path / "letters.jsonl"
    assert giclee("dead", "export", "--state", "parked", "--out", str(target)).exit_code == 0
    assert target.read_bytes() == b"one\ntwo\n"
    assert giclee("dlq", "export").stdout == "one\ntwo\n"


def test_every_selection_option_is_asked_for_by_its_name(ops: OpsStub) -> None:
    """What the contract calls --service-version is service_version in the question, and so on."""
    ops.answers["GET /v1/dead-letters/stats"] = [{"items": [], "partial": False}]
    rid = str(uuid.uuid4())
    words = {
        "topic": "t", "stage": "s", "class": "bug", "error-type": "E", "fingerprint": "f", "service-version": "1.2",
        "provider": "p", "model": "m", "tenant": "acme", "request": rid, "batch": "b", "key": "k", "partition": "3",
        "offsets": "10-20", "state": "open", "run": rid, "since": "2026-11-21T09:00:00Z",
        "until": "2026-11-21T10:00:00Z",
    }  # fmt: skip
    given = [word for name, text in words.items() for word in (f"--{name}", text)]
    assert giclee("dlq", "stats", *given).exit_code == 0
    assert set(ops.asked[-1].query) == {name.replace("-", "_") for name in words} | {"limit"}


def test_trouble_of_the_service_is_told_in_its_words(ops: OpsStub) -> None:
    """Every field that is wrong, by its pointer."""
    problem = {"title": "invalid field", "errors": [{"pointer": "/patch/0", "detail": "no such value"}]}
    ops.answers["POST /v1/runs"] = [(422, problem)]
    done = giclee("dlq", "replay", ID, "--reason", "x", "--patch", '[{"op": "remove", "path": "/y"}]')
    assert "/patch/0 no such value" in str(done.exception)


def test_verbs_are_those_of_the_contract() -> None:
    """ls, stats, show, replay, park, release, discard, export and runs."""
    named = {row.name or getattr(row.callback, "__name__", "") for row in dlq.app.registered_commands}
    named |= {
        row.name or getattr(row.callback, "__name__", "")
        for group in dlq.app.registered_groups
        for row in (group.typer_instance.registered_commands if group.typer_instance and not group.name else ())
    }
    assert named == {"ls", "stats", "show", "export", "replay", "park", "release", "discard"}
