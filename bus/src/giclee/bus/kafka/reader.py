"""Reading as a member of a group, or of every partition without one (group "").

The library's background tasks keep the membership alive; this file bounds them, repairs what they forget (pauses),
and notices what they do not say: that the broker is away, that the group has moved on, that they have died.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Fenced, Transient
from giclee.bus.kafka import records
from giclee.bus.kafka.client import Cluster, ended, insist, said
from giclee.bus.transport import Partition, Rebalance, Record

log = telemetry.logger(__name__)
records.install()

FETCH_MAX_BYTES = 8 * 1024 * 1024
POLL_GRACE_S = 0.05

_CONSUMER_LIVES = (
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
)
"""Errors of a poll after which the consumer goes on. After any other it may have dropped records it had decoded."""


class _Callbacks(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a reader what the group does to one of its consumers, as long as that is the current one."""

    def __init__(self, reader: KafkaReader, consumer: AIOKafkaConsumer) -> None:
        self._reader = reader
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if self._reader.consumer is self._consumer:
            await self._reader.revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._reader.consumer is self._consumer:
            await self._reader.assigned(assigned)


class KafkaReader:
    """One member. `polled_at` and `committed_at` (monotonic seconds) and `trouble` tell probes how it does."""

    def __init__(self, cluster: Cluster, group: str, topics: Sequence[str]) -> None:
        self.polled_at: float | None = None
        self.committed_at: float | None = None
        self.trouble: str | None = "not started"
        self.consumer: AIOKafkaConsumer | None = None
        self._cluster = cluster
        self._timings = cluster.timings
        self._group = group
        self._topics = topics
        self._listener: Rebalance | None = None
        self._joining: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._assigned: frozenset[Partition] = frozenset()
        self._paused: set[Partition] = set()
        self._heard_at = time.monotonic()
        self._newest_answer_ms = 0

    # ---- joining and leaving --------------------------------------------------------------------

    async def start(self, listener: Rebalance) -> None:
        """Join the group, trying until it succeeds. Errors: Transient when `stop` was called meanwhile."""
        self._listener = listener
        joining = self._joining = asyncio.create_task(self._join())
        try:
            await asyncio.wait([joining])
        finally:
            joining.cancel()
            await asyncio.wait([joining])
        if joining.cancelled():
            raise Transient(f"stopped before group {self._group} was joined")
        joining.result()

    async def stop(self) -> None:
        """Leave the group. Takes at most `Timings.stop_s`; what takes longer goes on in the background."""
        if self._joining is not None:
            self._joining.cancel()
            await asyncio.wait([self._joining])
        self._give_up_consumer()
        await self._cluster.all_closed()

    async def _join(self) -> None:
        await self.revoked()  # what a consumer that broke had; nothing the first time
        self._give_up_consumer()
        await insist(self._try_to_join, self._timings.join_s, self._note)
        self._heard()
        self.trouble = None

    def _join_again(self) -> None:
        self._settled.clear()
        self._joining = asyncio.create_task(self._join())

    async def _try_to_join(self) -> None:
        consumer = self.consumer = self._new_consumer()
        joined = False
        try:
            await consumer.start()
            joined = True
        finally:
            if not joined:
                self._give_up_consumer()
        if not self._group:
            await self.assigned(consumer.assignment())

    def _new_consumer(self) -> AIOKafkaConsumer:
        timings = self._timings
        consumer = AIOKafkaConsumer(
            **self._cluster.connection(timings.request_s),
            group_id=self._cluster.outside(self._group) if self._group else None,
            enable_auto_commit=False,
            auto_offset_reset="none" if self._group else "earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(RoundRobinPartitionAssignor,),
            session_timeout_ms=int(timings.session_s * 1000),
            heartbeat_interval_ms=int(timings.heartbeat_s * 1000),
            rebalance_timeout_ms=int(timings.rebalance_s * 1000),
            max_poll_interval_ms=int(timings.poll_gap_max_s * 1000),
            fetch_max_bytes=FETCH_MAX_BYTES,
        )
        topics = [self._cluster.outside(topic) for topic in self._topics]
        consumer.subscribe(topics, listener=_Callbacks(self, consumer))
        return consumer

    def _give_up_consumer(self) -> None:
        consumer, self.consumer = self.consumer, None
        self._settled.clear()
        self._assigned = frozenset()
        if consumer is not None:
            self._cluster.let_go(_close(consumer))

    def _note(self, trouble: str) -> None:
        self.trouble = trouble

    # ---- what the group does --------------------------------------------------------------------

    async def revoked(self) -> None:
        """Let the listener drain for as long as the group waits for us; after that nothing is ours."""
        self._settled.clear()
        self._heard()
        try:
            if self._assigned and self._listener is not None:
                async with asyncio.timeout(self._timings.drain_s):
                    await self._listener.revoked(self._assigned)
        except TimeoutError:
            log.warning("drain cut short by a rebalance", group=self._group)
        finally:
            self._assigned = frozenset()

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Take over `partitions`. The library forgets pauses here: set them again before anything is fetched."""
        self._assigned = frozenset(map(self._cluster.at_home, partitions))
        self._paused &= self._assigned
        self._mark(AIOKafkaConsumer.pause, self._paused)
        self._heard()
        try:
            if self._listener is not None:
                await self._listener.assigned(self._assigned)
        finally:
            self._settled.set()

    def assignment(self) -> Collection[Partition]:
        return self._assigned

    # ---- reading --------------------------------------------------------------------------------

    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        """Errors: Transient when the broker is away or an operator has to act; it says which."""
        clock = asyncio.get_running_loop()
        until = clock.time() + timeout_ms / 1000
        consumer = await self._settled_consumer(until)
        if consumer is None:
            return self._nothing()
        try:
            async with asyncio.timeout_at(until + POLL_GRACE_S):
                left_ms = max(0, int((until - clock.time()) * 1000))
                batches = await consumer.getmany(timeout_ms=left_ms, max_records=max_records)
            if batches and self._group:
                await failpoints.reach("after-poll")
        except TimeoutError:  # a reassignment began meanwhile, for which getmany ignores its own timeout
            self._count_as_poll(consumer)
            return self._nothing()
        except _CONSUMER_LIVES as error:
            raise Transient(self._advice(error)) from error
        except (KafkaError, failpoints.Raised) as error:
            self._join_again()
            raise Transient(f"reading broke, joining {self._group} again: {said(error)}") from error
        self.polled_at = time.monotonic()
        return self._records(batches) if batches else self._nothing()

    async def _settled_consumer(self, until: float) -> AIOKafkaConsumer | None:
        if not self._settled.is_set():
            joining = self._joining
            if joining is not None and joining.done() and not joining.cancelled():
                joining.result()  # raises when joining again ended in a bug
            try:
                async with asyncio.timeout_at(until):
                    await self._settled.wait()
            except TimeoutError:
                if self.consumer is not None:
                    self._count_as_poll(self.consumer)
                return None
        return self.consumer

    @staticmethod
    def _count_as_poll(consumer: AIOKafkaConsumer) -> None:
        """A poll that was cut short or waited for the group is one all the same. The library would think that
        nobody polls, leave the group and not join again; or, after a cancelled one, that somebody always does."""
        consumer._subscription._fetch_count = 0
        consumer._subscription._last_fetch_ended = time.monotonic()

    def _records(self, batches: Mapping[TopicPartition, Sequence[Any]]) -> list[Record]:
        self._heard()
        found: list[Record] = []
        for at, batch in batches.items():
            topic, number = self._cluster.at_home(at)
            found += [records.ours(topic, number, one) for one in batch]
        return found

    def _nothing(self) -> Sequence[Record]:
        """No records: quiet, or nobody there? The library does not say, but it dates the broker's answers."""
        limit_s = self._timings.silence_s
        if self._settled.is_set() and self.consumer is not None:
            fetched = [at for at in self.consumer.assignment() if self._cluster.at_home(at) not in self._paused]
            newest_ms = max((self.consumer.last_poll_timestamp(at) or 0 for at in fetched), default=0)
            if not fetched or newest_ms != self._newest_answer_ms:
                self._heard()
            self._newest_answer_ms = newest_ms
        else:
            limit_s += self._timings.rebalance_s
        silent_s = time.monotonic() - self._heard_at
        if silent_s > limit_s + self._timings.rejoin_s and self._joining is not None and self._joining.done():
            log.warning("reading begins anew", group=self._group, silent_s=round(silent_s))
            self._join_again()
        if silent_s > limit_s:
            raise Transient(self.trouble or f"no answer from the broker for {silent_s:.0f} s")
        return ()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()

    def _advice(self, error: KafkaError) -> str:
        if isinstance(error, NoOffsetForPartitionError):
            return f'group {self._group} has no first offset in {said(error)}: run "giclee topics apply"'
        if isinstance(error, OffsetOutOfRangeError):
            return f"what group {self._group} reads next is no longer there; set its offset by hand: {said(error)}"
        return f"group {self._group} may not read: {said(error)}"

    def pause(self, partitions: Collection[Partition]) -> None:
        mine = self._assigned.intersection(partitions)
        self._paused |= mine
        self._mark(AIOKafkaConsumer.pause, mine)

    def resume(self, partitions: Collection[Partition]) -> None:
        mine = self._assigned.intersection(partitions)
        self._paused -= mine
        self._mark(AIOKafkaConsumer.resume, mine)
        self._heard()  # nothing was fetched of them meanwhile

    def _mark(self, how: Callable[..., None], partitions: Collection[Partition]) -> None:
        if self.consumer is not None and partitions:
            how(self.consumer, *map(self._cluster.at_broker, partitions))

    # ---- offsets --------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        """Errors: Fenced, also for a member that was put out of the group: of an empty one, the broker would
        accept its commit. Transient after `Timings.commit_s`; the commit may still arrive."""
        consumer = self.consumer
        if consumer is None or not self._group or not self._assigned.issuperset(offsets):
            raise Fenced(f"{self._group}: not all of {sorted(offsets)} are ours")
        generation = self._generation(consumer)
        await failpoints.reach("before-offset-commit")
        try:
            async with asyncio.timeout(self._timings.commit_s):
                await consumer.commit({self._cluster.at_broker(at): offset for at, offset in offsets.items()})
        except (CommitFailedError, IllegalStateError) as error:
            raise Fenced(f"{self._group}: {said(error)}") from error
        except (KafkaError, TimeoutError) as error:
            raise Transient(f"commit of {self._group} not answered: {said(error)}") from error
        await failpoints.reach("after-offset-commit")
        if self._generation(consumer) != generation:
            raise Fenced(f"{self._group} moved on during the commit")
        self.committed_at = time.monotonic()
        self._heard()

    def _generation(self, consumer: AIOKafkaConsumer) -> int:
        generation: int = consumer._coordinator.generation
        if generation < 0:
            raise Fenced(f"{self._group} has put this member out")
        return generation

    async def caught_up(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The library's own positions, which pass control records; a partition without one yet is left out."""
        reached: dict[Partition, int] = {}
        for at in partitions:
            if self.consumer is None or not self._settled.is_set() or at not in self._assigned:
                continue
            try:
                async with asyncio.timeout(0):  # a position that is known is there without waiting
                    reached[at] = await self.consumer.position(self._cluster.at_broker(at))
            except (TimeoutError, IllegalStateError):
                continue
        return reached

    async def ends(self) -> Mapping[Partition, int]:
        """Per assigned partition the offset after the last record that may be read now. Errors: Transient."""
        if self.consumer is None:
            raise Transient(self.trouble or f"{self._group} is stopped")
        try:
            async with asyncio.timeout(self._timings.commit_s):
                found = await self.consumer.end_offsets([self._cluster.at_broker(at) for at in self._assigned])
        except (KafkaError, TimeoutError) as error:
            raise Transient(f"the broker does not say where its topics end: {said(error)}") from error
        return {self._cluster.at_home(at): offset for at, offset in found.items()}


async def _close(consumer: AIOKafkaConsumer) -> None:
    await ended(consumer.stop())
    await consumer._client.close()  # which `stop` leaves out when a stray cancellation cuts it short
