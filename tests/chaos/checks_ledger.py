"""Checks 9, 10 and 14: money, dead letters, and whether the run proves anything at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from tests.chaos.checks_delivery import Counts, Offence
from tests.chaos.history import (
    FAILED,
    GENERATED,
    STALLED,
    Entry,
    Fields,
    History,
    Request,
    is_valid,
    shown,
)

READERS = ("committed", "uncommitted", "final")
PROJECTIONS = ("intake.status", "router.health")
"""They never announce a stall: contract rule 10."""


# ---- 9 --------------------------------------------------------------------------------------------------


def money(history: History, counts: Counts) -> Iterator[Offence]:
    """9: a closing's cost covers what was paid, reported sums cover the provider's own ledger, budgets hold."""
    told, by = _reported(history)
    paid, calls = _charged(history)
    counts["calls charged"] = sum(map(len, calls.values()))
    for candidate, usd in paid.items():
        if candidate in by and told.get(candidate, Decimal(0)) < usd:
            evidence = tuple(map(shown, calls[candidate][:3]))
            yield Offence(f"candidate {candidate}: {usd} was paid, {told.get(candidate, 0)} reported", evidence)
        counts["candidates charged more than once"] += len(calls[candidate]) > 1
    spent: dict[Request, Decimal] = defaultdict(Decimal)
    for candidate, request in by.items():
        spent[request] += max(told.get(candidate, Decimal(0)), paid.get(candidate, Decimal(0)))
    sums = {(row["tenant"], row["request_id"]): row for row in history.table("intake.requests")}
    for request, entries in history.closings.items():
        cost, usd = Decimal(entries[0].body["cost_usd"]), spent.get(request, Decimal(0))
        counts["closings whose cost was not final"] += not entries[0].body.get("cost_final", True)
        if cost < usd and _is_told_later(entries[0], sums.get(request), usd):
            counts["closed before a verdict, the sum told by status"] += 1
        elif cost < usd:
            yield Offence(f"the closing says {cost}, {usd} was paid", (entries[0].show(),))
    for request in spent.keys() | history.closings.keys():
        yield from _within_budget(history, request, spent.get(request, Decimal(0)))


def _is_told_later(closing: Entry, row: Fields | None, usd: Decimal) -> bool:
    """A request that ended before its verdict has no known candidates: what they cost is in its status (rule 4)."""
    body = closing.body
    unknown = not body.get("cost_final", True) and not body["candidates"] and body.get("policy_version") is None
    return unknown and row is not None and Decimal(str(row["shown"].get("cost_usd", 0))) >= usd


def _within_budget(history: History, request: Request, usd: Decimal) -> Iterator[Offence]:
    asked = [line["budget_usd"] for line in history.accepted.get(request, []) if line.get("budget_usd") is not None]
    if not asked:
        return
    budget, closings = Decimal(str(asked[0])), history.closings.get(request, [])
    for said, where in ((usd, "spent"), *((Decimal(one.body["cost_usd"]), "counted") for one in closings)):
        if said > budget:
            yield Offence(f"{request}: {said} {where} of a budget of {budget}", tuple(one.show() for one in closings))


def _reported(history: History) -> tuple[dict[str, Decimal], dict[str, Request]]:
    """The largest sum ever reported per candidate, and whose candidate it is."""
    told: dict[str, Decimal] = defaultdict(Decimal)
    by: dict[str, Request] = {}
    for entry in [*history.on(GENERATED, FAILED, STALLED), *history.routed(), *history.letters()]:
        candidate = entry.headers.get("dlq-candidate-id") or entry.body.get("candidate_id")
        sums = (entry.body.get("spent_usd"), entry.body.get("paid_usd"), entry.headers.get("dlq-paid-usd"))
        if candidate and entry.request:
            told[candidate] = max(told[candidate], *(Decimal(str(one)) for one in sums if one is not None), Decimal(0))
            by[candidate] = entry.request
    return told, by


def _charged(history: History) -> tuple[dict[str, Decimal], dict[str, list[Fields]]]:
    """What the provider says it charged per candidate, with the calls. A seed that two candidates have names none."""
    seeds: dict[Any, set[str]] = defaultdict(set)
    for entry in history.routed():
        seeds[entry.body["seed"]].add(entry.body["candidate_id"])
    paid: dict[str, Decimal] = defaultdict(Decimal)
    calls: dict[str, list[Fields]] = defaultdict(list)
    for line in history.calls:
        named = {line["candidate_id"]} if line.get("candidate_id") else seeds.get(line.get("seed"), set())
        if len(named) == 1:
            (candidate,) = named
            paid[candidate] += Decimal(str(line["price_usd"]))
            calls[candidate].append(line)
    return paid, calls


# ---- 10 -------------------------------------------------------------------------------------------------


def letters(history: History, counts: Counts) -> Iterator[Offence]:
    """10: planted faults and nothing else become dead letters, one per (stage, place), bytes untouched, announced."""
    by_place: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for entry in history.letters():
        by_place[_fault_of(entry)].append(entry)
    announced = {_announced(entry.body) for entry in history.on(STALLED)}
    planted = {_planted(line): line for line in history.operations if not is_valid(line) and line["result"] == "ok"}
    swapped = {_planted(line) for line in history.operations if _lost_its_place(history, line)}
    excused = any(fault.get("poison") and fault.get("happened") for fault in history.faults)
    for fault, entries in by_place.items():
        counts[f"class {entries[0].headers.get('dlq-class')}"] += 1
        counts["further copies"] += len(entries) - 1
        if len({entry.headers.get("dlq-id") for entry in entries}) > 1:
            yield Offence(f"{fault} is two dead letters", tuple(entry.show() for entry in entries))
        if fault[1:] not in planted and fault[1:] not in swapped and not excused:
            yield Offence(f"{fault} is a dead letter that nobody planted", (entries[0].show(),))
        if len(entries) > 1 and not history.faults:
            yield Offence(f"{fault} lies there twice, and nothing had failed", tuple(e.show() for e in entries))
        if fault not in announced and fault[0] not in PROJECTIONS:
            yield Offence(f"{fault} was never announced", (entries[0].show(),))
        yield from _as_it_was(history, fault, entries[0])
    places = {fault[1:] for fault in by_place}
    for place, line in planted.items():
        counts["planted"] += 1
        if place not in places and history.quiet and not _came_first(history, line):
            yield Offence("a planted record is no dead letter", (shown(line),))
    yield from _indexed(history, counts)


def _came_first(history: History, conflict: Fields) -> bool:
    """Whether the first request of this id has an unknown fate, or a later place: then this one was the first."""
    if conflict.get("repeats") != "conflict":
        return False
    others = [line for line in history.asked.get((conflict["tenant"], conflict["request_id"]), []) if is_valid(line)]
    firsts = [line for line in others if line["result"] == "ok" and not line.get("repeats")]
    return not firsts or any((line.get("offset") or 0) > conflict["offset"] for line in firsts)


def _lost_its_place(history: History, line: Fields) -> bool:
    """Whether this record is second to a conflicting one of its id, or may be."""
    if line["kind"] != "kafka" or line.get("repeats") == "conflict" or not line.get("request_id"):
        return False
    rivals = history.asked.get((line["tenant"], line["request_id"]), [])
    return any(rival.get("repeats") == "conflict" and _came_first(history, rival) for rival in rivals)


def _fault_of(entry: Entry) -> tuple[str, ...]:
    names = ("dlq-stage", "dlq-original-topic", "dlq-original-partition", "dlq-original-offset")
    return tuple(entry.headers.get(name, "") for name in names)


def _announced(body: Fields) -> tuple[str, ...]:
    source = body.get("source", {})
    return (str(body.get("stage")), *(str(source.get(name)) for name in ("topic", "partition", "offset")))


def _planted(line: Fields) -> tuple[str, ...]:
    return tuple(str(line.get(name)) for name in ("topic", "partition", "offset"))


def _as_it_was(history: History, fault: tuple[str, ...], letter: Entry) -> Iterator[Offence]:
    if not (fault[2].isdecimal() and fault[3].isdecimal()):
        yield Offence("a dead letter that does not say where it came from", (letter.show(),))
        return
    source = history.entries.get((fault[1], int(fault[2]), int(fault[3])))
    if source is None:
        yield Offence(f"{fault}: the record it speaks of is not on the log", (letter.show(),))
        return
    if (source.raw, source.key, str(source.place[1])) != (letter.raw, letter.key, str(letter.place[1])):
        yield Offence(f"{fault}: other bytes, key or partition than the record had", (letter.show(), source.show()))
    gone = [pair for pair in source.pairs if pair not in letter.pairs]
    if gone:
        yield Offence(f"{fault}: headers are gone: {gone}", (letter.show(), source.show()))


def _indexed(history: History, counts: Counts) -> Iterator[Offence]:
    rows: dict[tuple[Any, ...], list[Fields]] = defaultdict(list)
    for row in history.table("replay.dead_letters"):
        names = ("stage", "original_topic", "original_partition", "original_offset")
        rows[tuple(row[name] for name in names)].append(row)
    counts["rows of the index"] = len(rows)
    for place, found in rows.items():
        if len(found) > 1:
            yield Offence(f"{place} has {len(found)} rows in the index", tuple(map(shown, found)))


# ---- 14 -------------------------------------------------------------------------------------------------


def proof(history: History, counts: Counts) -> Iterator[Offence]:
    """14: all files are there, every reader came to the end, every planned fault happened. Else the run is invalid."""
    for name in history.missing:
        yield Offence(f"{name} is missing")
    for fault in history.faults:
        counts[f"faults of kind {fault['kind']}"] += 1
        if not fault.get("happened") or not any(_is_evidence(one) for one in (fault.get("proof") or {}).values()):
            yield Offence(f"fault {fault['id']} ({fault['kind']}) was planned and did not happen", (shown(fault),))
    happened, least = len(history.faults), history.run.get("faults_min", 0)
    if happened < least:
        yield Offence(f"{happened} faults, {least} were promised")
    if len(history.accepted) < history.run.get("operations_min", 1):
        yield Offence(
            f"{len(history.accepted)} accepted requests, {history.run.get('operations_min', 1)} were promised"
        )
    ended = {line["reader"] for line in history.ends}
    yield from (Offence(f"the {reader} reader says nothing of its end") for reader in READERS if reader not in ended)
    for line in history.ends:
        if line["position"] < line["end"]:
            yield Offence(f"the {line['reader']} reader did not come to the end", (shown(line),))
    yield from (Offence("a probe had no answer", (shown(p),)) for p in history.probes if p["answer"] == "unreachable")


def _is_evidence(value: Any) -> bool:
    return value not in (0, None, "", False, [], {})
