"""The night after an outage and a bad release, with the commands of docs/runbooks/dead-letters-night.md, as typed.

200 `exhausted` letters are brought back and 12 poison ones set aside. GICLEE_NIGHT=4000,120 repeats it at full size
(`-s` shows what an operator sees); its output is kept in docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from giclee.bus import dlq
from giclee.bus.kafka import KafkaTransport
from giclee.bus.settings import KafkaSettings
from giclee.bus.transport import Record
from giclee.infra import topics as infra
from tests.kit.loops import Collector, request_record
from tests.kit.service_process import free_port, running
from tests.kit.stack import KafkaRunning, S3Running
from tests.kit.wait import until

pytestmark = pytest.mark.real

REQUESTED, CLEARED = "image.requested.v1", "image.policy-cleared.v1"
EXHAUSTED, POISON = (int(count) for count in os.environ.get("GICLEE_NIGHT", "200,12").split(","))
STORE_AWAY = "could not store the verdict: no answer in 5 s"
BAD_RELEASE = "'size' is not a field of the order"
RUNBOOK = (Path(__file__).parents[2] / "docs/runbooks/dead-letters-night.md").read_text()
WITHIN_S = 30 + EXHAUSTED / 20


def letter(number: int, message: str, *, version: str, error_type: str, dead_class: str) -> tuple[uuid.UUID, Record]:
    """A dead letter of policy, as its stage wrote it an hour ago."""
    request_id = uuid.uuid4()
    died = datetime.now(UTC) - timedelta(hours=1) + timedelta(milliseconds=number)
    failed = replace(request_record(request_id), partition=number % 6, offset=number, timestamp_ms=1000)
    told = dlq.DeadLetter(
        stage="policy", dead_class=dead_class, error_type=error_type, message=message, attempts=6,
        origin=failed.origin(), timestamp_ms=1000, group="giclee.policy", version=version, request_id=str(request_id),
        first_failed_at=died.isoformat(), last_failed_at=died.isoformat(), tenant="default",
    )  # fmt: skip
    return request_id, told.record(failed)


@dataclass
class Night:
    """The stack of that night, and a terminal."""

    env: dict[str, str]
    came: Collector

    async def types(self, line: str, *, code: int = 0) -> str:
        """One command of the runbook; what was printed, on both streams. It must end with `code`."""
        assert line in RUNBOOK.splitlines(), f"the runbook does not say: {line}"
        return await self.runs(line, code=code)

    async def runs(self, line: str, *, code: int = 0) -> str:
        """Any command."""
        started = time.monotonic()
        process = await asyncio.create_subprocess_shell(
            line.replace("giclee", f"{sys.executable} -m giclee.cli", 1), env=self.env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        print(f"\n$ {line}\n{said}[exit {process.returncode}, {time.monotonic() - started:.1f} s]")
        assert process.returncode == code, f"{line}\n{said}"
        return said

    def cleared(self) -> Counter[str]:
        """How often each request was cleared."""
        return Counter(json.loads(one.value or b"")["request_id"] for one in self.came.on(CLEARED))


@asynccontextmanager
async def _services(env: dict[str, str], came: Collector) -> AsyncIterator[Night]:
    port = free_port()
    mine = {**env, "GICLEE_REPLAY_PORT": str(port)}
    async with running("giclee.policy", env), running("giclee.replay", mine):
        typed = {**os.environ, **env, "GICLEE_OPS_URL": f"http://127.0.0.1:{port}", "GICLEE_ACTOR": "ada"}
        yield Night(typed, came)


@pytest.fixture
async def night(
    kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[Night]:
    await asyncio.to_thread(infra.apply, infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    told = {"name": "shapes-final", "revision": "abc", "steps": 8, "guidance_scale": 1.0, "width": 64, "height": 64}
    (tmp_path / "shapes-final").mkdir()
    (tmp_path / "shapes-final" / "manifest.json").write_text(json.dumps(told))
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database, "GICLEE_MODELS_DIR": str(tmp_path), "GICLEE_API_KEY": "a-key-of-at-least-16",
        "GICLEE_BUCKET": s3.bucket, "AWS_ENDPOINT_URL_S3": s3.s3_endpoint, "AWS_REGION": s3.region,
        "AWS_ACCESS_KEY_ID": s3.aws_access_key_id, "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key,
        "GICLEE_TOPIC_REPLICATION": "1", "GICLEE_STATE_DIR": str(tmp_path / "state"),
    }  # fmt: skip
    transport = KafkaTransport(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix))
    async with Collector(transport, (CLEARED, REQUESTED)) as came, _services(env, came) as found:
        found.came.transport = transport  # type: ignore[attr-defined]
        yield found


async def _write(night: Night, records: Sequence[Record]) -> None:
    writer = night.came.transport.writer("night")  # type: ignore[attr-defined]
    await writer.start()
    for start in range(0, len(records), 500):
        await writer.send(records[start : start + 500])
    await writer.stop()


async def test_the_first_are_brought_back_and_the_second_set_aside(night: Night) -> None:
    """Every exhausted request is cleared exactly once, no poison one is touched, and both are said in the audit."""
    old, bad = "1.4.0", "1.5.0"
    first = [
        letter(n, STORE_AWAY, version=old, error_type="Transient", dead_class="exhausted") for n in range(EXHAUSTED)
    ]
    second = [
        letter(EXHAUSTED + n, BAD_RELEASE, version=bad, error_type="Poison", dead_class="poison") for n in range(POISON)
    ]
    await _write(night, [record for _, record in (*first, *second)])

    async def indexed() -> bool:
        return f"{EXHAUSTED + POISON} open" in await night.types("giclee doctor", code=1)

    await until(indexed, WITHIN_S)
    await night.types("giclee dlq stats --state open --since 12h")
    await night.types("giclee dlq replay --class exhausted --since 12h --dry-run")
    parked = (
        'giclee dlq park --service-version 1.5.0 --class poison --reason "release 1.5.0 is rolled back, see ticket 812"'
    )
    assert f"{POISON} parked" in await night.types(parked)
    done = await night.types(
        'giclee dlq replay --class exhausted --since 12h --canary 20 --rate 500/s --reason "database is back"'
    )
    assert "done" in done
    wanted = {str(request_id) for request_id, _ in first}
    await until(lambda: set(night.cleared()) >= wanted, WITHIN_S)

    assert night.cleared() == Counter(dict.fromkeys(wanted, 1))
    assert {json.loads(one.value or b"")["request_id"] for one in night.came.on(REQUESTED)} == wanted
    states = await night.runs("giclee dlq ls --limit 1")
    assert f"{EXHAUSTED} replayed exhausted at policy" in states
    assert f"{POISON} parked poison at policy" in states
    await night.types("giclee lag")
    await night.runs("giclee dlq runs ls")

    await night.types('giclee dlq release --service-version 1.5.0 --reason "1.5.1 is out"')
    await night.types('giclee dlq replay --service-version 1.5.0 --canary 5 --reason "1.5.1 is out"')
    everyone = wanted | {str(request_id) for request_id, _ in second}
    await until(lambda: set(night.cleared()) >= everyone, WITHIN_S)
    assert night.cleared() == Counter(dict.fromkeys(everyone, 1))
    report = await night.types("giclee doctor", code=1)  # 1: nobody told it where intake and publisher are
    assert ["dead", "letters", "good"] in [line.split()[:3] for line in report.splitlines()]
