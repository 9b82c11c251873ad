"""Dead letters found, shown and put back; switches set, and what they held let go: on a real database."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from giclee.bus import database as bus_database
from giclee.bus import dlq
from giclee.bus.database import Pool
from giclee.bus.errors import Poison, Transient
from giclee.bus.layers import switches as switch_layer
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import DatabaseSettings
from giclee.bus.table import Table
from giclee.bus.transport import Partition, Record
from giclee.replay.api import application
from giclee.replay.index import Index
from giclee.replay.runs import Runs
from giclee.replay.store import Store
from giclee.replay.switches import Switches
from giclee.schemas import topics
from giclee.schemas.events import ImageRequested, SwitchSet
from giclee.schemas.parts import Position
from tests.kit.loops import header, request_record
from tests.kit.wait import until

pytestmark = pytest.mark.real

KEY = "a-key-of-at-least-16"
REQUESTED = "image.requested.v1"
POOLS = ("local", "hosted")
WHO = {"actor": "ada", "reason": "mended"}


@dataclass
class Ops:
    """The replay service's parts, each to be run by hand. `gate` is asked before anything is sent."""

    transport: MemoryTransport
    pool: Pool
    store: Store
    table: Table[SwitchSet]
    gate: Callable[[Sequence[Record]], Any] | None = None
    sent: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._writer = self.transport.writer("ops")
        self.runs = Runs(self.store, self.send, POOLS)
        self.switches = Switches(self.table, self.store, self.send)
        self.app = application(self.store, self.runs, self.switches, api_key=KEY)

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        if self.gate is not None:
            found = self.gate(records)
            if asyncio.iscoroutine(found):
                await found
        positions = await self._writer.send(records)
        self.sent += records
        return positions

    async def die(self, number: int = 1, **fields: Any) -> list[str]:
        """Dead letters on their topic; their ids."""
        letters = [letter(**{"offset": place, **fields}) for place in range(number)]
        await self._writer.send(letters)
        return [header(one, "dlq-id") for one in letters]

    async def put(self, *records: Record) -> None:
        await self._writer.send(records)

    async def count(self, what: str = "replay.dead_letters") -> int:
        return int(await self.pool.fetchval(f"SELECT count(*) FROM {what}"))

    async def states(self) -> list[str]:
        return [row["state"] for row in await self.pool.fetch("SELECT state FROM replay.dead_letters ORDER BY state")]

    def back(self, topic: str = REQUESTED) -> list[Record]:
        return self.transport.records(topic)


def letter(offset: int = 0, **fields: Any) -> Record:
    """A dead letter of a request, as the layer writes it."""
    rid = str(uuid.uuid4())
    named = {"message": "oops", "stage": "policy", "dead_class": "poison", "error_type": "Poison", **fields}
    extra = named.pop("headers", ())
    failed = replace(named.pop("failed", request_record(uuid.UUID(rid))), partition=1, offset=offset, timestamp_ms=1000)
    failed = replace(failed, headers=(*failed.headers, *extra))
    died = dlq.DeadLetter(
        attempts=1, origin=failed.origin(), timestamp_ms=1000, group="giclee.policy", version="0.1.0",
        first_failed_at=moment(offset), last_failed_at=moment(offset), request_id=rid, **named,
    )  # fmt: skip
    return died.record(failed)


def moment(second: int) -> str:
    return datetime(2026, 11, 21, 9, 0, second, tzinfo=UTC).isoformat()


def held(scope: str, *, stage: str = "policy", offset: int = 0) -> Record:
    """A record as the switches layer holds it."""
    record = replace(request_record(), partition=1, offset=offset, timestamp_ms=1000)
    event = ImageRequested.model_validate_json(record.value or b"", strict=False)
    return switch_layer.held(record, stage, switch(scope), event)


def switch(scope: str, mode: str = "hold", **fields: Any) -> SwitchSet:
    return SwitchSet(scope=scope, mode=mode, reason="because", actor="ada", set_at=datetime.now(UTC), **fields)


