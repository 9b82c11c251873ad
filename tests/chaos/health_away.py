"""Provider health absent, killed, slow and back, under a steady stream of clearances: what does routing notice?

`python -m tests.chaos.health_away [RATE]` starts a broker, Postgres, the router and the Faust process, sends RATE (200)
clearances a second and 40 attempts and verdicts a second, takes health away in every way, and prints a table: routed
a second, milliseconds from a clearance being sent to its candidate being read, the age of the newest ProviderHealth,
and when the router took the numbers of the last minute for too old. Exit 1 when a candidate was lost or came twice.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.infra import migrate
from giclee.infra import topics as infra
from giclee.schemas import topics
from giclee.schemas.events import ImageScored, ProviderHealth, ProviderOutcome
from giclee.schemas.parts import candidate_id
from tests.bench.measure import load, machine
from tests.kit.service_process import free_port, post, running
from tests.kit.stack import kafka_part, postgres_part
from tests.kit.wait import until
from tests.unit.router.builders import cleared

MODELS = "\n".join(
    f'[[models]]\nname = "{name}"\nprovider = "{provider}"\nrevision = "r"\nlocation = "{name}"\nprice_usd = "0.0004"\n'
    "steps = 8\nwidth = 64\nheight = 64\nsize_min = 64\nsize_max = 64\n"
    for name, provider in (("one", "stub"), ("other", "diffusion"))
)
TOLD_PER_S = 40
QUICK_S, LONG_S = 30.0, 90.0
"""A phase that only measures; one in which what was known grows older than the window of a minute."""
SLOW_STOPPED_S, SLOW_RUNNING_S = 4.0, 1.0
SETTLE_S = 30.0


@dataclass
class Phase:
    """A stretch of time under one condition; times in seconds of the monotonic clock."""

    name: str
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    oldest_s: float = 0.0
    stale_after_s: float | None = None
    fresh_after_s: float | None = None
    share: float = 0.0


class Traffic:
    """Sends clearances and what health eats; reads what comes of them."""

    def __init__(self, producer: AIOKafkaProducer, reader: AIOKafkaConsumer, prefix: str, rate: int) -> None:
        self._producer, self._reader, self._prefix, self._rate = producer, reader, prefix, rate
        self.sent: dict[str, float] = {}
        self.seen: dict[str, list[float]] = {}
        self.health_at_s: float | None = None
        self.share = 0.0

    async def clear(self) -> None:
        """Until cancelled: `rate` clearances a second, a wave of one each."""
        template = json.loads(cleared(asset_type="generic").model_dump_json())
        began, count = time.monotonic(), 0
        while True:
            while count < (time.monotonic() - began) * self._rate:
                request_id, count = uuid.uuid4(), count + 1
                value = json.dumps({**template, "request_id": str(request_id)}).encode()
                self.sent[str(candidate_id("default", request_id, 0))] = time.monotonic()
                await self._producer.send(
                    self._prefix + "image.policy-cleared.v1", value, key=str(request_id).encode(),
                    headers=[("ce_type", b"giclee.ImageCleared.v1"), ("ce_id", str(request_id).encode())],
                )  # fmt: skip
            await asyncio.sleep(0.005)

    async def tell(self) -> None:
        """Until cancelled: attempts and verdicts of both providers."""
        while True:
            for provider, model in (("stub", "one"), ("diffusion", "other")):
                for event in (_outcome(provider, model), _scored(provider, model)):
                    topic = self._prefix + topics.topic_for(event)
                    await self._producer.send(topic, event.model_dump_json().encode(), key=event.key().encode())
            await asyncio.sleep(4 / TOLD_PER_S)

    async def read(self) -> None:
        """Until cancelled: note when candidates and health come."""
        while True:
            for batch in (await self._reader.getmany(timeout_ms=50)).values():
                at = time.monotonic()
                for record in batch:
                    found = json.loads(record.value)
                    if record.topic.endswith("provider.health.v1"):
                        told = datetime.fromisoformat(found["at"]).timestamp() - time.time() + at
                        self.health_at_s = max(told, self.health_at_s or told)
                    else:
                        self.seen.setdefault(found["candidate_id"], []).append(at)
                        self.share = max((one["acceptance"] for one in found.get("weighed", ())), default=0.0)


class Watch:
    """Asks the router what it thinks, and measures phase by phase."""

    def __init__(self, traffic: Traffic, router: int) -> None:
        self._traffic, self._router = traffic, router
        self._quoted = {"cleared": json.loads(cleared().model_dump_json())}
        self.phases: list[Phase] = []

    async def knows(self) -> bool:
        """Whether a quote goes by what was measured in the last minute, not by the tables."""
        answer = await post(self._router, "/internal/quote", self._quoted)
        return bool(answer["acceptance_known"])

    async def phase(self, name: str, seconds: float, *, until_fresh: bool = False) -> None:
        """Measure for so long; `until_fresh` also ends when health counts again."""
        one = Phase(name)
        self.phases.append(one)
        while (now := time.monotonic()) < one.began_s + seconds:
            told_s = self._traffic.health_at_s
            one.oldest_s = max(one.oldest_s, now - told_s if told_s else now - one.began_s)
            if await self.knows():
                one.fresh_after_s = one.fresh_after_s or now - one.began_s
                if until_fresh and told_s and told_s > one.began_s:
                    break
            elif one.fresh_after_s is not None and one.stale_after_s is None and told_s:
                one.stale_after_s = now - told_s
            await asyncio.sleep(0.25)
        one.ended_s, one.share = time.monotonic(), self._traffic.share
        sys.stderr.write(f"{name}: over\n")

    def table(self) -> str:
        """Every phase as a row of Markdown."""
        head = (
            "health is", "s", "routed / s", "p50 / p99 / most, ms", "newest row, s old", "its last minute counts",
            "share a choice goes by",
        )  # fmt: skip
        rows = [head, ("---",) * len(head), *(self._row(one) for one in self.phases)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _row(self, one: Phase) -> tuple[str, ...]:
        sent, seen = self._traffic.sent, self._traffic.seen
        mine = [name for name, at in sent.items() if one.began_s <= at < one.ended_s and name in seen]
        took = sorted((seen[name][0] - sent[name]) * 1000 for name in mine)
        arrived = sum(one.began_s <= times[0] < one.ended_s for times in seen.values())
        p99 = took[int(len(took) * 0.99)] if took else 0.0
        long_s = one.ended_s - one.began_s
        if one.fresh_after_s is None:
            counts = "no"
        elif one.stale_after_s is not None:
            counts = f"until it is {one.stale_after_s:.0f} s old"
        else:
            counts = "yes" if one.fresh_after_s < 1 else f"after {one.fresh_after_s:.1f} s"
        p50, most = (statistics.median(took), took[-1]) if took else (0.0, 0.0)
        return (
            one.name, f"{long_s:.0f}", f"{arrived / long_s:.0f}", f"{p50:.0f} / {p99:.0f} / {most:.0f}",
            f"{one.oldest_s:.0f}", counts, f"{one.share:.3f}",
        )  # fmt: skip


def _outcome(provider: str, model: str) -> ProviderOutcome:
    return ProviderOutcome(
        provider=provider, model=model, candidate_id=uuid.uuid4(), hop=0, fence=1, seconds=0.5, price_usd="0.0004",
        outcome="made", at=datetime.now(UTC),
    )  # fmt: skip


def _scored(provider: str, model: str) -> ImageScored:
    score = {"value": 1.0, "verdict": "pass", "evaluator": "e", "evaluator_version": "1"}
    return ImageScored.model_validate({
        "request_id": uuid.uuid4(), "candidate_id": uuid.uuid4(), "index": 0, "sha256": "0" * 64, "gate_version": "g",
        "scores": {"technical": score}, "verdict": "pass", "provider": provider,
        "model": {"name": model, "revision": "r"},
    })  # fmt: skip


class Faust:
    """`giclee.router.health` as a process that is treated badly."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self._env, self._log = env, log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "giclee.router.health", env=self._env, stdout=log, stderr=log
            )

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGKILL)
            await self._process.wait()

    async def stutter(self) -> None:
        """Until cancelled: stopped for four of five seconds."""
        try:
            while True:
                self.signal(signal.SIGSTOP)
                await asyncio.sleep(SLOW_STOPPED_S)
                self.signal(signal.SIGCONT)
                await asyncio.sleep(SLOW_RUNNING_S)
        finally:
            self.signal(signal.SIGCONT)


