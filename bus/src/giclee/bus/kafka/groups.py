"""Where consumer groups stand, seen and mended from outside: for the reconciler, not for stages.

A group that has members takes commits from members only, and a member whose offset is lost stays one: it waits for
an operator. So `put` joins the group for a moment, commits what it was told and leaves; the members then ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from giclee.bus.errors import Transient
from giclee.bus.kafka.client import Cluster, ended, said
from giclee.bus.transport import Partition

ASK_MAX_S = 20.0
JOIN_MAX_S = 45.0
"""Joining waits for the other members to drain, which they may do for `Timings.rebalance_s`, twice."""


@dataclass(frozen=True, slots=True)
class Place:
    """One group in one partition: the next offset it reads (None: it has none), the log's first and its end."""

    committed: int | None
    first: int
    end: int

    @property
    def is_lost(self) -> bool:
        """Whether a member that starts here would stop: no offset, or one that the log does not reach."""
        return self.committed is None or not self.first <= self.committed <= self.end


class KafkaGroups:
    """The offsets of groups of one cluster. Names are those of inside, without the prefix."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def places(self, groups: Mapping[str, Sequence[str]]) -> dict[str, dict[Partition, Place]]:
        """Group -> partition -> place, for every partition of the topics named; a topic that is not there is left out.

        Errors: Transient when the broker does not answer within 20 s.
        """
        try:
            async with asyncio.timeout(ASK_MAX_S), self._admin() as admin, self._bystander() as consumer:
                there = await self._partitions(admin, {topic for topics in groups.values() for topic in topics})
                every = [at for partitions in there.values() for at in partitions]
                mine = {
                    group: [at for topic in topics for at in there.get(topic, ())] for group, topics in groups.items()
                }
                # a group at work moves on between two questions: asked in this order, it is never seen outside its log
                first = await consumer.beginning_offsets(every)
                committed = {group: await self._committed(admin, group, its) for group, its in mine.items()}
                end = await consumer.end_offsets(every)
                return {
                    group: {
                        self._cluster.at_home(at): Place(committed[group].get(at), first[at], end[at]) for at in its
                    }
                    for group, its in mine.items()
                }
        except (KafkaError, OSError, TimeoutError) as error:
            raise Transient(f"the broker does not say where the groups stand: {said(error)}") from error

    async def put(self, group: str, topics: Sequence[str], offsets: Mapping[Partition, int]) -> None:
        """Commit `offsets` for a group that reads `topics`, whether it has members or not.

        Errors: Transient when the group does not let us in within 45 s, or the broker is away.
        """
        consumer = AIOKafkaConsumer(
            **self._cluster.connection(self._cluster.timings.request_s),
            group_id=self._cluster.outside(group),
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # what is fetched meanwhile is thrown away
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            rebalance_timeout_ms=int(self._cluster.timings.rebalance_s * 1000),
        )
        consumer.subscribe([self._cluster.outside(topic) for topic in topics])
        rows = {self._cluster.at_broker(at): OffsetAndMetadata(offset, "") for at, offset in offsets.items()}
        try:
            async with asyncio.timeout(JOIN_MAX_S):
                await consumer.start()
                # the public call refuses partitions that this member was not given; the broker does not
                await consumer._coordinator.commit_offsets(None, rows)
        except (KafkaError, OSError, TimeoutError) as error:
            raise Transient(f"the offsets of {group} cannot be put: {said(error)}") from error
        finally:
            await asyncio.wait([self._cluster.let_go(ended(consumer.stop()))], timeout=self._cluster.timings.stop_s)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self._cluster.connection(self._cluster.timings.produce_request_s))
        try:
            await admin.start()
            yield admin
        finally:
            self._cluster.let_go(ended(admin.close()))

    @asynccontextmanager
    async def _bystander(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of no group: the admin client cannot ask for a log's ends."""
        consumer = AIOKafkaConsumer(
            **self._cluster.connection(self._cluster.timings.produce_request_s), isolation_level="read_committed"
        )
        try:
            await consumer.start()
            yield consumer
        finally:
            self._cluster.let_go(ended(consumer.stop()))

    async def _partitions(self, admin: AIOKafkaAdminClient, topics: Iterable[str]) -> dict[str, list[TopicPartition]]:
        """The partitions of those topics that are there. Asking for all never makes a missing one."""
        wanted = {self._cluster.outside(topic): topic for topic in topics}
        return {
            wanted[row["topic"]]: [TopicPartition(row["topic"], one["partition"]) for one in row["partitions"]]
            for row in await admin.describe_topics()
            if row["topic"] in wanted
        }

    async def _committed(
        self, admin: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        answer = await admin.list_consumer_group_offsets(self._cluster.outside(group), partitions=partitions)
        return {at: row.offset for at, row in answer.items() if row.offset >= 0}
