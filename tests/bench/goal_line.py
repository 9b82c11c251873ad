"""G2 and G3: six hops from request to approval, and six bare relays, on the same two cores and broker."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer

from giclee.bus import blobs
from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import BlobSettings, KafkaSettings
from giclee.bus.transport import Partition, Record
from giclee.infra import migrate, topics
from giclee.schemas.events import ImageApproved
from tests.bench import log, relays, sides
from tests.bench.measure import Result, Row, Wrong, cores, cpu_s, load, median, percentile, pin, shown
from tests.bench.sides import Side
from tests.kit.kafka_world import KafkaWorld
from tests.kit.stack import Stack, stack

PREFIX = "line."
PROMPT = (
    "a small red circle on a blue background, flat colours, centred, no text, even light, sharp edges, for the tile of "
    "an autumn catalogue, one object only, the object well inside the picture, quiet and clear"
)
RELAY_BYTES = 1024
RATE_PER_S = 10
WARM_UP = 20
BURST_MAX_S = 300.0
STEPS = (
    "image.requested.v1",
    "image.policy-cleared.v1",
    "image.routed.local.v1",
    "image.generated.v1",
    "image.scored.v1",
)
SIDES = (
    "Ours: policy, router, worker, scorer and publisher as five processes with their real stores (Postgres with "
    "fsync) and bucket, the image prepared and every score 1 at once; a claim and its lease, a blob put, a blob read, "
    "a stored verdict, a sealed copy, a thumbnail, facts and outbox rows per request, approval and closing by a Kafka "
    "transaction; the sixth hop is the outbox relay. Bare: six aiokafka relays in five processes, orjson both ways, "
    "1 KiB, no store, no transaction. Both: 6 partitions, acks=all, idempotent producers, read_committed, commit after "
    "the acknowledgement, plain asyncio, the same two cores with broker, database, bucket and the load driver."
)


class Watcher:
    """Notes when records with an id arrive at the end of a side, as a subscriber sees them."""

    def __init__(self, consumer: AIOKafkaConsumer, topics_: Sequence[str]) -> None:
        self._consumer = consumer
        self.at_s: dict[str, dict[str, float]] = {topic: {} for topic in topics_}
        self.records: dict[str, list[Any]] = {topic: [] for topic in topics_}
        self._arrived = asyncio.Event()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            for at, records in (await self._consumer.getmany(timeout_ms=500)).items():
                now = time.perf_counter()
                for record in records:
                    self.at_s[at.topic].setdefault(_id(record), now)
                self.records[at.topic] += records
            self._arrived.set()

    async def until(self, ids: Iterable[str], within_s: float) -> None:
        """Wait until all topics have all ids. Errors: Wrong when they do not come in time."""
        left = {(topic, one) for topic in self.at_s for one in ids}
        try:
            async with asyncio.timeout(within_s):
                while left := {(topic, one) for topic, one in left if one not in self.at_s[topic]}:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise Wrong(f"{len(left)} records did not arrive within {within_s:.0f} s, e.g. {min(left)}") from None


def _id(record: Any) -> str:
    return log.header(record, "ce_subject") or record.key.decode()


@dataclass(slots=True)
class Tally:
    """What one side showed over all rounds."""

    per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies_ms: list[dict[str, float]] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    asked: list[str] = field(default_factory=list)
    came: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much one round does."""

    burst: int
    paced_s: float


