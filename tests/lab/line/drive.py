"""Sends the requests, injects what is planned, acts as the operator, and waits until all is closed and quiet.

The operator tops up a provider that ran out of credit, sets prices that were announced, and puts dead letters back:
what a person would do in the same minutes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2

from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record, Writer
from tests.kit.loops import Collector
from tests.kit.wait import until
from tests.lab.line.plan import BY_IMAGE, PROVIDERS, Cell, Deed, Price, Wish, asked, deeds
from tests.lab.line.world import API_KEY, World

REQUESTED, CLOSED, GENERATED = "image.requested.v1", "image.closed.v1", "image.generated.v1"
OUTCOMES, STALLED = "provider.outcome.v1", "image.stalled.v1"
ROUTED = ("image.routed.hosted.v1", "image.routed.local.v1")
OPERATES_EVERY_S = 4.0
QUIET_WITHIN_S = 120.0
TELLS_EVERY = 100
OPEN = "SELECT count(*) FROM gpu_worker.claims WHERE NOT acknowledged"
FAL_USD = "0.025"
REASON = "the lab is mended"


@dataclass(slots=True)
class Run:
    """All that is known of a run once it is over; times in seconds since 1970, rows as the database has them."""

    asked: Sequence[dict[str, Any]]
    sent_at: dict[str, float] = field(default_factory=dict)
    injected: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    """By kind, provider, call and the lab's word."""
    prices: int = 0
    released: int = 0
    replays: int = 0
    topped_up: int = 0
    records: dict[str, list[Record]] = field(default_factory=dict)
    lab: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    spending: list[dict[str, Any]] = field(default_factory=list)
    letters: list[dict[str, Any]] = field(default_factory=list)
    keys_told: int = 0
    """How often a provider's key stands in what services have written."""
    took_s: float = 0.0
    broken_off: str | None = None
    """Why the run was not waited for to its end."""

    def values(self, topic: str) -> list[dict[str, Any]]:
        """The events of a topic, each `ce_id` once."""
        found = {dict(one.headers).get("ce_id"): one for one in self.records[topic]}
        return [json.loads(one.value or b"{}") for one in found.values()]


