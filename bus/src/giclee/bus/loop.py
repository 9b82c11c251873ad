"""THE loop: poll, handle, settle. One per stage.

It keeps polling while handlers work (the backlog is bounded by pausing partitions), runs up to
`concurrency` handlers, keeps records of one key in order, waits for the broker's acknowledgement of
everything a handler returned, and commits only the contiguous prefix of finished offsets. When partitions
are taken away it first drains what is running, then forgets: a result of an older epoch is neither sent
nor committed. Stopping is the same drain, followed by leaving the group.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress

from giclee.bus import telemetry
from giclee.bus.errors import Fenced, Poison, Transient
from giclee.bus.layers import around
from giclee.bus.layers.dead_letter import StageStopped
from giclee.bus.progress import Job, Progress
from giclee.bus.stage import Context, Delivery, Emits
from giclee.bus.transport import Partition, Reader, Record
from giclee.schemas import envelope as wire

POLL_MS = 500
COMMIT_EVERY_S = 0.1
IDLE_COMMIT_EVERY_S = 3.0
"""How often a quiet partition's position is committed past control records, so that its lag reads 0."""
POLL_MAX = 500
BACKLOG_MIN = 1000
"""Records read ahead of the handlers: two polls, so that handlers never wait for one."""
BACKLOG_MAX_BYTES = 32 * 1024 * 1024
OUTAGE_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
BEAT_MAX_AGE_S = 60.0

log = telemetry.logger(__name__)