class Driver:
    """Sends requests and measures what a side does with them."""

    def __init__(self, stack_: Stack, sizes: Sizes) -> None:
        self.stack, self.sizes = stack_, sizes
        settings = KafkaSettings(bootstrap_servers=stack_.bootstrap_servers, topic_prefix=PREFIX)
        self.writer = KafkaTransport(settings, client_id="bench").writer("bench")

    async def round(self, side: Side, tally: Tally) -> None:
        """Warm up, then one request every 100 ms, then all at once."""
        async with self._watching(side) as watcher:
            await self._burst(side, watcher, WARM_UP, None)
            await self._paced(side, watcher, tally)
            await self._burst(side, watcher, self.sizes.burst, tally)
        for topic, records in watcher.records.items():
            tally.came[topic] += records
        tally.asked += next(iter(watcher.at_s.values()))

    @asynccontextmanager
    async def _watching(self, side: Side) -> AsyncIterator[Watcher]:
        names = [PREFIX + topic for topic in side.targets]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.stack.bootstrap_servers, isolation_level="read_committed")
        async with consumer:
            ends = [at for name in names for at in await log.ends(self.stack.bootstrap_servers, name)]
            consumer.assign(ends)
            await consumer.seek_to_end()
            watcher = Watcher(consumer, names)
            task = asyncio.create_task(watcher.follow())
            try:
                yield watcher
            finally:
                task.cancel()
                await asyncio.wait([task])

    def _records(self, side: Side, count: int) -> dict[str, Record]:
        """Requests as an upstream system writes them; those of relays are filled up to what our events weigh."""
        found = {}
        for _ in range(count):
            rid = str(uuid.uuid4())
            body: dict[str, Any] = {"request_id": rid, "prompt": PROMPT, "client_ref": "sku-4711"}
            if side.source == relays.topic(0):
                body["filling"] = "x" * (RELAY_BYTES - len(json.dumps(body)))
            found[rid] = Record(topic=side.source, key=rid.encode(), value=json.dumps(body).encode())
        return found

    async def _burst(self, side: Side, watcher: Watcher, count: int, tally: Tally | None) -> None:
        records = self._records(side, count)
        used, parts = side.cpu_s(), self._parts()
        began = time.perf_counter()
        await self.writer.send(list(records.values()))
        await watcher.until(records, BURST_MAX_S)
        if tally is None:
            return
        first = watcher.at_s[PREFIX + side.targets[0]]
        tally.per_s.append(count / (max(first[rid] for rid in records) - began))
        spent = {name: now - used[name] for name, now in side.cpu_s().items()}
        tally.cpu_ms.append(sum(spent.values()) / count * 1000)
        for name, seconds in {**spent, **{name: now - parts[name] for name, now in self._parts().items()}}.items():
            tally.shares[name] += seconds / count * 1000

    async def _paced(self, side: Side, watcher: Watcher, tally: Tally) -> None:
        records = self._records(side, round(RATE_PER_S * self.sizes.paced_s))
        sent_s: dict[str, float] = {}
        begin = time.perf_counter()
        for number, (rid, record) in enumerate(records.items()):
            await asyncio.sleep(max(0.0, begin + number / RATE_PER_S - time.perf_counter()))
            sent_s[rid] = time.perf_counter()
            await self.writer.send([record])
        await watcher.until(records, 60)
        first = watcher.at_s[PREFIX + side.targets[0]]
        tally.latencies_ms.append({rid: (first[rid] - sent_s[rid]) * 1000 for rid in records})

    def _parts(self) -> dict[str, float]:
        kafka, postgres, s3 = self.stack.kafka.running, self.stack.postgres.running, self.stack.s3.running
        return {"kafka": cpu_s([kafka.pid]), "postgres": cpu_s([postgres.pid]), "bucket": cpu_s([s3.pid])}


# ---- what makes a figure count ------------------------------------------------------------------------------


async def _check(stack_: Stack, ours: Tally, bare: Tally) -> None:
    """Every request once on every topic of the way, its image the one that was stored. Errors: Wrong."""
    brokers = stack_.bootstrap_servers
    for name, tally in (("line", ours), ("relays", bare)):
        for topic, records in tally.came.items():
            log.exactly_once(f"{name}, {topic}", tally.asked, map(_id, records))
    for topic in STEPS:
        records = await log.since(brokers, PREFIX + topic)
        log.exactly_once(topic, ours.asked, [_id(record) for record in records])
        ours.came[PREFIX + topic] = records
    for hop in range(relays.HOPS):
        came = await log.since(brokers, PREFIX + relays.topic(hop))
        log.exactly_once(relays.topic(hop), bare.asked, map(_id, came))
    if stalled := await log.since(brokers, f"{PREFIX}image.stalled.v1"):
        raise Wrong(f"{len(stalled)} dead letters, the first: {stalled[0].value[:500]}")
    await _check_images(stack_, ours.came[f"{PREFIX}image.approved.v1"])


