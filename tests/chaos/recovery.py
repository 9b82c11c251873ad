"""How long the line stood still after each fault, by what the committed reader saw. README.md defines it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.chaos.history import (
    CLEARED,
    CLOSED,
    FAILED,
    GENERATED,
    REFUSED,
    REQUESTED,
    SCORED,
    WAVES,
    Entry,
    History,
)

SOON_S = 2.0
"""Work that arrives this long after a fault's end still measures it; later work would measure its own arrival."""

Task = tuple[float, float]
"""When a record could be read, and when its answer could (inf: never)."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds to recovery of the faults of one kind. `idle` had no work to show it, `never` did not recover."""

    kind: str
    seconds: tuple[float, ...]
    drained: tuple[float, ...]
    """Seconds until everything that waited was answered, a figure for each in `seconds`."""
    idle: int
    never: int

    def percentile(self, share: float) -> float | None:
        """Nearest rank; None without a figure."""
        ranked = sorted(self.seconds)
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else None


@dataclass
class _Line:
    """The work of every stage by partition, and when each record was seen."""

    history: History
    seen_at: dict[tuple[str, int, int], float] = field(default_factory=dict)

    dead: set[tuple[str, int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.seen_at = {one.place: one.seen_at for one in self.history.committed}
        self.dead = {place_of_fault(letter) for letter in self.history.letters()}

    def stages(self) -> dict[str, dict[object, list[Task]]]:
        """Tasks by stage and partition."""
        on, routed = self.history.on, self.history.routed()
        return {
            "intake": {"http": self._accepted()},
            "policy": self._tasks(on(REQUESTED), on(CLEARED, REFUSED), _request),
            "router": self._tasks(self._with_a_route(routed), routed, _wave),
            "gpu-worker": self._tasks(routed, [*on(GENERATED, FAILED), *map(_asked_before, routed)], _hop),
            "scorer": self._tasks(on(GENERATED), on(SCORED), _candidate),
            "publisher": self._tasks(self._last_of_each(on(SCORED, FAILED, REFUSED)), on(CLOSED), _request),
        }

    def _with_a_route(self, routed: Iterable[Entry]) -> list[Entry]:
        """Waves that were given to providers; of those refused, the failures do not say which wave they were of."""
        waves = {_wave(entry) for entry in routed}
        return [entry for entry in self.history.on(CLEARED, WAVES) if _wave(entry) in waves]

    def _accepted(self) -> list[Task]:
        first = self._first(self.history.on(REQUESTED), _request)
        asked = self.history.accepted.items()
        return [
            (line["invoked_at"], min(first.get(request, [math.inf])))
            for request, lines in asked
            for line in lines
            if line["kind"] == "http" and not line.get("repeats")
        ]

    def _last_of_each(self, entries: Iterable[Entry]) -> list[Entry]:
        """What the publisher had before it could close: the last record of each closed request."""
        last: dict[object, Entry] = {}
        for entry in sorted(entries, key=self._at):
            if entry.request in self.history.closings:
                last.setdefault(entry.request, entry)
                if self._at(entry) <= self._at(self.history.closings[entry.request][0]):
                    last[entry.request] = entry
        return list(last.values())

    def _tasks(
        self, inputs: Iterable[Entry], answers: Iterable[Entry], key: Callable[[Entry], object]
    ) -> dict[object, list[Task]]:
        """The first record of everything that is asked, with its first answer.

        Copies of either are left out: a stage drops them, or makes them again when its offsets go back. An answer
        that the reader saw before the question was there when it saw that.
        """
        answered = self._first(answers, key)
        found: dict[object, list[Task]] = defaultdict(list)
        seen: set[object] = set()
        for entry in sorted(inputs, key=self._at):
            name = key(entry)
            if entry.place in self.dead or name in seen:
                continue
            seen.add(name)
            asked_at = self._at(entry)
            found[entry.place[:2]].append((asked_at, max(asked_at, min(answered.get(name, [math.inf])))))
        return found

    def _first(self, entries: Iterable[Entry], key: Callable[[Entry], object]) -> dict[object, list[float]]:
        found: dict[object, list[float]] = defaultdict(list)
        for entry in entries:
            found[key(entry)].append(self._at(entry))
        return {name: sorted(times) for name, times in found.items()}

    def _at(self, entry: Entry) -> float:
        return self.seen_at.get(entry.place, entry.timestamp_ms / 1000)


def place_of_fault(letter: Entry) -> tuple[str, int, int]:
    """Where the record of a dead letter lies."""
    topic, at, offset = (letter.headers.get(f"dlq-original-{name}", "") for name in ("topic", "partition", "offset"))
    return topic, int(at or -1), int(offset or -1)


def _request(entry: Entry) -> object:
    return entry.request


def _candidate(entry: Entry) -> object:
    return entry.body.get("candidate_id")


def _wave(entry: Entry) -> object:
    return entry.request, entry.body.get("wave", 0)


def _hop(entry: Entry) -> object:
    return _candidate(entry), entry.body.get("hop", 0)


def _asked_before(entry: Entry) -> Entry:
    """A candidate on its next provider is the answer about the one before."""
    return replace(entry, body={**entry.body, "hop": entry.body.get("hop", 0) - 1})


def _pending(tasks: Iterable[Task], ended_at: float) -> list[float]:
    """Seconds from a fault's end to the answers of what waited then, or came right after."""
    return [told - ended_at for asked, told in tasks if asked <= ended_at + SOON_S and told >= ended_at]


def recovered_s(partitions: Mapping[object, list[Task]], ended_at: float) -> float | None:
    """Seconds until the last partition moved again; None when none had work, inf when one never did."""
    waiting = [_pending(tasks, ended_at) for tasks in partitions.values()]
    return max((min(one) for one in waiting if one), default=None)


def drained_s(partitions: Mapping[object, list[Task]], ended_at: float) -> float:
    """Seconds until the last of it was answered; what never was is not waited for."""
    answered = [one for tasks in partitions.values() for one in _pending(tasks, ended_at) if math.isfinite(one)]
    return max(answered, default=0.0)


def figures(history: History) -> list[Figure]:
    """Recovery by kind of fault, of all faults that happened and said when they ended."""
    stages = _Line(history).stages()
    kinds: dict[str, list[tuple[float | None, float]]] = defaultdict(list)
    for fault in history.faults:
        if fault.get("happened") and fault.get("ended_at") is not None:
            hit = [stages[name] for name in fault.get("stages", ()) if name in stages]
            times = [recovered_s(one, fault["ended_at"]) for one in hit]
            drained = max((drained_s(one, fault["ended_at"]) for one in hit), default=0.0)
            kinds[fault["kind"]].append((max((one for one in times if one is not None), default=None), drained))
    return [_figure(kind, found) for kind, found in sorted(kinds.items())]


def _figure(kind: str, found: Sequence[tuple[float | None, float]]) -> Figure:
    told = [(moved, drained) for moved, drained in found if moved is not None and math.isfinite(moved)]
    return Figure(
        kind,
        seconds=tuple(round(moved, 3) for moved, _ in told),
        drained=tuple(round(drained, 3) for _, drained in told),
        idle=sum(moved is None for moved, _ in found),
        never=sum(moved == math.inf for moved, _ in found),
    )
