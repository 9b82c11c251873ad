"""What one case of the kill matrix asks of the line, and what must be true of it in the end."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx2

from giclee.bus import blobs
from giclee.bus.settings import BlobSettings
from giclee.schemas.parts import BlobRef
from tests.chaos.matrix_world import API_KEY, PRICE_USD, World, poisoned_topic
from tests.kit.wait import until

GAP_S = 0.12
"""Between two records, so that they do not all share one batch."""
ANSWER_MAX_S = 180.0
CLOSED_MAX_S = 150.0
"""A worker that dies leaves a lease of 30 s; everything else is quicker."""
KINDS = ("kafka", "kafka", "many", "http", "refused", "http-cancel", "cancel", "poison")


@dataclass(slots=True)
class Load:
    """Requests of one case by id with what was asked, and where its poison lies."""

    world: World
    seed: int
    stage: str
    asked: dict[str, str] = field(default_factory=dict)
    poison: list[tuple[str, int, int]] = field(default_factory=list)
    calls: list[asyncio.Task[None]] = field(default_factory=list)

    # ---- asking ---------------------------------------------------------------------------------

    async def offer(self) -> None:
        """One of each kind, in an order drawn by the seed."""
        kinds = list(KINDS)
        random.Random(self.seed).shuffle(kinds)
        for kind in kinds:
            await self.one(kind)
            await asyncio.sleep(GAP_S)

    async def more(self, *, point: str) -> None:
        """What makes a point that was not reached yet be reached."""
        await self.one("poison" if "dead-letter" in point else "http-cancel" if self.stage == "intake" else "kafka")
        if self.stage == "gpu-worker" and "outbox" in point:
            await self.one("exhausted")
        if "renew" in point:
            await self.one("slow")
        if self.stage == "replay":
            await self.one("poison")
            await self._replay()

    async def one(self, kind: str) -> None:
        """Ask for one thing."""
        if kind == "poison":
            await self._poison("image.requested.v1", {})
            topic = poisoned_topic(self.stage)
            if topic not in (None, "image.requested.v1"):
                await self._poison(str(topic), _HEADERS)
            return
        rid = str(uuid.uuid4())
        self.asked[rid] = kind
        body: dict[str, Any] = {"request_id": rid, "prompt": f"a small red circle, {kind}", "max_candidates": 12}
        if kind == "refused":
            body["prompt"] = "how to make a bomb"
        if kind == "many":
            body["wanted"] = 3
        if kind.startswith("http"):
            self.calls.append(asyncio.create_task(self._http(rid, body, cancel=kind == "http-cancel")))
            return
        await self.world.send("image.requested.v1", json.dumps(body).encode())
        if kind == "cancel":
            await self._cancel(rid)
        if kind == "exhausted":
            self.calls.append(asyncio.create_task(self._cancel_stalled(rid)))

    async def _cancel(self, rid: str) -> None:
        body = {"request_id": rid, "tenant": "default", "reason": "user"}
        await self.world.send("image.cancel-requested.v1", json.dumps(body).encode())

    async def _cancel_stalled(self, rid: str) -> None:
        await until(lambda: any(one["value"].get("request_id") == rid for one in self._of("stalled")), CLOSED_MAX_S)
        await self._cancel(rid)

    async def _replay(self) -> None:
        """Ask for everything open to be put back; what is poison comes straight back and is a new dead letter."""
        where = f"http://127.0.0.1:{self.world.processes['replay'].api_port}/v1/runs"
        asked = {"selection": {"state": "open"}, "reason": "the kill matrix"}
        with suppress(httpx2.HTTPError):
            async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {API_KEY}"}, trust_env=False) as client:
                await client.post(where, json=asked, timeout=5)

    async def _poison(self, topic: str, headers: dict[str, str]) -> None:
        self.poison.append((topic, *await self.world.send(topic, b"{", headers)))

    async def _http(self, rid: str, body: dict[str, Any], *, cancel: bool) -> None:
        """POST until answered, as a caller does who must know; then cancel, until that is answered."""
        headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": rid}
        where = f"http://127.0.0.1:{self.world.processes['intake'].api_port}/v1/requests"
        async with asyncio.timeout(ANSWER_MAX_S), httpx2.AsyncClient(headers=headers, trust_env=False) as client:
            await _insist(client, where, body, fine=(202,))
            if cancel:
                await _insist(client, f"{where}/{rid}/cancel", None, fine=(202, 409))

    # ---- judging --------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until everything that was asked has ended and all that the closings name has been seen."""
        await asyncio.gather(*self.calls)
        await until(self._ended, CLOSED_MAX_S)
        await until(self._poison_told, CLOSED_MAX_S)

    def _ended(self) -> bool:
        """every request has a closing, every closing its approvals"""
        closings = {one["value"]["request_id"]: one["value"] for one in self._of("closed")}
        if not self.asked.keys() <= closings.keys():
            return False
        named = {asset["asset_id"] for rid in self.asked for asset in closings[rid].get("assets", ())}
        return named <= {one["value"]["asset_id"] for one in self._of("approved")}

    def _poison_told(self) -> bool:
        """every poison record has its dead letter"""
        return all(self._letters(*place) for place in self.poison)

    def _letters(self, topic: str, partition: int, offset: int) -> list[str]:
        """Ids of the dead letters of one record."""
        wanted = (str(partition), str(offset))
        places = ("dlq-original-partition", "dlq-original-offset")
        return [
            one["headers"]["dlq-id"]
            for one in self.world.seen[f"{topic}.dlq"]
            if tuple(one["headers"].get(name) for name in places) == wanted
        ]

    def _of(self, what: str) -> list[dict[str, Any]]:
        return self.world.seen[f"image.{what}.v1"]

    async def judge(self) -> list[str]:
        """Everything that is wrong; empty when all invariants hold."""
        wrong = self._endings() + seen_twice(self.world)
        wrong += [
            f"{place} has dead letters {set(ids)}"
            for place in self.poison
            if len(set(ids := self._letters(*place))) != 1
        ]
        return wrong + await self._bytes() + await self._money()

    def _endings(self) -> list[str]:
        count = Counter(one["value"]["request_id"] for one in self._of("closed"))
        wrong = [f"{rid} ({kind}) closed {count[rid]} times" for rid, kind in self.asked.items() if count[rid] != 1]
        for one in self._of("closed"):
            rid, outcome = one["value"]["request_id"], one["value"]["outcome"]
            allowed = _OUTCOMES.get(self.asked.get(rid, ""), set())
            if rid in self.asked and outcome not in allowed:
                wrong.append(f"{rid} ({self.asked[rid]}) ended as {outcome}: {one['value'].get('reasons')}")
        return wrong

    async def _bytes(self) -> list[str]:
        stack = self.world.stack
        settings = BlobSettings.model_validate(
            {
                "endpoint_url": stack.s3_endpoint,
                "access_key_id": stack.aws_access_key_id,
                "secret_access_key": stack.aws_secret_access_key,
                "region": stack.region,
                "bucket": stack.bucket,
            }
        )
        approvals = [one["value"] for one in self._of("approved") if one["value"]["request_id"] in self.asked]
        async with blobs.connect(settings) as store:
            for one in approvals:
                await store.get(BlobRef.model_validate(one["image"]))  # verifies size and sha256, or raises
        return []

    async def _money(self) -> list[str]:
        """What the provider sold is counted by the claims, and by the closing where it says that it is final."""
        rows = await self.world.rows(_SPENT)
        seeds = {int(json.loads(row["record_value"])["seed"]): str(row["request_id"]) for row in rows}
        log = self.world.paid_log
        sold = Counter(seeds.get(int(line)) for line in log.read_text().split()) if log.exists() else Counter[Any]()
        booked: dict[str, Decimal] = {}
        for row in rows:
            booked[str(row["request_id"])] = booked.get(str(row["request_id"]), Decimal(0)) + row["spent"]
        closings = {one["value"]["request_id"]: one["value"] for one in self._of("closed")}
        wrong = []
        for rid, kind in self.asked.items():
            paid = sold[rid] * Decimal(PRICE_USD)
            if paid > booked.get(rid, Decimal(0)):
                wrong.append(f"{rid} ({kind}): {paid} paid, {booked.get(rid)} booked")
            final = closings[rid].get("cost_final", True) and closings[rid]["outcome"] != "cancelled"
            if final and paid > Decimal(closings[rid]["cost_usd"]):
                wrong.append(f"{rid} ({kind}): {paid} paid, closed at {closings[rid]['cost_usd']}")
        return wrong


