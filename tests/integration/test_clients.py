"""The ten-line clients of the docs, in every language whose toolchain is here, against the real broker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from giclee.bus import kafka as bus_kafka
from giclee.bus.layers import codec
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record
from giclee.infra import topics as infra_topics
from giclee.infra.local import kafka as local_kafka
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import EVENTS, ImageRequested
from tests.kit import stack as parts
from tests.kit.loops import Collector
from tests.kit.wait import until

CLIENTS = Path(__file__).parents[2] / "docs" / "clients"
EXAMPLE = json.loads((CLIENTS.parents[1] / "schemas/examples/RequestClosed.json").read_text())


def _python(_: Path) -> tuple[list[str], list[str]]:
    return [sys.executable, str(CLIENTS / "python/request.py")], [sys.executable, str(CLIENTS / "python/follow.py")]


def _java(_: Path) -> tuple[list[str], list[str]]:
    run = [
        "java",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        ":".join(map(str, local_kafka.jars().glob("*.jar"))),
    ]
    return [*run, str(CLIENTS / "java/Request.java")], [*run, str(CLIENTS / "java/Follow.java")]


def _node(folder: Path) -> tuple[list[str], list[str]]:
    shutil.copytree(CLIENTS / "node", folder, dirs_exist_ok=True)
    subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120)
    return ["node", str(folder / "request.js")], ["node", str(folder / "follow.js")]


def _go(folder: Path) -> tuple[list[str], list[str]]:
    for name in ("request", "follow"):
        build = ["go", "build", "-o", str(folder / name), f"{name}.go"]
        subprocess.run(build, cwd=CLIENTS / "go", check=True, timeout=300)
    return [str(folder / "request")], [str(folder / "follow")]


LANGUAGES = {"python": (_python, "python3"), "java": (_java, "java"), "node": (_node, "npm"), "go": (_go, "go")}
HERE = [name for name, (_, tool) in LANGUAGES.items() if shutil.which(tool)]


@pytest.mark.parametrize("language", HERE)
async def test_a_ten_line_client_asks_and_follows(language: str, kafka: parts.KafkaRunning, tmp_path: Path) -> None:
    """Its bare record is a valid request with its reference; its reader sees the closing of that reference."""
    await asyncio.to_thread(infra_topics.apply, infra_topics.Target(kafka.bootstrap_servers, "", 1))
    ask, follow = await asyncio.to_thread(LANGUAGES[language][0], tmp_path)
    reference = f"{language}-{uuid.uuid4().hex[:8]}"
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    transport = bus_kafka.KafkaTransport(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers))

    async with Collector(transport, ("image.requested.v1",)) as seen:
        await asyncio.to_thread(subprocess.run, [*ask, reference], env=environment, check=True, timeout=60)
        raw = await until(
            lambda: next((one for one in seen.records if reference.encode() in (one.value or b"")), None), 20
        )
    request = codec.decode(raw, Envelope(), "cluster")
    assert isinstance(request, ImageRequested)
    assert request.client_ref == reference

    closed = EVENTS["giclee.RequestClosed.v1"].model_validate({**EXAMPLE, "client_ref": reference})
    writer = transport.writer("test")
    await writer.start()
    encoded: Record = codec.encode(closed, source="giclee/publisher")
    await writer.send([encoded])
    await writer.stop()
    done = await asyncio.to_thread(
        subprocess.run, [*follow, reference], env=environment, check=True, timeout=60, capture_output=True, text=True
    )
    assert reference in done.stdout.splitlines()[-1]