class Drive:
    """One run of a plan."""

    def __init__(self, world: World, wish: Wish) -> None:
        self.world, self.wish, self.deeds, self.run = world, wish, deeds(wish), Run(asked(wish))
        headers = {"Authorization": f"Bearer {API_KEY}"}
        self._ops = httpx2.AsyncClient(base_url=world.ops_url, headers=headers, trust_env=False, timeout=30)
        self._closed: set[str] = set()
        self._read = self._told = self._looked = 0

    async def to_the_end(self) -> Run:
        """All that is known of the run; where requests or claims stay open, `broken_off` says so."""
        env, run, began = self.world.env, self.run, time.monotonic()
        settings = KafkaSettings(
            bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"], topic_prefix=env.get("GICLEE_TOPIC_PREFIX", "")
        )
        transport = KafkaTransport(settings, client_id="lab-line")
        topics = (CLOSED, GENERATED, OUTCOMES, STALLED, *ROUTED)
        writer = transport.writer("lab-line")
        await writer.start()
        async with Collector(transport, topics) as self.seen, self._ops:
            operating = asyncio.create_task(self._operate())
            try:
                await self._send(writer)
                await self.world.lab.mend()
                await until(self._all_closed, self.wish.closed_within_s)
                await until(self._quiet, QUIET_WITHIN_S)
            except AssertionError as error:
                run.broken_off = str(error)
            finally:
                operating.cancel()
                with suppress(asyncio.CancelledError):
                    await operating
                await writer.stop()
                run.took_s = time.monotonic() - began
                run.records = {topic: self.seen.on(topic) for topic in topics}
                await self._books()
        return run

    async def _send(self, writer: Writer) -> None:
        for at, body in enumerate(self.run.asked):
            await until(lambda: self._open() < self.wish.open_max, 600)
            for deed in self.deeds.get(at, ()):
                await self._do(deed)
            rid = body["request_id"]
            self.run.sent_at[rid] = time.time()
            await writer.send([Record(topic=REQUESTED, key=rid.encode(), value=json.dumps(body).encode())])

    def _open(self) -> int:
        """Requests sent and not closed."""
        for record in self.seen.records[self._read :]:
            self._read += 1
            if record.topic == CLOSED:
                self._closed.add(json.loads(record.value or b"{}")["request_id"])
        if len(self._closed) >= self._told + TELLS_EVERY:
            self._told += TELLS_EVERY
            print(f"{time.strftime('%H:%M:%S')} {len(self.run.sent_at)} sent, {len(self._closed)} closed", flush=True)
        return len(self.run.sent_at) - len(self._closed)

    def _all_closed(self) -> bool:
        """every request is closed"""
        return self._open() == 0

    async def _quiet(self) -> bool:
        """no claim is open"""
        return not (await self._rows(OPEN))[0]["count"]

    # ---- deeds ----------------------------------------------------------------------------------

    async def _do(self, deed: Deed) -> None:
        lab = self.world.lab
        if isinstance(deed, Cell):
            await lab.inject(deed.provider, deed.call, deed.name, times=deed.times, **deed.params)
            self.run.injected[deed.kind, deed.provider, deed.call, deed.name] += deed.times
        elif isinstance(deed, Price):
            self.run.prices += 1
            if deed.told:
                usd = f"{float(FAL_USD) * float(deed.factor):.6f}"
                row = {"provider": deed.provider, "model": "flux-dev", "unit": "image", "usd": usd}
                await self._tell("PUT", "/v1/prices", {"row": row, "reason": "as announced"})
            await lab.price(deed.provider, deed.factor)
        else:
            await lab.release(deed.provider)
            self.run.released += 1

    async def _operate(self) -> None:
        while True:
            await asyncio.sleep(OPERATES_EVERY_S)
            new, self._looked = self.seen.records[self._looked :], len(self.seen.records)
            told = [json.loads(one.value or b"{}") for one in new if one.topic == OUTCOMES]
            for name in {one["provider"] for one in told if one["outcome"] in ("budget", "auth")} & set(PROVIDERS):
                self.run.topped_up += 1
                await self._tell("PUT", f"/v1/switches/provider:{name}", {"mode": "clear", "reason": "topped up"})
            found = await self._ops.get("/v1/dead-letters", params={"state": "open", "limit": 1})
            if found.json()["items"]:
                self.run.replays += 1
                body = {"selection": {"state": "open"}, "reason": REASON, "again": True}
                await self._tell("POST", "/v1/runs", body)

    async def _tell(self, method: str, path: str, body: dict[str, Any]) -> None:
        answer = await self._ops.request(method, path, json=body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"

    # ---- what is left behind --------------------------------------------------------------------

    async def _books(self) -> None:
        run = self.run
        for name in BY_IMAGE:  # whoever gave up still pays for what was running
            await self.world.lab.release(name)
        run.lab = await self.world.lab.told()
        run.calls = await self._rows("SELECT * FROM gpu_worker.calls ORDER BY began_at")
        run.claims = await self._rows(
            "SELECT candidate_id, hop, request_id, billed, prior_usd + job_usd AS paid_usd FROM gpu_worker.claims"
        )
        run.spending = await self._rows("SELECT * FROM gpu_worker.spending")
        run.letters = await self._rows(
            "SELECT candidate_id, stage, dead_class, state, message FROM replay.dead_letters"
        )
        logs = self.world.logs()
        run.keys_told = sum(
            logs.count(key)
            for name, key in self.world.env.items()
            if name.endswith("_API_KEY") and name != "GICLEE_API_KEY"
        )

    async def _rows(self, query: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.world.env["DATABASE_URL"])
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()
