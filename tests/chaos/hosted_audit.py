"""What the lab has billed for the candidates of one kill, held against ledger, claims and events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg

from giclee.gpu_worker.bill import LOOKED_UP, LOST, call_key
from giclee.schemas.events import ImageRouted
from tests.chaos.hosted_load import ENDINGS, HostedWorld, Load
from tests.chaos.kill_matrix import RED
from tests.kit.shop import Shop, Sold, unexplained

Hop = tuple[str, int]
KNOWN = {"made", LOOKED_UP}
"""Ends of a call of which the worker knows what it cost, to the cent."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one kill came to. `twice`: images billed beyond the first for a candidate's hop; `unbilled`: calls counted
    as paid, since nobody could know, that were not billed. US dollars: billed, counted, of which `unsure`."""

    candidates: int
    billed: int
    twice: int
    unbilled: int
    billed_usd: Decimal
    counted_usd: Decimal
    unsure_usd: Decimal
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a case came to; without figures its deaths did not happen, or its candidates never ended."""

    step: str
    seed: int
    deaths: int
    verdict: str
    seconds: float
    why: tuple[str, ...]
    figures: Figures | None = None


async def audit(load: Load) -> tuple[Figures, list[Sold]]:
    """The candidates of a load, when they are over; and the bill, for the audit of the whole world."""
    sold = sold_to(load.asked, (await load.world.lab.told())["bill"])
    rows, bills = defaultdict(list), defaultdict(list)
    for row in await load.calls():
        rows[row["key"]].append(row)
    for one in sold:
        bills[one.key].append(one)
    wrong, unbilled, unsure = [], 0, Decimal(0)
    for key in sorted({*rows, *bills}):
        found = Reckoning(rows[key], bills[key])
        wrong += [f"{key}: {text}" for text in found.wrong]
        unbilled, unsure = unbilled + found.unbilled, unsure + found.unsure_usd
    wrong += _told(load) + await _spent(load)
    counted = sum((row["counted_usd"] for key in rows for row in rows[key]), Decimal(0))
    billed = sum((one.usd for one in sold), Decimal(0))
    if billed + unsure != counted:
        wrong.append(f"{billed} billed and {unsure} not known of, but {counted} counted")
    twice = sum(len(bill) - 1 for bill in bills.values() if bill)
    return Figures(len(load.asked), len(sold), twice, unbilled, billed, counted, unsure, tuple(wrong)), sold


def sold_to(asked: Mapping[str, ImageRouted], bill: Sequence[Mapping[str, Any]]) -> list[Sold]:
    """The lab's bill by candidate and hop: no two candidates share a prompt, no two hops of one a provider."""
    places = {
        (event.request.prompt, one.provider): call_key(event.candidate_id, at)
        for event in asked.values()
        for at, one in enumerate(event.chain)
    }
    return [
        Sold(line["job"], places.get((line["prompt"], line["provider"]), f"nobody's: {line}"), Decimal(line["usd"]))
        for line in bill
    ]


class Reckoning:
    """One candidate's hop: every image on its bill stands in a row of the ledger, and no row says less than it cost."""

    def __init__(self, rows: Sequence[Any], bill: Sequence[Sold]) -> None:
        self.wrong: list[str] = []
        self.unbilled, self.unsure_usd = 0, Decimal(0)
        self._mine: dict[int, list[Sold]] = {row["fence"]: [] for row in rows}
        self._share_out(rows, bill)
        for row in rows:
            self._judge(row, self._mine[row["fence"]])
        self._judge_repeats(rows, bill)

    def _share_out(self, rows: Sequence[Any], bill: Sequence[Sold]) -> None:
        """An image belongs to the row that names its job; else to one that counts it, those surely made first."""
        payers = [row for row in rows if row["counted_usd"] > 0]
        nameless = sorted((row for row in payers if not row["jobs"]), key=lambda row: row["outcome"] not in KNOWN)
        for one in bill:
            named = next((row for row in payers if one.job in row["jobs"]), None)
            row = named or (nameless.pop(0) if nameless else None)
            if row is None:
                self.wrong.append(f"{one} has no row of the ledger that counts it")
            else:
                self._mine[row["fence"]].append(one)

    def _judge(self, row: Any, mine: Sequence[Sold]) -> None:
        billed = sum((one.usd for one in mine), Decimal(0))
        more = row["counted_usd"] - billed
        if more < 0 or (more > 0 and row["outcome"] in KNOWN):
            self.wrong.append(f"fence {row['fence']} ({row['outcome']}) counts {row['counted_usd']}, billed {billed}")
        if row["counted_usd"] > 0 and not mine:
            self.unbilled += 1
        self.unsure_usd += max(more, Decimal(0))

    def _judge_repeats(self, rows: Sequence[Any], bill: Sequence[Sold]) -> None:
        """A second image is allowed only after a call of which nobody heard, and the ledger must say so."""
        unheard = [row for row in rows if row["outcome"] not in KNOWN and self._mine[row["fence"]]]
        if len(bill) - 1 > len(unheard):
            self.wrong.append(f"{len(bill)} images billed, {len(unheard)} of them in calls of which nobody heard")
        if len(bill) > 1 and not any(row["again"] for row in rows):
            self.wrong.append(f"{len(bill)} images billed, and no row says that it was paid again")
        if any(row["outcome"] == LOST and row["counted_usd"] == 0 for row in rows):
            self.wrong.append("a call of which nobody heard is not counted")


