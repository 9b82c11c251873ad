"""What a loop knows of its partitions: which offsets are in flight, which are done, what may be committed.

Pure bookkeeping. Only the contiguous prefix of finished offsets may be committed; records of one key wait
for each other; a partition that was taken away and came back has a new epoch, and what was begun under
the old one no longer counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from giclee.bus.transport import Partition, Record
from giclee.schemas.events import Event


@dataclass(slots=True, eq=False)
class Job:
    """One record being handled. `epoch` is its partition's at the time; None for work that no poll brought. `event`
    is there once it was handled, for a stage that wants to know what was settled."""

    record: Record
    at: Partition
    epoch: int | None
    event: Event | None = None


class Track:
    """One assigned partition."""

    __slots__ = ("committed", "done", "epoch", "inflight", "next_offset")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.inflight: deque[int] = deque()  # offsets in the order they were read
        self.done: set[int] = set()
        self.next_offset = -1  # what may be committed; -1 until something was read
        self.committed = -1

    def settle(self, offset: int) -> None:
        """Note that a record is finished and move the committable offset over the finished prefix."""
        self.done.add(offset)
        while self.inflight and self.inflight[0] in self.done:
            first = self.inflight.popleft()
            self.done.discard(first)
            self.next_offset = first + 1


class Progress:
    """All assigned partitions of one reader, and the records that wait for an earlier one of their key."""

    def __init__(self) -> None:
        self.tracks: dict[Partition, Track] = {}
        self.pending = 0
        self.pending_bytes = 0
        self._epoch = 0
        self._waiting: dict[tuple[Partition, bytes], deque[Job]] = {}

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Begin a new epoch for each of `partitions`."""
        self._epoch += 1
        for partition in partitions:
            self.tracks[partition] = Track(self._epoch)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Forget `partitions`; their jobs are stale from now on."""
        for partition in partitions:
            self.tracks.pop(partition, None)

    def read(self, record: Record) -> Job | None:
        """Take in a record that was read. None when an earlier record of its key must end first."""
        at = record.at
        track = self.tracks.get(at)
        if track is None:
            return None
        track.inflight.append(record.offset)
        self.pending += 1
        self.pending_bytes += len(record.value or b"")
        job = Job(record, at, track.epoch)
        if record.key is None:
            return job
        place = (at, record.key)
        if place in self._waiting:
            self._waiting[place].append(job)
            return None
        self._waiting[place] = deque()
        return job

    def release(self, job: Job) -> Job | None:
        """A job's handling ended: the next record of its key, if one waits."""
        self.pending -= 1
        self.pending_bytes -= len(job.record.value or b"")
        if job.record.key is None:
            return None
        place = (job.at, job.record.key)
        queue = self._waiting.get(place)
        if not queue:
            self._waiting.pop(place, None)
            return None
        return queue.popleft()

    def is_stale(self, job: Job) -> bool:
        """Whether the partition moved away since this job was read."""
        if job.epoch is None:
            return False
        track = self.tracks.get(job.at)
        return track is None or track.epoch != job.epoch

    def settle(self, job: Job) -> None:
        """A job's results are acknowledged; a stale job changes nothing."""
        track = self.tracks.get(job.at)
        if track is not None and track.epoch == job.epoch:
            track.settle(job.record.offset)

    def committable(self) -> dict[Partition, int]:
        """Offsets that moved since the last commit."""
        return self.ahead({at: track.next_offset for at, track in self.tracks.items()})

    def ahead(self, offsets: dict[Partition, int]) -> dict[Partition, int]:
        """Those of `offsets` that would move a position of ours forward."""
        return {at: to for at, to in offsets.items() if at in self.tracks and to > self.tracks[at].committed}

    def committed(self, offsets: dict[Partition, int]) -> None:
        """Note what the group has accepted."""
        for at, offset in offsets.items():
            if at in self.tracks:
                self.tracks[at].committed = max(self.tracks[at].committed, offset)

    def idle(self) -> Iterator[Partition]:
        """Partitions with nothing in flight."""
        return (at for at, track in self.tracks.items() if not track.inflight)
