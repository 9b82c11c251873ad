"""Policy and router as processes on a real broker and database: a raw record becomes routed candidates."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from giclee.infra import topics as infra
from giclee.schemas import envelope
from giclee.schemas.events import ImageRouted, ProviderHealth
from giclee.schemas.parts import candidate_id
from tests.kit.service_process import post, running
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real
REQUESTED, REFUSED, ROUTED = "image.requested.v1", "image.refused.v1", "image.routed.local.v1"
FAILED, DEAD, STALLED = "image.generation-failed.v1", "image.requested.v1.dlq", "image.stalled.v1"


@pytest.fixture
def env(kafka: KafkaRunning, database: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """What both processes read; two demo models of which only the manifests are there."""
    for name, steps in (("shapes-final", 8), ("shapes-draft", 4)):
        (tmp_path / name).mkdir()
        told = {"name": name, "revision": "abc", "steps": steps, "guidance_scale": 1.0, "width": 64, "height": 64}
        (tmp_path / name / "manifest.json").write_text(json.dumps(told))
    infra.apply(infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "GICLEE_MODELS_DIR": str(tmp_path),
    }  # fmt: skip


class Line:
    """Sends raw requests and collects what comes of them, by topic."""

    def __init__(self, env: dict[str, str]) -> None:
        self._prefix = env["GICLEE_TOPIC_PREFIX"]
        servers = env["KAFKA_BOOTSTRAP_SERVERS"]
        names = [self._prefix + name for name in (REFUSED, ROUTED, FAILED, DEAD, STALLED)]
        self._producer = AIOKafkaProducer(bootstrap_servers=servers)
        self._reader = AIOKafkaConsumer(*names, bootstrap_servers=servers, auto_offset_reset="earliest")
        self.seen: dict[str, list[Any]] = {}

    async def __aenter__(self) -> Line:
        await self._producer.start()
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()
        await self._producer.stop()

    async def send(self, **values: Any) -> None:
        await self._producer.send_and_wait(self._prefix + REQUESTED, json.dumps(values).encode())

    async def tell_health(self, *rows: ProviderHealth | bytes) -> None:
        for row in rows:
            key, value = (row.key(), row.model_dump_json().encode()) if isinstance(row, ProviderHealth) else ("x", row)
            await self._producer.send_and_wait(self._prefix + "provider.health.v1", value, key=key.encode())

    async def count(self, **wanted: int) -> None:
        """Wait until so many records came: routed, refused, failed, dead, stalled."""
        names = {"routed": ROUTED, "refused": REFUSED, "failed": FAILED, "dead": DEAD, "stalled": STALLED}

        async def enough() -> bool:
            for records in (await self._reader.getmany(timeout_ms=200)).values():
                for record in records:
                    self.seen.setdefault(record.topic.removeprefix(self._prefix), []).append(record)
            return all(len(self.seen.get(names[name], ())) >= many for name, many in wanted.items())

        await until(enough, within_s=30)

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in self.seen.get(topic, ())]


def _ailing(provider: str, at: datetime) -> ProviderHealth:
    """A provider whose only model was refused for its key."""
    models = {"shapes-final": {"held": "auth", "held_since": at, "streak": 9, "failed_at": at}}
    return ProviderHealth(provider=provider, attempts=9, made=0, window_s=60, at=at, models=models)


async def test_raw_records_become_routed_candidates(env: dict[str, str]) -> None:
    """Cleared and routed, refused, failed for want of a model, dead for a conflict: each once, copies never.

    No health process runs; what is told of health is of the future, of nobody in the tables, and no event at all.
    """
    cleared, refused, unroutable = str(uuid4()), str(uuid4()), str(uuid4())
    async with running("giclee.policy", env), running("giclee.router", env), Line(env) as line:
        ahead = datetime.now(UTC) + timedelta(hours=1)
        await line.tell_health(_ailing("diffusion", ahead), _ailing("nobody", datetime.now(UTC)), b"{")
        await line.send(request_id=cleared, prompt="a red circle", wanted=3, labels={"team": "shoes"})
        await line.send(request_id=refused, prompt="a n.u.d.e portrait")
        await line.send(request_id=unroutable, prompt="a red circle", size={"width": 512, "height": 512})
        await line.count(routed=3, refused=1, failed=1)
        await line.send(request_id=cleared, prompt="a red circle", wanted=3, labels={"team": "shoes"}, quality="final")
        await line.send(request_id=cleared, prompt="a blue square", wanted=3)
        await line.send(prompt="a green ring")
        await line.count(routed=4, dead=1, stalled=1)
    mine = [one for one in line.values(ROUTED) if one["request_id"] == cleared]
    assert sorted(one["index"] for one in mine) == [0, 1, 2]
    event = ImageRouted.model_validate(mine[0])
    assert event.candidate_id == candidate_id("default", event.request_id, event.index)
    assert (event.chain[0].model.name, event.chain[0].model.revision, event.labels) == (
        "shapes-final", "abc", {"team": "shoes"},
    )  # fmt: skip
    assert [(one.acceptance, one.why) for one in event.weighed] == [(0.6, "costs least for an approved image")]
    assert [loser.message for loser in event.losers] == ["shapes-draft makes draft, not final"]
    assert [(one["request_id"], one["reasons"][0]["rule"]) for one in line.values(REFUSED)] == [
        (refused, "sexual-content")
    ]
    (failed,) = line.values(FAILED)
    assert failed["request_id"] == unroutable and failed["reasons"][0]["code"] == "no_route"
    (dead,) = line.seen[DEAD]
    headers = {name: text.decode() for name, text in dead.headers}
    assert (headers["dlq-error-type"], headers["dlq-class"]) == ("RequestIdConflict", "invalid")
    (stalled,) = line.values(STALLED)
    assert (stalled["class"], stalled["reasons"][0]["code"]) == ("invalid", "request_id_conflict")
    assert envelope.read(line.seen[ROUTED][0].headers).type == ImageRouted.type_name


async def test_a_dry_run_goes_through_both(env: dict[str, str]) -> None:
    """The verdict's clearance is what the quote takes."""
    async with running("giclee.policy", env) as policy, running("giclee.router", env) as router:
        verdict = await post(policy, "/internal/verdict", {"prompt": "a red circle", "wanted": 3})
        assert verdict["verdict"] == "cleared"
        quote = await post(router, "/internal/quote", {"cleared": verdict["cleared"]})
        refused = await post(policy, "/internal/verdict", {"prompt": "a swastika"})
    assert quote["routable"] and quote["candidates_expected"] == 5
    assert refused["reasons"][0]["rule"] == "hate-symbols"