class Loop:
    """Runs one stage on one reader. `drain_s` bounds how long running handlers are waited for."""

    def __init__(self, context: Context, reader: Reader, *, drain_s: float = 12.0) -> None:
        self.context = context
        self.stage = context.stage
        self.reader = reader
        self.drain_s = drain_s
        self.progress = Progress()
        self.stopped_because: str | None = None
        self.beat_at = time.monotonic()
        self._handle = around(context, self._call)
        self._backlog_max = max(BACKLOG_MIN, 2 * self.stage.concurrency)
        self._ready: asyncio.Queue[Job] = asyncio.Queue()
        self._finished: list[tuple[Job, Emits]] = []
        self._woken = asyncio.Event()
        self._changed = asyncio.Event()
        self._unsettled = 0
        self._committing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._draining = False
        self._outages: dict[object, str] = {}
        self._paused = False
        self._held = False
        self._joined = False

    # ---- what probes ask ------------------------------------------------------------------------

    def alive(self) -> None:
        """Errors: Transient when the loop has not polled for a minute."""
        age_s = time.monotonic() - self.beat_at
        if self._joined and age_s > BEAT_MAX_AGE_S:  # joining takes as long as the broker is away
            raise Transient(f"{self.stage.name} has not polled for {age_s:.0f} s")

    async def check(self) -> None:
        """Errors: Transient that says why this stage makes no progress."""
        self.alive()
        if self.stopped_because:
            raise Transient(f"{self.stage.name} stopped itself: {self.stopped_because}")
        if self._outages:
            raise Transient(f"{self.stage.name} waits: {next(iter(self._outages.values()))}")
        if not self._joined:
            raise Transient(f"{self.stage.name} has not joined its group yet")

    # ---- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`: everything. Errors: whatever is a bug of the loop itself."""
        try:
            if not await self._join():
                return
            async with asyncio.TaskGroup() as tasks:
                inner = [tasks.create_task(self._work()) for _ in range(self.stage.concurrency)]
                inner.append(tasks.create_task(self._settle_always()))
                try:
                    await self._poll_until_stopped()
                finally:
                    await self._drain(list(self.progress.tracks))
                    for task in inner:
                        task.cancel()
        finally:
            await self.reader.stop()

    async def _join(self) -> bool:
        """Whether the group was joined before anybody said stop."""
        joining = asyncio.create_task(self.reader.start(self))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({joining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            joining.cancel()
            stopping.cancel()
            await asyncio.wait({joining, stopping})
        return not joining.cancelled() and joining.result() is None

    def stop(self) -> None:
        """Ask the loop to drain and end; nothing new is begun from here on."""
        self._draining = True
        self._stopping.set()
        self._woken.set()

    async def submit(self, record: Record) -> None:
        """Handle a record that no poll brought (a claim taken over), layers and acknowledgement included.

        Errors: Transient where the stage is stopping, or stopped itself: it begins no work then.
        """
        if self._stopping.is_set() or self.stopped_because is not None:
            raise Transient(f"{self.stage.name} takes no work: {self.stopped_because or 'it is stopping'}")
        job = Job(record, record.at, None)
        emits = await self._attempt(job)
        if emits is None:
            raise Transient(f"{self.stage.name} is stopping")
        await self._send(emits)
        await self._tell_settled([job])

    async def _poll_until_stopped(self) -> None:
        idle_commit_at = 0.0
        while not self._stopping.is_set():
            records = await self._poll()
            self.beat_at = time.monotonic()
            for record in records:
                job = self.progress.read(record)
                if job is not None:
                    self._ready.put_nowait(job)
            self._regulate()
            if self.beat_at >= idle_commit_at:
                await self._commit_idle()
                idle_commit_at = self.beat_at + IDLE_COMMIT_EVERY_S

    async def _poll(self) -> Sequence[Record]:
        try:
            return await self.reader.poll(POLL_MS, POLL_MAX)
        except Transient as error:
            log.warning("poll failed", stage=self.stage.name, error=str(error))
            await self._pause_for(OUTAGE_PAUSES_S[2])
            return ()

    def _regulate(self) -> None:
        """Pause all partitions while there is enough to do, an outage, or nothing may be done."""
        held = bool(self._outages) or self.stopped_because is not None
        if held != self._held:
            self._held = held
            telemetry.gauge("giclee_paused", float(held), stage=self.stage.name)
        waiting = self.progress.pending + self._unsettled
        backlog = max(waiting / self._backlog_max, self.progress.pending_bytes / BACKLOG_MAX_BYTES)
        if not self._paused and (held or backlog >= 1):
            self._paused = True
            self.reader.pause(tuple(self.progress.tracks))
        elif self._paused and not held and backlog <= 0.5:
            self._paused = False
            self.reader.resume(tuple(self.progress.tracks))

    async def _work(self) -> None:
        while True:
            job = await self._ready.get()
            if not self._draining and self.stopped_because is None and not self.progress.is_stale(job):
                emits = await self._attempt(job)
                if emits is not None:
                    self._unsettled += 1
                    self._finished.append((job, emits))
                    self._woken.set()
            following = self.progress.release(job)
            if following is not None:
                self._ready.put_nowait(following)
            self._changed.set()

    async def _call(self, delivery: Delivery) -> Sequence[object]:
        return await self.stage.handle(delivery.event)

    async def _attempt(self, job: Job) -> Emits | None:
        """What the handler emits; None when the work was given up and the record will come again."""
        record = job.record
        found = wire.read(record.headers).at(record.origin(), record.timestamp_ms, record.value)
        delivery = Delivery(record=record, envelope=found)
        tries = 0
        try:
            while True:
                try:
                    emits: Emits = await self._handle(delivery)
                    if self.stage.settled is not None:
                        job.event = delivery.event  # else nobody needs it: its memory is the next event's
                    return emits
                except Transient as error:
                    await self._wait_out(job, error, tries)
                    tries += 1
                    if self._stopping.is_set() or self._draining or self.progress.is_stale(job):
                        return None
        except StageStopped as error:
            self.stopped_because = str(error)
            log.critical("stage stopped itself", stage=self.stage.name, error=str(error))
            self._regulate()
            return None
        finally:
            if self._outages.pop(job, None) is not None:
                self._regulate()

    async def _wait_out(self, job: Job, error: Transient, tries: int) -> None:
        """Something behind us is away: pause the stage, be unready, wait a little longer each time."""
        self._outages[job] = str(error)
        self._regulate()
        telemetry.count("giclee_retries_total", stage=self.stage.name, scope="dependency")
        log.warning("waiting", stage=self.stage.name, error=str(error), tries=tries)
        await self._pause_for(OUTAGE_PAUSES_S[min(tries, len(OUTAGE_PAUSES_S) - 1)])

    async def _pause_for(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.7, 1.3)):
                await self._stopping.wait()

    # ---- settling -------------------------------------------------------------------------------

    async def _settle_always(self) -> None:
        commit_at = 0.0
        while True:
            waiting = bool(self.progress.committable())
            with suppress(TimeoutError):
                async with asyncio.timeout(COMMIT_EVERY_S if waiting else None):
                    await self._woken.wait()
            self._woken.clear()
            await self._settle()
            if time.monotonic() >= commit_at:
                await self._commit(self.progress.committable())
                commit_at = time.monotonic() + COMMIT_EVERY_S

    async def _settle(self) -> None:
        """Send what finished handlers returned, in the order they finished, and wait for every acknowledgement."""
        finished, self._finished = self._finished, []
        current = [(job, emits) for job, emits in finished if not self.progress.is_stale(job)]
        if current:
            await self._send([record for _, emits in current for record in emits])
            await self._tell_settled([job for job, _ in current])
        for job, _ in current:
            self.progress.settle(job)
        self._unsettled -= len(finished)
        self._regulate()  # nobody else looks before the poll has slept to its end
        self._changed.set()
        self._count(current)

    def _count(self, settled: Sequence[tuple[Job, Emits]]) -> None:
        """Metrics once per batch: a call per record would cost more than the decoding."""
        stage = self.stage.name
        handled = Counter([job.at.topic for job, _ in settled])
        emitted = Counter([record.topic for _, emits in settled for record in emits])
        for topic, number in handled.items():
            telemetry.count("giclee_records_handled_total", number, stage=stage, topic=topic)
        for topic, number in emitted.items():
            telemetry.count("giclee_records_emitted_total", number, stage=stage, topic=topic)

    async def _send(self, records: Sequence[Record]) -> None:
        """Send until acknowledged: ids are deterministic, so sending again is the same event again."""
        tries, sending = 0, object()
        try:
            while records:
                try:
                    await self.context.send(records)
                    return
                except Transient as error:
                    self._outages[sending] = str(error)
                    self._regulate()
                    log.warning("send failed", stage=self.stage.name, error=str(error), tries=tries)
                    await asyncio.sleep(OUTAGE_PAUSES_S[min(tries, len(OUTAGE_PAUSES_S) - 1)])
                    tries += 1
        except Poison as error:  # an event of ours that no topic takes: a bug, and every record behind it waits
            self.stopped_because = f"an emitted record was refused: {error}"
            raise
        finally:
            self._outages.pop(sending, None)

    async def _tell_settled(self, jobs: Sequence[Job]) -> None:
        events = [job.event for job in jobs if job.event is not None]
        if events and self.stage.settled is not None:
            try:
                await self.stage.settled(events)
            except (Transient, Poison) as error:  # a hint only: what is not marked is emitted again, the same event
                log.warning("settled was not noted", stage=self.stage.name, error=str(error))

    async def _commit(self, offsets: dict[Partition, int]) -> None:
        async with self._committing:  # of two on their way at once the older could land last
            ahead = self.progress.ahead(offsets)
            if not ahead:
                return
            try:
                await self.reader.commit(ahead)
            except (Fenced, Transient) as error:
                log.warning("commit failed", stage=self.stage.name, error=str(error))
                return
            self.progress.committed(ahead)

    async def _commit_idle(self) -> None:
        try:
            reached = await self.reader.caught_up(tuple(self.progress.idle()))
        except Transient:
            return
        await self._commit(dict(reached))

    # ---- rebalance and end ----------------------------------------------------------------------

    async def revoked(self, partitions: Collection[Partition]) -> None:
        """The group takes `partitions` away: finish what runs, commit, forget."""
        try:
            await self._drain(partitions)
        finally:  # also where the group did not wait for us
            self.progress.revoke(partitions)

    async def assigned(self, partitions: Collection[Partition]) -> None:
        """The group gives `partitions`."""
        self.beat_at = time.monotonic()
        self.progress.assign(partitions)
        self._draining = self._stopping.is_set()
        self._joined = True
        # either way: what stays with a reader stays paused, and the pause may have ended while nothing was ours
        (self.reader.pause if self._paused else self.reader.resume)(tuple(partitions))

    async def _drain(self, partitions: Collection[Partition]) -> None:
        """Start nothing new; wait until what was started is acknowledged, or the budget ends; commit.

        Records that were read but not started are dropped: whoever gets the partition reads them again.
        """
        self._draining = True
        try:
            async with asyncio.timeout(self.drain_s):
                while self.progress.pending or self._unsettled:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("drain budget spent", stage=self.stage.name, left=self.progress.pending)
        await self._commit({at: to for at, to in self.progress.committable().items() if at in partitions})
