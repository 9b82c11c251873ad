"""Stored verdicts: the first one on a candidate's bytes counts for ever. And what drift counted and holds back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from giclee.bus import database, failpoints, telemetry
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.bus.gather import Gathered
from giclee.schemas.events import ImageScored
from giclee.schemas.parts import ModelUsed, is_uuid
from giclee.scorer.drift import Spread

SCHEMA = "scorer"
FORGET_DAYS = 45
FORGET_EVERY_S = 3600.0
TOGETHER_MAX = 200
"""Verdicts in one statement; more would make the first of them wait for the last."""

queries = database.Queries(Path(__file__).with_name("queries.sql"))
log = telemetry.logger(__name__)
Key = tuple[UUID, str]
UNSEEN = "*"
"""Stands for a dimension where a revision is held back because nobody calibrated with it."""


class Verdicts(Protocol):
    """What the handler needs of the store."""

    async def find(self, candidate_id: UUID, sha256: str) -> ImageScored | None: ...
    async def keep(self, scored: ImageScored) -> ImageScored: ...


class Store:
    """Verdicts in Postgres. Errors of every method: Transient, Poison.

    Handlers ask one at a time; what is asked while a statement runs shares the next one.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._find = Gathered(self._find_all, TOGETHER_MAX)
        self.keep = Gathered(self._keep_all, TOGETHER_MAX)
        """Stores a verdict; the answer is the one that counts, which another process may have stored first."""

    async def find(self, candidate_id: UUID, sha256: str) -> ImageScored | None:
        """The verdict on these bytes, made again as the event it was."""
        return await self._find((candidate_id, sha256))

    async def _find_all(self, asked: Sequence[Key]) -> list[ImageScored | None]:
        with database.translated():
            rows = await self._pool.fetch(queries.find_verdicts, *(list(column) for column in zip(*asked, strict=True)))
        known = {(row["candidate_id"], row["sha256"]): row["scored"] for row in rows}
        return [ImageScored.model_validate(known[key]) if key in known else None for key in asked]

    async def _keep_all(self, verdicts: Sequence[ImageScored]) -> list[ImageScored]:
        first: dict[Key, ImageScored] = {}
        for scored in verdicts:
            first.setdefault((scored.candidate_id, scored.sha256), scored)
        rows = [
            (
                *key,
                scored.tenant,
                scored.request_id,
                scored.verdict,
                scored.gate_version,
                scored.model_dump(mode="json"),
            )
            for key, scored in first.items()
        ]
        with database.translated():
            await failpoints.reach("before-verdict-commit")
            made = await self._pool.fetch(queries.keep_verdicts, *(list(column) for column in zip(*rows, strict=True)))
            await failpoints.reach("after-verdict-commit")
        kept = {(row["candidate_id"], row["sha256"]) for row in made}
        if others := [key for key in first if key not in kept]:
            found = await self._find_all(others)
            first |= {key: scored for key, scored in zip(others, found, strict=True) if scored is not None}
        return [first[scored.candidate_id, scored.sha256] for scored in verdicts]

    async def since(self, hours: float, limit: int, asset_type: str | None = None) -> list[ImageScored]:
        """Verdicts of the last hours, the newest first."""
        with database.translated():
            rows = await self._pool.fetch(queries.verdicts_since, hours, limit, asset_type)
        return [ImageScored.model_validate(row["scored"]) for row in rows]

    async def measured(self, ids: Sequence[str]) -> dict[str, ImageScored]:
        """The verdicts on these candidates; ids that are none are left out."""
        asked = [UUID(one) for one in ids if is_uuid(one)]
        with database.translated():
            rows = await self._pool.fetch(queries.measured, asked)
        return {str(row["candidate_id"]): ImageScored.model_validate(row["scored"]) for row in rows}

    async def forget(self) -> None:
        """Delete what is too old, until cancelled."""
        while True:
            try:
                with database.translated():
                    await self._pool.execute(queries.forget_verdicts, FORGET_DAYS)
            except Transient as error:
                log.warning("the database is away", error=str(error))
            await asyncio.sleep(FORGET_EVERY_S)


@dataclass(frozen=True, slots=True)
class Place:
    """An asset type, a model revision, and the version of what its scores are compared with."""

    asset_type: str
    model: str
    reference: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What is held back of a place, dimension to why; and whether an unseen revision was released."""

    held: Mapping[str, str] = field(default_factory=dict)
    released: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """What counting came to: the new spread, dimensions to raise with why, and why an unseen revision is released."""

    spread: Spread
    raised: Mapping[str, str]
    released: str | None = None


class Drifts:
    """Spreads and what is held back, shared by all replicas. Errors of every method: Transient, Poison."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.standing = Gathered(self._standing_all, TOGETHER_MAX)
        """What is held back of a place now."""

    async def _standing_all(self, asked: Sequence[Place]) -> list[Standing]:
        places = sorted({(one.asset_type, one.model, one.reference) for one in asked})
        with database.translated():
            rows = await self._pool.fetch(queries.standing, *(list(column) for column in zip(*places, strict=True)))
        held: dict[Place, dict[str, str]] = {}
        released = set()
        for row in rows:
            place = Place(row["asset_type"], row["model"], row["reference"])
            if row["held"]:
                held.setdefault(place, {})[row["dimension"]] = row["says"]
            else:
                released.add(place)
        return [Standing(held.get(place, {}), place in released) for place in asked]

    async def first_of_requests(self, images: Sequence[ImageScored], model: ModelUsed) -> list[ImageScored]:
        """Those of these stored images of a model that are the first of their request."""
        ids = [scored.candidate_id for scored in images]
        with database.translated():
            rows = await self._pool.fetch(queries.first_of_requests, ids, model.name, model.revision)
        first = {row["candidate_id"] for row in rows}
        return [scored for scored in images if scored.candidate_id in first]

    async def count(self, place: Place, step: Callable[[Spread], Counted]) -> list[str]:
        """Put the spread through `step` under its lock; the dimensions that are newly held back."""
        key = (place.asset_type, place.model, place.reference)
        with database.translated():
            async with self._pool.acquire() as connection, connection.transaction():
                row = await connection.fetchrow(queries.lock_spread, *key)
                assert row is not None
                spread = Spread(row["seen"], row["block"], row["size"], _bins(row["counts"]))
                new = step(spread)
                told = asdict(new.spread)
                await connection.execute(queries.keep_spread, *key, *told.values())
                rows = [
                    (name, await connection.fetchrow(queries.raise_drift, *key, name, says))
                    for name, says in new.raised.items()
                ]
                if new.released is not None:
                    await connection.execute(queries.release_unseen, *key, new.released)
        return [name for name, made in rows if made is not None]

    async def listed(self, *, cleared: bool, limit: int) -> list[dict[str, Any]]:
        """What is held back, and with `cleared` what was."""
        with database.translated():
            return [dict(row) for row in await self._pool.fetch(queries.list_drift, cleared, limit)]

    async def clear(
        self, asset_type: str, model: str, dimension: str | None, *, actor: str, reason: str
    ) -> list[dict[str, Any]]:
        """Clear what is held back of these, and count anew; the rows that were cleared."""
        with database.translated():
            rows = await self._pool.fetch(queries.clear_drift, asset_type, model, dimension, actor, reason)
        return [dict(row) for row in rows]


def _bins(stored: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(counts) for name, counts in stored.items()}
