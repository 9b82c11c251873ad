"""The line as its users meet it: over HTTP, over raw Kafka records, with the real models. Imports nothing of ours."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from typing import Any

import httpx2
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.system.conftest import System

SHAPES = ("circle", "square", "triangle", "ring", "cross", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")


def prompt(number: int) -> str:
    """One of many prompts, the same for the same number."""
    colour, background = COLOURS[number % 8], COLOURS[(number + 1 + number // 8 % 7) % 8]
    size = ("small", "medium", "large")[number % 3]
    return f"a {size} {colour} {SHAPES[number % 6]} on a {background} background"


async def publish(system: System, values: list[bytes], topic: str = "image.requested.v1") -> None:
    async with AIOKafkaProducer(bootstrap_servers=system.env["KAFKA_BOOTSTRAP_SERVERS"], acks="all") as producer:
        for value in values:
            await producer.send_and_wait(topic, value)


class Follower:
    """A read_committed subscriber of public topics, from their beginning, without a group."""

    def __init__(self, system: System, *topics: str) -> None:
        self._consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=system.env["KAFKA_BOOTSTRAP_SERVERS"],
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            request_timeout_ms=60_000,
        )
        self.seen: dict[str, list[dict[str, Any]]] = {topic: [] for topic in topics}

    async def __aenter__(self) -> Follower:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def until(self, done: Any, within_s: float = 240) -> None:
        """Read until `done()`; fails when that is never so."""
        async with asyncio.timeout(within_s):
            while not done():
                for at, records in (await self._consumer.getmany(timeout_ms=300)).items():
                    self.seen[at.topic] += [{**json.loads(one.value), "_record": one} for one in records]


async def test_a_subscriber_gets_every_approval_once_with_its_bytes(system: System) -> None:
    """Fifty bare records, fifty closings; every approved blob has its sha256; labels and references come back."""
    run = uuid.uuid4().hex[:8]
    bodies: list[dict[str, Any]] = [
        {
            "prompt": prompt(n),
            "client_ref": f"{run}-{n}",
            "labels": {"run": run},
            "quality": "draft",
            "max_candidates": 12,
        }
        for n in range(50)
    ]
    async with Follower(system, "image.closed.v1", "image.approved.v1") as follower:
        await publish(system, [json.dumps(body).encode() for body in bodies])

        def mine(topic: str) -> list[dict[str, Any]]:
            return [one for one in follower.seen[topic] if one.get("labels", {}).get("run") == run]

        await follower.until(lambda: len(mine("image.closed.v1")) >= 50)
        named = sum(len(one["assets"]) for one in mine("image.closed.v1") if one.get("assets"))
        await follower.until(lambda: len(mine("image.approved.v1")) >= named)

    closings, approvals = mine("image.closed.v1"), mine("image.approved.v1")
    assert sorted(one["client_ref"] for one in closings) == sorted(body["client_ref"] for body in bodies)
    assert len({(one["asset_id"], one["version"]) for one in approvals}) == len(approvals) == named
    assert sum(one["outcome"] == "approved" for one in closings) >= 25
    await check_bytes(system, approvals)


async def check_bytes(system: System, approvals: list[dict[str, Any]]) -> None:
    headers = {"Authorization": f"Bearer {system.env['GICLEE_API_KEY']}"}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
        for one in approvals:
            link = await client.get(one["links"]["download"])
            assert link.is_redirect
            body = (await client.get(link.headers["location"], headers={"Authorization": ""})).content
            assert hashlib.sha256(body).hexdigest() == one["image"]["sha256"]
            assert len(body) == one["image"]["size_bytes"]


async def test_http_says_where_a_request_is_and_streams_its_end(system: System) -> None:
    """202, a status that moves, events that end with the closing, and a list that finds it."""
    headers = {"Authorization": f"Bearer {system.env['GICLEE_API_KEY']}"}
    async with httpx2.AsyncClient(base_url=system.env["GICLEE_API_URL"], headers=headers, trust_env=False) as client:
        made = await client.post("/v1/requests", json={"prompt": prompt(7), "wanted": 1, "client_ref": "http-1"})
        assert made.status_code == 202
        rid = made.json()["request_id"]
        names = []
        async with client.stream("GET", f"/v1/requests/{rid}/events", timeout=120) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("event:"):
                    names.append(line[6:].strip())
        found = (await client.get(f"/v1/requests/{rid}")).json()
        listed = (await client.get("/v1/requests", params={"client_ref": "http-1"})).json()

    assert names[-1] == "request.closed"
    assert found["state"] in ("approved", "failed")
    assert [one["request_id"] for one in listed["items"]] == [rid]


async def test_a_poison_record_is_shown_mended_and_put_back(system: System) -> None:
    """A record that a switch refuses is stalled and listed; once the cause is gone, a replay makes it close."""
    rid = str(uuid.uuid4())
    system.giclee("switch", "set", "asset-type:landing-visual", "--refuse", "--reason", "brand review")
    body = {"request_id": rid, "prompt": prompt(3), "asset_type": "landing-visual", "quality": "draft"}
    async with Follower(system, "image.stalled.v1", "image.closed.v1") as follower:
        await publish(system, [json.dumps(body).encode()])
        await follower.until(
            lambda: [one for one in follower.seen["image.stalled.v1"] if one.get("request_id") == rid], 60
        )
        letters = await asyncio.to_thread(_listed, system, rid)
        assert len(letters) == 1
        dry = system.json("dlq", "replay", letters[0]["dlq_id"], "--dry-run")
        assert dry["items"][0]["verdict"] == "go"
        system.giclee("switch", "clear", "asset-type:landing-visual", "--reason", "reviewed")
        system.giclee("dlq", "replay", letters[0]["dlq_id"], "--reason", "the switch is cleared")
        await follower.until(
            lambda: [one for one in follower.seen["image.closed.v1"] if one.get("request_id") == rid], 120
        )

    assert system.json("dlq", "show", letters[0]["dlq_id"])["state"] == "replayed"


def _listed(system: System, rid: str) -> list[dict[str, Any]]:
    """The dead letters of a request, once the index has them."""
    for _ in range(50):
        found: list[dict[str, Any]] = system.json("dlq", "ls", "--request", rid)
        if found:
            return found
    return []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{", ""),
        (b'{"prompt":"x","wanted":0}', "/wanted"),
        (b'{"prompt":"x","budgt":1}', "/budgt"),
        (b'{"prompt":"x","formats":[]}', "/formats"),
        (b'{"prompt":"\\u0000"}', "/prompt"),
    ],
)
async def test_bad_input_is_a_problem_over_http_and_a_dead_letter_over_kafka(
    system: System, body: bytes, pointer: str
) -> None:
    """The same value is refused at both doors, by the same pointer."""
    headers = {"Authorization": f"Bearer {system.env['GICLEE_API_KEY']}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=system.env["GICLEE_API_URL"], headers=headers, trust_env=False) as client:
        answer = await client.post("/v1/requests", content=body)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [one["pointer"] for one in answer.json()["errors"]]

    async with Follower(system, "image.stalled.v1") as follower:
        before = len(follower.seen["image.stalled.v1"])
        await publish(system, [body])
        await follower.until(
            lambda: any(_names(one, pointer) for one in follower.seen["image.stalled.v1"][before:]), 30
        )


def _names(stalled: dict[str, Any], pointer: str) -> bool:
    return stalled["class"] == "invalid" and pointer in [one.get("pointer") for one in stalled["reasons"]]
