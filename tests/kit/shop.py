"""A service that sells images, and the provider that asks it: it bills, names its jobs, finds them again, forgets them.

The shop outlives every worker, as a real one does; its bill is the truth that the ledger is held against. `Paid` is a
provider like the hosted ones, as far as money goes; `at` is awaited at its steps, so that a worker can die in each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from giclee.bus.database import Pool
from giclee.gpu_worker import picture
from giclee.gpu_worker.provider import Answer, Ask, Call, Capabilities, Description, Made, NotMade
from giclee.gpu_worker.providers.stub import paint
from giclee.schemas.models import Model

NAME = "shop"
STEPS = ("submitted", "noted", "fetched")
"""The shop has billed and nobody knows the job; the job is stored; the image is here and nobody has it."""


@dataclass(frozen=True, slots=True)
class Sold:
    """One image on the bill."""

    job: str
    key: str
    usd: Decimal


@dataclass(slots=True)
class Shop:
    """The service. `usd` is what an image costs today; `fails(ask)` says why a job comes to nothing, which is free."""

    usd: Decimal = Decimal("0.04")
    bill: list[Sold] = field(default_factory=list)
    jobs: dict[str, NotMade | None] = field(default_factory=dict)
    opened: int = 0
    fails: Callable[[Ask], NotMade | None] = lambda _: None
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Jobs are done while it is set."""

    def __post_init__(self) -> None:
        self.open.set()

    def submit(self, ask: Ask, call: Call) -> str:
        """A new job, billed at once unless it fails."""
        self.opened += 1
        job = f"job-{self.opened - 1}"
        self.jobs[job] = self.fails(ask)
        if self.jobs[job] is None:
            self.bill.append(Sold(job, call.key, self.usd))
        return job

    def cost(self, job: str) -> Decimal:
        return sum((one.usd for one in self.bill if one.job == job), Decimal(0))

    def sold(self, key: str) -> list[Sold]:
        return [one for one in self.bill if one.key == key]


async def _nowhere(step: str) -> None:
    return None


class Paid:
    """A provider over a shop. `looks_up`: jobs have ids that can be asked for; `tells`: it says what a call cost."""

    def __init__(
        self,
        shop: Shop,
        *,
        looks_up: bool = True,
        tells: bool = True,
        at: Callable[[str], Awaitable[None]] = _nowhere,
        **capabilities: Any,
    ) -> None:
        self.shop, self.tells, self.at = shop, tells, at
        self.asked: list[Call] = []
        """Every call that reached it, in order."""
        said = {"seed": True, "negative_prompt": True, "steps": True, "guidance": True, "reference_image": False}
        self.capabilities = Capabilities(
            **{**said, "lookup": looks_up, "concurrency": 64, "data_terms": "It keeps nothing.", **capabilities}
        )

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        return await asyncio.gather(*(self._one(model, ask) for ask in asks))

    async def describe(self, model: Model) -> Description:
        return Description(weights_sha256=None, where="a shop", resident=False)

    async def close(self) -> None: ...

    async def _one(self, model: Model, ask: Ask) -> Answer:
        call, again = ask.call, False
        assert call is not None, "whoever bills must be asked by a call that the ledger knows"
        self.asked.append(call)
        job = call.job
        if job is not None and job not in self.shop.jobs:
            if (why_not := call.why_not_again()) is not None:
                return replace(why_not, job=self._named(job), paid_usd=model.price_usd)
            job, again = None, True
        elif job is not None and self.shop.jobs[job] is not None:  # it failed and cost nothing: another may do better
            job = None
        fresh = job is None
        job = job if job is not None else self.shop.submit(ask, call)
        failed = self.shop.jobs[job]
        if fresh:
            await self.at("submitted")
            if self.capabilities.lookup:
                await call.note(job)
            await self.at("noted")
        await self.shop.open.wait()
        await self.at("fetched")
        if failed is not None:
            return NotMade(outcome=failed.outcome, message=failed.message, job=self._named(job), again=again)
        return Made(
            body=await asyncio.to_thread(lambda: picture.encode(paint(ask))),
            content_type=picture.CONTENT_TYPE,
            width=ask.shape.width,
            height=ask.shape.height,
            seconds=0.1,
            cost_usd=self.shop.cost(job) if self.tells else None,
            job=self._named(job),
            again=again,
        )

    def _named(self, job: str) -> str | None:
        return job if self.capabilities.lookup else None


# ---- the audit ----------------------------------------------------------------------------------


async def unexplained(pool: Pool, shop: Shop) -> list[str]:
    """What the shop's bill, the ledger, the claims and the caps do not agree on; empty when all is explained.

    Every image on the bill has a row of the ledger of its own: by its job, or by its key where nobody could store the
    job. No candidate is said to have cost less than was billed for it. Claims, ledger and caps add up to the same.
    """
    calls = [dict(row) for row in await pool.fetch("SELECT * FROM gpu_worker.calls ORDER BY began_at")]
    wrong = _without_a_row(shop.bill, calls)
    claims = await pool.fetch("SELECT *, prior_usd + job_usd AS counted_usd FROM gpu_worker.claims WHERE billed")
    for claim in claims:
        mine = [row for row in calls if (row["candidate_id"], row["hop"]) == (claim["candidate_id"], claim["hop"])]
        key = f"{claim['candidate_id']}-{claim['hop']}"
        billed = sum((one.usd for one in shop.sold(key)), Decimal(0))
        counted = sum((row["counted_usd"] for row in mine if row["ended_at"]), Decimal(0))
        if claim["state"] == "done" and any(row["ended_at"] is None for row in mine):
            wrong.append(f"{key}: a call is open though its claim is done")
        if claim["state"] == "done" and counted != claim["counted_usd"]:
            wrong.append(f"{key}: the ledger counts {counted}, the claim {claim['counted_usd']}")
        if claim["state"] == "done" and billed > claim["counted_usd"]:
            wrong.append(f"{key}: {billed} billed, {claim['counted_usd']} counted")
    for cap in await pool.fetch("SELECT * FROM gpu_worker.spending"):
        fits = [row for row in calls if row["day"] == cap["day"] and _fits(row, cap)]
        out = sum((row["expected_usd"] for row in fits if row["ended_at"] is None), Decimal(0))
        spent = sum((row["counted_usd"] for row in fits if row["ended_at"]), Decimal(0))
        if (out, spent) != (cap["reserved_usd"], cap["spent_usd"]):
            wrong.append(f"cap {cap['provider']}/{cap['tenant']}: {dict(cap)}, the ledger says {out} and {spent}")
    return wrong


def _fits(row: Mapping[str, Any], cap: Any) -> bool:
    return cap["provider"] in ("", row["provider"]) and cap["tenant"] in ("", row["tenant"])


def _without_a_row(bill: Sequence[Sold], calls: Sequence[dict[str, Any]]) -> list[str]:
    """Images on the bill that no row of the ledger stands for; a row stands for the jobs it names, else for one."""
    wrong, nameless = [], [row for row in calls if not row["jobs"]]
    for one in bill:
        if any(row["key"] == one.key and one.job in row["jobs"] for row in calls):
            continue
        own = next((row for row in nameless if row["key"] == one.key), None)
        if own is None:
            wrong.append(f"{one} has no row")
        else:
            nameless.remove(own)
    return wrong
