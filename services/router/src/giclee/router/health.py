"""Provider health, a process of its own: `python -m giclee.router.health`. A Faust application with one job, windows.

Reads attempts (provider.outcome.v1) and judged images (image.scored.v1), keeps the last minute and a fading memory
of each model in two tables, and publishes what they come to on provider.health.v1. At least once and no more: after
a crash an attempt may count twice or not at all, so nothing that matters is summed here. Everybody works without it.

How Faust wants to be run was measured: one stream per agent, small buffers, commits every second, tables in
memory with a changelog topic of as many partitions as their source, all topics made beforehand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import faust
from pydantic import ValidationError

from giclee.bus import kafka, probes, settings, telemetry
from giclee.bus.errors import Transient
from giclee.router import memory
from giclee.router.settings import RouterHealthSettings
from giclee.schemas import envelope, topics
from giclee.schemas.events import Event, ImageScored, ProviderHealth, ProviderOutcome

GROUP = "giclee.router.health"
OUTCOMES, SCORES = "outcomes", "scores"
STUCK_S = 120.0
"""Without progress for so long the process ends, and its supervisor starts it again."""
START_MAX_S = 120.0
STOP_MAX_S = 15.0
WATCH_EVERY_S = 2.0

log = telemetry.logger("giclee.router.health")


class Health:
    """The application, its two tables, and what probes and the watch need to know."""

    def __init__(self, own: RouterHealthSettings) -> None:
        self._prefix = own.kafka.topic_prefix
        self.app = _application(own)
        self._published: set[str] = set()
        self._published_s = self._moved_s = time.monotonic()
        self._read = 0
        self._outcomes = self._table(OUTCOMES, ProviderOutcome)
        self._scores = self._table(SCORES, ImageScored)
        self._health = self._topic(ProviderHealth)
        self.app.agent(self._topic(ProviderOutcome), name="outcomes", concurrency=1)(self._count_outcomes)
        self.app.agent(self._topic(ImageScored), name="scores", concurrency=1)(self._count_scores)
        self.app.timer(interval=own.publish_every_s)(self._publish)

    def _topic(self, event: type[Event]) -> Any:
        name = self._prefix + topics.topic_of(event)
        return self.app.topic(name, key_serializer="raw", value_serializer="raw", allow_empty=True)

    def _table(self, name: str, source: type[Event]) -> Any:
        """`provider/model` -> its record: window and memory (`memory.py`).

        One value per model, whichever partition spoke of it: close enough for advice.
        """
        return self.app.Table(name, default=dict, partitions=topics.row_of(source).partitions)

    async def _count_outcomes(self, stream: Any) -> None:
        async for value in stream:
            outcome = _read(ProviderOutcome, value)
            if outcome is not None:
                key = f"{outcome.provider}/{outcome.model}"
                self._outcomes[key] = memory.counted(self._outcomes[key], outcome, time.time())

    async def _count_scores(self, stream: Any) -> None:
        async for event in stream.events():
            scored = _read(ImageScored, event.value)
            if scored is not None:
                key, at_s = f"{scored.provider}/{_name(scored)}", event.message.timestamp
                self._scores[key] = memory.judged(
                    self._scores[key], scored.asset_type, passed=scored.passes(), at_s=at_s, now_s=time.time()
                )

    async def _publish(self) -> None:
        """Tell how every provider does; one that was silent for a window is told about once more, then not again."""
        for row in self._rows(time.time()):
            busy = bool(row.attempts or row.scored)
            if busy or row.provider in self._published:
                await self._health.send(key=row.key().encode(), value=_json(row), headers=list(_headers(row)))
            (self._published.add if busy else self._published.discard)(row.provider)
        self._published_s = time.monotonic()

    def _rows(self, now_s: float) -> Iterator[ProviderHealth]:
        models: dict[str, dict[str, Any]] = {}
        for key in sorted({*self._outcomes.keys(), *self._scores.keys()}):
            provider, slash, model = key.rpartition("/")
            if slash:  # before models were told apart the key was the provider alone: that minute is over
                models.setdefault(provider, {})[model] = (self._outcomes[key], self._scores[key])
        for provider, records in models.items():
            yield memory.health(provider, records, now_s)

    # ---- is it well ---------------------------------------------------------------------------------

    def alive(self) -> None:
        """Errors: Transient when records wait and none was read for long, or nothing could be published."""
        now = time.monotonic()
        if not self.app.started:
            self._published_s = self._moved_s = now
        self._look()
        if now - self._moved_s > STUCK_S:
            raise Transient(f"records wait and none was read for {STUCK_S:g} s")
        if now - self._published_s > STUCK_S:
            raise Transient(f"nothing could be published for {STUCK_S:g} s")

    async def ready(self) -> None:
        """Errors: Transient until streams run."""
        if not (self.app.started and self.app.consumer.assignment()):
            raise Transient("no partition is read yet")

    def _look(self) -> None:
        """Note whether reading goes on: something was read, or there is nothing to read."""
        monitor = self.app.monitor
        if monitor.messages_received_total != self._read or not self._waiting():
            self._read, self._moved_s = monitor.messages_received_total, time.monotonic()

    def _waiting(self) -> bool:
        if not self.app.started:
            return False
        consumer, read = self.app.consumer, self.app.monitor.tp_read_offsets
        assigned = consumer.assignment()
        return not assigned or any(
            place in read and (consumer.highwater(place) or 0) > read[place] + 1 for place in assigned
        )


def _application(own: RouterHealthSettings) -> Any:
    return faust.App(
        own.kafka.topic_prefix + GROUP,
        broker=[f"kafka://{server.strip()}" for server in own.kafka.bootstrap_servers.split(",")],
        store="memory://",
        # tables live in memory, yet folders are made for them: not where the process happens to be started
        datadir=f"{tempfile.gettempdir()}/giclee-{os.getuid()}.router.health",
        processing_guarantee="at_least_once",
        broker_session_timeout=30,
        broker_rebalance_timeout=60,
        broker_request_timeout=90,
        broker_commit_interval=1,
        stream_buffer_maxsize=256,
        stream_wait_empty=True,
        table_standby_replicas=0,
        topic_disable_leader=True,
        topic_allow_declare=False,
        # offsets that are lost are no reason to stand still: what is older than a window is dropped anyway
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )


def _read(event: type[Any], value: bytes | None) -> Any:
    """The event in a record; None for one that cannot be read: whoever owns the topic makes its dead letter."""
    try:
        found = event.model_validate_json(value or b"")
    except ValidationError:
        telemetry.count("giclee_health_records_total", kind="unreadable")
        return None
    telemetry.count("giclee_health_records_total", kind=event.__name__)
    return found


def _name(scored: ImageScored) -> str:
    return scored.model.name if scored.model else "unknown"


def _json(row: ProviderHealth) -> bytes:
    return row.model_dump_json(exclude_none=True).encode()


def _headers(row: ProviderHealth) -> envelope.Headers:
    return envelope.write(
        id=str(row.event_id()),
        type=row.type_name,
        source="giclee/router.health",
        subject=None,
        cause=None,
        traceparent=None,
        dataschema="https://giclee.dev/schemas/json/ProviderHealth.v1.json",
    )


def changelogs() -> dict[str, int]:
    """The topics that must exist for the tables, with their partitions (those of the tables' sources)."""
    sources: dict[str, type[Event]] = {OUTCOMES: ProviderOutcome, SCORES: ImageScored}
    return {f"{GROUP}-{name}-changelog": topics.row_of(source).partitions for name, source in sources.items()}


async def main(own: RouterHealthSettings) -> None:
    """Run until a signal. Errors: SystemExit(1) when the streams end or stand still."""
    telemetry.start("router.health", log_level=own.process.log_level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = Health(own)
    checks, alive = {"streams": health.ready}, {"streams": health.alive}
    async with probes.serving(own.process, checks=checks, alive=alive, internal={}):
        broker = asyncio.ensure_future(kafka.KafkaTransport(own.kafka, client_id="giclee-router-health").cluster_id())
        stopped = asyncio.ensure_future(stop.wait())
        # Faust gives up at once when there is no broker; waiting here spares the supervisor a row of restarts.
        await asyncio.wait({broker, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (broker, stopped):
            waiting.cancel()
        trouble = None if stop.is_set() else await _run(health, stop)
    if trouble is not None:
        log.critical("provider health ends", why=trouble)
        raise SystemExit(1)


async def _run(health: Health, stop: asyncio.Event) -> str | None:
    """Run the streams until `stop`; what ended them otherwise."""
    app = health.app
    app.finalize()
    try:
        async with asyncio.timeout(START_MAX_S):
            await app.start()
        log.info("started", service="router.health")
        while not stop.is_set():
            if app.should_stop:
                return f"the streams ended: {app.crash_reason!r}"
            health.alive()
            await _a_moment(stop)
    except TimeoutError:
        return f"the streams did not start within {START_MAX_S:g} s"
    except Transient as error:
        return str(error)
    finally:
        await _stopped(app)
    return None


async def _a_moment(stop: asyncio.Event) -> None:
    """Wait for `stop`, a little."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WATCH_EVERY_S):
            await stop.wait()


async def _stopped(app: Any) -> None:
    try:
        async with asyncio.timeout(STOP_MAX_S):
            await app.stop()
    except TimeoutError:
        log.warning("streams did not stop in time", after_s=STOP_MAX_S)


if __name__ == "__main__":
    asyncio.run(main(settings.load(RouterHealthSettings)))
