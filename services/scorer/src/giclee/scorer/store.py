"""Stored verdicts: the first one on a candidate's bytes counts for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID

from giclee.bus import database, failpoints, telemetry
from giclee.bus.database import Pool
from giclee.bus.errors import Transient
from giclee.bus.gather import Gathered
from giclee.schemas.events import ImageScored
from giclee.schemas.parts import is_uuid

SCHEMA = "scorer"
FORGET_DAYS = 45
FORGET_EVERY_S = 3600.0
TOGETHER_MAX = 200
"""Verdicts in one statement; more would make the first of them wait for the last."""

queries = database.Queries(Path(__file__).with_name("queries.sql"))
log = telemetry.logger(__name__)
Key = tuple[UUID, str]


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

    async def since(self, hours: float, limit: int) -> list[ImageScored]:
        """Verdicts of the last hours, the newest first."""
        with database.translated():
            rows = await self._pool.fetch(queries.verdicts_since, hours, limit)
        return [ImageScored.model_validate(row["scored"]) for row in rows]

    async def measured(self, ids: Sequence[str]) -> dict[str, tuple[dict[str, float], str, str]]:
        """Values by dimension, asset type and provider of these candidates; ids that are none are left out."""
        asked = [UUID(one) for one in ids if is_uuid(one)]
        with database.translated():
            rows = await self._pool.fetch(queries.measured, asked)
        found = {}
        for row in rows:
            scored = ImageScored.model_validate(row["scored"])
            values = {name: score.value for name, score in scored.scores.items() if score.value is not None}
            found[str(row["candidate_id"])] = (values, scored.asset_type, scored.provider)
        return found

    async def forget(self) -> None:
        """Delete what is too old, until cancelled."""
        while True:
            try:
                with database.translated():
                    await self._pool.execute(queries.forget_verdicts, FORGET_DAYS)
            except Transient as error:
                log.warning("the database is away", error=str(error))
            await asyncio.sleep(FORGET_EVERY_S)
