"""What a kill of the hosted pool's worker asks for, and where: a world of one worker, with the lab as its providers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from giclee.bus.layers import codec
from giclee.schemas.events import Event, ImageRouted
from tests.chaos.matrix_world import World, opened
from tests.kit import lab as labs
from tests.kit.candidates import closing, hop, model, routed
from tests.kit.lab import KEYS, Lab
from tests.kit.stack import Stack, ports_of_our_own
from tests.kit.wait import until

WORKER = "gpu-worker"
MODULE = ("giclee.gpu_worker",)
"""The service itself: nothing of it is replaced."""
POOL = "hosted"
PORTS = 4
SETTLED_MAX_S = UNDER_WAY_MAX_S = 240.0
LIMIT_USD = "5"
ROWS = {
    name: model(f"{name}-model", provider=name, pool=POOL, private=False, location=location, price_usd=price)
    for name, location, price in (
        ("fal", "fal-ai/flux/dev", "0.025"),
        ("openai", "gpt-image-2-2026-04-21/low", "0.009"),
    )
}
"""fal has jobs and does not say what they cost; openai has none, and says."""
ROUTED, LETTERS = f"image.routed.{POOL}.v1", f"image.routed.{POOL}.v1.dlq"
GENERATED, FAILED = "image.generated.v1", "image.generation-failed.v1"
FINAL = {GENERATED: "generated", FAILED: "failed", LETTERS: "dead"}
ENDINGS = {"ended": {"generated", "failed"}, "dead": {"generated", "dead"}}
"""How a candidate may end by the kind of its step, where not every one gets its image."""
LAPSED = "UPDATE gpu_worker.claims SET lease_until = lease_until - interval '1 minute' WHERE state = 'live'"


def _table() -> str:
    """The rows as an operator's file, with caps that are never reached, so that their sums can be looked at."""
    lines = []
    for row in ROWS.values():
        lines += ["[[models]]", f'name = "{row.name}"', f'revision = "{row.revision}"', f'location = "{row.location}"']
        lines += [
            f'provider = "{row.provider}"',
            f'pool = "{POOL}"',
            "private = false",
            f'price_usd = "{row.price_usd}"',
        ]
        lines += ["steps = 8", "width = 64", "height = 64", "size_min = 64", "size_max = 64"]
    return "\n".join(
        [*lines, "[[spend-cap]]", "daily_usd = 10000", "[[spend-cap]]", 'provider = "fal"', "daily_usd = 1000"]
    )


class HostedWorld(World):
    """A broker's topics, a database and a lab; its one service is the hosted pool's worker."""

    def __init__(self, stack: Stack, name: str, folder: Path, ports: range, lab: Lab) -> None:
        urls = ",".join(f"{provider}={lab.url(provider)}" for provider in ROWS)
        keys = {f"{provider.upper()}_API_KEY": KEYS[provider] for provider in ROWS}
        own = {"GICLEE_GPU_WORKER_POOL": POOL, "GICLEE_GPU_WORKER_BASE_URLS": urls, **keys}
        super().__init__(stack, name, folder, ports, models=_table(), **own)
        self.lab = lab
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def rows(self, query: str, *values: object) -> list[Any]:
        """What the database answers, over one connection: here it is asked often."""
        if self._connection is None:
            self._connection = await asyncpg.connect(self.database_url)
        return list(await self._connection.fetch(query, *values))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def send_event(self, event: Event) -> None:
        record = codec.encode(event, source="test")
        await self.producer.send_and_wait(
            self.prefix + record.topic, record.value, key=record.key, headers=list(record.headers)
        )


@asynccontextmanager
async def running(stack: Stack, name: str, folder: Path) -> AsyncIterator[HostedWorld]:
    """A world that waits for its first worker."""
    with labs.running() as lab, ports_of_our_own() as ports:
        world = HostedWorld(stack, name, folder, range(ports.base, ports.base + PORTS), lab)
        async with opened(world, [ROUTED, *FINAL]):
            yield world
            await world.close()


