"""Checks 1 to 5 and 7: nothing lost, nothing twice, nothing that was never decided, and all readers agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.chaos.history import (
    APPROVED,
    CLEARED,
    CLOSED,
    REQUESTED,
    TRANSACTIONAL,
    Fields,
    History,
    Request,
    Seen,
    is_valid,
    shown,
)


@dataclass(frozen=True, slots=True)
class Offence:
    """One thing that must not be, and the lines that show it."""

    says: str
    evidence: tuple[str, ...] = ()


Counts = Counter[str]


def lost(history: History, counts: Counts) -> Iterator[Offence]:
    """1: every accepted request is closed, or open for a reason; everything decided was sent and seen."""
    waiting = _waiting(history)
    for request, lines in history.accepted.items():
        counts["accepted"] += 1
        if history.closings.get(request):
            counts["closed"] += 1
        elif request in waiting:
            counts["open, waits for an operator or a switch"] += 1
        elif not history.quiet or any((line.get("closes_by") or 0) > history.run["ended_at"] for line in lines):
            counts["open"] += 1
        else:
            yield Offence(f"{request} was accepted and has no closing", tuple(map(shown, lines)))
    yield from _unseen(history, counts)


def _waiting(history: History) -> set[Request]:
    """Requests of which a record is a dead letter that says something about them, or is held."""
    found = set()
    for entry in [*history.letters(), *history.held()]:
        head = entry.headers
        if head.get("dlq-class") != "invalid":
            rid = head.get("dlq-request-id") or head.get("held-request-id") or entry.body.get("request_id")
            found.add((str(head.get("dlq-tenant") or entry.body.get("tenant") or "default"), str(rid)))
    return found


def _unseen(history: History, counts: Counts) -> Iterator[Offence]:
    unsent = history.table("publisher.outbox") + history.table("intake.outbox")
    counts["outbox rows left"] = len(unsent)
    if history.quiet:
        yield from (Offence("a decided event was never sent", (shown(row),)) for row in unsent)
    elif unsent:
        return
    seen = {(body["asset_id"], body["version"]) for body in _bodies(history, APPROVED)}
    for row in history.table("publisher.assets"):
        if (row["asset_id"], row["version"]) not in seen:
            yield Offence(f"asset {row['asset_id']} was decided and no subscriber saw it", (shown(row),))
    closed = {(body["tenant"], body["request_id"]) for body in _bodies(history, CLOSED)}
    for row in history.table("publisher.orders"):
        if row["outcome"] and (row["tenant"], row["request_id"]) not in closed:
            yield Offence(f"order {row['request_id']} was closed and no subscriber saw it", (shown(row),))


def _bodies(history: History, topic: str) -> list[Fields]:
    return [one.body for one in history.committed if one.place[0] == topic and one.body]


def duplicates(history: History, counts: Counts) -> Iterator[Offence]:
    """2: a subscriber of committed records sees each version of an asset, each closing and each event once."""
    places: dict[tuple[str, ...], dict[object, str]] = defaultdict(dict)
    for one in history.committed:
        if one.place[0] not in TRANSACTIONAL or one.body is None:
            continue
        if one.place[0] == APPROVED:
            named: tuple[str, ...] = ("asset and version", str(one.body.get("asset_id")), str(one.body.get("version")))
        else:
            named = ("closing of", str(one.body.get("tenant")), str(one.body.get("request_id")))
        for what in (named, ("event", str(one.event_id)), ("number", str(one.number))):
            if what[-1] != "None":
                places[what][one.place] = f"{one.where} {one.place}"
        counts["approvals and closings seen"] += 1
    for what, found in places.items():
        if len(found) > 1:
            yield Offence(f"{' '.join(what)} came {len(found)} times", tuple(found.values()))


def aborted(history: History, counts: Counts) -> Iterator[Offence]:
    """3: whatever a subscriber saw was decided and stays; nothing of a refused operation, nothing unasked goes on."""
    for one in history.committed:
        if history.within("final", one.place) and one.place not in history.entries:
            yield Offence("a subscriber saw a record that is not on the log", (f"{one.where} {one.place}",))
    versions = {row["asset_id"]: row["version"] for row in history.table("publisher.assets")}
    for entry in history.on(APPROVED):
        if versions.get(entry.body.get("asset_id"), 0) < entry.body.get("version", 0):
            yield Offence("an approval without its row", (entry.show(),))
    counts["records that were rolled back"] = sum(
        one.place not in history.entries and history.within("final", one.place) for one in history.uncommitted
    )
    named = {request for request, lines in history.asked.items() if any(line["result"] != "fail" for line in lines)}
    for entry in history.on(REQUESTED, CLEARED, CLOSED):
        request = entry.request
        if request is None or request in named or _is_planted(history, entry.place):
            continue
        lines = history.asked.get(request, [])
        says = "an operation that failed went on all the same" if lines else "nobody asked for this request"
        yield Offence(f"{says}: {request}", (entry.show(), *map(shown, lines)))


def _is_planted(history: History, place: tuple[str, int, int]) -> bool:
    return any(_place_of(line) == place for line in history.operations if not is_valid(line))


def _place_of(line: Fields) -> tuple[object, object, object]:
    return line.get("topic"), line.get("partition"), line.get("offset")


def readers(history: History, counts: Counts) -> Iterator[Offence]:
    """4: at one place of the log every reader, at every time, finds the same bytes."""
    for name, live in (("committed", history.committed), ("uncommitted", history.uncommitted)):
        for one in live:
            found = history.entries.get(one.place)
            if found is not None and found.digest != one.digest:
                yield Offence(f"the {name} reader saw other bytes", (f"{one.where} {one.place}", found.show()))
        counts[f"read by {name}"] = len(live)
    counts["read at the end"] = len(history.final)
    if len(history.entries) != len(history.final):
        yield Offence("the final reader found one place twice")


def reading(history: History, counts: Counts) -> Iterator[Offence]:
    """5: a reader's offsets only rise, and it skips nothing that another finds."""
    for name, live in (("committed", history.committed), ("uncommitted", history.uncommitted)):
        last: dict[tuple[str, int], Seen] = {}
        for one in live:
            before = last.get(one.place[:2])
            if before is not None and before.place[2] >= one.place[2]:
                evidence = (f"{before.where} {before.place}", f"{one.where} {one.place}")
                yield Offence(f"the {name} reader went back", evidence)
            last[one.place[:2]] = one
        places = {one.place for one in live}
        for entry in history.final:
            if entry.place not in places and history.within(name, entry.place):
                counts["skipped"] += 1
                yield Offence(f"the {name} reader skipped a record", (entry.show(),))


def order(history: History, counts: Counts) -> Iterator[Offence]:
    """7: per asset, versions come as 1, 2, 3 in one partition; numbers of the relay rise in every partition."""
    last: dict[str, tuple[int, int]] = {}
    for entry in history.on(APPROVED):
        asset, version = str(entry.body.get("asset_id")), int(entry.body.get("version", 0))
        partition, before = last.get(asset, (entry.place[1], 0))
        if version != before + 1 or partition != entry.place[1] or entry.key != asset:
            yield Offence(f"asset {asset}: version {version} follows {before}", (entry.show(),))
        last[asset] = (entry.place[1], version)
    counts["assets"] = len(last)
    numbers: dict[tuple[str, int], int] = {}
    for entry in history.on(*TRANSACTIONAL):
        number = int(entry.headers.get("giclee-number", "/0").rpartition("/")[2])
        if number and number <= numbers.get(entry.place[:2], 0):
            yield Offence(f"number {number} follows {numbers[entry.place[:2]]}", (entry.show(),))
        numbers[entry.place[:2]] = number
