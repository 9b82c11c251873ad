"""Dead letters put back by runs: on a real database."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from giclee.bus import dlq
from giclee.bus.errors import Poison, Transient
from giclee.bus.transport import Record
from giclee.replay.runs import Runs
from giclee.schemas import envelope as wire
from giclee.schemas.parts import Position
from tests.kit.loops import header, request_record
from tests.kit.ops import (
    REQUESTED,
    WHO,
    Ops,
    ended,
    failing,
    is_problem,
    letter,
    moment,
    replayed,
    started,
    working,
)
from tests.kit.wait import until

pytestmark = pytest.mark.real


async def test_a_replay_goes_back_for_the_stage_that_failed(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """To its own topic, with its id and key, marked with the run; the audit says who and why."""
    ids = await indexed.die(
        2, headers=(("ce_id", b"the-id"), ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"))
    )
    run = await replayed(http, ids=ids[:1])

    (back,) = indexed.back()
    (died, _) = indexed.transport.records(f"{REQUESTED}.dlq")
    assert (run["state"], run["total"], run["sent"], run["left"]) == ("done", 1, 1, 0)
    assert (header(back, "giclee-replay-for"), header(back, "giclee-replay-run")) == ("policy", run["run_id"])
    assert (header(back, "ce_id"), back.key, back.value) == ("the-id", died.key, died.value)
    assert not any(name.startswith(("dlq-", "kafka_dlt-")) for name, _ in back.headers)
    assert header(back, "traceparent") != header(died, "traceparent")
    assert await indexed.states() == ["open", "replayed"]
    history = (await http.get(f"/v1/dead-letters/{ids[0]}")).json()["history"]
    assert ("ada", "replay", "mended", run["run_id"]) in [
        (one["actor"], one["action"], one["reason"], one["run_id"]) for one in history
    ]


async def test_what_may_not_go_back_is_not_taken(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A topic that is not ours, one that came back too often, one without its bytes, one that was replayed: the dry
    run says why, a run leaves them alone, and only those that may be sent again are sent again."""
    foreign = letter(offset=1)
    headers = tuple((n, b"their.topic" if n == "dlq-original-topic" else v) for n, v in foreign.headers)
    await indexed.bury(replace(foreign, headers=headers))
    await indexed.die(1, offset=2, replay_count=3)
    (done_before,) = await indexed.die(1, offset=3)
    died = dlq.DeadLetter(
        stage="policy", dead_class="invalid", error_type="Undecodable", message="too large", attempts=1,
        origin=f"{REQUESTED}:0:4", timestamp_ms=1, group="g", version="1",
        first_failed_at=moment(4), last_failed_at=moment(4),
    )  # fmt: skip
    await indexed.bury(died.without_bytes(request_record()))
    await replayed(http, ids=[done_before])
    asked = (await http.post("/v1/dead-letters/preflight", json={"selection": {"stage": "policy"}})).json()
    run = await replayed(http, selection={"stage": "policy"})
    again = await replayed(http, selection={"stage": "policy"}, again=True)

    assert [one["verdict"] for one in asked["items"]] == ["refuse"] * 4
    assert all(one["why"] for one in asked["items"])
    assert (run["state"], run["total"], again["sent"]) == ("done", 0, 2)
    assert len(indexed.back()) == 3


