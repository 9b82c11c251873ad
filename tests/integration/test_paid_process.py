"""A worker of the hosted pool as a process on a real broker, database and bucket: without torch, and killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from giclee.bus import database as databases
from giclee.bus.kafka import KafkaTransport
from giclee.bus.layers import codec
from giclee.bus.settings import DatabaseSettings, KafkaSettings
from giclee.infra import topics as infra
from giclee.schemas.events import ImageGenerated
from tests.kit.candidates import hop, model, routed
from tests.kit.loops import Collector
from tests.kit.service_process import free_port, running
from tests.kit.shop import NAME, unexplained
from tests.kit.shop_worker import FileShop
from tests.kit.stack import KafkaRunning, S3Running
from tests.kit.wait import until

pytestmark = pytest.mark.real
ROW = model("flux", provider=NAME, pool="hosted", price_usd="0.04")
TABLE = """
[[models]]
name = "flux"
revision = "r1"
location = "a shop"
provider = "shop"
pool = "hosted"
private = false
price_usd = "0.04"
steps = 8
width = 64
height = 64
size_min = 64
size_max = 64
[[spend-cap]]
provider = "shop"
daily_usd = 100
"""
DEATHS = ("before-job-commit", "after-job-commit", "after-provider-call", "before-finish-commit")
GENERATED = "image.generated.v1"
CANDIDATES = 40


@pytest.fixture
def env(kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """What the worker reads; its health port stays the same, so that whoever starts next is its heir (ADR 12)."""
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
        "GICLEE_GPU_WORKER_POOL": "hosted",
        "SHOP": str(tmp_path / "book"),
    }


async def killed_at(point: str, env: dict[str, str], port: int) -> None:
    """A worker that is killed when it comes to a point for the third time. Errors: AssertionError where it does not."""
    armed = {"GICLEE_ALLOW_FAILPOINTS": "1", "GICLEE_FAILPOINT": f"gpu-worker.{point}:kill:nth=3"}
    mine = {**env, **armed, "GICLEE_HEALTH_PORT": str(port), "PATH": "/usr/bin:/bin"}
    mine |= {"PYTHONPATH": ":".join(one for one in sys.path if one)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.kit.shop_worker", env=mine)
    try:
        assert await asyncio.wait_for(process.wait(), 90) == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_kill_9_between_any_two_steps_leaves_no_bill_unexplained(env: dict[str, str]) -> None:
    """Forty candidates, four kills, one last worker: every candidate has its image, every image on the shop's bill is
    in the ledger, and claims, ledger and cap add up."""
    transport = KafkaTransport(
        KafkaSettings(
            bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"],
            topic_prefix=env["GICLEE_TOPIC_PREFIX"],
            schema_registry_url=None,
        ),
        client_id="test",
    )
    events = [routed(hop(ROW), seed=at, index=at, limit_usd="0.4") for at in range(CANDIDATES)]
    writer, port = transport.writer("test"), free_port()
    await writer.start()
    async with Collector(transport, [GENERATED]) as seen:

        def made() -> set[object]:
            told = (ImageGenerated.model_validate_json(one.value or b"") for one in seen.on(GENERATED))
            return {one.candidate_id for one in told}

        for at, point in enumerate(DEATHS):
            await writer.send([codec.encode(event, source="test") for event in events[at * 10 : at * 10 + 10]])
            await killed_at(point, env, port)
        async with running("tests.kit.shop_worker", {**env, "GICLEE_HEALTH_PORT": str(port)}):
            database = await asyncpg.connect(env["DATABASE_URL"])
            lapsed = "UPDATE gpu_worker.claims SET lease_until = lease_until - interval '1 minute'"
            await database.execute(f"{lapsed} WHERE NOT acknowledged")
            await until(lambda: len(made()) == CANDIDATES, within_s=90)
            await database.close()
    await writer.stop()
    settings = DatabaseSettings(url=SecretStr(env["DATABASE_URL"]), pool_max=2)
    async with databases.connect(settings, "gpu_worker") as pool:
        shop = FileShop(book=Path(env["SHOP"]))
        assert await unexplained(pool, shop) == []
        assert len(shop.bill) >= CANDIDATES
        assert await pool.fetchval("SELECT count(*) FROM gpu_worker.claims WHERE outcome = 'generated'") == CANDIDATES
