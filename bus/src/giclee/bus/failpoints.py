"""Named places to die: before and after every effect outside the process, armed by GICLEE_FAILPOINT.

Tests arm them; nothing else does. Off, `reach` looks at one name and returns. TABLE is every point there is; a
point belongs to a stage, and a process knows the points of its own stages by their short names.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NamedTuple

from giclee.bus import telemetry
from giclee.bus.errors import Transient

MODES = {
    "kill": "SIGKILL to itself: a machine that died",
    "stop": "SIGSTOP to itself, until somebody sends SIGCONT: a zombie that still believes in its leases",
    "raise": "the effect fails and nobody knows whether it happened: Transient, as for a connection that broke",
    "hang": "the task waits for ever while the process goes on",
}

READERS = ("intake.status", "policy", "router", "gpu-worker", "scorer", "publisher")
SENDERS = ("intake", "policy", "router", "gpu-worker", "scorer", "publisher", "replay")
OUTBOXES = ("intake", "gpu-worker", "publisher")


class Point(NamedTuple):
    """Which stages have it, and what is true there."""

    stages: tuple[str, ...]
    says: str


# fmt: off
TABLE: dict[str, Point] = {
    # every stage
    "after-poll": Point((*READERS, "replay"), "Records were read; no handler has seen them."),
    "before-dead-letter": Point(READERS, "A record has failed; its dead letter is not written."),
    "after-dead-letter": Point(READERS, "The dead letter is acknowledged; the stall is not announced."),
    "before-produce": Point(SENDERS, "A batch of records is made; nothing of it was sent."),
    "after-produce": Point(SENDERS, "The broker has acknowledged a batch; nobody here has noted that."),
    "before-offset-commit": Point((*READERS, "replay"), "Records are settled; their offsets are not committed."),
    "after-offset-commit": Point((*READERS, "replay"), "Offsets are committed; nobody here has noted that."),
    # the bucket
    "after-blob-get": Point(("scorer", "publisher"), "An image was read; nothing is known of it yet."),
    "before-blob-put": Point(("gpu-worker", "publisher"), "Bytes are in memory only."),
    "after-blob-put": Point(("gpu-worker", "publisher"), "The bucket has the bytes; no row names them."),
    # outboxes
    "before-outbox-commit": Point(OUTBOXES, "Rows were sent and deleted; the deletion is not committed."),
    "after-outbox-commit": Point(OUTBOXES, "Rows were sent and are gone."),
    "before-transaction": Point(("publisher",), "Rows have numbers; no transaction is begun."),
    "inside-transaction": Point(("publisher",), "Records and mark are in an open Kafka transaction."),
    "after-transaction": Point(("publisher",), "The transaction is committed; its rows are still there."),
    "after-transaction-rows": Point(("publisher",), "The rows of a committed transaction are gone."),
    # intake
    "before-accept-commit": Point(("intake",), "A request over HTTP is written; nothing is committed."),
    "after-accept-commit": Point(("intake",), "The request is stored; the caller has no answer."),
    "before-cancel-commit": Point(("intake",), "A cancel over HTTP is written; nothing is committed."),
    "after-cancel-commit": Point(("intake",), "The cancel is stored; the caller has no answer."),
    "before-expiry-commit": Point(("intake",), "The clock has written what is overdue; nothing is committed."),
    "after-expiry-commit": Point(("intake",), "The clock's cancels are stored."),
    "before-projection-commit": Point(("intake.status",), "Facts of a batch of events are written, not committed."),
    "after-projection-commit": Point(("intake.status",), "The facts are stored; no stream was told."),
    # policy, router, scorer: one statement stores what was decided
    "before-verdict-commit": Point(("policy", "scorer"), "A verdict is computed; it is stored nowhere."),
    "after-verdict-commit": Point(("policy", "scorer"), "The verdict is stored; no event tells it."),
    "before-choice-commit": Point(("router",), "Providers are chosen; the choice is stored nowhere."),
    "after-choice-commit": Point(("router",), "The choice is stored; no candidate is routed."),
    # gpu-worker
    "before-model-load": Point(("gpu-worker",), "The process starts; its first model is not loaded."),
    "after-model-load": Point(("gpu-worker",), "A model is loaded; nothing is claimed."),
    "before-claim-commit": Point(("gpu-worker",), "A candidate was read; nobody has claimed it."),
    "after-claim-commit": Point(("gpu-worker",), "The lease runs; no work has begun."),
    "before-call-commit": Point(("gpu-worker",), "A paid call is due; neither ledger nor caps know of it."),
    "after-call-commit": Point(("gpu-worker",), "The call is in the ledger, its price set aside; nobody was asked."),
    "before-job-commit": Point(("gpu-worker",), "The provider has the job and its id is known; no row has it."),
    "after-job-commit": Point(("gpu-worker",), "The claim knows the job; its image is not there yet."),
    "before-late-commit": Point(("gpu-worker",), "A call ended after its claim had moved on; the ledger waits for it."),
    "after-late-commit": Point(("gpu-worker",), "The ledger knows what the late call cost."),
    "before-provider-call": Point(("gpu-worker",), "A batch is put together; no provider was asked."),
    "after-provider-call": Point(("gpu-worker",), "The images are made and paid for; they are in memory only."),
    "before-finish-commit": Point(("gpu-worker",), "A claim's end is written; it is not committed."),
    "after-finish-commit": Point(("gpu-worker",), "The claim is finished; no event tells it."),
    "before-acknowledge-commit": Point(("gpu-worker",), "The broker has a claim's events; the claim does not know."),
    "after-acknowledge-commit": Point(("gpu-worker",), "The claim knows that its events are told."),
    "before-ended-commit": Point(("gpu-worker",), "A closing was read; the request may still be claimed."),
    "after-ended-commit": Point(("gpu-worker",), "Nothing of the request can be claimed any more."),
    "before-renew-commit": Point(("gpu-worker",), "Leases are due; they are not renewed."),
    "after-renew-commit": Point(("gpu-worker",), "Leases are renewed; nobody here has looked which."),
    "before-takeover-commit": Point(("gpu-worker",), "The sweeper looks for claims whose owner vanished."),
    "after-takeover-commit": Point(("gpu-worker",), "Vanished claims, if any, are ours under a higher fence."),
    # publisher
    "before-decision-commit": Point(("publisher",), "Facts, assets, closing, outbox rows: written, not committed."),
    "after-decision-commit": Point(("publisher",), "The decision is stored; nothing of it is on a topic."),
    "before-sweep-commit": Point(("publisher",), "The clock looks for orders that are due."),
    "after-sweep-commit": Point(("publisher",), "Due orders, if any, are taken; nobody has looked at them."),
    # replay
    "before-index-commit": Point(("replay",), "Dead letters were read; the index does not have them."),
    "after-index-commit": Point(("replay",), "The index has them; their offsets are not committed."),
    "after-replay-claim": Point(("replay",), "Dead letters are claimed for a run; none was sent."),
    "before-replay-mark": Point(("replay",), "Replayed records are acknowledged; they are not marked."),
    "after-replay-mark": Point(("replay",), "Replayed dead letters are marked."),
}
# fmt: on


def names() -> dict[str, str]:
    """Every point by its whole name, `<stage>.<point>`, with its sentence."""
    return {f"{stage}.{point}": row.says for point, row in TABLE.items() for stage in row.stages}


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One armed point: it fires once, when it is reached for the `nth` time."""

    stage: str
    point: str
    mode: str
    nth: int = 1

    @property
    def name(self) -> str:
        return f"{self.stage}.{self.point}"