async def test_a_dry_run_changes_nothing(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Not a letter, not the audit, not a topic; what it cannot know it calls unknown."""
    await indexed.die(2)
    asked = (await http.post("/v1/dead-letters/preflight", json={})).json()

    assert (asked["totals"]["go"], asked["counted"], asked["beyond"]) == (2, 2, 0)
    assert {one["order"] for one in asked["items"]} == {"unknown"}
    assert indexed.back() == []
    assert await indexed.count("replay.audit") == await indexed.count("replay.runs") == 0
    assert set(await indexed.states()) == {"open"}


async def test_everything_is_replayed_only_when_it_is_said(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """An empty list of ids is a script's mistake, not a selection."""
    await indexed.die(2)
    is_problem(await http.post("/v1/runs", json={**WHO, "ids": []}), 422)

    assert indexed.back() == []
    assert (await replayed(http, all=True))["sent"] == 2


async def test_records_of_a_key_go_back_in_their_order(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A list is newest first; what is sent is oldest first."""
    rid = uuid.uuid4()
    failed = [request_record(rid, wanted=number + 1) for number in range(5)]
    await indexed.bury(*(letter(offset=number, failed=one) for number, one in enumerate(failed)))
    await replayed(http, selection={"stage": "policy"})

    assert [json.loads(one.value or b"")["wanted"] for one in indexed.back()] == [1, 2, 3, 4, 5]


async def test_two_operators_at_once_send_every_record_once(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Taking is a compare-and-set: one has it, the other does not."""
    await indexed.die(40)
    runs = await asyncio.gather(*(replayed(http, selection={"stage": "policy"}) for _ in range(4)))

    assert sum(run["sent"] for run in runs) == 40
    assert len(indexed.back()) == 40
    assert await indexed.states() == ["replayed"] * 40


async def test_a_broker_that_is_away_is_waited_for(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """The run stays, nothing is marked, and it goes on when the broker is back."""
    ids = await indexed.die(3)
    away = True

    def gate(records: Sequence[Record]) -> None:
        if away:
            raise Transient("no broker")

    indexed.gate = gate
    run = await started(http, ids=ids)
    await until(lambda: indexed.states_are("replaying", 3))
    away = False

    assert (await ended(http, run))["sent"] == 3
    assert await indexed.states() == ["replayed"] * 3


async def test_a_run_of_a_dead_process_is_finished_by_the_next(ops: Ops, http: httpx2.AsyncClient) -> None:
    """Killed between sending and marking: what the broker has is sent again under its id, nothing is left out."""

    async def sends_and_hangs(records: Sequence[Record]) -> Sequence[Position]:
        await ops.send(records)
        await asyncio.Event().wait()
        return ()

    async with working(ops.index.run):
        await ops.die(30)
        dead = Runs(ops.ledger, ops.lookup, ops.preflight, sends_and_hangs)
        async with working(dead.work):
            run = await started(http, selection={"stage": "policy"}, rate_per_s=10)
            await until(lambda: len(ops.back()) == 10)
        assert await ops.states() == ["replaying"] * 30
        await ops.pool.execute("UPDATE replay.runs SET lease_until = clock_timestamp(), rate_per_s = NULL")
        async with working(ops.runs.work):
            done = await ended(http, run)

    assert (done["state"], done["sent"], len(ops.back())) == ("done", 30, 40)
    assert len({one.value for one in ops.back()}) == 30
    assert {header(one, "giclee-replay-run") for one in ops.back()} == {run["run_id"]}


async def test_a_run_can_be_paused_resumed_and_aborted(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Between two batches; aborting opens again what was not sent, and nothing goes on afterwards."""
    await indexed.die(40)
    run = await started(http, selection={"stage": "policy"}, rate_per_s=4)
    url = f"/v1/runs/{run['run_id']}"
    await until(lambda: len(indexed.back()) >= 4)
    assert (await http.post(f"{url}/pause", json=WHO)).json()["state"] == "paused"
    assert (await http.post(f"{url}/resume", json=WHO)).json()["state"] == "running"
    await until(lambda: len(indexed.back()) >= 8)
    await http.post(f"{url}/abort", json={"reason": "wrong ones"})
    done = await ended(http, run)

    assert (done["state"], done["why"]) == ("aborted", "wrong ones")
    assert await indexed.states() == sorted(["open"] * (40 - done["sent"]) + ["replayed"] * done["sent"])
    assert done["sent"] == len(indexed.back()) < 40
    is_problem(await http.post(f"{url}/resume", json=WHO), 409)
    actions = [one["action"] for one in (await http.get("/v1/audit", params={"run": run["run_id"]})).json()["items"]]
    assert actions == ["aborted", "abort", "resume", "pause", "replay"]


async def test_a_rate_is_kept(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """So many a second on average, from the first batch on."""
    await indexed.die(15)
    begun = asyncio.get_running_loop().time()
    await replayed(http, selection={"stage": "policy"}, rate_per_s=10)

    assert asyncio.get_running_loop().time() - begun >= 1.0


async def test_canaries_that_come_back_keep_the_others_at_home(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Three go first; the stage buries them again, so nothing else is sent."""
    await indexed.die(30, offset=1000)
    async with failing(indexed):
        run = await replayed(http, selection={"stage": "policy"}, canary=3)

    assert (run["state"], run["sent"], run["came_back"], run["left"]) == ("stopped", 3, 3, 27)
    assert "3 of 3 canaries" in run["why"]
    assert len(indexed.back()) == 3


async def test_canaries_that_live_let_the_others_go(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """The others wait until every canary has its outcome."""
    await indexed.die(30, offset=1000)
    run = await started(http, selection={"stage": "policy"}, canary=3)
    await until(lambda: len(indexed.back()) == 3)
    url = f"/v1/runs/{run['run_id']}"
    await http.post(f"{url}/pause", json=WHO)
    waiting = (await http.post(f"{url}/resume", json=WHO)).json()
    async with failing(indexed, handles=lambda _: True) as lived:
        done = await ended(http, run)
        await until(lambda: len(lived) == 30)

    assert (waiting["state"], waiting["sent"]) == ("canary", 3)
    assert (done["state"], done["sent"], done["came_back"]) == ("done", 30, 0)


async def test_a_run_whose_records_come_straight_back_stops(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Ten in a row that die again: the cause is not mended. Resumed when it is, the rest goes."""
    await indexed.die(60, offset=1000)
    async with failing(indexed):
        run = await replayed(http, selection={"stage": "policy"}, rate_per_s=12)
    async with failing(indexed, handles=lambda _: True):
        await indexed.pool.execute("UPDATE replay.runs SET rate_per_s = NULL")
        await http.post(f"/v1/runs/{run['run_id']}/resume", json=WHO)
        done = await ended(http, run)

    assert run["state"] == "stopped"
    assert "came straight back" in run["why"]
    assert 10 <= run["sent"] < 60
    assert (done["state"], done["sent"]) == ("done", 60)


async def test_a_limit_of_money_holds_for_each_of_two_runs_at_once(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """What letters may cost at most is reserved when they are taken, and no letter is in two runs."""
    failed = [request_record(budget_usd="0.10") for _ in range(30)]
    await indexed.bury(*(letter(offset=number, failed=one) for number, one in enumerate(failed)))
    await indexed.die(1, offset=99)
    one, two = await asyncio.gather(
        replayed(http, all=True, max_cost_usd="0.55"), replayed(http, all=True, max_cost_usd="1.0")
    )

    spent = {run["run_id"]: Decimal("0.1") * run["sent"] for run in (one, two)}
    assert (spent[one["run_id"]], spent[two["run_id"]]) == (Decimal("0.5"), Decimal("1"))
    assert len(indexed.back()) == len({each.value for each in indexed.back()}) == one["sent"] + two["sent"]
    assert await indexed.states_are("replaying", 0)


async def test_a_dry_run_takes_what_a_run_with_its_limit_takes(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """And says what the sum may cost; a letter that cannot tell what it costs does not go under a limit."""
    failed = [request_record(budget_usd="0.10") for _ in range(5)]
    await indexed.bury(*(letter(offset=number, failed=one) for number, one in enumerate(failed)))
    await indexed.die(1, offset=99)
    free = (await http.post("/v1/dead-letters/preflight", json={})).json()
    asked = (await http.post("/v1/dead-letters/preflight", json={"max_cost_usd": "0.35"})).json()
    run = await replayed(http, all=True, max_cost_usd="0.35")

    assert (free["cost_max_usd"], free["cost_unknown"]) == ("0.5", 1)
    assert (asked["totals"]["go"], asked["cost_max_usd"], asked["cost_unknown"]) == (3, "0.3", 0)
    assert (run["sent"], run["cost_max_usd"]) == (3, "0.3")


async def test_an_edited_letter_goes_back_changed_and_the_difference_is_kept(
    indexed: Ops, http: httpx2.AsyncClient
) -> None:
    """JSON Patch on the value; id and key stay."""
    (dlq_id,) = await indexed.die(1, failed=request_record(wanted=0))
    patch = [{"op": "replace", "path": "/wanted", "value": 2}, {"op": "add", "path": "/labels", "value": {"a": "b"}}]
    asked = (await http.post("/v1/dead-letters/preflight", json={"ids": [dlq_id], "patch": patch})).json()
    await replayed(http, ids=[dlq_id], patch=patch)

    (back,) = indexed.back()
    history = (await http.get(f"/v1/dead-letters/{dlq_id}")).json()["history"]
    (edit,) = [one for one in history if one["action"] == "edit"]
    assert asked["items"][0]["verdict"] == "go with changes"
    assert (json.loads(back.value or b"")["wanted"], json.loads(back.value or b"")["labels"]) == (2, {"a": "b"})
    assert back.key == indexed.transport.records(f"{REQUESTED}.dlq")[0].key
    assert edit["details"]["changes"][0] == {"op": "replace", "path": "/wanted", "before": 0, "after": 2}


async def test_an_edit_that_makes_a_letter_invalid_starts_nothing(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """It is refused with the pointer of what would be wrong, and the letter stays as it is."""
    (dlq_id,) = await indexed.die()
    for patch, pointer in (
        ([{"op": "replace", "path": "/wanted", "value": 1}], "/wanted"),
        ([{"op": "add", "path": "/wanted", "value": 9000}], "/wanted"),
        ([{"op": "remove", "path": "/prompt"}], ""),
        ([{"op": "add", "path": "/budgett_usd", "value": "1"}], "/budgett_usd"),
        ([{"op": "test", "path": "/prompt", "value": "another"}], "/prompt"),
    ):
        answer = await http.post("/v1/runs", json={**WHO, "ids": [dlq_id], "patch": patch})
        assert pointer in [one["pointer"] for one in is_problem(answer, 422)["errors"]], patch
    is_problem(await http.post("/v1/runs", json={**WHO, "ids": [dlq_id], "patch": [{"op": "burn", "path": ""}]}), 422)

    assert await indexed.states() == ["open"]
    assert await indexed.count("replay.runs") == 0
    assert indexed.back() == []


async def test_a_letter_that_an_edit_does_not_fit_is_left_by_its_run(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Behind the hundred that are tried before a run starts, each letter is tried before it is sent."""
    await indexed.die(100, failed=request_record(wanted=3))
    (odd,) = await indexed.die(1, offset=200)
    run = await replayed(http, all=True, patch=[{"op": "replace", "path": "/wanted", "value": 1}])

    assert (run["state"], run["sent"], run["refused"]) == ("done", 100, 1)
    assert (await http.get(f"/v1/dead-letters/{odd}")).json()["state"] == "open"


async def test_a_discard_goes_to_the_stage_that_failed(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """As a replay that is marked: open and parked letters, once; what was discarded is not replayed."""
    ids = await indexed.die(3)
    await http.post("/v1/dead-letters/park", json={**WHO, "ids": ids[:1]})
    answer = await http.post("/v1/dead-letters/discard", json={"reason": "given up", "ids": ids[:2]})
    run = await ended(http, answer.json())
    later = await replayed(http, ids=ids[:2], again=True)

    assert (answer.status_code, run["action"], run["sent"], later["total"]) == (202, "discard", 2, 0)
    assert [header(one, "giclee-replay-for") for one in indexed.back()] == ["policy"] * 2
    assert all(wire.read(one.headers).discard for one in indexed.back())
    assert await indexed.states() == ["discarded", "discarded", "open"]


async def test_a_record_that_its_topic_does_not_take_is_parked(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """It must not end the run, nor keep the others from going."""
    ids = await indexed.die(3)
    values = {header(one, "dlq-id"): one.value for one in indexed.transport.records(f"{REQUESTED}.dlq")}

    def too_large(records: Sequence[Record]) -> None:
        if any(record.value == values[ids[1]] for record in records):
            raise Poison("the broker takes no record like this")

    indexed.gate = too_large
    run = await replayed(http, ids=ids)

    assert (run["sent"], run["refused"]) == (2, 1)
    assert await indexed.states() == ["parked", "replayed", "replayed"]
    assert await indexed.count("replay.audit WHERE action = 'park'") == 1


class Told:
    """Neighbours that know."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    async def orders(self, keys: Any) -> Any:
        return dict.fromkeys(keys, self.known["order"]) if "order" in self.known else {}

    async def blobs(self, keys: Any) -> Any:
        return dict.fromkeys(keys, self.known["blob"]) if "blob" in self.known else {}

    async def claims(self, pool: str, keys: Any) -> Any:
        return dict.fromkeys(keys, self.known["claim"]) if "claim" in self.known else {}


CLOSED = {"state": "closed", "outcome": "cancelled"}
DONE = {"state": "done", "outcome": "generated", "ended": False, "spent_usd": "0.02", "limit_usd": "0.10"}
DEAD = {**DONE, "outcome": "dead"}


@pytest.mark.parametrize(
    ("known", "verdict", "cost", "word"),
    [
        ({}, "go", "0.09", ""),
        ({"order": {"state": "open", "outcome": None}}, "go", "0.09", ""),
        ({"order": CLOSED}, "refuse", "0", "cancelled"),
        ({"claim": DONE}, "go with changes", "0", "pays nothing"),
        ({"claim": {**DONE, "state": "live", "outcome": None}}, "go with changes", "0.09", "nothing is done twice"),
        ({"claim": DEAD}, "go", "0.08", ""),
        ({"claim": {**DEAD, "ended": True}}, "refuse", "0", "ended"),
    ],
)
async def test_a_dry_run_says_what_the_neighbours_know(
    indexed: Ops, http: httpx2.AsyncClient, known: dict[str, Any], verdict: str, cost: str, word: str
) -> None:
    """Orders that ended are refused, images that are there are not made again, and the cost is what is left."""
    indexed.neighbours.__class__ = Told
    indexed.neighbours.known = known
    failed = replace(routed_record(), topic="image.routed.local.v1")
    await indexed.die(
        1, failed=failed, stage="gpu-worker.local", tenant="acme", candidate_id=str(uuid.uuid4()),
        paid_usd=Decimal("0.01"),
    )  # fmt: skip
    (one,) = (await http.post("/v1/dead-letters/preflight", json={})).json()["items"]

    assert (one["verdict"], one["cost_max_usd"]) == (verdict, cost)
    assert word in " ".join(one["why"])


def routed_record() -> Record:
    """As much of an ImageRouted as the index reads."""
    return Record(topic="image.routed.local.v1", key=b"k", value=b'{"hop": 0, "limit_usd": "0.10", "spent_usd": "0"}')
