"""One seed is one history: requests come, effects happen in a drawn order, processes die, freeze and lose replies.

It ends calm: everybody lives, time passes in leaps, until every request has closed. Then the invariants hold.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from giclee.bus.transport import Record
from giclee.schemas.events import ImageRequested
from tests.interleavings.clockwork import Effect, SeededLoop, Turnstile, alone, living
from tests.interleavings.gated import WARP, turned_postgres
from tests.interleavings.invariants import Sent, broken
from tests.interleavings.line import REPLICAS, REVIEWER, Fate, World

CHAOS_STEPS = 700
STEPS_MAX = 30_000
LEAPS_S = (1.0, 5.0, 31.0, 61.0, 310.0, 620.0, 1250.0, 2500.0)
STEADY_S = 1.5
"""Nothing new on any topic for so long, and time may leap."""
DOUBTS_EVERY = 5
BLOCKED_AFTER_S = 0.001
STUCK_S = 10.0
COLOURS = ("red", "green", "blue", "yellow")


@dataclass
class Profile:
    """Which faults a history has: each seed draws some, so that they also come alone. Chances per step."""

    kill: float
    freeze: float
    lose_reply: float
    rewind: float
    style: str

    @staticmethod
    def of(dice: random.Random) -> Profile:
        def some(chance: float) -> float:
            return chance if dice.random() < 0.5 else 0.0

        styles = ("any", "any", "oldest", "newest", "one process")
        return Profile(some(1 / 150), some(1 / 150), some(1 / 80), some(1 / 300), dice.choice(styles))


@dataclass
class Happened:
    """What a history really did."""

    steps: int = 0
    kills: int = 0
    freezes: int = 0
    lost_replies: int = 0
    rewinds: int = 0
    leaps: int = 0
    blocked: int = 0
    hedges: int = 0

    def faults(self) -> int:
        return self.kills + self.freezes + self.lost_replies + self.rewinds


@dataclass
class History:
    """The seed's requests and faults, and the scheduler."""

    seed: int
    url: str
    loop: SeededLoop
    happened: Happened = field(default_factory=Happened)
    sent: Sent = field(default_factory=Sent)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        random.seed(self.seed)
        self.turnstile = Turnstile(self.loop)
        self.profile = Profile.of(self.dice)
        # in every fifth history the gate cannot tell of some images, and there is somebody to look at them
        doubts = 0.4 if self.seed % DOUBTS_EVERY == 0 else 0.0
        self.replicas = (*REPLICAS, REVIEWER) if doubts else REPLICAS
        fate = Fate(self.seed, self.dice.choice([0.3, 0.6, 1.0]), self.dice.choice([0.0, 0.0, 0.15]), doubts)
        self.world = World(self.url, self.loop, self.turnstile, self.dice, fate)
        self.calm = False
        self._told_ahead_s = 0.0
        self._records, self._moved_at, self._leap = 0, 0.0, 0
        self._operations = self._drawn_operations()

    # ---- what clients do ------------------------------------------------------------------------

    def _drawn_operations(self) -> list[tuple[str, dict[str, Any]]]:
        dice, found = self.dice, []
        for number in range(dice.choice([1, 1, 2])):
            rid = str(uuid.UUID(int=dice.getrandbits(128), version=4))
            wanted = dice.choice([1, 1, 2, 3])
            body: dict[str, Any] = {
                "request_id": rid,
                "prompt": f"a small {COLOURS[number]} circle on a white background",
                "wanted": wanted,
                "max_candidates": dice.choice([max(8, 4 * wanted), wanted + 1, wanted]),
                "selection": dice.choice(["best", "first"]),
            }
            if dice.random() < 0.4:
                body["priority"] = "interactive"
            if dice.random() < 0.3:
                body["budget_usd"] = dice.choice(["0.0004", "0.0012", "0.01"])
            found.append((dice.choice(["http", "kafka"]), body))
            if dice.random() < 0.3:
                found.append((dice.choice(["http", "kafka"]), body))
            if dice.random() < 0.15:
                found.append(("kafka", {**body, "wanted": wanted + 1}))
            if dice.random() < 0.25:
                found.append(("cancel", {"request_id": rid}))
            if dice.random() < 0.15:
                found.append(("kafka", {**body, "wanted": 0}))
        first, rest = found[0], found[1:]
        dice.shuffle(rest)
        return [first, *rest]

    async def _operate(self) -> None:
        kind, body = self._operations.pop(0)
        if kind == "http":
            await self._post(body)
            return
        topic = "image.cancel-requested.v1" if kind == "cancel" else "image.requested.v1"
        record = Record(topic=topic, key=body["request_id"].encode(), value=json.dumps(body).encode())
        self.sent.published(kind, body)
        await self.world.broker.writer("client").send([record])

    async def _post(self, body: dict[str, Any]) -> None:
        """A caller's POST: handled in the life of an intake, which may die of it."""
        life = self.world.lives.get("intake-1")
        if life is None or self.world.accept is None:
            self._operations.append(("http", body))
            return
        accept, request = self.world.accept, ImageRequested.model_validate(body)
        self.sent.invoked(body)

        async def post() -> None:
            await accept(request)
            self.sent.accepted(body)

        with living(life):
            alone(post())

    # ---- the scheduler --------------------------------------------------------------------------

    async def run(self) -> None:
        """From the first request to the last invariant. Errors: AssertionError that names what broke."""
        monitor = await asyncpg.connect(self.url)
        try:
            with turned_postgres(self.turnstile):
                self.world.starts_at(int((await monitor.fetchval("SELECT clock_timestamp()")).timestamp() * 1000))
                for name in self.replicas:
                    self.world.start(name)
                await self._conduct(monitor)
                self.happened.hedges = self.world.hedges()
                found = await broken(self.sent, self.world, monitor, quiet=not self.happened.faults())
                assert not found, found
        finally:
            for name in tuple(self.world.lives):
                await self.world.kill(name, monitor)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await monitor.close()

    async def _conduct(self, monitor: asyncpg.Connection) -> None:
        while True:
            await self._settled(monitor)
            assert not self.world.ended, self.world.ended
            self.happened.steps += 1
            if self.happened.steps == CHAOS_STEPS:
                self._calm_down()
            assert self.happened.steps < STEPS_MAX, f"it does not end: {await self._left(monitor)}"
            self._thaw()
            turns = self.turnstile.turns()
            if self._operations and self.dice.random() < 0.03:
                await self._operate()
            elif not self.calm and await self._fault(turns, monitor):
                continue
            elif turns:
                self._let_one_through(turns)
            elif await self._is_over(monitor):
                return
            else:
                await self._let_time_pass(monitor)

    def _calm_down(self) -> None:
        self.calm = True
        for life in self.world.lives.values():
            life.frozen_for = 0
        for name in self.replicas:
            if name not in self.world.lives:
                self.world.start(name)

    def _thaw(self) -> None:
        for life in self.world.lives.values():
            life.frozen_for = max(life.frozen_for - 1, 0)
        if not self.calm and self.dice.random() < 0.03:
            dead = [name for name in self.replicas if name not in self.world.lives]
            if dead:
                self.world.start(self.dice.choice(dead))

    async def _fault(self, turns: list[Effect], monitor: asyncpg.Connection) -> bool:
        """Perhaps one fault; whether there was one."""
        dice, profile, living = self.dice, self.profile, sorted(self.world.lives)
        if living and dice.random() < profile.kill:
            self.happened.kills += 1
            await self.world.kill(dice.choice(living), monitor)
            return True
        if living and dice.random() < profile.freeze:
            self.happened.freezes += 1
            name = dice.choice(living)
            self.world.lives[name].frozen_for = dice.choice([30, 100, 300])
            if dice.random() < 0.7:
                self.world.forget(name)
            if dice.random() < 0.5:  # its leases end, and others take over what it believes to have
                await self._pass(31.0, monitor)
            return True
        doing = [effect for effect in turns if not effect.name.startswith(("poll", "make", "join"))]
        if doing and dice.random() < profile.lose_reply:
            self.happened.lost_replies += 1
            effect = dice.choice(doing)
            effect.loses_reply = True
            self.turnstile.let_through(effect)
            return True
        if dice.random() < profile.rewind:
            self.happened.rewinds += 1
            await self._rewind()
            return True
        return False

    async def _rewind(self) -> None:
        """Deliver once more what a group had committed, as after a lost commit."""
        group = self.dice.choice(_REWOUND)
        committed = {at: to for at, to in sorted(self.world.broker.committed(group).items()) if to}
        back = {at: self.dice.randrange(to) for at, to in committed.items() if self.dice.random() < 0.5}
        alone(self.world.broker.rewind(group, back))

    def _let_one_through(self, turns: list[Effect]) -> None:
        style = "any" if self.dice.random() < 0.2 else self.profile.style
        if style == "oldest":
            chosen = turns[0]
        elif style == "newest":
            chosen = turns[-1]
        elif style == "one process":
            first = self.dice.choice(sorted({effect.life.name for effect in turns}))
            chosen = next(effect for effect in turns if effect.life.name == first)
        else:
            chosen = self.dice.choice(turns)
        self.turnstile.let_through(chosen)

    async def _settled(self, monitor: asyncpg.Connection) -> None:
        """Until everybody waits: for a turn, for a timer, or in the database for a lock that another holds."""
        since = began = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            if not self.loop.is_idle():
                continue
            flying = len(self.turnstile.flying)
            if not flying:
                return
            now = time.perf_counter()
            if now - since > BLOCKED_AFTER_S:
                since = now
                blocked = await monitor.fetchval(_BLOCKED)
                if blocked and blocked >= len(self.turnstile.flying):
                    self.happened.blocked += 1
                    return
                assert now - began < STUCK_S, f"nothing comes back: {self.turnstile.trace[-5:]}"

    # ---- time -----------------------------------------------------------------------------------

    async def _let_time_pass(self, monitor: asyncpg.Connection) -> None:
        until_s = self.loop.until_timer_s()
        assert until_s is not None, "everybody waits for ever"
        records = self.world.broker_size()
        if records != self._records or self._operations:
            self._records, self._moved_at, self._leap = records, self.loop.now_s, 0
        steady = self.loop.now_s - self._moved_at > STEADY_S
        frozen = any(life.frozen_for for life in self.world.lives.values())
        if steady and (not frozen or self.dice.random() < 0.5):  # leases of the frozen end
            until_s = max(until_s, LEAPS_S[min(self._leap, len(LEAPS_S) - 1)])
            self._leap += 1
            self._moved_at = self.loop.now_s + until_s
            self.happened.leaps += 1
        await self._pass(until_s + 0.0005, monitor)

    async def _pass(self, seconds: float, monitor: asyncpg.Connection) -> None:
        """Let time pass for every process, and for the database as soon as it matters."""
        self.loop.pass_time(seconds)
        self.world.ahead_s += seconds
        if self.world.ahead_s - self._told_ahead_s > 0.2:
            self._told_ahead_s = self.world.ahead_s
            await monitor.execute(f"UPDATE warp.clock SET ahead = '{self.world.ahead_s:.3f} s'")

    async def _is_over(self, monitor: asyncpg.Connection) -> bool:
        return self.calm and not self._operations and not await self._left(monitor)

    async def _left(self, monitor: asyncpg.Connection) -> dict[str, object]:
        """What is still to be done, by what it is; nothing where everything has ended."""
        rows = dict(await monitor.fetchrow(_LEFT) or {})
        left = {"open": self.sent.open(self.world), "unread": self.world.unread(), **rows}
        return {what: there for what, there in left.items() if there}


_REWOUND = (
    "giclee.policy", "giclee.router", "giclee.publisher", "giclee.publisher.hedges", "giclee.gpu-worker.local"
)  # fmt: skip
_BLOCKED = """SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND a.datname = current_database()"""
_LEFT = """SELECT (SELECT count(*) FROM intake.outbox) AS intake, (SELECT count(*) FROM publisher.outbox) AS publisher,
(SELECT count(*) FROM gpu_worker.outbox) AS worker,
(SELECT count(*) FROM gpu_worker.claims WHERE state = 'live') AS claims"""


async def prepare(url: str) -> None:
    """Let the database at `url` have a clock that can be moved, and notice deadlocks soon."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(WARP)
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{name}" SET search_path = warp, pg_catalog, public')
        await connection.execute(f"ALTER DATABASE \"{name}\" SET deadlock_timeout = '50ms'")
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    finally:
        await connection.close()