class Raised(Transient):
    """What the mode `raise` raises: whether the effect happened is unknown."""


def parse(text: str) -> Failpoint:
    """`<stage>.<point>:<mode>[:nth=N]`. Errors: ValueError with the nearest name."""
    name, _, rest = text.partition(":")
    mode, _, count = rest.partition(":")
    if name not in names():
        near = get_close_matches(name, names(), n=1, cutoff=0.0)
        raise ValueError(f"{name!r} is no failpoint; the nearest is {near[0]}; `giclee dev failpoints` lists them")
    if mode not in MODES:
        raise ValueError(f"{text!r}: the mode is one of {', '.join(MODES)}")
    word, _, number = count.partition("=")
    if count and (word != "nth" or not number.isdecimal() or int(number) < 1):
        raise ValueError(f"{text!r}: after the mode comes nothing, or nth=1, nth=2, ...")
    stage, _, point = name.rpartition(".")
    return Failpoint(stage, point, mode, int(number) if count else 1)


def trouble(text: str) -> str | None:
    """Why a text cannot be armed; None when it can."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return None


class _Armed:
    """The points of this process that will fire, and how often each was reached."""

    def __init__(self, points: Mapping[str, Failpoint]) -> None:
        self._points = points
        self._reached = dict.fromkeys(points, 0)

    async def at(self, point: str) -> None:
        armed = self._points.get(point)
        if armed is None:
            return
        self._reached[point] += 1
        if self._reached[point] == armed.nth:
            telemetry.count("giclee_failpoints_fired_total", point=armed.name, mode=armed.mode)
            os.write(2, f"failpoint {armed.name}: {armed.mode}\n".encode())  # a killed process flushes nothing
            await _fire(armed)


async def _fire(armed: Failpoint) -> None:
    if armed.mode == "raise":
        raise Raised(f"failpoint {armed.name}")
    if armed.mode == "hang":
        await asyncio.Event().wait()
    os.kill(os.getpid(), signal.SIGKILL if armed.mode == "kill" else signal.SIGSTOP)


_armed: _Armed | None = None


async def reach(point: str) -> None:
    """Say that the process is at `point` of its stage; fails here where that is armed."""
    if _armed is not None:
        await _armed.at(point)


def arm(points: Iterable[Failpoint], process: str) -> None:
    """Arm those of `points` that belong to the stages of `process`; one environment serves every process."""
    global _armed
    mine = {one.point: one for one in points if one.stage == process or one.stage.startswith(f"{process}.")}
    _armed = _Armed(mine) if mine else None
