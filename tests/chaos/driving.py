"""A small driver for tests of the checker: asks over Kafka, logs as README.md says, and knows when all is closed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.chaos import invariants
from tests.chaos.history import CLOSED, REQUESTED, History
from tests.chaos.observe import Observer, observing
from tests.kit.wait import until


@dataclass
class Driven:
    """A run under observation. Faults are told by the test that makes them."""

    folder: Path
    prefix: str
    producer: AIOKafkaProducer
    observer: Observer
    began_at: float

    def write(self, name: str, **fields: Any) -> None:
        """A line of a file that belongs to the driver."""
        with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(fields) + "\n")

    async def send(self, topic: str, value: bytes, key: str | None = None, **headers: str) -> dict[str, Any]:
        """A record, acknowledged; its place without the prefix."""
        pairs = [(name.replace("__", "-"), text.encode()) for name, text in headers.items()]
        found = await self.producer.send_and_wait(
            self.prefix + topic, value, key=key.encode() if key else None, headers=pairs
        )
        return {"topic": topic, "partition": found.partition, "offset": found.offset}

    async def ask(self, request_id: str | None = None, **fields: Any) -> str:
        """A request as an upstream system sends it; its id. `tenant` is `default` unless told."""
        rid, tenant = request_id or str(uuid.uuid4()), fields.pop("tenant", "default")
        body = {"request_id": rid, "tenant": tenant, "prompt": "a small red circle", **fields}
        operation = {"id": f"ask {rid}", "kind": "kafka", "tenant": tenant, "request_id": rid, **fields}
        self.write("operations", **operation, invoked_at=time.time(), at=time.time(), result="info")
        place = await self.send(REQUESTED, json.dumps(body).encode(), rid)
        self.write("operations", **operation, invoked_at=time.time(), at=time.time(), result="ok", **place)
        return rid

    async def plant(self, value: bytes) -> None:
        """A record that must become a dead letter."""
        at = time.time()
        place = await self.send(REQUESTED, value)
        about = {"id": f"plant {place}", "kind": "kafka", "tenant": "default", "request_id": None, "valid": False}
        self.write("operations", **about, invoked_at=at, at=time.time(), result="ok", **place)

    def fault(self, kind: str, *, proof: Mapping[str, Any], **fields: Any) -> None:
        """A fault that happened, with its proof."""
        now = time.time()
        self.write("faults", id=f"{kind} {now}", kind=kind, planned=True, happened=True, began_at=now, ended_at=now,
                   proof=dict(proof), stages=[], **fields)  # fmt: skip

    async def seen(self, topic: str, count: int, within_s: float = 60.0) -> None:
        """Wait until the committed reader has seen so many records of a topic."""
        await until(lambda: self.count(topic) >= count, within_s)

    def count(self, topic: str) -> int:
        """Records of a topic that the committed reader has seen."""
        mark = f'{{"topic":"{topic}"'.encode()
        lines = (self.folder / "log.committed.jsonl").read_bytes().splitlines()
        return sum(line.startswith(mark) for line in lines)

    async def closed(self, count: int, within_s: float = 60.0) -> None:
        await self.seen(CLOSED, count, within_s)

    async def judged(self, *, quiet: bool = True, **promised: Any) -> invariants.Report:
        """Finish, and say what the checker finds."""
        await self.observer.finish()
        run = {"run_id": self.folder.name, "seed": 0, "began_at": self.began_at, "ended_at": time.time(),
               "quiet": quiet, "canaries": {}, **promised}  # fmt: skip
        (self.folder / "run.json").write_text(json.dumps(run))
        report = invariants.judge(self.folder)
        print(invariants.table(report))
        return report

    def history(self) -> History:
        return History(self.folder)


@asynccontextmanager
async def driven(folder: Path, env: Mapping[str, str]) -> AsyncIterator[Driven]:
    """A run in `folder` against the parts and topics that `env` names."""
    prefix = env.get("GICLEE_TOPIC_PREFIX", "")
    async with observing(folder, env) as observer:
        (folder / "faults.jsonl").touch()
        async with AIOKafkaProducer(bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"], acks="all") as producer:
            yield Driven(folder, prefix, producer, observer, time.time())
