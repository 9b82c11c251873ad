"""The checker itself: a clean run is green, one planted anomaly each turns the named check red, no proof is invalid."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import invariants
from tests.unit.chaos.histories import Written, clean, name_of

APPROVED, CLOSED, GENERATED = "image.approved.v1", "image.closed.v1", "image.generated.v1"
SCORED, ROUTED, LETTERS = "image.scored.v1", "image.routed.local.v1", "image.requested.v1.dlq"

Spoil = Callable[[Written], None]


def again(run: Written, topic: str, nth: int = 0, **changes: Any) -> None:
    """A record of a topic a second time, at the end, where every reader sees it."""
    for log in (run.committed, run.uncommitted, run.final):
        found = deepcopy([one for one in log if one["topic"] == topic])
        headers = [pair for pair in found[nth]["headers"] if pair[0] != "giclee-number"]
        body = {**json.loads(found[nth]["value"]), **changes} if changes else None
        value = json.dumps(body) if body else found[nth]["value"]
        log.append({**found[nth], "offset": len(found), "headers": headers, "value": value})
    run.ends.clear()
    run.ended()


def take(run: Written, topic: str, nth: int = 0) -> None:
    """Take a record out of what committed readers find; the uncommitted one still has it."""
    for log in (run.committed, run.final):
        log.remove([one for one in log if one["topic"] == topic][nth])


def lose_a_request(run: Written) -> None:
    """Accepted, and nobody ever says how it ended."""
    rid = name_of("three")
    closings = [json.loads(one["value"])["request_id"] for one in run.final if one["topic"] == CLOSED]
    take(run, CLOSED, closings.index(rid))
    run.tables["publisher.orders"] = [one for one in run.tables["publisher.orders"] if one["request_id"] != rid]


def lose_an_approval(run: Written) -> None:
    """Decided in the database, and no subscriber sees it."""
    run.tables["publisher.assets"].append(
        {**run.tables["publisher.assets"][0], "asset_id": name_of("an asset that nobody saw")}
    )


def approve_twice(run: Written) -> None:
    again(run, APPROVED)


def close_twice(run: Written) -> None:
    """Two ends of one request, the second with another outcome."""
    again(run, CLOSED, 0, outcome="failed", approved=0, assets=[])


def read_what_was_aborted(run: Written) -> None:
    """A reader of committed records sees a closing of a transaction that was rolled back."""
    found = deepcopy([one for one in run.uncommitted if one["topic"] == CLOSED][-1])
    for log in (run.uncommitted, run.committed):
        log.append({**found, "offset": found["offset"] + 1})
    run.ends.clear()
    run.ended()


def go_on_after_a_no(run: Written) -> None:
    """The client was told 422, and the request is closed like any other."""
    next(one for one in run.operations if one["id"] == "three")["result"] = "fail"


def change_what_was_read(run: Written) -> None:
    """The log has other bytes at a place than a reader saw there."""
    record = next(one for one in run.final if one["topic"] == SCORED)
    record["value"] = record["value"].replace('"hop": 0', '"hop": 0 ')


def skip_a_record(run: Written) -> None:
    run.uncommitted.remove(next(one for one in run.uncommitted if one["topic"] == GENERATED))


def go_back(run: Written) -> None:
    """A reader gets two records of a partition the wrong way round."""
    places = [at for at, one in enumerate(run.committed) if one["topic"] == SCORED]
    first, second = places[:2]
    run.committed[first], run.committed[second] = run.committed[second], run.committed[first]


def approve_before_the_bytes(run: Written) -> None:
    """The object came later than the approval: there now, missing when a subscriber looked."""
    run.probes[0] |= {"answer": "missing", "found_sha256": None, "found_size_bytes": None}


def swap_versions(run: Written) -> None:
    """An asset's second version is read before its first."""
    run.everywhere(lambda body: body.update(version=2), APPROVED)
    run.everywhere(lambda body: body["assets"][0].update(version=2), CLOSED)
    run.tables["publisher.assets"][0]["version"] = 2


def two_outcomes(run: Written) -> None:
    """A worker that lost its claim tells its own image too."""
    image = {**json.loads(next(o for o in run.final if o["topic"] == GENERATED)["value"])["image"]}
    run.bucket.append({**next(one for one in run.bucket if one["key"] == image["key"]), "key": image["key"] + "-2"})
    again(run, GENERATED, 0, image={**image, "key": image["key"] + "-2"})


def approve_after_a_cancel(run: Written) -> None:
    """A cancelled request's closing names no asset, and one is approved."""
    run.everywhere(lambda body: body.update(outcome="cancelled", approved=0, assets=[]), CLOSED)
    run.tables["publisher.orders"][0]["outcome"] = "cancelled"


