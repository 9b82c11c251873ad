"""The replay service as a process beside policy's: a record that died is found, held, put back and answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record
from giclee.infra import topics as infra
from tests.kit.loops import Collector, header
from tests.kit.service_process import free_port, running
from tests.kit.stack import KafkaRunning
from tests.kit.wait import until

pytestmark = pytest.mark.real
KEY = "a-key-of-at-least-16"
REQUESTED, CLEARED = "image.requested.v1", "image.policy-cleared.v1"
WHO = {"actor": "ada", "reason": "because"}


@pytest.fixture
async def seen(kafka: KafkaRunning, topic_prefix: str) -> AsyncIterator[Collector]:
    await asyncio.to_thread(infra.apply, infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix)
    transport = KafkaTransport(settings)
    async with Collector(transport, (CLEARED, f"{REQUESTED}.held")) as found:
        found.writer = transport.writer("test")  # type: ignore[attr-defined]
        await found.writer.start()  # type: ignore[attr-defined]
        yield found
        await found.writer.stop()  # type: ignore[attr-defined]


async def test_a_held_request_flows_on_under_the_id_it_had(
    kafka: KafkaRunning, database: str, topic_prefix: str, seen: Any, tmp_path: Path
) -> None:
    """Set a switch over HTTP, send a bare value with kcat's means, clear the switch: it is cleared, as itself."""
    (tmp_path / "shapes-final").mkdir()
    told = {"name": "shapes-final", "revision": "abc", "steps": 8, "guidance_scale": 1.0, "width": 64, "height": 64}
    (tmp_path / "shapes-final" / "manifest.json").write_text(json.dumps(told))
    port = free_port()
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "GICLEE_MODELS_DIR": str(tmp_path),
    }  # fmt: skip
    mine = {**env, "GICLEE_API_KEY": KEY, "GICLEE_REPLAY_PORT": str(port), "GICLEE_BUCKET": "giclee"}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        running("giclee.replay", mine),
        running("giclee.policy", env),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as http,
    ):
        assert (await http.put("/v1/switches/stage:policy", json={**WHO, "mode": "hold"})).status_code == 200

        async def listed() -> bool:
            return len((await http.get("/v1/switches")).json()["items"]) == 1

        await until(listed)

        async def send(reference: str) -> None:
            body = {"prompt": "a small red circle on a blue background", "client_ref": reference}
            await seen.writer.send([Record(topic=REQUESTED, value=json.dumps(body).encode())])

        async def held() -> bool:  # the stage hears of the switch by itself, a moment later than we do
            await send(f"r{len(seen.records)}")
            return bool(seen.on(f"{REQUESTED}.held"))

        await until(held, 20)
        wanted = header(seen.on(f"{REQUESTED}.held")[0], "held-request-id")
        await http.put("/v1/switches/stage:policy", json={**WHO, "mode": "clear"})
        await until(lambda: wanted in {json.loads(one.value or b"")["request_id"] for one in seen.on(CLEARED)}, 20)
        await seen.writer.send([Record(topic=REQUESTED, value=b'{"prompt": ""}', headers=(("h", b"\x00"),))])

        async def died() -> list[Any]:
            found: list[Any] = (await http.get("/v1/dead-letters", params={"class": "invalid"})).json()["items"]
            return found

        (letter,) = await until(died, 20)
        begun = await http.post("/v1/runs", json={"reason": "because", "ids": [letter["dlq_id"]]})

        async def died_again() -> bool:
            return sorted(one["replay_count"] for one in await died()) == [0, 1]

        await until(died_again, 20)
        run = (await http.get(f"/v1/runs/{begun.json()['run_id']}")).json()

    assert (run["sent"], run["came_back"]) == (1, 1)
