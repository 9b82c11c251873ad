"""Makes the broker look like the table in `giclee.schemas.topics`: `plan` shows the drift, `apply` mends it.

Topics, partitions, configs, and for every group and partition a first offset, because consumers start with
`auto_offset_reset=none`. An offset that is there is never moved. Also asks for the lag. Called by the command line.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from giclee.infra.trouble import Trouble
from giclee.schemas.topics import POOLS, Topic, all_topics, groups

TIMEOUT_S = 30.0
DAY_MS = 24 * 60 * 60 * 1000
DELETE_RETENTION_DAYS = 30
"""How long a compacted topic shows a removal to a reader that was away (contract, section 3)."""
DEFAULT_REPLICATION = 3
_NOT_YET = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,
        KafkaError._TRANSPORT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_RUNNING = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION})
TRANSACTIONAL = ("image.approved.v1", "image.closed.v1")
"""Topics that the publisher's relay writes: each transaction ends in a control record, which no reader commits."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs, and what `apply` does about it."""

    kind: str
    """topic, partitions, config or offsets."""
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How many records a group is behind on a topic, control records left out."""

    group: str
    topic: str
    lag: int
    without_offset: int
    """Partitions on which the group has no offset at all."""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster, and how names are made on it."""

    bootstrap_servers: str
    prefix: str = ""
    replication: int = DEFAULT_REPLICATION
    pools: tuple[str, ...] = POOLS


def target_from_env() -> Target:
    """By the contract's variables. Errors: Trouble when they do not name a cluster that this release can use."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        raise Trouble("KAFKA_BOOTSTRAP_SERVERS is not set; start the local stack with `make up`, or name a cluster.")
    if os.environ.get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT") != "PLAINTEXT":
        raise Trouble("KAFKA_SECURITY_PROTOCOL: only PLAINTEXT is supported by this release.")
    replication = os.environ.get("GICLEE_TOPIC_REPLICATION") or str(DEFAULT_REPLICATION)
    if not replication.isdecimal() or int(replication) < 1:
        raise Trouble(f"GICLEE_TOPIC_REPLICATION={replication!r} is not a number of replicas.")
    pools = tuple(name.strip() for name in os.environ.get("GICLEE_POOLS", "").split(",") if name.strip())
    if wrong := [name for name in pools if not re.fullmatch(r"[a-z0-9-]{1,24}", name)]:
        raise Trouble(f"GICLEE_POOLS: {', '.join(map(repr, wrong))} cannot be a pool: a-z, 0-9 and -, at most 24.")
    return Target(servers, os.environ.get("GICLEE_TOPIC_PREFIX", ""), int(replication), pools or POOLS)


def plan(target: Target) -> list[Change]:
    """Everything that differs from the table. Errors: Trouble when the cluster does not answer."""
    return _walk(target, mend=False)


def apply(target: Target) -> list[Change]:
    """Mend everything that differs; returns what was done. A second call does nothing. Errors: Trouble."""
    return _walk(target, mend=True)


def _walk(target: Target, *, mend: bool) -> list[Change]:
    """Each step sees what the one before it mended: a new partition needs a leader before it has an offset."""
    client = _client(target)
    rows = {f"{target.prefix}{row.name}": row for row in all_topics(target.pools)}
    changes: list[Change] = []
    for step in (_topics, _partitions, _configs, _offsets):
        changes += step(client, target, rows, mend)
    return changes


def _client(target: Target) -> AdminClient:
    return AdminClient({"bootstrap.servers": target.bootstrap_servers, "log_level": 2})


def _topics(client: AdminClient, target: Target, rows: Mapping[str, Topic], mend: bool) -> list[Change]:
    there = partitions_of(client)
    missing = {name: row for name, row in rows.items() if name not in there}
    if mend and missing:
        new = [
            NewTopic(name, row.partitions, target.replication, config=wanted_configs(row, target.replication))
            for name, row in missing.items()
        ]
        made = client.create_topics(new, operation_timeout=TIMEOUT_S, request_timeout=2 * TIMEOUT_S)
        for name, future in made.items():
            _settle(future, f"topic {name}", fine=KafkaError.TOPIC_ALREADY_EXISTS)  # another apply was faster
        _await_leaders(client, {name: row.partitions for name, row in missing.items()})
    return [Change("topic", name, f"missing; {row.partitions} partitions") for name, row in missing.items()]


def _partitions(client: AdminClient, target: Target, rows: Mapping[str, Topic], mend: bool) -> list[Change]:
    there = partitions_of(client)
    wanted = {name: max(row.partitions, _source_partitions(name, there)) for name, row in rows.items()}
    short = {name: count for name, count in wanted.items() if 0 < there.get(name, 0) < count}
    if mend and short:
        asked = client.create_partitions([NewPartitions(*pair) for pair in short.items()], operation_timeout=TIMEOUT_S)
        for name, future in asked.items():
            _settle(future, f"partitions of {name}")
        _await_leaders(client, short)
    return [Change("partitions", name, f"{there[name]}, should be {count}") for name, count in short.items()]


def _source_partitions(name: str, there: Mapping[str, int]) -> int:
    """A dead letter keeps its partition number, so its topic grows with one that an operator has grown."""
    source = name.removesuffix(".dlq").removesuffix(".held")
    return there.get(source, 0) if source != name else 0


def _configs(client: AdminClient, target: Target, rows: Mapping[str, Topic], mend: bool) -> list[Change]:
    there = [name for name in partitions_of(client) if name in rows]
    if not there:
        return []
    asked = client.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in there], request_timeout=TIMEOUT_S
    )
    changes, resources = [], []
    for resource, future in asked.items():
        is_now = {key: entry.value for key, entry in _settle(future, f"configs of {resource.name}").items()}
        wanted = wanted_configs(rows[resource.name], target.replication)
        other = {key: value for key, value in wanted.items() if is_now.get(key) != value}
        changes += [
            Change("config", resource.name, f"{key}={is_now.get(key)}, should be {other[key]}") for key in other
        ]
        if other:
            entries = [ConfigEntry(*pair, incremental_operation=AlterConfigOpType.SET) for pair in other.items()]
            resources.append(ConfigResource(ResourceType.TOPIC, resource.name, incremental_configs=entries))
    if mend and resources:
        for resource, future in client.incremental_alter_configs(resources, request_timeout=TIMEOUT_S).items():
            _settle(future, f"configs of {resource.name}")
    return changes


def wanted_configs(row: Topic, replication: int) -> dict[str, str]:
    """The configs that the table decides; all others are the operator's."""
    configs = {
        "cleanup.policy": "compact" if row.compacted else "delete",
        "retention.ms": str(-1 if row.retention_days is None else row.retention_days * DAY_MS),
        "max.message.bytes": str(row.max_message_bytes),
        "min.insync.replicas": str(max(1, replication - 1)),
        "compression.type": row.compression,
    }
    if row.compacted:
        configs["delete.retention.ms"] = str(DELETE_RETENTION_DAYS * DAY_MS)
    return configs


