"""Lost offsets of consumer groups: found, and put back where nothing is skipped.

Consumers read with `auto_offset_reset=none`: a group whose offset is gone stops instead of skipping. Each round
remembers where every group stood. A lost one begins again there, or at the log's first record when that is later or
nothing is remembered: what is handled twice is harmless, what is skipped is not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from giclee.bus import database, telemetry
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.bus.kafka.groups import Place
from giclee.bus.transport import Partition
from giclee.replay.checks import QUERIES
from giclee.replay.findings import Finding, bad, good

SAID_FOR_S = 86_400.0
"""How long a report speaks of what was put back."""

log = telemetry.logger(__name__)


class Groups(Protocol):
    """Offsets of groups, as `giclee.bus.kafka.groups` has them."""

    async def places(self, groups: Mapping[str, Sequence[str]]) -> dict[str, dict[Partition, Place]]: ...
    async def put(self, group: str, topics: Sequence[str], offsets: Mapping[Partition, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Lost:
    """One group that would stop at one partition, and where it may begin again."""

    group: str
    at: Partition
    place: Place
    begin: int

    @property
    def gone(self) -> int:
        """Records that retention took before the group read them."""
        return max(0, self.place.first - self.place.committed) if self.place.committed is not None else 0

    def __str__(self) -> str:
        return f"{self.group} in {self.at.topic}/{self.at.number}: {self.place.committed} -> {self.begin}"


def beginning(place: Place, known: int | None) -> int:
    """Where a lost group may begin: the last place it was seen at if the log still has it, else the first record."""
    return known if known is not None and place.first <= known <= place.end else place.first


class Offsets:
    """Checks the groups of the topic table and mends them."""

    def __init__(self, pool: Pool, groups: Groups, wanted: Mapping[str, Sequence[str]]) -> None:
        self._pool = pool
        self._groups = groups
        self._wanted = wanted
        self._mended: list[tuple[float, Lost]] = []

    async def check(self) -> Finding:
        """Every group has an offset that its log reaches. Errors: Transient."""
        places = await self._groups.places(self._wanted)
        lost = await self._lost(places)
        await self._remember(places)
        absent = sorted({topic for topics in self._wanted.values() for topic in topics} - _topics_of(places))
        if absent:
            return bad(
                "group offsets", f"{len(absent)} topics are missing", "giclee topics apply",
                count=len(absent), examples=tuple(absent[:5]),
            )  # fmt: skip
        if lost:
            return bad(
                "group offsets", f"{len(lost)} are lost; the next round of this service puts them back",
                "if that does not help: stop the stage, giclee topics apply, start it",
                count=len(lost), examples=tuple(map(str, lost[:5])),
            )  # fmt: skip
        return self._past(len(places))

    def _past(self, groups: int) -> Finding:
        """What was put back lately, and loudly so where retention had been faster than the group."""
        recent = [one for at, one in self._mended if time.monotonic() - at < SAID_FOR_S]
        gone = sum(one.gone for one in recent)
        if gone:
            return bad(
                "group offsets", f"retention took {gone} records that nobody had read; their groups go on behind them",
                "late requests are repeated or expire by themselves: giclee requests ls --state pending",
                count=gone, examples=tuple(str(one) for one in recent[:5] if one.gone),
            )  # fmt: skip
        said = f"; {len(recent)} lost ones were put back in the last day" if recent else ""
        return good("group offsets", f"{groups} groups have their places{said}", mended=len(recent))

    async def mend(self) -> list[Lost]:
        """Put lost offsets back, group by group; those that were. Errors: Transient when a part is away."""
        places = await self._groups.places(self._wanted)
        lost = await self._lost(places)
        await self._remember(places)
        mended: list[Lost] = []
        for group in sorted({one.group for one in lost}):
            mine = [one for one in lost if one.group == group]
            try:
                await self._groups.put(group, self._wanted[group], {one.at: one.begin for one in mine})
            except Transient as error:  # another group may let us
                log.error("lost offsets are not put back", group=group, error=str(error))
                continue
            log.error("lost offsets are put back", group=group, places=[str(one) for one in mine])
            await self._note(mine)
            mended += mine
        self._mended = [row for row in self._mended if time.monotonic() - row[0] < SAID_FOR_S]
        self._mended += [(time.monotonic(), one) for one in mended]
        return mended

    async def _lost(self, places: Mapping[str, Mapping[Partition, Place]]) -> list[Lost]:
        with database.translated():
            rows = await self._pool.fetch(QUERIES.known_places)
        known = {(row["group_name"], Partition(row["topic"], row["partition"])): row["next_offset"] for row in rows}
        return [
            Lost(group, at, place, beginning(place, known.get((group, at))))
            for group, mine in places.items()
            for at, place in mine.items()
            if place.is_lost
        ]

    async def _remember(self, places: Mapping[str, Mapping[Partition, Place]]) -> None:
        rows = [
            (group, at.topic, at.number, place.committed)
            for group, mine in places.items()
            for at, place in mine.items()
            if not place.is_lost
        ]
        with database.translated():
            await self._pool.execute(QUERIES.remember_places, *map(list, zip(*rows, strict=True))) if rows else None

    async def _note(self, mine: Sequence[Lost]) -> None:
        details = {"places": [str(one) for one in mine], "gone": sum(one.gone for one in mine)}
        with database.translated():
            await self._pool.execute(QUERIES.note, "giclee", "put offsets", "they were lost", details)


def _topics_of(places: Mapping[str, Mapping[Partition, Place]]) -> set[str]:
    return {at.topic for mine in places.values() for at in mine}