async def _check_images(stack_: Stack, approved: Sequence[Any]) -> None:
    from giclee.gpu_worker import picture
    from tests.bench import stubbed

    prepared = picture.encode(stubbed.picture())
    settings = BlobSettings.model_validate(
        {"endpoint_url": stack_.s3_endpoint, "access_key_id": stack_.aws_access_key_id,
         "secret_access_key": stack_.aws_secret_access_key, "region": stack_.region, "bucket": stack_.bucket}
    )  # fmt: skip
    async with blobs.connect(settings) as bucket:
        for record in approved[:: max(1, len(approved) // 100)]:
            event = ImageApproved.model_validate_json(record.value)
            if await bucket.get(event.image) != prepared:
                raise Wrong(f"the image of {event.request_id} is not the one that was made")


# ---- the goals ----------------------------------------------------------------------------------------------


async def _measure(stack_: Stack, rounds: int, sizes: Sizes, folder: Path) -> tuple[Tally, Tally]:
    brokers = stack_.bootstrap_servers
    await asyncio.to_thread(topics.apply, topics.Target(brokers, PREFIX, 1))
    await migrate.migrate(stack_.database_url)
    world = KafkaWorld(brokers, PREFIX)
    for hop in range(relays.HOPS + 1):
        await world.topic(relays.topic(hop), 6)
        await world.set_offsets(relays.group(hop), {Partition(relays.topic(hop), number): 0 for number in range(6)})
    env = sides.environment(stack_, PREFIX, folder, stack_.database_url)
    starts: tuple[Callable[[], AbstractAsyncContextManager[Side]], ...] = (
        lambda: sides.line(env, folder),
        lambda: sides.bare(brokers, PREFIX),
    )
    tallies = (Tally(), Tally())
    driver = Driver(stack_, sizes)
    await driver.writer.start()
    for _ in range(rounds):
        for start, tally in zip(starts, tallies, strict=True):
            async with start() as side:
                await driver.round(side, tally)
    await driver.writer.stop()
    await _check(stack_, *tallies)
    return tallies


def run(rounds: int, *, quick: bool) -> list[Result]:
    """Measure G2 and G3. Errors: Wrong."""
    before = load()
    pin(cores())
    sizes = Sizes(burst=100, paced_s=2) if quick else Sizes(burst=1500, paced_s=15)
    with stack(durable=True) as running, tempfile.TemporaryDirectory(prefix="giclee-bench-") as folder:
        ours, bare = asyncio.run(_measure(running, rounds, sizes, Path(folder)))
    loads = f"{before} before, {load()} after"
    return [_throughput(ours, bare, loads, sizes), _latency(ours, bare, loads, sizes)]


def _throughput(ours: Tally, bare: Tally, loads: str, sizes: Sizes) -> Result:
    ratio = median(ours.per_s) / median(bare.per_s)
    rows = [
        Row(goal="G2", says="requests per second, all sent at once", unit="1/s", ours=ours.per_s, bare=bare.per_s,
            ratio=ratio, aim="ratio at least 0.15 (goal 0.25)", met=ratio >= 0.15),
        Row(goal="G2", says="CPU of the processes per request", unit="ms", ours=ours.cpu_ms, bare=bare.cpu_ms,
            ratio=median(bare.cpu_ms) / median(ours.cpu_ms)),
    ]  # fmt: skip
    said = f"{SIDES} {sizes.burst} requests a round."
    return Result(goal="G2", title="Six hops, throughput", sides=said, rows=rows, costs=_costs(ours, bare), load=loads)


def _costs(ours: Tally, bare: Tally) -> str:
    """Who spends the CPU of a request."""
    rounds = len(ours.per_s)
    ranked = sorted(ours.shares.items(), key=lambda pair: -pair[1])
    total = sum(ours.shares.values())
    said = ", ".join(f"{name} {shown(ms / rounds)} ms ({ms / total:.0%})" for name, ms in ranked)
    theirs = sum(bare.shares.values()) / rounds
    whole = f"A request costs {shown(total / rounds)} ms of CPU in all, parts included"
    return f"{whole}: {said}; the relays' {shown(theirs)}. {_limits(ours, bare)}"


def _limits(ours: Tally, bare: Tally) -> str:
    """What the parts alone allow on two cores, if our processes cost nothing."""
    rounds, relayed = len(ours.per_s), median(bare.per_s)
    bucket = ours.shares["bucket"] / rounds
    parts = bucket + (ours.shares["postgres"] + ours.shares["kafka"]) / rounds
    most, bucket_most = len(set(cores())) * 1000 / parts, len(set(cores())) * 1000 / bucket
    return (
        f"Limits: the bucket's own CPU for the five calls allows {shown(bucket_most)} requests a second on these cores "
        f"({shown(bucket_most / relayed)} of the relays), bucket, database and broker together {shown(most)} "
        f"({shown(most / relayed)}), whatever our processes cost."
    )


def _latency(ours: Tally, bare: Tally, loads: str, sizes: Sizes) -> Result:
    rows = []
    for share, aim_ms, goal in ((0.5, 150, "at most 150 ms"), (0.99, 500, "at most 500 ms")):
        mine, theirs = ([percentile(list(one.values()), share) for one in tally.latencies_ms] for tally in (ours, bare))
        pooled = percentile([one for batch in ours.latencies_ms for one in batch.values()], share)
        rows.append(
            Row(goal="G3", says=f"p{share * 100:.0f} from send to approval at {RATE_PER_S}/s", unit="ms", ours=mine,
                bare=theirs, ratio=median(mine) / median(theirs), met=pooled <= aim_ms,
                aim=f"{goal} over all rounds together: {shown(pooled)}")
        )  # fmt: skip
    said = (
        f"As G2, one request every {1000 / RATE_PER_S:.0f} ms for {sizes.paced_s:.0f} s a round; making and scoring "
        "take no time, so nothing is subtracted. The batcher's wait for company (10 ms) is in."
    )
    return Result(goal="G3", title="Six hops, latency", sides=said, rows=rows, costs=_waits(ours), load=loads)


def _waits(ours: Tally) -> str:
    """Where a paced request waits: medians between the times that records of neighbouring topics were written."""
    total = {rid: ms for batch in ours.latencies_ms for rid, ms in batch.items()}
    names = (*STEPS, "image.approved.v1")
    written = [{_id(one): one.timestamp for one in ours.came[PREFIX + name]} for name in names]
    steps = [
        f"{name} {shown(median([after[rid] - before[rid] for rid in total]))} ms"
        for name, before, after in zip(names[1:], written[:-1], written[1:], strict=True)
    ]
    rest = median([ms - (written[-1][rid] - written[0][rid]) for rid, ms in total.items()])
    return f"Medians until each record is written: {', '.join(steps)}; then {shown(rest)} ms until its reader has it."