@asynccontextmanager
async def working(*parts: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    tasks = [asyncio.create_task(part()) for part in parts]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def ops(database: str) -> AsyncIterator[Ops]:
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=8), schema="replay") as pool:
        transport = MemoryTransport()
        yield Ops(transport, pool, Store(pool), Table(SwitchSet, transport))


@pytest.fixture
async def indexed(ops: Ops) -> AsyncIterator[Ops]:
    async with working(Index(ops.transport, ops.store, POOLS).run):
        yield ops


@pytest.fixture
async def http(ops: Ops) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=ops.app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://ops", headers=headers) as client:
        yield client


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["code"] and isinstance(body["errors"], list)
    assert uuid.UUID(body["request_id"])
    return body


async def replayed(http: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await http.post("/v1/dead-letters/replay", json={**WHO, **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


# ---- the index ----------------------------------------------------------------------------------


async def test_a_duplicate_of_a_dead_letter_is_listed_once(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A crash between the dead letter and its commit writes it again, under the same id."""
    one = letter()
    await indexed.put(one, one, letter(offset=1))
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    body = (await http.get("/v1/dead-letters")).json()

    assert len(body["items"]) == 2
    assert body["counts"] == [{"stage": "policy", "class": "poison", "state": "open", "count": 2}]


async def test_the_index_read_again_from_the_beginning_changes_nothing(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """What was replayed stays replayed."""
    ids = await indexed.die(3)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    await replayed(http, ids=ids[:1])
    await indexed.transport.rewind("giclee.replay")
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)

    assert await indexed.states() == ["open", "open", "replayed"]


async def test_bytes_of_any_kind_come_back_as_they_were(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Headers with zero bytes, names and keys that are no UTF-8: what a database cannot hold is held all the same."""
    headers = (("trace\x00bin", b"\x00\x01\xff"), ("ü", "ü".encode()), ("h", b""), ("h", b"\x00"))
    failed = replace(request_record(), key=b"\x00\xff", value=b"\x00{")
    (dlq_id,) = await indexed.die(1, failed=failed, headers=headers, message="bad \x00 text")
    await until(indexed.count)
    shown = (await http.get(f"/v1/dead-letters/{dlq_id}")).json()
    await replayed(http, ids=[dlq_id])

    (back,) = indexed.back()
    assert (back.key, back.value, back.headers[:4]) == (failed.key, failed.value, headers)
    assert ["ü", "ü"] in shown["headers"]
    assert shown["value_base64"] == "AHs="


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("dlq-id", b"x"),),
        (("dlq-id", str(uuid.uuid4()).encode()),),
        (("dlq-attempts", b"many"),),
        (("dlq-attempts", b"9" * 30),),
        (("dlq-paid-usd", b"lots"),),
        (("dlq-replay-count", b"-"),),
        (("dlq-original-offset", b"\x00"),),
        (("dlq-last-failed-at", b"2026-11-21T09:00:00"),),
    ],
)
async def test_what_is_no_dead_letter_does_not_stop_the_index(ops: Ops, headers: Any) -> None:
    """Whoever can write the topic could otherwise hide every dead letter behind it."""
    good = letter(offset=9)
    bare = not headers or headers[0][0] == "dlq-id"
    odd = replace(good, headers=headers if bare else tuple({**dict(good.headers), **dict(headers)}.items()))
    async with working(Index(ops.transport, ops.store, POOLS).run) as (task,):
        await ops.put(odd, letter(offset=10))
        await until(lambda: ops.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
        assert not task.done()

    assert await ops.count("replay.dead_letters WHERE original_offset = 10") == 1


async def test_an_index_that_cannot_read_is_unready(ops: Ops) -> None:
    """While the broker is away new dead letters are not listed, and the probe says so."""
    index = Index(ops.transport, ops.store, POOLS)
    with pytest.raises(Transient):
        await index.check()
    async with working(index.run):
        await ops.die()
        await until(ops.count)
        await index.check()
        ops.transport.away = True

        async def unready() -> bool:
            try:
                await index.check()
            except Transient:
                return True
            return False

        await until(unready)
        ops.transport.away = False
        await ops.die(1, offset=5)

        async def both() -> bool:
            return await ops.count() == 2

        await until(both)
        await index.check()


# ---- list and show ------------------------------------------------------------------------------


async def test_a_list_has_pages_and_shows_no_bytes(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Newest first, every dead letter on one page only, counts of everything that is selected."""
    await indexed.die(7)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = (
            await http.get("/v1/dead-letters", params={"limit": 3, **({"cursor": cursor} if cursor else {})})
        ).json()
        found += page["items"]
        assert page["counts"][0]["count"] == 7
        cursor = page["next_cursor"]
        if not cursor:
            break

    times = [one["died_at"] for one in found]
    assert len({one["dlq_id"] for one in found}) == 7
    assert times == sorted(times, reverse=True)
    assert not {"value", "value_base64", "headers", "key"} & found[0].keys()


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"topic": REQUESTED}, 2),
        ({"topic": "image.scored.v1"}, 0),
        ({"stage": "policy"}, 2),
        ({"class": "bug"}, 1),
        ({"error_type": "ZeroDivisionError"}, 1),
        ({"tenant": "acme"}, 1),
        ({"state": "open"}, 2),
        ({"state": "replayed"}, 0),
        ({"request": str(uuid.uuid4())}, 0),
        ({"since": moment(1)}, 1),
        ({"until": moment(1)}, 1),
        ({"stage": "policy", "class": "poison"}, 1),
    ],
)
async def test_filters_narrow_items_and_counts_alike(
    indexed: Ops, http: httpx2.AsyncClient, params: dict[str, str], count: int
) -> None:
    """All that are given must hold."""
    await indexed.put(
        letter(offset=0), letter(offset=1, dead_class="bug", error_type="ZeroDivisionError", tenant="acme")
    )
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    body = (await http.get("/v1/dead-letters", params=params)).json()

    assert len(body["items"]) == sum(one["count"] for one in body["counts"]) == count


async def test_problems_say_what_is_wrong(ops: Ops, http: httpx2.AsyncClient) -> None:
    """Every answer that is not 200 is a problem, whatever was sent."""
    unknown = str(uuid.uuid4())
    for params in ({"since": "yesterday"}, {"staeg": "x"}, {"limit": "0"}, {"cursor": "x"}, {"state": "dead"}):
        is_problem(await http.get("/v1/dead-letters", params=params), 422)
    for cursor in ("WzEsMl0=", "eyJhIjoxLCJiIjoyfQ==", "é"):
        is_problem(await http.get("/v1/dead-letters", params={"cursor": cursor}), 422)
    is_problem(await http.get("/v1/dead-letters", params={"stage": "a\x00b"}), 422)
    is_problem(await http.get(f"/v1/dead-letters/{unknown}"), 404)
    is_problem(await http.get("/v1/dead-letters/x"), 422)
    is_problem(await http.get("/v1/nothing"), 404)
    bodies: list[Any] = [{}, {**WHO, "reason": ""}, {**WHO, "ids": ["x"]}, {**WHO, "selection": {"staeg": 1}}, []]
    for body in bodies:
        is_problem(await http.post("/v1/dead-letters/replay", json=body), 422)
    is_problem(await http.post("/v1/dead-letters/replay", json={**WHO, "ids": [unknown]}), 404)
    is_problem(await http.put("/v1/switches/nonsense", json={**WHO, "mode": "hold"}), 422)
    is_problem(await http.put("/v1/switches/all", json={**WHO, "mode": "other"}), 422)
    is_problem(await http.put("/v1/switches/all", json={**WHO, "mode": "hold", "reason": "a\x00b"}), 422)
    http.headers["Authorization"] = "Bearer wrong-key-of-16-characters"
    for path in ("/v1/dead-letters", "/v1/switches", f"/v1/dead-letters/{unknown}"):
        is_problem(await http.get(path), 401)


async def test_a_database_that_is_away_is_a_503(ops: Ops, http: httpx2.AsyncClient) -> None:
    """With a hint when to come back."""
    await ops.pool.close()
    answer = await http.get("/v1/dead-letters")

    is_problem(answer, 503)
    assert answer.headers["retry-after"]


# ---- replay -------------------------------------------------------------------------------------


async def test_a_replay_goes_back_for_the_stage_that_failed(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """To its own topic, with its id and key, marked with the run; the audit says who and why."""
    ids = await indexed.die(2)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    done = await replayed(http, ids=ids[:1])

    (back,) = indexed.back()
    assert done["replayed"] == 1
    assert (header(back, "giclee-replay-for"), header(back, "giclee-replay-run")) == ("policy", done["run_id"])
    assert not any(name.startswith(("dlq-", "kafka_dlt-")) for name, _ in back.headers)
    assert await indexed.states() == ["open", "replayed"]
    audit = await indexed.pool.fetchrow("SELECT * FROM replay.audit")
    assert audit is not None
    assert (audit["actor"], audit["reason"], str(audit["run_id"])) == ("ada", "mended", done["run_id"])


async def test_a_dry_run_changes_nothing_and_says_what_would_happen(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Destination and verdict of every dead letter that is selected."""
    await indexed.die(2)
    await indexed.die(1, offset=5, replay_count=3)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    done = await replayed(http, dry_run=True)

    assert sorted(one["verdict"] for one in done["items"]) == ["go", "go", "refuse"]
    assert {one["topic"] for one in done["items"]} == {REQUESTED}
    assert indexed.back() == []
    assert await indexed.count("replay.audit") == 0
    assert set(await indexed.states()) == {"open"}


async def test_what_may_not_go_back_is_refused_with_a_reason(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A topic that is not ours, one that came back too often, one without its bytes, one that was replayed."""
    foreign = letter(offset=1)
    headers = tuple((n, b"their.topic" if n == "dlq-original-topic" else v) for n, v in foreign.headers)
    await indexed.put(replace(foreign, headers=headers))
    await indexed.die(1, offset=2, replay_count=3)
    (done_before,) = await indexed.die(1, offset=3)
    died = dlq.DeadLetter(
        stage="policy", dead_class="invalid", error_type="Undecodable", message="too large", attempts=1,
        origin=f"{REQUESTED}:0:4", timestamp_ms=1, group="g", version="1",
        first_failed_at=moment(4), last_failed_at=moment(4),
    )  # fmt: skip
    await indexed.put(died.without_bytes(request_record()))
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    await replayed(http, ids=[done_before])
    sent = len(indexed.back())
    done = await replayed(http, selection={"stage": "policy"})

    assert [one["verdict"] for one in done["items"]] == ["refuse"] * 4
    assert all(one["why"] for one in done["items"])
    assert len(indexed.back()) == sent == 1
    assert (await replayed(http, selection={"stage": "policy"}, again=True))["replayed"] == 2


async def test_everything_is_replayed_only_when_it_is_said(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """An empty list of ids is a script's mistake, not a selection."""
    await indexed.die(2)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    is_problem(await http.post("/v1/dead-letters/replay", json={**WHO, "ids": []}), 422)

    assert indexed.back() == []
    assert (await replayed(http, everything=True))["replayed"] == 2


async def test_records_of_a_key_go_back_in_their_order(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A list is newest first; what is sent is oldest first."""
    rid = uuid.uuid4()
    failed = [request_record(rid, wanted=number + 1) for number in range(5)]
    await indexed.put(*(letter(offset=number, failed=one) for number, one in enumerate(failed)))
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    await replayed(http, selection={"stage": "policy"})

    assert [json.loads(one.value or b"")["wanted"] for one in indexed.back()] == [1, 2, 3, 4, 5]


async def test_two_operators_at_once_send_every_record_once(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """The claim is a compare-and-set: one has it, the other does not."""
    await indexed.die(40)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    runs = await asyncio.gather(*(replayed(http, selection={"stage": "policy"}) for _ in range(4)))

    assert sum(run["replayed"] for run in runs) == 40
    assert len(indexed.back()) == 40
    assert await indexed.states() == ["replayed"] * 40


async def test_a_broker_that_is_away_leaves_nothing_half_done(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """The answer is 503; the rows stay claimed and are sent when it is back."""
    ids = await indexed.die(3)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)

    def away(records: Sequence[Record]) -> None:
        raise Transient("no broker")

    indexed.gate = away
    is_problem(await http.post("/v1/dead-letters/replay", json={**WHO, "ids": ids}), 503)
    indexed.gate = None
    assert await indexed.states() == ["replaying"] * 3
    await past(indexed)
    await indexed.runs.finish()

    assert await indexed.states() == ["replayed"] * 3
    assert len(indexed.back()) == 3


async def past(ops: Ops) -> None:
    """Half a minute goes by for what is claimed."""
    await ops.pool.execute("UPDATE replay.dead_letters SET changed_at = changed_at - interval '31 seconds'")


async def test_what_a_dead_process_had_claimed_is_sent_by_the_next(indexed: Ops) -> None:
    """Claimed, perhaps sent, never marked: sent again, by one of those who look, and not before its time."""
    ids = [uuid.UUID(one) for one in await indexed.die(5)]
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    run = uuid.uuid4()
    await indexed.store.claim(ids, run, again=False)
    await indexed.runs.finish()
    early = len(indexed.back())
    await past(indexed)
    others = [Runs(indexed.store, indexed.send, POOLS) for _ in range(4)]
    await asyncio.gather(*(one.finish() for one in others))

    assert early == 0
    assert len(indexed.back()) == 5
    assert {header(one, "giclee-replay-run") for one in indexed.back()} == {str(run)}
    assert await indexed.states() == ["replayed"] * 5


async def test_a_late_mark_of_an_older_run_does_not_end_a_newer_one(indexed: Ops) -> None:
    """A process that hung between sending and marking says something about its own run only."""
    ids = [uuid.UUID(one) for one in await indexed.die(1)]
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    first, second = uuid.uuid4(), uuid.uuid4()
    await indexed.store.claim(ids, first, again=False)
    await indexed.store.replayed(ids, first)
    await indexed.store.claim(ids, second, again=True)
    await indexed.store.replayed(ids, first)

    assert await indexed.states() == ["replaying"]


async def test_a_record_that_its_topic_does_not_take_is_parked(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """It must not end the service, nor keep the others of its run from going."""
    ids = await indexed.die(3)
    await until(lambda: indexed.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
    values = {header(one, "dlq-id"): one.value for one in indexed.transport.records(f"{REQUESTED}.dlq")}

    def too_large(records: Sequence[Record]) -> None:
        if any(record.value == values[ids[1]] for record in records):
            raise Poison("the broker takes no record like this")

    indexed.gate = too_large
    done = await replayed(http, ids=ids)

    assert done["replayed"] == 2
    assert await indexed.states() == ["parked", "replayed", "replayed"]
    assert await indexed.count("replay.audit WHERE action = 'park'") == 1


# ---- switches -----------------------------------------------------------------------------------


async def test_a_switch_is_set_listed_and_cleared(ops: Ops, http: httpx2.AsyncClient) -> None:
    """With who, why and how many records wait; a cleared one is listed no more."""
    async with working(ops.table.follow, Index(ops.transport, ops.store, POOLS).run):
        answer = await http.put("/v1/switches/tenant:acme", json={**WHO, "mode": "hold"})
        assert answer.status_code == 200
        await ops.put(held("tenant:acme"), held("tenant:acme", offset=1))

        async def listed() -> Any:
            return (await http.get("/v1/switches")).json()["items"]

        async def both_wait() -> bool:
            return [one["held"] for one in await listed()] == [2]

        await until(both_wait)
        (one,) = await listed()
        await http.put("/v1/switches/tenant:acme", json={**WHO, "mode": "clear"})
        await until(lambda: ops.table.rows["tenant:acme"].mode == "clear")
        after = await listed()

    assert (one["scope"], one["mode"], one["in_force"], one["actor"]) == ("tenant:acme", "hold", True, "ada")
    assert after == []
    assert await ops.count("replay.audit") == 2


async def waiting(ops: Ops, number: int, scope: str = "tenant:acme") -> None:
    """`number` records wait under a hold that the table knows."""
    await ops.switches.set(switch(scope))
    await until(lambda: scope in ops.table.rows)
    await ops.put(*(held(scope, offset=place) for place in range(number)))

    async def all_wait() -> bool:
        return await ops.count("replay.held") == number

    await until(all_wait)


async def test_held_records_flow_on_when_their_switch_is_cleared(indexed: Ops) -> None:
    """All of them, in order, for the stage that held them, without a trace of having been held."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 250)
        assert indexed.back() == []
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) >= 250)

        async def none_left() -> bool:
            return await indexed.count("replay.held") == 0

        await until(none_left)

    back = indexed.back()
    assert len(back) == 250
    assert {header(one, "giclee-replay-for") for one in back} == {"policy"}
    assert not any(name.startswith("held-") for one in back for name, _ in one.headers)
    assert all(header(one, "ce_subject") == json.loads(one.value or b"")["request_id"] for one in back)


async def test_held_records_flow_on_when_their_switch_expires(indexed: Ops) -> None:
    """By the database's clock; nobody has to clear it."""
    async with working(indexed.table.follow, indexed.switches.release):
        soon = datetime.now(UTC) + timedelta(seconds=1.5)
        await indexed.switches.set(switch("tenant:acme", expires_at=soon))
        await until(lambda: "tenant:acme" in indexed.table.rows)
        await indexed.put(held("tenant:acme"))
        await until(lambda: indexed.count("replay.held"))
        early = len(indexed.back())
        await until(lambda: len(indexed.back()) == 1)

    assert early == 0


async def test_a_switch_that_turns_to_refuse_lets_go_what_it_held(indexed: Ops) -> None:
    """The stage looks at it again and refuses it; it would wait for ever otherwise, and its caller hear nothing."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 3)
        await indexed.switches.set(switch("tenant:acme", "refuse"))
        await until(lambda: len(indexed.back()) == 3)


async def test_what_other_switches_hold_goes_on_waiting(indexed: Ops) -> None:
    """Clearing one scope says nothing about another."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 2, "tenant:acme")
        await indexed.switches.set(switch("model:painter"))
        await until(lambda: "model:painter" in indexed.table.rows)
        await indexed.put(held("model:painter", offset=9))

        async def three() -> bool:
            return await indexed.count("replay.held") == 3

        await until(three)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) == 2)

        async def one_left() -> bool:
            return await indexed.count("replay.held") == 1

        await until(one_left)


async def test_two_replicas_let_go_every_record_once(indexed: Ops) -> None:
    """Whoever takes a row sends and deletes it in one transaction; others pass it by."""
    others = [Switches(indexed.table, indexed.store, indexed.send) for _ in range(3)]
    async with working(indexed.table.follow, indexed.switches.release, *(one.release for one in others)):
        await waiting(indexed, 60)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) >= 60)

        async def none_left() -> bool:
            return await indexed.count("replay.held") == 0

        await until(none_left)

    assert len(indexed.back()) == 60


async def test_a_release_that_cannot_be_sent_stays_held(indexed: Ops) -> None:
    """Deleted only when the broker has it."""
    failing = True

    def gate(records: Sequence[Record]) -> None:
        if failing and any(record.topic == REQUESTED for record in records):
            raise Transient("no broker")

    indexed.gate = gate
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 2)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: indexed.table.rows["tenant:acme"].mode == "clear")
        await asyncio.sleep(0)
        assert await indexed.count("replay.held") == 2
        failing = False
        await until(lambda: len(indexed.back()) == 2)


def test_the_group_reads_every_dead_letter_and_held_topic() -> None:
    """What nobody indexes nobody could put back."""
    wanted = set(topics.groups(POOLS)["giclee.replay"])
    assert {row.name for row in topics.all_topics(POOLS) if row.name.endswith((".dlq", ".held"))} == wanted
    assert Partition("image.routed.hosted.v1.dlq", 0).topic in wanted