async def play(watch: Watch, health: Faust) -> None:
    """Every way of being away, each followed by coming back."""
    await watch.phase("absent from the start", QUICK_S)
    await health.start()
    await watch.phase("started for the first time, until it counts", LONG_S, until_fresh=True)
    await watch.phase("well", QUICK_S)
    await health.kill()
    await watch.phase("killed (SIGKILL)", LONG_S)
    await health.start()
    await watch.phase("started again, until it counts", LONG_S, until_fresh=True)
    await watch.phase("well again", QUICK_S)
    health.signal(signal.SIGSTOP)
    await watch.phase("stopped (SIGSTOP)", LONG_S)
    health.signal(signal.SIGCONT)
    await watch.phase("let go on, until it counts", LONG_S, until_fresh=True)
    stutter = asyncio.create_task(health.stutter())
    await watch.phase("slow: stopped for 4 of every 5 s", QUICK_S * 2)
    stutter.cancel()
    await asyncio.gather(stutter, return_exceptions=True)
    await watch.phase("well at the end", QUICK_S)
    await health.kill()


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[dict[str, str]]:
    """A broker and a database with all that the two processes want; their environment."""
    with kafka_part(wait=False) as kafka, postgres_part(durable=True) as postgres:
        kafka.running.wait_ready()
        infra.apply(infra.Target(kafka.bootstrap_servers, "", replication=1))
        await migrate.migrate(postgres.database_url)
        (folder / "giclee.toml").write_text(MODELS)
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "DATABASE_URL": postgres.database_url,
            "GICLEE_CONFIG": str(folder / "giclee.toml"), "GICLEE_MODELS_DIR": str(folder / "none"),
        }  # fmt: skip


