"""What became of the replays of one run: a stage has handled a record when its group has committed past it; when no
dead letter tells of the record's new place by then, it went well. A run whose records come straight back stops.

Kept in memory, and read back from the index when another process goes on with the run.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque

from giclee.bus.transport import Lookup, Partition
from giclee.replay.ledger import Ledger

INDEX_GROUP = "giclee.replay"
IN_A_ROW_MAX = 10
"""So many in a row that came straight back: the cause is not mended."""
SETTLED_MIN, BACK_MAX = 20, 0.5
"""Of at least so many that were handled, this share came straight back."""
WATCHED_MAX = 20_000
"""Places watched at once; a run without a rate may be far ahead of the stage, and the newest tell enough."""
INDEX_WAIT_S = 5.0


class Outcomes:
    """`waiting` replays have not been handled; `settled` were, of which `back` are dead letters again."""

    def __init__(self, run_id: uuid.UUID, ledger: Ledger, lookup: Lookup) -> None:
        self.settled = 0
        self.back = 0
        self._in_a_row = 0
        self._run_id = run_id
        self._ledger = ledger
        self._lookup = lookup
        self._waiting: dict[tuple[str, str], deque[tuple[int, int]]] = {}

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def sent(self, stage: str, topic: str, partition: int, offset: int) -> None:
        """A replay lies there now; nothing can be told of one whose place the broker has forgotten."""
        if offset >= 0:
            self._waiting.setdefault((stage, topic), deque(maxlen=WATCHED_MAX)).append((partition, offset))

    async def recall(self) -> None:
        """What an earlier process sent."""
        for row in reversed(await self._ledger.last_sent(self._run_id, IN_A_ROW_MAX * 100)):
            self.sent(row["stage"], row["original_topic"], row["sent_partition"], row["sent_offset"])

    def why_stop(self) -> str | None:
        """Why nothing more should be sent."""
        if self._in_a_row >= IN_A_ROW_MAX:
            return f"the last {self._in_a_row} came straight back"
        if self.settled >= SETTLED_MIN and self.back >= self.settled * BACK_MAX:
            return f"{self.back} of {self.settled} came straight back"
        return None

    async def settle(self) -> None:
        """Look what has been handled since. Errors: Transient."""
        for (stage, topic), places in self._waiting.items():
            committed = await self._lookup.committed(f"giclee.{stage}")
            done = [one for one in places if one[1] < committed.get(Partition(topic, one[0]), -1)]
            if not done or not await self._index_has_read(f"{topic}.dlq"):
                continue
            again = await self._ledger.came_back(self._run_id, topic, done)
            gone = set(done)
            self._waiting[stage, topic] = deque((one for one in places if one not in gone), maxlen=WATCHED_MAX)
            for one in done:
                self.settled += 1
                self.back += one in again
                self._in_a_row = self._in_a_row + 1 if one in again else 0

    async def _index_has_read(self, topic: str) -> bool:
        """Whether the index knows everything that is on a topic now; waits a little for it."""
        ends = await self._lookup.ends(topic)
        deadline = asyncio.get_running_loop().time() + INDEX_WAIT_S
        while True:
            mine = await self._lookup.committed(INDEX_GROUP)
            if all(mine.get(at, 0) >= end for at, end in ends.items()):
                return True
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.1)