def count_too_little(run: Written) -> None:
    """A closing whose cost leaves out what the provider was paid."""
    run.everywhere(lambda body: body.update(cost_usd="0.0001"), CLOSED)


def overshoot(run: Written) -> None:
    next(one for one in run.operations if one["id"] == "two")["budget_usd"] = "0.0003"


def pay_twice_and_tell_once(run: Written) -> None:
    first = run.calls[0]
    run.calls.append({"at": first["at"], "seed": 1, "price_usd": "0.0004"})
    run.everywhere(lambda body: body.update(seed=2), ROUTED, 1)


def forget_what_a_cancel_cost(run: Written) -> None:
    """Closed before its verdict was known, and not even its status tells what was paid afterwards."""

    def unknown(body: dict[str, Any]) -> None:
        body.update(outcome="cancelled", candidates=0, approved=0, assets=[], cost_usd="0", cost_final=False)

    run.everywhere(unknown, CLOSED)
    run.tables["publisher.orders"][0]["outcome"] = "cancelled"
    row = {"tenant": "acme", "request_id": name_of("one"), "shown": {"cost_usd": "0.0001"}}
    run.tables["intake.requests"] = [row]


def bury_twice(run: Written) -> None:
    """One fault, two dead letters under different ids."""
    again(run, LETTERS)
    for log in (run.committed, run.uncommitted, run.final):
        log[-1]["headers"] = [[n, name_of("other") if n == "dlq-id" else text] for n, text in log[-1]["headers"]]


def bury_an_outage(run: Written) -> None:
    """A record that nobody planted is a dead letter after an outage."""
    source = next(one for one in run.final if one["topic"] == SCORED)
    marks = {f"dlq_original_{name}": source[name] for name in ("topic", "partition", "offset")}
    about = {"dlq_stage": "publisher", "dlq_class": "exhausted", "dlq_id": name_of("out"), **marks}
    run.send(f"{SCORED}.dlq", source["key"], source["value"], **about)
    place = {name: source[name] for name in ("topic", "partition", "offset")}
    run.send("image.stalled.v1", "k", {"stage": "publisher", "class": "exhausted", "source": place})
    run.ends.clear()
    run.ended()


def change_a_dead_letter(run: Written) -> None:
    for log in (run.committed, run.uncommitted, run.final):
        next(one for one in log if one["topic"] == LETTERS)["value"] = "{}"


def lose_a_dead_letter(run: Written) -> None:
    take(run, LETTERS)


def lose_an_object(run: Written) -> None:
    run.bucket.remove(next(one for one in run.bucket if one["key"].startswith("assets/")))


def approve_other_bytes(run: Written) -> None:
    """The score was for other bytes than those that were approved."""
    run.everywhere(lambda body: body.update(sha256="0" * 64), SCORED)


def approve_a_nan(run: Written) -> None:
    def not_a_number(body: dict[str, Any]) -> None:
        body["scores"]["alignment"]["value"] = float("nan")

    run.everywhere(not_a_number, SCORED)


def approve_unasked(run: Written) -> None:
    """An approval that policy never cleared."""
    run.tables["policy.verdicts"].pop(0)


def mix_tenants(run: Written) -> None:
    """Words of one tenant in an event of another."""
    run.everywhere(lambda body: body.update(prompt="a circle canary-of-acme"), APPROVED, 1)


def store_under_another_tenant(run: Written) -> None:
    def move(body: dict[str, Any]) -> None:
        body["image"]["key"] = body["image"]["key"].replace("/acme/", "/zen/")

    run.everywhere(move, GENERATED)
    run.bucket[0]["key"] = run.bucket[0]["key"].replace("/acme/", "/zen/")


def plan_only(run: Written) -> None:
    """The fault was planned and never happened."""
    run.faults.pop()


def prove_nothing(run: Written) -> None:
    run.faults[-1]["proof"] = {"killed": 0}


def stop_reading(run: Written) -> None:
    run.ends[0]["position"] -= 1


ANOMALIES: list[tuple[str, Spoil]] = [
    ("lost", lose_a_request),
    ("lost", lose_an_approval),
    ("duplicates", approve_twice),
    ("duplicates", close_twice),
    ("aborted", read_what_was_aborted),
    ("aborted", go_on_after_a_no),
    ("readers", change_what_was_read),
    ("reading", skip_a_record),
    ("reading", go_back),
    ("phantoms", approve_before_the_bytes),
    ("order", swap_versions),
    ("legality", two_outcomes),
    ("legality", approve_after_a_cancel),
    ("money", count_too_little),
    ("money", overshoot),
    ("money", pay_twice_and_tell_once),
    ("money", forget_what_a_cancel_cost),
    ("letters", bury_twice),
    ("letters", bury_an_outage),
    ("letters", change_a_dead_letter),
    ("letters", lose_a_dead_letter),
    ("orphans", lose_an_object),
    ("safety", approve_other_bytes),
    ("safety", approve_a_nan),
    ("safety", approve_unasked),
    ("tenants", mix_tenants),
    ("tenants", store_under_another_tenant),
    ("proof", plan_only),
    ("proof", prove_nothing),
    ("proof", stop_reading),
]


