"""How good what the line approves is, on a running stack: the pixel oracle judges approved images.

`python -m tests.bench.quality --count 200 --quality final` asks for that many pictures of the shapes world on seeds
that no training has seen, waits for their closings and judges what was approved. `--wanted 100` asks for so many
pictures in one request instead: which workers made them, and how many images per second. The stack is the one that
`.giclee/env` names. Prints a table, or JSON with --json; exit code 1 when a request did not close once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import asyncpg
import httpx2
import numpy as np
from PIL import Image

from giclee.bus import blobs
from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import BlobSettings, KafkaSettings
from giclee.cli import environment
from giclee.models import oracle, world
from giclee.schemas.events import ImageApproved, RequestClosed
from tests.bench import log
from tests.bench.measure import Wrong, load
from tests.kit.loops import Collector, header
from tests.kit.wait import until

SEED_FIRST = 2_000_000
"""Training draws below 900,000, choices of checkpoints below 1,000,000, the models' own measurements from there."""
AT_ONCE = 32
Z_95 = 1.959964


def interval(right: int, judged: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if judged == 0:
        return 0.0, 1.0
    share, z = right / judged, Z_95
    middle = (share + z * z / (2 * judged)) / (1 + z * z / judged)
    half = z / (1 + z * z / judged) * math.sqrt(share * (1 - share) / judged + z * z / (4 * judged * judged))
    return middle - half, middle + half


def bodies(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """One request per seed, or one request for many pictures."""
    more = {
        "quality": asked.quality, "asset_type": asked.asset_type, "batch_id": f"quality-{uuid.uuid4().hex[:8]}"
    }  # fmt: skip
    if asked.max_candidates:
        more["max_candidates"] = asked.max_candidates
    if asked.wanted > 1:
        return [{**more, "prompt": world.prompt_of(asked.seed), "wanted": asked.wanted, "seed": asked.seed}]
    seeds = range(asked.seed, asked.seed + asked.count)
    return [{**more, "prompt": world.prompt_of(seed), "wanted": 1, "seed": seed} for seed in seeds]


async def _ask(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Post them over HTTP; their ids, in order."""
    headers = {"Authorization": f"Bearer {environment.needed('GICLEE_API_KEY')}"}
    gate = asyncio.Semaphore(AT_ONCE)
    url = environment.needed("GICLEE_API_URL")
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as client:

        async def post(body: dict[str, Any]) -> str:
            async with gate:
                answer = await client.post("/v1/requests", json=body)
            if answer.status_code not in (200, 202):
                raise Wrong(f"{answer.status_code}: {answer.text[:500]}")
            return str(answer.json()["request_id"])

        return list(await asyncio.gather(*map(post, rows)))


class Seen:
    """What a read_committed subscriber saw of our requests."""

    def __init__(self, collector: Collector, ids: Sequence[str]) -> None:
        self._collector, self._ids = collector, set(ids)

    def of(self, kind: Any, topic: str) -> list[Any]:
        mine = (one for one in self._collector.on(topic) if header(one, "ce_subject") in self._ids)
        named = (one for one in mine if header(one, "ce_type") == kind.type_name)
        return [kind.model_validate_json(one.value) for one in named]

    def closings(self) -> list[RequestClosed]:
        return self.of(RequestClosed, "image.closed.v1")

    def approvals(self) -> list[ImageApproved]:
        return self.of(ImageApproved, "image.approved.v1")

    def written_s(self, topic: str) -> list[float]:
        """When records of ours were written, in seconds."""
        mine = (one for one in self._collector.on(topic) if header(one, "ce_subject") in self._ids)
        return sorted(one.timestamp_ms / 1000 for one in mine)


@asynccontextmanager
async def _bucket() -> AsyncIterator[blobs.Blobs]:
    named = {
        "endpoint_url": os.environ.get("AWS_ENDPOINT_URL_S3"),
        "access_key_id": os.environ.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "region": os.environ.get("AWS_REGION", "us-east-1"),
        "bucket": environment.needed("GICLEE_BUCKET"),
    }
    async with blobs.connect(BlobSettings.model_validate(named)) as bucket:
        yield bucket


async def _judge(approved: Sequence[ImageApproved], asked: dict[str, str]) -> list[bool]:
    """Download each image, its hash checked, and ask the oracle whether it shows what its request asked for."""
    found = []
    async with _bucket() as bucket:
        for event in approved:
            picture = np.asarray(Image.open(BytesIO(await bucket.get(event.image))).convert("RGB"))
            found.append(oracle.is_right(picture, world.parse(asked[str(event.request_id)])))
    return found


async def _workers(ids: Sequence[str]) -> list[int]:
    """How many candidates each worker process made."""
    connection = await asyncpg.connect(environment.needed("DATABASE_URL"))
    try:
        rows = await connection.fetch(
            "SELECT owner, count(*) AS made FROM gpu_worker.claims"
            " WHERE request_id = ANY($1::uuid[]) AND outcome = 'generated' GROUP BY owner ORDER BY owner",
            [uuid.UUID(one) for one in ids],
        )
    finally:
        await connection.close()
    return [int(row["made"]) for row in rows]


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Ask, wait, judge. Errors: Wrong when a request did not close exactly once, or an image came twice."""
    brokers = environment.needed("KAFKA_BOOTSTRAP_SERVERS")
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=brokers), client_id="quality")
    topics = ("image.closed.v1", "image.approved.v1", "image.generated.v1")
    rows, before = bodies(asked), load()
    async with Collector(transport, topics) as collector:
        began = time.perf_counter()
        ids = await _ask(rows)
        seen = Seen(collector, ids)
        await until(lambda: len({str(one.request_id) for one in seen.closings()}) == len(ids), asked.within_s)
        seconds = time.perf_counter() - began
        closings = seen.closings()
        await until(lambda: len(seen.approvals()) >= sum(one.approved for one in closings), 60)
        approved, written_s = seen.approvals(), seen.written_s("image.generated.v1")
    log.exactly_once("closings", ids, (str(one.request_id) for one in closings))
    named = [str(asset.asset_id) for one in closings for asset in one.assets]
    log.exactly_once("approvals", named, (str(one.asset_id) for one in approved))
    prompts = {rid: row["prompt"] for rid, row in zip(ids, rows, strict=True)}
    right = sum(await _judge(approved, prompts))
    return {
        **_outcome(closings, approved, right),
        "quality": asked.quality,
        "asset_type": asked.asset_type,
        "seeds": f"{asked.seed} to {asked.seed + (1 if asked.wanted > 1 else asked.count) - 1}",
        "seconds": round(seconds, 1),
        "images_per_s": round((len(written_s) - 1) / (written_s[-1] - written_s[0]), 2) if len(written_s) > 1 else None,
        "images_by_worker": await _workers(ids),
        "load": f"{before} before, {load()} after",
    }


def _outcome(closings: Sequence[RequestClosed], approved: Sequence[ImageApproved], right: int) -> dict[str, Any]:
    candidates, cost = sum(one.candidates for one in closings), sum(one.cost_usd for one in closings)
    low, high = interval(right, len(approved))
    return {
        "requests": len(closings),
        "outcomes": dict(Counter(one.outcome for one in closings)),
        "approved": len(approved),
        "right": right,
        "share_right": round(right / len(approved), 4) if approved else None,
        "share_right_95": [round(low, 4), round(high, 4)],
        "candidates": candidates,
        "candidates_per_approved": round(candidates / len(approved), 3) if approved else None,
        "cost_usd_per_approved": f"{cost / len(approved):.6f}" if approved else None,
        "models": dict(Counter(f"{one.model.name}@{one.model.revision[:12]}" for one in approved)),
    }


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="requests of one picture each")
    parser.add_argument("--wanted", type=int, default=1, help="over 1: one request for so many pictures")
    parser.add_argument("--quality", choices=("final", "draft"), default="final")
    parser.add_argument(
        "--asset-type", default="generic", help="one of the stack's own: `fixed-240` of tests/bench/fixed.toml, say"
    )
    parser.add_argument("--seed", type=int, default=SEED_FIRST, help=f"the first seed, {SEED_FIRST} or above")
    parser.add_argument("--max-candidates", type=int, help="per request; else the line's own cap")
    parser.add_argument("--within-s", type=float, default=1800, help="how long the closings may take")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    if asked.seed < SEED_FIRST:
        parser.error(f"seeds below {SEED_FIRST} may have been trained on, or chosen by")
    return asked


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        yield f"{name.replace('_', ' '):24} {json.dumps(value) if isinstance(value, (dict, list)) else value}"


def main(words: Sequence[str]) -> int:
    """The exit code."""
    asked = _asked(words)
    environment.load(None)
    try:
        found = asyncio.run(measure(asked))
    except (Wrong, AssertionError) as error:
        print(f"this does not count: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if asked.json else "\n".join(_lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
