"""The lab's bill against our ledger, our ledger against what closings say, and what must never be. Pure.

Every entry of the bill is laid to the row of the ledger that asked for it: by its job, else by prompt and seed, which
no two candidates share; at OpenAI, which takes no seed, by the prompt, which no two requests share.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from giclee.bus.transport import Record
from tests.lab.line.drive import CLOSED, GENERATED, ROUTED, Run
from tests.lab.line.plan import budget_of

NOTHING = Decimal(0)
Key = tuple[str, int]
"""A candidate's hop."""


@dataclass(slots=True)
class Entry:
    """A row of the ledger and what was billed for it, US dollars."""

    row: Mapping[str, Any]
    lines: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return str(self.row["candidate_id"]), self.row["hop"]

    @property
    def counted(self) -> Decimal:
        return Decimal(self.row["counted_usd"])

    @property
    def billed(self) -> Decimal:
        return sum((Decimal(line["usd"]) for line in self.lines), NOTHING)

    @property
    def told(self) -> bool:
        """Whether the provider said what it cost."""
        return self.row["actual_usd"] is not None

    def difference(self) -> str | None:
        """Why what is counted is not what was billed, by name; None where it is. `unexplained` must not be."""
        outcome = self.row["outcome"]
        if self.counted == self.billed:
            return None
        if not self.lines:
            return f"{outcome}: may have been billed, was not"
        dearer = any(Decimal(line["usd"]) > self.row["expected_usd"] for line in self.lines)
        if self.counted < self.billed:
            return (
                f"{outcome}: billed dearer than its price, and not told" if dearer and not self.told else "unexplained"
            )
        if self.row["again"]:
            return f"{outcome}: asked again, counted more often than billed"
        cheaper = any(Decimal(line["usd"]) < self.row["expected_usd"] for line in self.lines)
        return f"{outcome}: billed cheaper than its price, and not told" if cheaper and not self.told else "unexplained"


