"""The worker as a process on a real broker, database and bucket: killed, restarted, stopped, refused a bad model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import asyncpg
import pytest

from giclee.bus.blobs import connect
from giclee.bus.kafka import KafkaTransport
from giclee.bus.layers import codec
from giclee.bus.settings import BlobSettings, KafkaSettings
from giclee.infra import topics as infra
from giclee.schemas.events import Event, GenerationFailed, ImageGenerated, ImageRouted
from giclee.schemas.models import Model
from tests.kit.candidates import closing, hop, model, routed
from tests.kit.loops import Collector
from tests.kit.service_process import running
from tests.kit.stack import KafkaRunning, S3Running
from tests.kit.wait import until

pytestmark = pytest.mark.real
ROW = model("painter", location="painted", price_usd="0.0004")
TABLE = """
[[models]]
name = "painter"
revision = "r1"
location = "painted"
provider = "stub"
price_usd = "0.0004"
steps = 8
width = 64
height = 64
size_min = 64
size_max = 64
"""
GENERATED, FAILED = "image.generated.v1", "image.generation-failed.v1"


@pytest.fixture
def env(kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """What a worker process reads: the stub, by a row of the operator's file."""
    config = tmp_path / "giclee.toml"
    config.write_text(TABLE)
    infra.apply(infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database,
        "AWS_ENDPOINT_URL_S3": s3.s3_endpoint,
        "AWS_ACCESS_KEY_ID": s3.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key,
        "GICLEE_BUCKET": s3.bucket,
        "GICLEE_CONFIG": str(config),
        "GICLEE_MODELS_DIR": str(tmp_path / "no-demo-models"),
    }


def transport_of(env: dict[str, str]) -> KafkaTransport:
    where = KafkaSettings(
        bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"],
        topic_prefix=env["GICLEE_TOPIC_PREFIX"],
        schema_registry_url=None,
    )
    return KafkaTransport(where, client_id="test")


def candidates(count: int) -> list[ImageRouted]:
    prompts = ("a small red circle on a blue background", "a large white ring on black")
    return [routed(hop(ROW), seed=at, index=at, request={"prompt": prompts[at % 2]}) for at in range(count)]


@asynccontextmanager
async def outside(env: dict[str, str], *events: object) -> AsyncIterator[Collector]:
    """Sends events and collects what comes of them."""
    transport = transport_of(env)
    writer = transport.writer("test")
    await writer.start()
    async with Collector(transport, [GENERATED, FAILED, "provider.outcome.v1"]) as seen:
        await writer.send([codec.encode(event, source="test") for event in events])  # type: ignore[arg-type]
        yield seen
    await writer.stop()


async def test_a_worker_that_is_killed_loses_nothing_and_every_candidate_has_one_image(env: dict[str, str]) -> None:
    """kill -9 in the middle of 150 candidates, another process takes over (leases end by moving their rows back)."""
    events = candidates(150)
    async with outside(env, *events) as seen:
        mine = {**env, "GICLEE_HEALTH_PORT": "0", "PATH": "/usr/bin:/bin"}
        first = await asyncio.create_subprocess_exec(sys.executable, "-m", "giclee.gpu_worker", env=mine)
        await until(lambda: len(seen.on(GENERATED)) >= 30, within_s=60)
        first.send_signal(signal.SIGKILL)
        await first.wait()
        database = await asyncpg.connect(env["DATABASE_URL"])
        left = "UPDATE gpu_worker.claims SET lease_until = lease_until - interval '1 minute' WHERE NOT acknowledged"
        await database.execute(left)
        async with running("giclee.gpu_worker", env):
            await until(lambda: len({one.candidate_id for one in made(seen)}) == 150, within_s=60)
            undone = "SELECT count(*) FROM gpu_worker.claims WHERE NOT acknowledged"
            await until(lambda: _is_zero(database, undone), within_s=60)
        await database.close()
        told: dict[object, set[str]] = defaultdict(set)
        for one in made(seen):
            told[one.candidate_id].add(one.image.sha256)
        assert {len(images) for images in told.values()} == {1}, "the stub paints one picture per seed"
        async with connect(_blobs(env)) as store:
            for one in made(seen)[:20]:
                assert len(await store.get(one.image)) == one.image.size_bytes


async def test_a_stop_drains_and_an_ended_request_is_not_made(env: dict[str, str]) -> None:
    """SIGTERM: exit 0, nothing in hand; closings that were read first keep candidates from being made."""
    ended = candidates(5)
    async with outside(env, *(closing(event) for event in ended)) as seen:
        database = await asyncpg.connect(env["DATABASE_URL"])
        async with running("giclee.gpu_worker", env):
            await until(lambda: _is(database, "SELECT count(*) FROM gpu_worker.ended", 5), within_s=30)
            async with outside(env, *ended, *candidates(10)):
                await until(lambda: len(seen.on(GENERATED)) == 10 and len(seen.on(FAILED)) == 5, within_s=30)
        failed = [GenerationFailed.model_validate_json(one.value or b"") for one in seen.on(FAILED)]
        assert {one.reasons[-1].code for one in failed} == {"ended"}
        assert await database.fetchval("SELECT count(*) FROM gpu_worker.claims WHERE state = 'live'") == 0
        await database.close()


