"""Works on runs: reads a batch of what a run has frozen, looks at it, sends it, marks it when the broker has it.

A process that dies in between leaves a run whose lease expires and letters in `replaying`: the next one goes on
there, and sends at most one batch again, under the ids it had. Two runs never have the same letter: taking it is a
compare-and-set. Between batches a run may be paused, stopped or aborted.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence

from giclee.bus import failpoints, telemetry
from giclee.bus.errors import Poison, Transient
from giclee.bus.transport import Lookup, Record, Send
from giclee.replay.ledger import Ledger, Order
from giclee.replay.outcomes import Outcomes
from giclee.replay.patch import Operation
from giclee.replay.preflight import Look, Preflight
from giclee.replay.store import Note, Row
from giclee.schemas.parts import Position

BATCH = 1000
"""Letters read, sent and marked together; a crash sends at most so many again."""
RUNS_AT_ONCE = 4
LOOK_EVERY_S = 0.5
SETTLE_EVERY_S = 0.5
PAUSE_S = 1.0
AT_WORK = ("canary", "running")

log = telemetry.logger(__name__)


class Runs:
    """Starts runs, and works on those that nobody works on."""

    def __init__(self, ledger: Ledger, lookup: Lookup, preflight: Preflight, send: Send) -> None:
        self._ledger = ledger
        self._lookup = lookup
        self._preflight = preflight
        self._send = send
        self._owner = uuid.uuid4().hex
        self._woken = asyncio.Event()
        self._at_work: dict[asyncio.Task[None], uuid.UUID] = {}

    async def start(self, order: Order, actor: str, reason: str) -> Row:
        """Freeze a selection as a run; it is worked on from now on, here or by another replica."""
        run = await self._ledger.freeze(order, Note(actor, order.action, reason, uuid.uuid4()))
        self._woken.set()
        return run

    async def steer(self, run_id: uuid.UUID, verb: str, actor: str, reason: str) -> bool:
        """Pause, resume or abort; whether the run was in a state for it."""
        before, after = {
            "pause": (("canary", "running", "paused"), "paused"),
            "resume": (("paused", "stopped", "running"), "running"),
            "abort": (("canary", "running", "paused", "stopped", "aborting"), "aborting"),
        }[verb]
        moved = await self._ledger.move(run_id, (before, after), reason, Note(actor, verb, reason, run_id))
        self._woken.set()
        return moved

    async def work(self) -> None:
        """Until cancelled: take runs that want work."""
        try:
            while True:
                try:
                    await self._take_all()
                except Transient as error:
                    log.warning("runs wait", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._woken.wait()
                self._woken.clear()
        finally:
            for task in self._at_work:
                task.cancel()
            await asyncio.gather(*self._at_work, return_exceptions=True)

    async def _take_all(self) -> None:
        for task, run_id in [one for one in self._at_work.items() if one[0].done()]:
            del self._at_work[task]
            if (error := task.exception()) is not None:  # a bug of ours must not take the other runs with it
                log.critical("a run ended in a bug", run_id=str(run_id), exc_info=error)
                note = Note("giclee", "stopped", f"a bug: {type(error).__name__}", run_id)
                await self._ledger.move(run_id, (AT_WORK, "stopped"), note.reason, note)
        while len(self._at_work) < RUNS_AT_ONCE and (run := await self._ledger.take(self._owner)) is not None:
            task = asyncio.create_task(self._drive(run["run_id"]), name=f"run {run['run_id']}")
            task.add_done_callback(lambda _: self._woken.set())
            self._at_work[task] = run["run_id"]

    async def _drive(self, run_id: uuid.UUID) -> None:
        """Work on a run until it ends, is put aside, or another process has it."""
        pace = _Pace(Outcomes(run_id, self._ledger, self._lookup))
        recalled = False
        while True:
            try:
                run = await self._ledger.keep(run_id, self._owner)
                if run is None or run["state"] not in (*AT_WORK, "aborting"):
                    break
                if not recalled:
                    await pace.outcomes.recall()
                    recalled = True
                await self._step(run, pace)
            except Transient as error:
                log.warning("a run waits", run_id=str(run_id), error=str(error))
                await asyncio.sleep(PAUSE_S)
        with contextlib.suppress(Transient):
            await self._ledger.leave(run_id, self._owner)

    async def _step(self, run: Row, pace: _Pace) -> None:
        """One batch, or one look at what became of the canaries. Errors: Transient."""
        if run["state"] == "aborting":
            await self._move(run, ("aborting",), "aborted", run["why"])
            return
        if not await pace.may_go():
            return
        left = run["canary"] - run["sent"] if run["state"] == "canary" else BATCH
        letters = await self._ledger.next_letters(run["run_id"], pace.size(run["rate_per_s"], left)) if left > 0 else []
        if letters:
            await self._put_back(run, letters, pace.outcomes)
            pace.went(run["rate_per_s"], len(letters))
        if not letters or pace.is_due():
            await pace.outcomes.settle()
        if why := self._why_stop(run, pace.outcomes):
            await self._move(run, AT_WORK, "stopped", why)
        elif not letters:
            await self._end_of_part(run, pace.outcomes)

    async def _end_of_part(self, run: Row, outcomes: Outcomes) -> None:
        """Nothing to send now: the canaries are all out, or everything is."""
        if run["state"] != "canary":
            await self._move(run, ("running",), "done", None)
        elif outcomes.waiting == 0:
            await self._move(run, ("canary",), "running", f"{outcomes.settled} canaries: {outcomes.back} came back")
        else:
            await asyncio.sleep(SETTLE_EVERY_S)

    def _why_stop(self, run: Row, outcomes: Outcomes) -> str | None:
        if run["state"] == "canary" and outcomes.waiting == 0 and outcomes.settled:
            return f"{outcomes.back} of {outcomes.settled} canaries came back" if _half(outcomes) else None
        return outcomes.why_stop()

    async def _move(self, run: Row, before: Sequence[str], after: str, why: str | None) -> None:
        note = Note("giclee", after, why or "everything is sent", run["run_id"])
        await self._ledger.move(run["run_id"], (before, after), why, note)

    # ---- one batch ------------------------------------------------------------------------------

    async def _put_back(self, run: Row, letters: Sequence[Row], outcomes: Outcomes) -> None:
        """Send what may go and mark it; what may not is open again, with the reason. Errors: Transient."""
        patch = [Operation.model_validate(one) for one in run["patch"] or ()]
        looks = await self._preflight.look(letters, patch, run=str(run["run_id"]), action=run["action"])
        going = [one for one in looks if one.record is not None]
        refused = {one.row["dlq_id"]: "; ".join(one.why) for one in looks if one.record is None}
        if refused:
            await self._ledger.gave_up(run, refused, "open")
        if changes := {one.row["dlq_id"]: one.changes for one in going if one.changes}:
            await self._ledger.edited(run, changes)
        await self._send_and_mark(run, going, outcomes)

    async def _send_and_mark(self, run: Row, looks: Sequence[Look], outcomes: Outcomes) -> None:
        """Marked only when the broker has them; what its topic never takes is parked."""
        records: list[Record] = [one.record for one in looks if one.record is not None]
        if not records:
            return
        await failpoints.reach("after-replay-claim")
        try:
            positions: Sequence[Position] = await self._send(records)
        except Poison as error:
            if len(looks) == 1:
                await self._ledger.gave_up(run, {looks[0].row["dlq_id"]: str(error)}, "parked")
                return
            middle = len(looks) // 2
            await self._send_and_mark(run, looks[:middle], outcomes)
            await self._send_and_mark(run, looks[middle:], outcomes)
            return
        ids = [one.row["dlq_id"] for one in looks]
        places = [(one.partition, one.offset) for one in positions]
        await failpoints.reach("before-replay-mark")
        await self._ledger.sent(run, dict(zip(ids, places, strict=True)))
        await failpoints.reach("after-replay-mark")
        for one, (partition, offset) in zip(looks, places, strict=True):
            outcomes.sent(one.row["stage"], one.row["original_topic"], partition, offset)
        telemetry.count("giclee_dead_letters_put_back_total", len(looks), action=run["action"])


def _half(outcomes: Outcomes) -> bool:
    return outcomes.back * 2 >= outcomes.settled


class _Pace:
    """How much at once, and how fast."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self._free_at = 0.0
        self._settle_at = 0.0

    def size(self, rate_per_s: float | None, left: int) -> int:
        """How many letters the next batch has: at most what the rate gives in a second."""
        return min(left, BATCH, max(1, int(rate_per_s)) if rate_per_s else BATCH)

    def went(self, rate_per_s: float | None, count: int) -> None:
        """So many were sent."""
        if rate_per_s:
            now = asyncio.get_running_loop().time()
            self._free_at = max(now, self._free_at) + count / rate_per_s

    async def may_go(self) -> bool:
        """Whether the rate allows more; waits for that, at most a second, within which a run can be paused."""
        left_s = self._free_at - asyncio.get_running_loop().time()
        if left_s > 0:
            await asyncio.sleep(min(left_s, 1.0))
        return left_s <= 1.0

    def is_due(self) -> bool:
        """Whether it is time to look what became of what was sent."""
        now = asyncio.get_running_loop().time()
        if now < self._settle_at:
            return False
        self._settle_at = now + SETTLE_EVERY_S
        return True