def _told(load: Load) -> list[str]:
    """A candidate ends in one way, with one image, however often that is told."""
    wrong, allowed = [], ENDINGS.get(load.kind, {"generated"})
    for candidate, events in load.told().items():
        endings = {(outcome, value.get("image", {}).get("key")) for outcome, value in events}
        if len(endings) != 1 or not {outcome for outcome, _ in endings} <= allowed:
            wrong.append(f"{candidate} ended as {sorted(map(str, endings))}")
    return wrong


async def _spent(load: Load) -> list[str]:
    """Claims count what the ledger counts, nothing is open, and the last event says the sum of all hops."""
    wrong, late = [], set()
    counted: dict[Hop, Decimal] = defaultdict(Decimal)
    for row in await load.calls():
        counted[str(row["candidate_id"]), row["hop"]] += row["counted_usd"]
        if row["ended_at"] is None:
            wrong.append(f"{row['key']}: fence {row['fence']} is open")
        if row["outcome"] == "late":
            late.add(str(row["candidate_id"]))
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for claim in await load.claims():
        here = str(claim["candidate_id"]), claim["hop"]
        sums[here[0]] += counted[here]
        if claim["prior_usd"] + claim["job_usd"] != counted[here]:
            wrong.append(
                f"{here}: the claim counts {claim['prior_usd'] + claim['job_usd']}, the ledger {counted[here]}"
            )
    for candidate, events in load.told().items():
        said = {Decimal(value["spent_usd"]) for outcome, value in events if outcome != "dead"}
        if any(one != sums[candidate] for one in said) and candidate not in late:
            wrong.append(f"{candidate} was told to have cost {sorted(said)}, counted are {sums[candidate]}")
    return wrong


async def audit_world(world: HostedWorld, bill: Sequence[Sold]) -> list[str]:
    """Bill, ledger, claims and caps of all that this world has ever asked for."""
    pool = await asyncpg.create_pool(world.database_url, min_size=1, max_size=2)
    try:
        return await unexplained(pool, Shop(bill=list(bill)))
    finally:
        await pool.close()


# ---- the table ------------------------------------------------------------------------------------

COLUMNS = (
    "dies at",
    "deaths",
    "candidates",
    "images billed",
    "paid twice, counted",
    "counted, not billed",
    "unexplained",
)


def table(results: Sequence[Result]) -> str:
    """A row a step, and their sum, as Markdown."""
    rows: dict[str, list[int]] = {}
    for one in results:
        found = one.figures
        figures = (found.candidates, found.billed, found.twice, found.unbilled) if found else (0, 0, 0, 0)
        unexplained = len(one.why) if one.verdict == RED else 0
        for name in (one.step, "all"):
            row = rows.setdefault(name, [0] * 6)
            added = (one.deaths, *figures, unexplained)
            rows[name] = [had + more for had, more in zip(row, added, strict=True)]
    rows["all"] = rows.pop("all", [0] * 6)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *((name, *map(str, row)) for name, row in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(results: Sequence[Result], took_s: float) -> str:
    """The money in one line."""
    found = [one.figures for one in results if one.figures]
    billed, counted, unsure = (
        sum((getattr(one, name) for one in found), Decimal(0)) for name in ("billed_usd", "counted_usd", "unsure_usd")
    )
    return (
        f"{sum(one.deaths for one in results)} deaths in {took_s / 60:.1f} min; {billed} US dollars "
        f"billed, {counted} counted, of which {unsure} for calls of which nobody could know what they cost"
    )