class Books:
    """Bill and ledger of one run, laid side by side."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.entries = [Entry(row) for row in run.calls]
        self.bill: list[dict[str, Any]] = run.lab["bill"]
        self.nobodys = self._lay()
        """Entries of the bill that no row of the ledger stands for."""

    def of(self, provider: str) -> list[Entry]:
        return [one for one in self.entries if one.row["provider"] == provider]

    @cached_property
    def seeds(self) -> dict[str, int]:
        """By candidate."""
        return {one["candidate_id"]: one["seed"] for topic in ROUTED for one in self.run.values(topic)}

    def _lay(self) -> list[dict[str, Any]]:
        # who asked after an earlier call's job has it too; the row that counts it is the one that paid for it
        by_job = {job: one for one in sorted(self.entries, key=lambda one: one.counted) for job in one.row["jobs"]}
        by_words: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
        prompts = {body["request_id"]: body["prompt"] for body in self.run.asked}
        for one in self.entries:
            by_words[self._words(one, prompts)].append(one)
        left = []
        for line in self.bill:
            known = by_job.get(line["job"])
            if known is not None:
                known.lines.append(line)
            else:
                left.append(line)
        return [line for line in left if not _laid(line, by_words)]

    def _words(self, one: Entry, prompts: Mapping[str, str]) -> tuple[object, ...]:
        provider = one.row["provider"]
        seed = None if provider == "openai" else self.seeds.get(str(one.row["candidate_id"]))
        return provider, prompts.get(str(one.row["request_id"])), seed

    # ---- sums -----------------------------------------------------------------------------------

    def differences(self) -> dict[tuple[str, str], list[Entry]]:
        """Rows whose count is not their bill, by provider and name of the reason."""
        found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for one in self.entries:
            why = one.difference()
            if why is not None:
                found[one.row["provider"], why].append(one)
        return dict(sorted(found.items()))

    def paid_again(self) -> dict[Key, list[Entry]]:
        """Candidates' hops that were billed more than once."""
        by_key: dict[Key, list[Entry]] = defaultdict(list)
        for one in self.entries:
            by_key[one.key].append(one)
        return {key: rows for key, rows in by_key.items() if sum(len(one.lines) for one in rows) > 1}

    # ---- what must never be ---------------------------------------------------------------------

    def wrong(self) -> list[str]:
        """All that must not be; empty when the run proves what it is for."""
        return [*self._ends(), *self._bills(), *self._sums(), *self._told_costs(), *self._rest()]

    def _ends(self) -> Iterable[str]:
        ends = Counter(one["request_id"] for one in map(_value, self.run.records[CLOSED]))
        asked = {body["request_id"] for body in self.run.asked}
        yield from (f"{rid}: not closed" for rid in sorted(asked - set(ends)))
        yield from (f"{rid}: closed {count} times" for rid, count in sorted(ends.items()) if count > 1)

    def _bills(self) -> Iterable[str]:
        for line in self.nobodys:
            yield f"{line['provider']} bills {line['usd']} for job {line['job']}, and no row of ours stands for it"
        put_back = {str(letter["candidate_id"]) for letter in self.run.letters}
        for key, rows in self.paid_again().items():
            if key[0] not in put_back:
                yield f"{key}: billed twice, and nobody put it back"
            if not any(one.row["again"] for one in rows):
                yield f"{key}: billed twice, and no row says so"
            earlier = [one for one in rows if one.lines][:-1]
            if any(line["job"] in one.row["jobs"] for one in earlier for line in one.lines):
                told = [(one.row["fence"], one.row["outcome"], one.row["jobs"], one.lines) for one in rows]
                yield f"{key}: billed twice, and the first job was known: {told}"
        for one in self.entries:
            if one.difference() == "unexplained":
                yield f"{one.key}: {one.counted} counted, {one.billed} billed, {one.row['outcome']}"
            if one.row["ended_at"] is None:
                yield f"{one.key}: a call is open"

    def _sums(self) -> Iterable[str]:
        counted: dict[Key, Decimal] = defaultdict(Decimal)
        for one in self.entries:
            counted[one.key] += one.counted
        for claim in self.run.claims:
            key = (str(claim["candidate_id"]), claim["hop"])
            if claim["billed"] and counted.get(key, NOTHING) != claim["paid_usd"]:
                yield f"{key}: the claim says {claim['paid_usd']}, the ledger {counted.get(key, NOTHING)}"
        for cap in self.run.spending:
            fits = [
                one for one in self.entries
                if cap["provider"] in ("", one.row["provider"]) and cap["tenant"] in ("", one.row["tenant"])
                and cap["day"] == one.row["day"]
            ]  # fmt: skip
            spent = sum((one.counted for one in fits), NOTHING)
            if (cap["reserved_usd"], cap["spent_usd"]) != (NOTHING, spent):
                yield f"cap {cap['provider']}/{cap['tenant']}: {cap}, the ledger says {spent}"

    @cached_property
    def spent(self) -> dict[str, Decimal]:
        """What our claims say was paid, by request."""
        found: dict[str, Decimal] = defaultdict(Decimal)
        for claim in self.run.claims:
            found[str(claim["request_id"])] += claim["paid_usd"]
        return found

    def _told_costs(self) -> Iterable[str]:
        budgets = {body["request_id"]: budget_of(body) for body in self.run.asked}
        for end in self.run.values(CLOSED):
            rid, cost = end["request_id"], Decimal(end["cost_usd"])
            if end.get("cost_final", True) and cost < self.spent[rid]:
                yield f"{rid}: closed with {cost}, its claims paid {self.spent[rid]}"
            budget = budgets.get(rid)
            if budget is not None and cost > budget:
                yield f"{rid}: closed with {cost}, over its budget of {budget}"
        paid = {(str(one["candidate_id"]), one["hop"]): one["paid_usd"] for one in self.run.claims}
        for made in self.run.values(GENERATED):
            hops = [(made["candidate_id"], hop) for hop in range(made["hop"] + 1)]
            least = sum((paid.get(hop, NOTHING) for hop in hops), NOTHING)
            if Decimal(made["spent_usd"]) != least:
                yield f"{made['candidate_id']}: its image says {made['spent_usd']}, its claims {least}"

    def _rest(self) -> Iterable[str]:
        run = self.run
        if run.broken_off:
            yield run.broken_off
        kept = {body["request_id"] for body in run.asked if body.get("privacy") == "confidential"}
        for one in self.entries:
            if str(one.row["request_id"]) in kept:
                yield f"{one.key}: a confidential request was shown to {one.row['provider']}"
        made = Counter(one["candidate_id"] for one in run.values(GENERATED))
        yield from (f"{name}: {count} images for one candidate" for name, count in made.items() if count > 1)
        if run.lab["trapped"]:
            yield f"the trap in the private network was met {run.lab['trapped']} times"
        if run.keys_told:
            yield f"a provider's key stands {run.keys_told} times in the logs"
        for letter in run.letters:
            if letter["dead_class"] not in ("exhausted", "deadline"):
                yield f"a dead letter of class {letter['dead_class']} at {letter['stage']}: {letter['message'][:200]}"


def _laid(line: dict[str, Any], by_words: Mapping[tuple[object, ...], Sequence[Entry]]) -> bool:
    """Lay an entry whose job nobody knows to a call of its candidate that has none yet; whether there was one."""
    seed = None if line["provider"] == "openai" else line["seed"]
    free = [one for one in by_words.get((line["provider"], line["prompt"], seed), ()) if not one.lines]
    usd = Decimal(line["usd"])
    # a call that knows its job is rarely the one that a job nobody knows belongs to
    free.sort(key=lambda one: (bool(one.row["jobs"]), one.row["actual_usd"] != usd, one.told, one.counted == NOTHING))
    if free:
        free[0].lines.append(line)
    return bool(free)


def _value(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.value or b"{}")
    return found
