"""`giclee topics`: the broker is made to look like the table, and what is there already is never moved."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from giclee.infra import topics
from giclee.infra.topics import Target
from giclee.infra.trouble import Trouble
from giclee.schemas.topics import all_topics, groups
from tests.kit.stack import KafkaRunning, kafka_part

pytestmark = pytest.mark.real

GICLEE = Path(sys.executable).parent / "giclee"


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaRunning]:
    """A broker of this file: `apply` is asked to change everything on it."""
    with kafka_part() as running:
        yield running


@pytest.fixture
def target(broker: KafkaRunning) -> Target:
    """An empty cluster, as far as names with this prefix go."""
    return Target(broker.bootstrap_servers, prefix=f"t{uuid.uuid4().hex[:6]}.", replication=1, pools=("local",))


def admin(target: Target) -> AdminClient:
    return _admin(target.bootstrap_servers)


@cache  # a client that nobody holds is destroyed with its answers
def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers})


def committed(target: Target, group: str, topic: str, partition: int = 0) -> int:
    consumer = Consumer({"bootstrap.servers": target.bootstrap_servers, "group.id": f"{target.prefix}{group}"})
    (found,) = consumer.committed([TopicPartition(f"{target.prefix}{topic}", partition)], timeout=20)
    consumer.close()
    return int(found.offset)


def commit(target: Target, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": target.bootstrap_servers, "group.id": f"{target.prefix}{group}"})
    consumer.commit(offsets=[TopicPartition(f"{target.prefix}{topic}", 0, offset)], asynchronous=False)
    consumer.close()


def produce(target: Target, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": target.bootstrap_servers})
    for number in range(count):
        producer.produce(f"{target.prefix}{topic}", partition=0, value=str(number))
    assert producer.flush(20) == 0


def test_apply_makes_every_topic_of_the_table(target: Target) -> None:
    """After `apply` every topic exists with its partitions, and a second plan and apply find nothing."""
    planned = topics.plan(target)
    done = topics.apply(target)
    assert [change for change in done if change.kind == "topic"] == planned
    there = topics.partitions_of(admin(target))
    wanted = {f"{target.prefix}{row.name}": row.partitions for row in all_topics(target.pools)}
    assert wanted.items() <= there.items()
    assert topics.plan(target) == []
    assert topics.apply(target) == []


def test_every_group_has_first_offsets(target: Target) -> None:
    """Consumers that start with `auto_offset_reset=none` find an offset on each partition they read."""
    topics.apply(target)
    for group, names in groups(target.pools).items():
        assert committed(target, group, names[0]) == 0
    assert all(row.without_offset == 0 and row.lag == 0 for row in topics.lag(target))


def test_configs_are_the_table_s(target: Target) -> None:
    """Retention, compaction and size are on the broker as the table says."""
    topics.apply(target)
    resources = [ConfigResource(ResourceType.TOPIC, f"{target.prefix}{row.name}") for row in all_topics(target.pools)]
    found = {found.name: answer.result() for found, answer in admin(target).describe_configs(resources).items()}
    approved = found[f"{target.prefix}image.approved.v1"]
    assert approved["cleanup.policy"].value == "compact"
    assert approved["delete.retention.ms"].value == str(30 * topics.DAY_MS)
    closed = found[f"{target.prefix}image.closed.v1"]
    assert (closed["cleanup.policy"].value, closed["retention.ms"].value) == ("delete", str(30 * topics.DAY_MS))
    dead = found[f"{target.prefix}image.requested.v1.dlq"]
    assert dead["max.message.bytes"].value == str(1024 * 1024 * 5 // 4)


def test_drift_is_shown_and_mended(target: Target) -> None:
    """A changed config, a deleted topic and missing partitions are each named by `plan`, and gone after `apply`."""
    topics.apply(target)
    client = admin(target)
    changed = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    name = f"{target.prefix}image.refused.v1"
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[changed])
    for answer in client.incremental_alter_configs([resource]).values():
        answer.result()
    for answer in client.delete_topics([f"{target.prefix}image.reviewed.v1"], operation_timeout=20).values():
        answer.result()
    # an operator has grown a topic: its dead letters must keep their partition numbers
    for answer in client.create_partitions([NewPartitions(f"{target.prefix}image.generated.v1", 5)]).values():
        answer.result()
    planned = {(change.kind, change.name.removeprefix(target.prefix)) for change in topics.plan(target)}
    assert {
        ("config", "image.refused.v1"),
        ("topic", "image.reviewed.v1"),
        ("partitions", "image.generated.v1.dlq"),
        ("partitions", "image.generated.v1.held"),
    } <= planned
    topics.apply(target)
    assert topics.plan(target) == []
    assert topics.partitions_of(client)[f"{target.prefix}image.generated.v1"] == 5
    assert committed(target, "giclee.scorer", "image.generated.v1", partition=4) == 0


def test_an_offset_that_is_there_is_never_moved(target: Target) -> None:
    """`apply` gives first offsets only where there are none; the rest of the group's progress stays."""
    topics.apply(target)
    produce(target, "image.requested.v1", 5)
    commit(target, "giclee.policy", "image.requested.v1", 3)
    topics.apply(target)
    assert committed(target, "giclee.policy", "image.requested.v1") == 3
    rows = {(row.group, row.topic): row.lag for row in topics.lag(target)}
    assert rows[f"{target.prefix}giclee.policy", f"{target.prefix}image.requested.v1"] == 2