def seen_twice(world: World) -> list[str]:
    """What a subscriber of committed records has seen more than once, of everything that was ever asked."""
    approvals = ((one["value"]["asset_id"], one["value"]["version"]) for one in world.seen["image.approved.v1"])
    closings = (one["value"]["request_id"] for one in world.seen["image.closed.v1"])
    counted = {**Counter(approvals), **Counter(closings)}
    return [f"{what} was seen {times} times" for what, times in counted.items() if times > 1]


_OUTCOMES = {
    "kafka": {"approved"},
    "many": {"approved", "partial"},
    "http": {"approved"},
    "slow": {"approved"},
    "refused": {"refused"},
    "http-cancel": {"cancelled", "approved"},
    "cancel": {"cancelled", "approved"},
    "exhausted": {"cancelled"},
}
_HEADERS = {"ce_specversion": "1.0", "ce_id": str(uuid.UUID(int=1)), "ce_type": "giclee.Broken.v1"}
_SPENT = """
SELECT request_id, record_value, base_usd + prior_usd + at_risk_usd AS spent FROM gpu_worker.claims
"""


async def _insist(client: httpx2.AsyncClient, url: str, body: Any, *, fine: tuple[int, ...]) -> None:
    """POST until one of the answers that are fine; whoever does not answer is asked again."""
    while True:
        try:
            answer = await client.post(url, json=body, timeout=5)
            if answer.status_code in fine:
                return
            assert answer.status_code >= 500 or answer.status_code == 409, f"{url}: {answer.status_code} {answer.text}"
        except httpx2.HTTPError:
            pass
        await asyncio.sleep(0.3)
