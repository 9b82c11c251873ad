"""Puts dead letters back: claimed first, sent, marked when the broker has acknowledged.

A process that dies in between leaves rows in `replaying`; they are sent again, which is harmless, because
a replay carries the id of the event and the stage it is for. Two operators on one range never send a
record twice: the claim is a compare-and-set.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from giclee.bus import dlq, failpoints, telemetry
from giclee.bus.errors import Poison, Transient
from giclee.bus.transport import Send
from giclee.replay.store import Store, record_of
from giclee.schemas import topics

SWEEP_EVERY_S = 5.0
AT_ONCE = 50
"""Dead letters claimed, sent and marked together: up to 60 MiB."""
REPLAYS_MAX = 3
"""A record that came back this often needs a person and a changed cause, not another try."""

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay of one dead letter would do: `go`, or `refuse` with the reason."""

    dlq_id: uuid.UUID
    verdict: str
    topic: str
    stage: str
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "dlq_id": str(self.dlq_id),
            "verdict": self.verdict,
            "topic": self.topic,
            "stage": self.stage,
            "why": self.why,
        }


def verdict_on(row: asyncpg.Record, allowed: frozenset[str], *, again: bool) -> Verdict:
    """Whether this dead letter may go back to where it came from. Pure."""
    why = ""
    if row["original_topic"] not in allowed:
        why = f"{row['original_topic']} is no topic of ours"
    elif row["omitted"]:
        why = "was too large to be kept; its bytes are where it failed"
    elif row["state"] == "replayed" and not again:
        why = "was replayed already; say --again to send it once more"
    elif row["state"] not in ("open", "replayed"):
        why = f"is {row['state']}"
    elif row["replay_count"] >= REPLAYS_MAX and not again:
        why = f"came back {row['replay_count']} times; mend the cause, then say --again"
    return Verdict(row["dlq_id"], "refuse" if why else "go", row["original_topic"], row["stage"], why)


class Runs:
    """Replays, one at a time or many, and finishes what a dead process began."""

    def __init__(self, store: Store, send: Send, pools: tuple[str, ...]) -> None:
        self._store = store
        self._send = send
        self._allowed = frozenset(
            row.name for row in topics.all_topics(pools) if not row.name.endswith((".dlq", ".held"))
        )

    def verdicts(self, rows: Sequence[asyncpg.Record], *, again: bool) -> list[Verdict]:
        """What a replay of `rows` would do, without doing it."""
        return [verdict_on(row, self._allowed, again=again) for row in rows]

    async def replay(
        self, rows: Sequence[asyncpg.Record], *, actor: str, reason: str, again: bool
    ) -> tuple[uuid.UUID, int]:
        """Send every row that may go, oldest first; the run's id and how many the broker has."""
        run_id = uuid.uuid4()
        ordered = sorted(rows, key=_place)
        going = [one.dlq_id for one in self.verdicts(ordered, again=again) if one.verdict == "go"]
        await self._store.note(actor, "replay", reason, run_id, {"dlq_ids": [str(dlq_id) for dlq_id in going]})
        sent = 0
        for start in range(0, len(going), AT_ONCE):
            claimed = await self._store.claim(going[start : start + AT_ONCE], run_id, again=again)
            sent += await self._send_and_mark(claimed)
        return run_id, sent

    async def sweep(self) -> None:
        """Until cancelled: send what a dead process had claimed."""
        while True:
            try:
                await self.finish()
            except Transient as error:
                log.warning("sweep waits", error=str(error))
            await asyncio.sleep(SWEEP_EVERY_S)

    async def finish(self) -> None:
        """Send everything that was claimed half a minute ago and never marked."""
        while left := await self._store.unfinished(AT_ONCE):
            for run_id in {row["run_id"] for row in left}:
                await self._send_and_mark([row for row in left if row["run_id"] == run_id])

    async def _send_and_mark(self, rows: Sequence[asyncpg.Record]) -> int:
        """How many rows of one run the broker has; what it will never take is parked. Errors: Transient."""
        if not rows:
            return 0
        await failpoints.reach("after-replay-claim")
        rows, run_id = sorted(rows, key=_place), rows[0]["run_id"]
        records = [dlq.replay_of(record_of(row, row["dlq_topic"]), run_id=str(run_id)) for row in rows]
        try:
            await self._send(records)
        except Poison as error:
            if len(rows) > 1:
                return sum([await self._send_and_mark([row]) for row in rows])
            await self._park(rows[0]["dlq_id"], run_id, str(error))
            return 0
        await failpoints.reach("before-replay-mark")
        await self._store.replayed([row["dlq_id"] for row in rows], run_id)
        await failpoints.reach("after-replay-mark")
        return len(rows)

    async def _park(self, dlq_id: uuid.UUID, run_id: uuid.UUID, why: str) -> None:
        log.error("a dead letter cannot be put back", dlq_id=str(dlq_id), error=why)
        await self._store.note("giclee", "park", why, run_id, {"dlq_ids": [str(dlq_id)]})
        await self._store.parked(dlq_id, run_id)


def _place(row: asyncpg.Record) -> tuple[str, int, int]:
    return row["original_topic"], row["original_partition"], row["original_offset"]
