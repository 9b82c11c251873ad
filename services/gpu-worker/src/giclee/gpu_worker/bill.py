"""What a paid call came to: for its claim, which must never say less than was paid, and for the ledger. Pure.

A claim that knows the provider's job may ask for it again, so a job is counted once, by the ledger's row of the fence
that paid for it. A fence that only asked after it has a row of its own, which costs nothing. The sum of what the rows
of a claim count is what the claim counts; `settle` keeps that so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_UP, Decimal
from uuid import UUID

from giclee.gpu_worker.provider import Answer, Made
from giclee.schemas.parts import USD_PLACES, OutcomeClass

LOST, LOOKED_UP, UNBILLED = "lost", "looked-up", "unbilled"
"""How the ledger's rows end beside the classes of outcomes: nobody heard of it; it asked after an earlier one's job;
its job had failed and cost nothing, as a later fence was told."""

_SMALLEST = Decimal(1).scaleb(-USD_PLACES)
_ABSURD_USD = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Job:
    """The provider's job that a claim knows: the fence that paid for it, and what it may have cost, US dollars."""

    id: str
    fence: int
    usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What a provider said of one call. `paid_usd` is counted; `told_usd` is None where it does not say."""

    outcome: OutcomeClass
    paid_usd: Decimal
    told_usd: Decimal | None
    job: str | None
    again: bool
    final: bool
    """Whether the provider has decided: an image, or a reason that no other try changes."""

    def tells_of(self, job: Job) -> bool:
        """Whether it says what became of the job: who could not reach it, or did not wait, may still find it."""
        return self.final or (self.job == job.id and self.paid_usd == 0)


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How one row of the ledger ends. `again` None: as it was."""

    fence: int
    outcome: str
    actual_usd: Decimal | None
    paid_usd: Decimal
    again: bool | None = None
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What a fence's end changes: added to what the claim paid, what its job still counts (None: it is done with)."""

    paid_usd: Decimal
    job_usd: Decimal | None
    ends: tuple[CallEnd, ...]


def bill_of(answer: Answer, price_usd: Decimal) -> Bill:
    """An answer as a bill; who does not say for how much was paid the price."""
    if isinstance(answer, Made):
        told = _amount(answer.cost_usd)
        paid = price_usd if told is None else told
        return Bill(outcome="made", paid_usd=paid, told_usd=told, job=answer.job, again=answer.again, final=True)
    asked, told = _amount(answer.paid_usd), _amount(answer.cost_usd)
    paid = told if told is not None else price_usd if asked is None else asked
    told = paid if paid == 0 else told
    return Bill(
        outcome=answer.outcome,
        paid_usd=paid,
        told_usd=told,
        job=answer.job,
        again=answer.again,
        final=not answer.transient,
    )


def settle(fence: int, job: Job | None, bill: Bill | None, replaced: Sequence[Job] = ()) -> Settled:
    """What the end of `fence` means for its claim, which knows `job`. Without a bill nobody was asked.

    `replaced` are jobs that this fence found to be no use and made another instead of. They count as paid since, which
    the bill may take back: `again` is said where an earlier job was or may have been billed.
    """
    if bill is None:
        return Settled(Decimal(0), job.usd if job else None, (_lost(job, job.usd),) if job else ())
    found = _settled(fence, job, bill)
    if bill.again or not replaced:
        return found
    mine = sum((one.usd for one in replaced if one.fence == fence), Decimal(0))
    ends = [
        replace(one, paid_usd=one.paid_usd - mine, again=False) if one.fence == fence else one for one in found.ends
    ]
    ends += [CallEnd(one.fence, UNBILLED, Decimal(0), Decimal(0)) for one in replaced if one.fence != fence]
    return replace(found, paid_usd=found.paid_usd - sum(one.usd for one in replaced), ends=tuple(ends))


def _settled(fence: int, job: Job | None, bill: Bill) -> Settled:
    mine = CallEnd(fence, bill.outcome, bill.told_usd, bill.paid_usd, bill.again or None, bill.job)
    if job is None:
        return Settled(bill.paid_usd, None, (mine,))
    asked_after = job.fence < fence
    if bill.again and asked_after:  # it was paid a second time, and its provider gave no id to note
        return Settled(bill.paid_usd + job.usd, None, (_lost(job, job.usd), mine))
    if bill.again and bill.job not in (None, job.id):  # the same, within one fence
        return Settled(bill.paid_usd + job.usd, None, (replace(mine, paid_usd=bill.paid_usd + job.usd),))
    if bill.tells_of(job):
        paid = replace(mine, fence=job.fence)
        looked_up = (CallEnd(fence, LOOKED_UP, Decimal(0), Decimal(0)),) if asked_after else ()
        return Settled(bill.paid_usd, None, (paid, *looked_up))
    counted = max(bill.paid_usd, job.usd)
    if asked_after:
        return Settled(Decimal(0), counted, (_lost(job, counted), replace(mine, paid_usd=Decimal(0), actual_usd=None)))
    return Settled(Decimal(0), counted, (replace(mine, paid_usd=counted, actual_usd=None),))


def _lost(job: Job, usd: Decimal) -> CallEnd:
    return CallEnd(job.fence, LOST, None, usd)


def _amount(said: Decimal | None) -> Decimal | None:
    """An amount that we can keep, rounded up to a millionth; None for one that cannot be one."""
    if said is None or not said.is_finite() or not 0 <= said <= _ABSURD_USD:
        return None
    return said.quantize(_SMALLEST, ROUND_UP)


def call_key(candidate_id: UUID, hop: int) -> str:
    """What a provider's idempotency key is made of: the same for every fence."""
    return f"{candidate_id}-{hop}"
