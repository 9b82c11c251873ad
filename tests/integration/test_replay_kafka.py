"""Replay runs on a real broker and a real database: operators at once, a process that is killed, lookups by place."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from giclee.bus import database as bus_database
from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import DatabaseSettings, KafkaSettings
from giclee.bus.transport import Partition, Record
from giclee.infra import topics as infra
from tests.kit.loops import Collector, header, request_record
from tests.kit.ops import ADA, KEY, REQUESTED, Ops, client, ended, letter, replayed, started, working
from tests.kit.service_process import free_port, running
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real


@pytest.fixture
async def ops(kafka: KafkaRunning, topic_prefix: str, database: str) -> AsyncIterator[Ops]:
    await asyncio.to_thread(infra.apply, infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix))
    async with bus_database.connect(DatabaseSettings(url=database, pool_max=16), schema="replay") as pool:
        made = Ops(transport, pool)
        yield made
        await made.lookup.stop()
        await made.writer.stop()


def numbered(number: int) -> list[Record]:
    """Dead letters, each of a request of its own that names its `client_ref`."""
    return [
        letter(offset=place, failed=request_record(client_ref=f"letter {place}"), headers=(("ce_id", b"%d" % place),))
        for place in range(number)
    ]


def references(records: list[Record]) -> Counter[str]:
    return Counter(json.loads(one.value or b"{}").get("client_ref", "") for one in records)


async def test_three_operators_at_once_send_every_letter_once(ops: Ops) -> None:
    """On one range of 500, by three processes, while originals flow on the same topic."""
    others = [Ops(ops.transport, ops.pool) for _ in range(2)]
    originals = [request_record(client_ref=f"original {number}") for number in range(300)]

    async def upstream() -> None:
        for start in range(0, 300, 20):
            await ops.writer.send(originals[start : start + 20])
            await asyncio.sleep(0)

    async with (
        Collector(ops.transport, (REQUESTED,)) as seen,
        working(ops.index.run, ops.runs.work, *(one.runs.work for one in others)),
        client(ops.app) as one,
        client(others[0].app) as two,
        client(others[1].app) as three,
    ):
        await ops.bury(*numbered(500))
        wanted = {"offsets": "0-499", "stage": "policy"}
        _, *runs = await asyncio.gather(upstream(), *(replayed(http, selection=wanted) for http in (one, two, three)))
        await until(lambda: len(seen.records) >= 800, 20)

    found = references(seen.records)
    assert found == Counter({f"letter {n}": 1 for n in range(500)} | {f"original {n}": 1 for n in range(300)})
    assert sum(run["sent"] for run in runs) == 500
    assert await ops.states_are("replayed", 500)
    assert all(bool(header(r, "giclee-replay-for")) == ("ce_id" in dict(r.headers)) for r in seen.records)


async def test_what_is_gone_from_its_topic_is_refused_and_the_rest_goes(ops: Ops) -> None:
    """Retention took the first letters; a run says so of each of them, and sends what is there."""
    async with working(ops.index.run, ops.runs.work), client(ops.app) as http:
        await ops.bury(*numbered(20))
        await asyncio.to_thread(remove_until, ops, Partition(f"{REQUESTED}.dlq", 1), 5)
        run = await replayed(http, all=True)

    assert (run["state"], run["sent"], run["refused"]) == ("done", 15, 5)
    assert await ops.states_are("open", 5)


def remove_until(ops: Ops, at: Partition, offset: int) -> None:
    """As retention does."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    settings = ops.transport._cluster.settings
    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    place = TopicPartition(settings.topic_prefix + at.topic, at.number, offset)
    for future in admin.delete_records([place]).values():
        future.result(20)


async def test_a_lookup_reads_any_places_of_any_partition(ops: Ops) -> None:
    """In any order, gaps and far jumps included; what never was is left out."""
    topic = f"{REQUESTED}.dlq"
    records = [Record(topic=topic, partition=n % 2, value=b"%d" % n) for n in range(6000)]
    for start in range(0, 6000, 1000):
        await ops.writer.send(records[start : start + 1000])
    places = [(0, [5, 2999, 7]), (1, [0]), (0, [2998]), (1, list(range(100, 2100))), (0, [0, 4000]), (1, [2999, 3000])]
    for number, offsets in places:
        found = await ops.lookup.read(Partition(topic, number), offsets)
        there = {offset: b"%d" % (offset * 2 + number) for offset in offsets if offset < 3000}
        assert {offset: record.value for offset, record in found.items()} == there


@pytest.mark.parametrize("point", ["after-replay-claim", "before-replay-mark", "after-replay-mark"])
async def test_a_run_goes_on_when_its_process_was_killed(
    ops: Ops, kafka: KafkaRunning, database: str, topic_prefix: str, point: str
) -> None:
    """Before a batch is sent, before it is marked, and after: the next process ends the run; the broker may have
    one batch twice, under the same ids, and lacks none."""
    port = free_port()
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "GICLEE_BUCKET": "nobody-asks", "GICLEE_API_KEY": KEY,
        "GICLEE_REPLAY_PORT": str(port),
    }  # fmt: skip
    armed = {"GICLEE_ALLOW_FAILPOINTS": "1", "GICLEE_FAILPOINT": f"replay.{point}:kill:nth=2"}
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}", **ADA}
    async with (
        Collector(ops.transport, (REQUESTED,)) as seen,
        httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as http,
    ):
        async with working(ops.index.run):
            await ops.bury(*numbered(60))
        doomed = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "giclee.replay",
            env={**clean(), **env, **armed, "GICLEE_HEALTH_PORT": str(free_port())},
        )
        try:
            await until(lambda: doomed.returncode is not None or answers(http), 60)
            run = await started(http, all=True, rate_per_s=20)
            await asyncio.wait_for(doomed.wait(), 30)
        finally:
            if doomed.returncode is None:
                doomed.kill()
        await ops.pool.execute("UPDATE replay.runs SET lease_until = clock_timestamp()")
        async with running("giclee.replay", env):
            done = await ended(http, run, 40)
        await until(lambda: len(references(seen.records)) == 60)

    found = references(seen.records)
    assert (doomed.returncode, done["state"], done["sent"]) == (-9, "done", 60)
    assert set(found) == {f"letter {number}" for number in range(60)}
    assert sum(found.values()) <= 80
    assert await ops.states_are("replayed", 60)


def clean() -> dict[str, str]:
    return {name: text for name, text in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_"))}


async def answers(http: httpx2.AsyncClient) -> bool:
    """Whether the API is there."""
    try:
        found: Any = await http.get("/v1/runs")
    except httpx2.HTTPError:
        return False
    return bool(found.status_code == 200)