async def test_a_wrong_file_of_a_model_ends_the_process_with_its_name(env: dict[str, str], tmp_path: Path) -> None:
    """Exit code 3 and one line, before anything is claimed."""
    folder = tmp_path / "models" / "shapes-final"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"changed")
    told = {"name": "shapes-final", "revision": "r1", "steps": 8, "guidance_scale": 1.0, "width": 64, "height": 64}
    files = {"weights.safetensors": hashlib.sha256(b"right").hexdigest(), "vae.safetensors": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps({**told, "files": files}))
    (tmp_path / "models" / "shapes-draft").mkdir()
    (tmp_path / "models" / "shapes-draft" / "manifest.json").write_text(
        json.dumps({**told, "name": "shapes-draft", "files": {}})
    )
    mine = {**env, "GICLEE_MODELS_DIR": str(tmp_path / "models"), "PATH": "/usr/bin:/bin"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "giclee.gpu_worker", env=mine, stderr=pipe)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 3
    assert b"vae.safetensors is missing" in said and b"weights.safetensors has sha256" in said


async def test_what_somebody_waits_for_passes_a_backlog_of_bulk_at_one_worker(
    env: dict[str, str], tmp_path: Path, kafka: KafkaRunning
) -> None:
    """One process, two pools, slow large pictures of bulk: few of them come between the asking and the small picture.

    Each pool has its own stage and group; both are told apart in the figures of one process.
    """
    bulk = model("bulk", location="painted", price_usd="0.0004", width=512, height=512, size_max=512, batch_max=1)
    now = model("now", location="painted", price_usd="0.0004", pool="now")
    (tmp_path / "giclee.toml").write_text("\n".join(map(_row, (bulk, now))))
    pools = ("now", "local")
    infra.apply(infra.Target(kafka.bootstrap_servers, env["GICLEE_TOPIC_PREFIX"], replication=1, pools=pools))
    env |= {"GICLEE_POOLS": "now,local", "GICLEE_GPU_WORKER_POOL": "now:4,local"}
    async with outside(env) as seen, sending(env) as send, running("giclee.gpu_worker", env) as port:
        await send(*(routed(hop(bulk), seed=at, index=at, limit_usd="1") for at in range(200)))
        for _ in range(3):
            before = len(seen.on(GENERATED)) + 4
            await until(lambda least=before: len(seen.on(GENERATED)) >= least, within_s=30)  # type: ignore[misc]
            before, waited = len(seen.on(GENERATED)), routed(hop(now), limit_usd="1")
            await send(waited)
            place = await until(lambda one=waited: _place(seen, one), within_s=30)  # type: ignore[misc]
            assert place - before <= 15, "bulk that was made before what somebody waited for"
        assert len(made(seen)) < 190, "there was bulk left"
        figures = await asyncio.to_thread(lambda: urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
        assert all(f'giclee_claims_total{{outcome="generated",pool="{pool}"}}' in figures for pool in pools)


def _place(seen: Collector, waited: ImageRouted) -> int | None:
    """How many images came before this candidate's; None while it is not there."""
    candidates_made = [one.candidate_id for one in made(seen)]
    return candidates_made.index(waited.candidate_id) if waited.candidate_id in candidates_made else None


@asynccontextmanager
async def sending(env: dict[str, str]) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """A way to send events."""
    writer = transport_of(env).writer("sender")
    await writer.start()

    async def send(*events: Event) -> None:
        await writer.send([codec.encode(event, source="test") for event in events])

    yield send
    await writer.stop()


def _row(of: Model) -> str:
    """A row of models as the operator's file has it."""
    said = of.model_dump(mode="json", exclude_defaults=True)
    return "[[models]]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in said.items())


def made(seen: Collector) -> list[ImageGenerated]:
    return [ImageGenerated.model_validate_json(record.value or b"") for record in seen.on(GENERATED)]


async def _is(database: asyncpg.Connection[asyncpg.Record], query: str, wanted: int) -> bool:
    return bool(await database.fetchval(query) == wanted)


async def _is_zero(database: asyncpg.Connection[asyncpg.Record], query: str) -> bool:
    return await _is(database, query, 0)


def _blobs(env: dict[str, str]) -> BlobSettings:
    return BlobSettings.model_validate(
        {
            "endpoint_url": env["AWS_ENDPOINT_URL_S3"],
            "access_key_id": env["AWS_ACCESS_KEY_ID"],
            "secret_access_key": env["AWS_SECRET_ACCESS_KEY"],
            "region": "us-east-1",
            "bucket": env["GICLEE_BUCKET"],
        }
    )