def _offsets(client: AdminClient, target: Target, rows: Mapping[str, Topic], mend: bool) -> list[Change]:
    there = partitions_of(client)
    changes: list[Change] = []
    for group, committed in _committed(target, there).items():
        missing = [key for key, offset in committed.items() if offset is None]
        if missing and mend:
            _commit_first(client, target, group, missing)
        for topic in sorted({topic for topic, _ in missing}):
            count = sum(name == topic for name, _ in missing)
            changes.append(Change("offsets", f"{group} on {topic}", f"{count} partitions without a first offset"))
    return changes


def _commit_first(client: AdminClient, target: Target, group: str, missing: Iterable[tuple[str, int]]) -> None:
    first = [TopicPartition(*key, offset) for key, offset in _ends(client, missing, OffsetSpec.earliest()).items()]
    with _member_of(target, group) as consumer:
        try:
            done = _insist(lambda: consumer.commit(offsets=first, asynchronous=False), f"the first offsets of {group}")
        except _Refused as error:
            if error.code in _RUNNING:
                raise Trouble(
                    f"{group} is running, so it cannot get first offsets: stop that stage and apply again."
                ) from error
            raise
    refused = [part for part in done if part.error is not None]
    if refused:
        raise Trouble(f"Kafka refuses the first offset of {group} on {refused[0].topic}: {refused[0].error.str()}.")


