"""The load driver, a process of its own: requests over HTTP and as bare records, cancels, repeats, poison; all logged.

    python -m tests.chaos.load FOLDER SEED RATE SECONDS

It speaks to the parts directly, not through the proxies, as upstream systems do. What it logs is described in
README.md: a line before the deed and one after it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx2
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

REQUESTED, CANCELS = "image.requested.v1", "image.cancel-requested.v1"
TENANTS = ("default", "acme", "globex")
"""HTTP requests belong to the first, which is that of the key."""
MARKS = {tenant: f"for the wall of {tenant} 7d1e" for tenant in TENANTS}
"""Words in every prompt of a tenant, and of no other."""
SHAPES, COLOURS = ("circle", "square", "triangle", "ring", "cross", "diamond"), ("red", "green", "blue", "yellow")
ANSWER_MAX_S = 30.0
IN_FLIGHT_MAX = 200
BURST_EVERY, BURST_SIZE = 60, 15
"""After so many requests the next ones come at once."""

# fmt: off
POISON: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b'{"prompt": 7}', b'{"prompt": "a", "prompt": "b"}', b'{"prompt": "a\\u0000b"}',
    b'{"prompt": "a", "wanted": NaN}', b'{"prompt": "a", "budget": 1}', b'{"prompt": "\\ud800"}', b"\xff\xfe\x00",
    b'{"prompt": "a", "tenant": "No Tenant"}', b'{"prompt": "a", "wanted": 0}', b'{"a":' * 100 + b"1" + b"}" * 100,
)
# fmt: on


@dataclass(slots=True)
class Driver:
    """Draws what to do next and does it without waiting for the last deed."""

    chance: random.Random
    log: TextIO
    producer: AIOKafkaProducer
    client: httpx2.AsyncClient
    intakes: list[str]
    sent: list[dict[str, Any]] = field(default_factory=list)
    """Values of earlier requests, for repeats."""
    pending: set[asyncio.Task[None]] = field(default_factory=set)
    requests: int = 0

    async def run(self, rate_per_s: float, seconds: float) -> None:
        """One request every 1/rate seconds, now and then a burst, for so long."""
        ends, due = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < ends:
            count = BURST_SIZE if self.requests and self.requests % BURST_EVERY == 0 else 1
            for _ in range(count):
                self._next()
            due += count / rate_per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if self.pending:
            await asyncio.wait(self.pending, timeout=2 * ANSWER_MAX_S)

    def _next(self) -> None:
        self.requests += 1
        drawn = self.chance.random()
        body = self._body()
        if drawn < 0.03:
            self._do(self._poison(self.chance.choice(POISON)))
            return
        if drawn < 0.06 and self.sent:
            earlier = self.chance.choice(self.sent[-40:])
            self._do(self._record(dict(earlier), repeats="same"))
            return
        if drawn < 0.08 and self.sent:
            earlier = self.chance.choice(self.sent[-40:])
            self._do(self._record({**earlier, "prompt": f"{earlier['prompt']}, different"}, repeats="conflict"))
            return
        by_http = drawn < 0.5
        body["tenant"] = TENANTS[0] if by_http else self.chance.choice(TENANTS)
        body["prompt"] += f", {MARKS[body['tenant']]}"
        if by_http:
            self._do(self._post(dict(body), self.chance.choice(self.intakes)))
        else:
            self._do(self._record(body))
        if self.chance.random() < 0.08:
            # an image takes a second or two, so that many of these meet the approval
            self._do(self._cancel(body, self.chance.uniform(0.0, 3.0), self.chance.random() < 0.5))

    def _body(self) -> dict[str, Any]:
        one = self.chance
        colour, background = one.sample(COLOURS, 2)
        body: dict[str, Any] = {
            "request_id": str(uuid.UUID(int=one.getrandbits(128), version=4)),
            "prompt": f"a small {colour} {one.choice(SHAPES)} on a {background} background",
            "wanted": one.choice((1, 1, 1, 2, 3)),
            "quality": one.choice(("final", "draft")),
            "labels": {"run": "chaos"},
        }
        if one.random() < 0.15:
            body["budget_usd"] = one.choice(("0.0010", "0.0040", "0.0200"))
        if one.random() < 0.2:
            body["selection"] = "first"
        return body

    def _do(self, deed: Awaitable[None]) -> None:
        if len(self.pending) >= IN_FLIGHT_MAX:
            deed.close()  # type: ignore[attr-defined]
            return
        task = asyncio.ensure_future(deed)
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)

    def _note(self, line: dict[str, Any]) -> None:
        self.log.write(json.dumps(line) + "\n")
        self.log.flush()

    async def _logged(self, line: dict[str, Any], deed: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """A line before and one after; what is not known to have ended is `info`."""
        line = {"id": uuid.uuid4().hex, "invoked_at": time.time(), "result": "info", **line}
        self._note(line)
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                told = await deed()
        except (KafkaError, OSError, TimeoutError, httpx2.HTTPError) as error:
            told = {"result": "info", "error": type(error).__name__}
        self._note({**line, **told, "at": time.time()})

    async def _poison(self, value: bytes) -> None:
        await self._logged(
            {"kind": "kafka", "tenant": "default", "request_id": None, "valid": False, "poison": value[:40].hex()},
            lambda: self._send(REQUESTED, None, value),
        )

    async def _record(self, body: dict[str, Any], repeats: str | None = None) -> None:
        async def deed() -> dict[str, Any]:
            told = await self._send(REQUESTED, body["request_id"], json.dumps(body).encode())
            if repeats is None:
                self.sent.append(body)  # what is repeated lies on the log for sure
            return told

        more = {"repeats": repeats} if repeats else {}
        await self._logged({**_asked(body), "kind": "kafka", **more}, deed)

    async def _send(self, topic: str, key: str | None, value: bytes) -> dict[str, Any]:
        found = await self.producer.send_and_wait(topic, value, key=key.encode() if key else None)
        return {"result": "ok", "topic": topic, "partition": found.partition, "offset": found.offset}

    async def _post(self, body: dict[str, Any], intake: str) -> None:
        async def deed() -> dict[str, Any]:
            sent = {name: value for name, value in body.items() if name != "tenant"}
            return _told(await self.client.post(f"{intake}/v1/requests", json=sent))

        await self._logged({**_asked(body), "kind": "http"}, deed)

    async def _cancel(self, body: dict[str, Any], after_s: float, by_http: bool) -> None:
        await asyncio.sleep(after_s)
        rid, tenant = body["request_id"], body["tenant"]
        line = {"kind": "cancel", "tenant": tenant, "request_id": rid, "reason": "user"}

        async def post() -> dict[str, Any]:
            return _told(await self.client.post(f"{self.intakes[0]}/v1/requests/{rid}/cancel"))

        value = json.dumps({"request_id": rid, "tenant": tenant, "reason": "user"}).encode()
        by_http = by_http and tenant == TENANTS[0]
        await self._logged(line, post if by_http else lambda: self._send(CANCELS, rid, value))


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    names = ("tenant", "request_id", "wanted", "budget_usd", "selection", "max_candidates")
    return {name: body[name] for name in names if name in body}


def _told(answer: httpx2.Response) -> dict[str, Any]:
    """202 is a promise, 4xx a clear no, anything else unknown."""
    status = answer.status_code
    result = "ok" if status == 202 else "fail" if 400 <= status < 500 else "info"
    return {"result": result, "status": status}


@asynccontextmanager
async def _producer() -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=5000,
        retry_backoff_ms=100,
        metadata_max_age_ms=10_000,
        max_request_size=1_100_000,
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def main(folder: Path, seed: int, rate_per_s: float, seconds: float) -> None:
    """Drive until the time is over."""
    headers = {"Authorization": f"Bearer {os.environ['GICLEE_API_KEY']}"}
    async with _producer() as producer, httpx2.AsyncClient(headers=headers, trust_env=False, timeout=10) as client:
        with (folder / "operations.jsonl").open("a") as log:
            intakes = os.environ["CHAOS_INTAKES"].split(",")
            await Driver(random.Random(seed), log, producer, client, intakes).run(rate_per_s, seconds)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