def test_a_first_offset_is_the_beginning_of_what_is_kept(target: Target) -> None:
    """A group that is new on an old topic reads everything that is still there, and nothing is out of range."""
    topics.apply(target)
    produce(target, "image.refused.v1", 5)
    name = f"{target.prefix}image.refused.v1"
    for answer in admin(target).delete_records([TopicPartition(name, 0, 2)]).values():
        answer.result()
    for answer in admin(target).delete_consumer_groups([f"{target.prefix}giclee.publisher"]).values():
        answer.result()
    topics.apply(target)
    assert committed(target, "giclee.publisher", "image.refused.v1") == 2


def test_control_records_are_no_lag(target: Target) -> None:
    """A group that has read everything of a topic written in transactions is not behind."""
    topics.apply(target)
    name = f"{target.prefix}image.closed.v1"
    producer = Producer({"bootstrap.servers": target.bootstrap_servers, "transactional.id": f"{target.prefix}relay"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(name, partition=0, value="closed")
    producer.commit_transaction(20)
    lags = {(row.group, row.topic): row.lag for row in topics.lag(target)}
    assert lags[f"{target.prefix}giclee.intake.status", name] == 1
    commit(target, "giclee.intake.status", "image.closed.v1", 1)
    lags = {(row.group, row.topic): row.lag for row in topics.lag(target)}
    assert lags[f"{target.prefix}giclee.intake.status", name] == 0


def test_apply_works_right_after_a_restart(target: Target, broker: KafkaRunning) -> None:
    """While the group coordinator still loads, `apply` waits for it."""
    topics.apply(target)
    broker.running.restart()
    assert topics.apply(target) == []


def test_a_running_group_is_named(target: Target) -> None:
    """First offsets cannot be given to a group that runs; the sentence says which stage to stop."""
    topics.apply(target)
    name = f"{target.prefix}image.refused.v1"
    group = f"{target.prefix}giclee.publisher"
    consumer = Consumer({"bootstrap.servers": target.bootstrap_servers, "group.id": group})
    consumer.subscribe([name])
    while not consumer.assignment():
        consumer.poll(0.1)
    for answer in admin(target).create_partitions([NewPartitions(name, 4)]).values():
        answer.result()
    with pytest.raises(Trouble, match=r"giclee\.publisher is running"):
        topics.apply(target)
    consumer.close()
    topics.apply(target)
    assert committed(target, "giclee.publisher", "image.refused.v1", partition=3) == 0


def test_the_command_says_drift_by_its_exit_code(target: Target, tmp_path: Path) -> None:
    """`giclee topics plan` is 1 with drift and 0 without, and prints JSON for pipes."""
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": target.bootstrap_servers,
        "GICLEE_TOPIC_PREFIX": target.prefix,
        "GICLEE_TOPIC_REPLICATION": "1",
        "GICLEE_STATE_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }

    def giclee(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([GICLEE, *words], env=env, capture_output=True, text=True, timeout=60, check=False)

    planned = giclee("topics", "plan", "--json")
    assert planned.returncode == 1 and {row["kind"] for row in json.loads(planned.stdout)} == {"topic"}
    assert giclee("topics", "apply").returncode == 0
    again = giclee("topics", "plan", "--json")
    assert (again.returncode, json.loads(again.stdout)) == (0, [])


def test_no_cluster_is_one_sentence(tmp_path: Path) -> None:
    """Without a cluster the command says what to do, on stderr, with exit code 1."""
    env = {"GICLEE_STATE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([GICLEE, "topics", "plan"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.startswith("KAFKA_BOOTSTRAP_SERVERS is not set")