def lag(target: Target) -> list[GroupLag]:
    """Of every group of ours on every topic it reads. Errors: Trouble when the cluster does not answer."""
    client = _client(target)
    there = partitions_of(client)
    committed = _committed(target, there)
    ends = _ends(client, {key for offsets in committed.values() for key in offsets}, OffsetSpec.latest())
    found = []
    for group, offsets in committed.items():
        for topic in dict.fromkeys(topic for topic, _ in offsets):
            behind = [ends[key] - offset for key, offset in offsets.items() if key[0] == topic and offset is not None]
            control = 1 if topic.removeprefix(target.prefix) in TRANSACTIONAL else 0
            without = sum(key[0] == topic and offset is None for key, offset in offsets.items())
            found.append(GroupLag(group, topic, sum(max(0, count - control) for count in behind), without))
    return found


def partitions_of(client: AdminClient) -> dict[str, int]:
    """Topic -> number of partitions, of everything on the cluster. Errors: Trouble when it does not answer."""
    try:
        listed = client.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        raise Trouble(f"Kafka does not answer within {TIMEOUT_S:.0f} s: {error.args[0].str()}.") from error
    return {name: len(topic.partitions) for name, topic in listed.topics.items()}


def _committed(target: Target, there: Mapping[str, int]) -> dict[str, dict[tuple[str, int], int | None]]:
    """Group -> (topic, partition) -> committed offset or None, for every partition that exists."""
    found: dict[str, dict[tuple[str, int], int | None]] = {}
    for bare, topics in groups(target.pools).items():
        group = f"{target.prefix}{bare}"
        names = [f"{target.prefix}{name}" for name in topics]
        parts = [TopicPartition(name, number) for name in names for number in range(there.get(name, 0))]
        if parts:
            with _member_of(target, group) as consumer:
                answer = _insist(partial(consumer.committed, parts, timeout=TIMEOUT_S), f"the offsets of {group}")
            found[group] = {(part.topic, part.partition): part.offset if part.offset >= 0 else None for part in answer}
    return found


@contextmanager
def _member_of(target: Target, group: str) -> Iterator[Consumer]:
    """A consumer that never joins. The admin client's calls for offsets crash the process while a coordinator loads."""
    consumer = Consumer(
        {
            "bootstrap.servers": target.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


class _Refused(Trouble):
    """An error of the broker, with its code."""

    def __init__(self, what: str, error: KafkaError) -> None:
        super().__init__(f"Kafka refuses {what}: {error.str()}.")
        self.code = error.code()


def _insist(call: Callable[[], Any], what: str) -> Any:
    """Call again while a new or restarted broker still looks for its group coordinator."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return call()
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise _Refused(what, error.args[0]) from error
            time.sleep(0.1)


def _ends(client: AdminClient, keys: Iterable[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    wanted = {TopicPartition(*key): spec for key in keys}
    if not wanted:
        return {}

    def ask() -> dict[tuple[str, int], int]:
        asked = client.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT_S)
        return {(part.topic, part.partition): future.result().offset for part, future in asked.items()}

    found: dict[tuple[str, int], int] = _insist(ask, "to tell offsets")
    return found


def _await_leaders(client: AdminClient, wanted: Mapping[str, int]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while any(_without_leader(client, wanted)):
        if time.monotonic() > deadline:
            raise Trouble(
                f"New partitions have no leader after {TIMEOUT_S:.0f} s: {', '.join(_without_leader(client, wanted))}."
            )
        time.sleep(0.05)


def _without_leader(client: AdminClient, wanted: Mapping[str, int]) -> Iterator[str]:
    topics = client.list_topics(timeout=TIMEOUT_S).topics
    for name, count in wanted.items():
        parts = topics[name].partitions if name in topics else {}
        if len(parts) < count or any(part.leader < 0 for part in parts.values()):
            yield name


def _settle(future: Future[Any], what: str, fine: int | None = None) -> Any:
    """The answer. Errors: Trouble in our words, unless the broker's error is the one that is fine."""
    try:
        return future.result(timeout=2 * TIMEOUT_S)
    except KafkaException as error:
        if error.args[0].code() == fine:
            return None
        raise Trouble(f"Kafka refuses {what}: {error.args[0].str()}.") from error
    except TimeoutError as error:
        raise Trouble(f"Kafka does not answer about {what} within {2 * TIMEOUT_S:.0f} s.") from error
