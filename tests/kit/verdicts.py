"""The store of verdicts without a database."""

from __future__ import annotations

from uuid import UUID

from giclee.schemas.events import ImageScored


class Remembers:
    """In memory; the first verdict on a candidate's bytes counts."""

    def __init__(self) -> None:
        self.rows: dict[tuple[UUID, str], ImageScored] = {}

    async def find(self, candidate_id: UUID, sha256: str) -> ImageScored | None:
        return self.rows.get((candidate_id, sha256))

    async def keep(self, scored: ImageScored) -> ImageScored:
        return self.rows.setdefault((scored.candidate_id, scored.sha256), scored)
