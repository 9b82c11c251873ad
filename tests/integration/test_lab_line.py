"""The line against the lab, small: real Kafka, Postgres and S3, every service a process, three providers that fail.

`python -m tests.lab.line` is the same with the project's models and 2,000 requests (docs/providers.md).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.infra import topics as infra
from tests.kit.stack import KafkaRunning, S3Running
from tests.lab.line import report
from tests.lab.line.__main__ import line
from tests.lab.line.drive import GENERATED
from tests.lab.line.plan import Wish

pytestmark = pytest.mark.real
REQUESTS = 60


async def test_sixty_requests_close_and_the_labs_bill_is_our_ledger(
    kafka: KafkaRunning, s3: S3Running, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Every kind of fault once: all closed, none paid twice unasked, and each difference has a name."""
    infra.apply(infra.Target(kafka.bootstrap_servers, topic_prefix, replication=1))
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "GICLEE_TOPIC_PREFIX": topic_prefix,
        "DATABASE_URL": database,
        "AWS_ENDPOINT_URL_S3": s3.s3_endpoint,
        "AWS_ACCESS_KEY_ID": s3.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key,
        "AWS_REGION": s3.region,
        "GICLEE_BUCKET": s3.bucket,
    }
    wish = Wish(requests=REQUESTS, seed=3, rounds=0, open_max=20, real=False, closed_within_s=120)
    books = await line(wish, env, tmp_path)
    print(report.told(books))
    assert books.wrong() == []
    makers = {image["provider"] for image in books.run.values(GENERATED)}
    assert makers == {"fal", "replicate", "openai", "stub"}
    assert sum(books.run.lab["met"].values()) >= 15, "the run met its faults"