@dataclass(slots=True)
class Load:
    """The candidates of one kill, drawn from its seed. `kind` is the step's: what must happen to reach its point."""

    world: HostedWorld
    kind: str
    chance: random.Random
    asked: dict[str, ImageRouted] = field(default_factory=dict)

    # ---- asking ---------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Draw the first candidates, two to seven and one for each provider, and what the providers will do to them."""
        await self.world.lab.clear()
        self.world.seen.clear()  # what earlier candidates came to has been judged
        for name in ROWS:
            self._draw(name)
        for _ in range(self.chance.randint(2, 5)):
            self._draw()
        await self._spoil(Counter(event.chain[0].provider for event in self.asked.values()))

    async def _spoil(self, first: Counter[str]) -> None:
        lab = self.world.lab
        if self.kind in ("slow", "heir", "late"):  # until they are let go
            await lab.inject("fal", "make", "running", times=first["fal"])
            if self.kind == "late":
                await lab.inject("openai", "submit", "held", times=first["openai"])
        elif self.kind == "ended":
            await lab.inject("fal", "make", "slow-queue", asks=4)
        elif self.kind == "dead":
            await lab.inject("fal", "submit", "gone", times=first["fal"])
            await lab.inject("openai", "submit", "unavailable", times=first["openai"])
        elif self.kind == "plain" and self.chance.random() < 0.5:  # the chain goes on to the other provider
            await lab.inject(self.chance.choice(list(ROWS)), "submit", "refused", times=1)

    async def offer(self) -> None:
        """Send them, at random moments, and end some where that is what kills."""
        for event in list(self.asked.values()):
            await self.world.send_event(event)
            await asyncio.sleep(self.chance.choice((0, 0, 0.01, 0.1)))
        if self.kind == "ended":
            await until(self._any_called, UNDER_WAY_MAX_S)
            for event in list(self.asked.values())[::2]:
                await self.world.send_event(closing(event))

    async def more(self) -> None:
        """One candidate more, for a point that was not reached yet."""
        event = self._draw()
        if self.kind == "dead":
            await self._spoil(Counter([event.chain[0].provider]))
        await self.world.send_event(event)
        if self.kind == "ended":
            await self.world.send_event(closing(event))

    def _draw(self, first: str | None = None) -> ImageRouted:
        """A candidate whose chain begins with that or either provider, and ends there too where it shall end dead."""
        names = self.chance.sample(list(ROWS), 2)
        if first is not None:
            names.sort(key=lambda name: name != first)
        hops = [hop(ROWS[name]) for name in names]
        at = self.chance.randrange(2**31)
        chain = hops[:1] if self.kind == "dead" else hops
        event = routed(*chain, seed=at, limit_usd=LIMIT_USD, request={"prompt": f"a picture of {at}"})
        self.asked[str(event.candidate_id)] = event
        return event

    async def under_way(self) -> None:
        """Wait until every candidate's first provider has been asked, and every job has been noted."""
        await until(self._all_asked, UNDER_WAY_MAX_S)

    async def _all_asked(self) -> bool:
        rows = await self.calls()
        waiting = [row for row in rows if row["provider"] == "fal" and row["ended_at"] is None]
        asked = {str(row["candidate_id"]) for row in rows}
        return asked == set(self.asked) and all(row["jobs"] for row in waiting)

    async def lose_leases(self) -> None:
        """Leases run out under whoever has them, until all claims have moved on to somebody else."""
        await until(self._moved_on, UNDER_WAY_MAX_S)

    async def _moved_on(self) -> bool:
        await self.world.rows(LAPSED)
        return all(row["fence"] > 1 or row["state"] == "done" for row in await self.claims())

    async def _any_called(self) -> bool:
        return bool(await self.calls())

    # ---- what came of it ------------------------------------------------------------------------

    async def calls(self) -> list[Any]:
        """The ledger's rows of these candidates."""
        return await self._rows("SELECT * FROM gpu_worker.calls WHERE candidate_id = ANY ($1::uuid[]) ORDER BY fence")

    async def claims(self) -> list[Any]:
        """Their claims."""
        return await self._rows("SELECT * FROM gpu_worker.claims WHERE candidate_id = ANY ($1::uuid[])")

    async def _rows(self, query: str) -> list[Any]:
        return await self.world.rows(query, list(self.asked))

    def told(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """Every final event by candidate: how it ended, and the event."""
        found = defaultdict(list)
        for topic, outcome in FINAL.items():
            for one in self.world.seen[topic]:
                if (candidate := one["value"]["candidate_id"]) in self.asked:
                    found[candidate].append((outcome, one["value"]))
        return found

    def all_told(self) -> bool:
        """Whether every candidate has its outcome."""
        return self.told().keys() == self.asked.keys()

    async def settle(self) -> None:
        """Wait until every candidate has its outcome, every claim is done and every call has ended."""
        await until(self._over, SETTLED_MAX_S)

    async def _over(self) -> bool:
        """every candidate told of, every claim done, every call ended"""
        if not self.all_told():
            return False
        done = all(row["state"] == "done" for row in await self.claims())
        return done and all(row["ended_at"] is not None for row in await self.calls())