async def main(rate: int) -> int:
    """Play it and print the table; the exit code."""
    before = load()
    async with AsyncExitStack() as all_of_it:
        folder = Path(all_of_it.enter_context(tempfile.TemporaryDirectory(prefix="giclee-away-")))
        env = await all_of_it.enter_async_context(world(folder))
        router = await all_of_it.enter_async_context(running("giclee.router", env))
        names = [topics.topic_of(ProviderHealth), "image.routed.local.v1", "image.generation-failed.v1"]
        servers = env["KAFKA_BOOTSTRAP_SERVERS"]
        reader = await all_of_it.enter_async_context(AIOKafkaConsumer(*names, bootstrap_servers=servers))
        producer = await all_of_it.enter_async_context(AIOKafkaProducer(bootstrap_servers=servers, acks="all"))
        traffic = Traffic(producer, reader, "", rate)
        watch = Watch(traffic, router)
        health = Faust({**os.environ, **env, "GICLEE_HEALTH_PORT": str(free_port())}, folder / "health.log")
        clearing, *others = (asyncio.create_task(one()) for one in (traffic.clear, traffic.tell, traffic.read))
        try:
            await play(watch, health)
            clearing.cancel()
            with suppress(AssertionError):
                await until(lambda: len(traffic.seen) >= len(traffic.sent), within_s=SETTLE_S)
        finally:
            await health.kill()
            for task in (clearing, *others):
                task.cancel()
            await asyncio.gather(clearing, *others, return_exceptions=True)
    lost = len(traffic.sent.keys() - traffic.seen.keys())
    twice = sum(len(times) > 1 for times in traffic.seen.values())
    sys.stdout.write(f"{machine()}; load averages {before} before, {load()} after\n\n")
    sys.stdout.write(f"{watch.table()}\n\n{len(traffic.sent)} candidates, {lost} lost, {twice} twice\n")
    return 1 if lost or twice else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)))
    except URLError as error:
        sys.exit(f"the router does not answer: {error}")
