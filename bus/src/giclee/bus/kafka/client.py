"""What readers and writers share: where the broker is, how long to wait for it, and how to get rid of a client."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from giclee.bus import telemetry
from giclee.bus.transport import Partition

log = telemetry.logger(__name__)
Made = TypeVar("Made")

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Deadlines in seconds. A member that was killed holds its partitions for `session_s`."""

    session_s: float = 8.0
    heartbeat_s: float = 2.0
    rebalance_s: float = 20.0
    drain_margin_s: float = 4.0  # a member hears of a rebalance up to one heartbeat late, and must join in time
    request_s: float = 30.0  # of readers: at least rebalance_s + 10, or slow members make others join for ever
    poll_gap_max_s: float = 600.0
    join_s: float = 60.0
    commit_s: float = 10.0
    silence_s: float = 10.0  # so long without an answer to a fetch: the broker is away
    rejoin_s: float = 60.0  # so much longer: whoever fetches in the library may be dead, begin anew
    produce_request_s: float = 10.0
    send_s: float = 15.0  # one request that was lost, and another
    stop_s: float = 5.0
    metadata_age_s: float = 30.0

    @property
    def drain_s(self) -> float:
        """What a listener may take for draining before the group goes on without this member."""
        return self.rebalance_s - self.drain_margin_s


class KafkaSettings(Protocol):
    """What is read of giclee.bus.settings.KafkaSettings."""

    @property
    def bootstrap_servers(self) -> str: ...
    @property
    def topic_prefix(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster as the clients of one transport see it. `closing` holds clients that are on their way out."""

    settings: KafkaSettings
    client_id: str
    timings: Timings
    closing: set[asyncio.Task[None]] = field(default_factory=set)

    def connection(self, request_s: float) -> dict[str, Any]:
        """Arguments that every client of the library takes."""
        return {
            "bootstrap_servers": self.settings.bootstrap_servers,
            "client_id": self.client_id,
            "request_timeout_ms": int(request_s * 1000),
            "metadata_max_age_ms": int(self.timings.metadata_age_s * 1000),
        }

    def outside(self, name: str) -> str:
        """A topic or group as the broker knows it."""
        return self.settings.topic_prefix + name

    def at_broker(self, at: Partition) -> TopicPartition:
        return TopicPartition(self.outside(at.topic), at.number)

    def at_home(self, at: TopicPartition) -> Partition:
        return Partition(at.topic[len(self.settings.topic_prefix) :], at.partition)

    def let_go(self, closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Close a client in the background: with the broker away that outlasts every deadline of ours."""
        task = asyncio.create_task(closing)
        self.closing.add(task)
        task.add_done_callback(self.closing.discard)
        return task

    async def all_closed(self) -> None:
        """Wait for clients on their way out, at most `Timings.stop_s`."""
        if self.closing:
            await asyncio.wait(self.closing, timeout=self.timings.stop_s)


async def insist(
    attempt: Callable[[], Awaitable[Made]], limit_s: float, note: Callable[[str], None] = lambda trouble: None
) -> Made:
    """The result of the first attempt that succeeds; `note` is told why one did not. Only cancelling ends it early."""
    for pause_s in itertools.chain(BACKOFF_S, itertools.repeat(BACKOFF_S[-1])):
        try:
            async with asyncio.timeout(limit_s):
                return await attempt()
        except UnknownTopicOrPartitionError:
            trouble = 'a topic is not there: run "giclee topics apply"'
        except (KafkaError, OSError, TimeoutError) as error:
            trouble = f"the broker is away: {said(error)}"
        log.warning("broker not usable yet", error=trouble)
        note(trouble)
        await asyncio.sleep(pause_s)
    raise AssertionError("the pauses never end")


async def ended(work: Coroutine[Any, Any, None]) -> None:
    """Run the library's `stop` or `close` to its end; a CancelledError that it throws by itself stays in its task."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a client did not close cleanly", error=said(error))


def said(error: BaseException) -> str:
    """What an error says, or at least what it is."""
    return str(error) or type(error).__name__