def judged(run: Written, folder: Path) -> invariants.Report:
    return invariants.judge(run.save(folder / "run"))


def test_the_clean_history_is_green(tmp_path: Path) -> None:
    """Nothing is found in it, and every check looked at something."""
    report = judged(clean(), tmp_path)

    assert (report.verdict, report.red()) == ("green", [])
    assert report.lost_at_most == pytest.approx(1 - 0.05**0.25)


@pytest.mark.parametrize(("check", "spoil"), ANOMALIES, ids=[spoil.__name__ for _, spoil in ANOMALIES])
def test_a_planted_anomaly_turns_its_check_red(check: str, spoil: Spoil, tmp_path: Path) -> None:
    """The check that it is meant for finds it and shows lines; a run without proof is invalid."""
    run = clean()
    spoil(run)
    report = judged(run, tmp_path)

    assert check in report.red()
    assert report.verdict == ("invalid" if check == "proof" else "red")
    assert any(offence.evidence for one in report.checks if one.check == check for offence in one.first)


def test_every_check_has_an_anomaly_of_its_own() -> None:
    """All fourteen are proven, each by a history that only it is for."""
    assert {check for check, _ in ANOMALIES} == set(invariants.CHECKS)
    assert len(invariants.CHECKS) == 14


@pytest.mark.parametrize("name", ["log.committed.jsonl", "bucket.jsonl", "tables/publisher.orders.jsonl", "run.json"])
def test_a_run_without_one_of_its_files_is_invalid(name: str, tmp_path: Path) -> None:
    """What was not recorded proves nothing."""
    folder = clean().save(tmp_path / "run")
    (folder / name).unlink()

    assert invariants.judge(folder).verdict == "invalid"


def test_fewer_faults_or_requests_than_promised_are_invalid(tmp_path: Path) -> None:
    """A run that promised 250 faults and had one is not green."""
    for number, changes in enumerate(({"faults_min": 250}, {"operations_min": 5})):
        run = clean()
        run.run |= changes
        assert judged(run, tmp_path / str(number)).verdict == "invalid"


def test_an_open_request_is_lost_only_when_the_line_had_time(tmp_path: Path) -> None:
    """Without quiet it is counted as open; a dead letter that an operator must look at keeps it open too."""
    run = clean()
    lose_a_request(run)
    run.run["quiet"] = False
    report = judged(run, tmp_path)

    assert report.verdict == "green"
    assert report.checks[0].counts["open"] == 1


def test_recovery_is_the_time_until_the_partition_with_work_moves_again(tmp_path: Path) -> None:
    """The first record that waited when the process died counts; a fault without work to do is idle."""
    run = clean()
    died_at = run.faults[-1]["ended_at"]
    for log in (run.committed, run.uncommitted, run.final):
        for record in log:
            if record["topic"] == "image.policy-cleared.v1" and record["offset"] == 2:
                record["seen_at"] = died_at + 7.5
    quiet = {"id": "f2", "kind": "kill:scorer", "stages": ["scorer"], "happened": True, "proof": {"exit": -9}}
    run.faults.append({**quiet, "began_at": died_at, "ended_at": died_at})
    figures = {figure.kind: figure for figure in judged(run, tmp_path).recovery}

    assert figures["kill:policy"].percentile(0.99) == pytest.approx(7.5)
    assert max(figures["kill:policy"].drained) >= figures["kill:policy"].seconds[0]
    assert (figures["kill:scorer"].seconds, figures["kill:scorer"].idle) == ((), 1)


def test_the_bound_is_the_share_that_no_loss_rules_out() -> None:
    """Zero in 5,000 says less than 600 in a million at 95 %."""
    assert invariants.bound(5000) == pytest.approx(5.99e-4, rel=1e-3)


def test_exit_codes_and_the_report_say_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 green, 1 red, 2 invalid; report.json lists offenders with their lines."""
    found = []
    for spoil in (None, approve_twice, plan_only):
        run = clean()
        if spoil:
            spoil(run)
        name = spoil.__name__ if spoil else "clean"
        found.append(invariants.main(str(run.save(tmp_path / name))))
    report = json.loads((tmp_path / "approve_twice/report.json").read_text())
    duplicates = next(one for one in report["checks"] if one["check"] == "duplicates")

    assert found == [0, 1, 2]
    assert "log.committed.jsonl:" in duplicates["first"][0]["evidence"][0]
    assert "RED" in capsys.readouterr().out
