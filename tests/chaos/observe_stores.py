"""What the database and the bucket hold, written down; and a reader that looks at each approval's bytes at once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioboto3
import aiohttp
import asyncpg
import orjson
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

TABLES = (
    "publisher.orders", "publisher.facts", "publisher.assets", "publisher.outbox", "intake.requests", "intake.outbox",
    "gpu_worker.claims", "gpu_worker.ended", "gpu_worker.outbox", "policy.verdicts", "router.waves",
    "scorer.verdicts", "replay.dead_letters", "replay.held",
)  # fmt: skip
AT_ONCE = 16
TIMEOUT_S = 10.0
PROBE_MAX_S = 120.0
AGAIN_S = 0.2
AWAY = (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError)

Line = dict[str, Any]


@asynccontextmanager
async def bucket_of(env: Mapping[str, str]) -> AsyncIterator[Any]:
    """An S3 client of our own, without retries."""
    options = AioConfig(
        retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5, s3={"addressing_style": "path"}
    )
    async with aioboto3.Session().client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL_S3"],
        region_name=env["AWS_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=options,
    ) as client:
        yield client


async def _body(client: Any, bucket: str, key: str) -> bytes:
    async with asyncio.timeout(TIMEOUT_S):
        answer = await client.get_object(Bucket=bucket, Key=key)
        async with answer["Body"] as stream:
            found: bytes = await stream.read()
    return found


@dataclass
class Probe:
    """Fetches every blob of each approval as soon as the committed reader has it."""

    client: Any
    bucket: str
    file: Path
    running: set[asyncio.Task[None]] = field(default_factory=set)

    def saw(self, line: Line) -> None:
        """A line of the committed reader; approvals start a look."""
        if line["topic"] != "image.approved.v1" or not isinstance(line["value"], str):
            return
        body = orjson.loads(line["value"])
        if body.get("status") != "approved":
            return
        for blob in (body["image"], *body.get("derivatives", ())):
            about = {name: body[name] for name in ("asset_id", "version")}
            named = {name: blob[name] for name in ("key", "sha256", "size_bytes")}
            task = asyncio.create_task(self._look({**about, **named, "seen_at": line["seen_at"]}))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def _look(self, line: Line) -> None:
        line["asked_at"] = time.time()
        deadline = line["asked_at"] + PROBE_MAX_S
        answer = None
        while answer is None and time.time() < deadline:
            answer = await self._answer(line["key"])
            if answer is None:
                await asyncio.sleep(AGAIN_S)
        line |= {**(answer or {"answer": "unreachable"}), "answered_at": time.time()}
        with self.file.open("ab") as out:
            out.write(orjson.dumps(line) + b"\n")

    async def _answer(self, key: str) -> Line | None:
        """None when the store says nothing."""
        try:
            body = await _body(self.client, self.bucket, key)
        except ClientError as error:
            gone = error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404")
            return {"answer": "missing", "found_sha256": None, "found_size_bytes": None} if gone else None
        except AWAY:
            return None
        return {"answer": "found", "found_sha256": hashlib.sha256(body).hexdigest(), "found_size_bytes": len(body)}

    async def finish(self) -> None:
        """Wait for the looks that are under way; each has its bound."""
        while self.running:
            await asyncio.wait(self.running)


async def dump_bucket(client: Any, bucket: str, file: Path) -> None:
    """Every object, hashed by reading it. Errors: those of the client when the store is away."""
    keys = [one["Key"] async for page in _pages(client, bucket) for one in page.get("Contents", ())]
    turn = asyncio.Semaphore(AT_ONCE)

    async def hashed(key: str) -> Line:
        async with turn:
            body = await _body(client, bucket, key)
        return {"key": key, "size_bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}

    with file.open("wb") as out:
        for line in await asyncio.gather(*map(hashed, keys)):
            out.write(orjson.dumps(line) + b"\n")


async def _pages(client: Any, bucket: str) -> AsyncIterator[Line]:
    async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield page


async def dump_tables(database_url: str, folder: Path) -> None:
    """All rows of TABLES as one snapshot, into a folder that is there. Errors: those of asyncpg."""
    connection = await asyncpg.connect(database_url, timeout=TIMEOUT_S)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for name in TABLES:
                if await connection.fetchval("SELECT to_regclass($1)", name) is None:
                    continue
                with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
                    async for row in connection.cursor(f"SELECT to_jsonb(t)::text FROM {name} t", prefetch=500):
                        out.write(row[0] + "\n")
    finally:
        await connection.close()
