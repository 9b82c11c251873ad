"""The bucket against the database: approvals whose bytes are not there, and objects that nothing needs.

An object is an orphan when it is older than the grace period (longer than any record that could name it is kept) and
neither a fact, an asset, a claim, an open request nor a dead letter speaks of it. Finding them changes nothing;
deleting is an operator's act, and asks again for every object just before.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from giclee.bus import database, telemetry
from giclee.bus.blobs import Blobs, Stored
from giclee.bus.database import Pool
from giclee.bus.errors import Poison, Transient
from giclee.replay.checks import QUERIES
from giclee.replay.findings import Finding, bad, good
from giclee.schemas.parts import BlobRef, is_uuid

PREFIXES = ("candidates/", "assets/")
PAGE = 500
WALK_MAX_S = 10.0
"""How long one round walks through the listing; the next one goes on behind it."""
ORPHANS_KEPT_MAX = 10_000
APPROVALS_A_ROUND = 20
"""Approvals whose bytes a round reads and hashes: at most 20 x 64 MiB, usually 20 x 1 MiB. All have their turn."""

log = telemetry.logger(__name__)
Named = tuple[str, str, uuid.UUID, uuid.UUID | None]


class Objects:
    """Compares the bucket with what the database says. `grace` is how old an orphan must be."""

    def __init__(self, pool: Pool, blobs: Blobs, grace: timedelta) -> None:
        self._pool = pool
        self._blobs = blobs
        self._grace = grace
        self._sampled = uuid.UUID(int=0)
        self._place = dict.fromkeys(PREFIXES, "")
        self._walked = 0
        self._rounds = dict.fromkeys(PREFIXES, 0)
        self._orphans: set[str] = set()

    # ---- approvals without bytes ----------------------------------------------------------------

    async def approvals(self) -> Finding:
        """The next few approvals have the bytes that were approved. Errors: Transient when a store is away."""
        with database.translated():
            rows = await self._pool.fetch(QUERIES.some_approvals, self._sampled, APPROVALS_A_ROUND)
        wrong = [said for row in rows for said in await self._wrong_of(row["asset_id"], row["document"])]
        self._sampled = rows[-1]["asset_id"] if len(rows) == APPROVALS_A_ROUND else uuid.UUID(int=0)
        if wrong:
            return bad(
                "approvals", f"{len(wrong)} blobs of {len(rows)} approvals looked at are not what was approved",
                "restore them from the bucket's backup, or giclee assets revoke <asset>",
                count=len(wrong), examples=tuple(wrong[:5]),
            )  # fmt: skip
        if not rows:
            return good("approvals", "there is none yet")
        return good("approvals", f"the next {len(rows)} looked at: every blob has the bytes that were approved")

    async def _wrong_of(self, asset_id: uuid.UUID, document: dict[str, Any]) -> list[str]:
        wrong = []
        for raw in (document.get("image"), *document.get("derivatives", ())):
            try:
                ref = BlobRef.model_validate({name: (raw or {}).get(name) for name in BlobRef.model_fields})
                await self._blobs.get(ref)
            except ValidationError:
                wrong.append(f"{asset_id}: names no blob")
            except Poison as error:
                wrong.append(f"{asset_id}: {error}")
            except Transient as error:
                if error.scope != "record":
                    raise
                wrong.append(f"{asset_id}: {error}")
        return wrong

    # ---- objects that nothing needs -------------------------------------------------------------

    async def orphans(self) -> Finding:
        """Go on through the listing for a while. Errors: Transient when a store is away."""
        until = time.monotonic() + WALK_MAX_S
        for prefix in PREFIXES:
            while time.monotonic() < until and await self._walk(prefix):
                pass
        said = f"{self._walked} objects looked at since the start, the whole bucket {min(self._rounds.values())} times"
        self._orphans &= await self._unneeded(sorted(self._orphans))
        if not self._orphans:
            return good("orphans", f"no object without a row: {said}")
        return bad(
            "orphans", f"{len(self._orphans)} objects that nothing needs, {said}",
            "giclee doctor --delete-orphans --reason ...",
            count=len(self._orphans), examples=tuple(sorted(self._orphans)[:5]),
        )  # fmt: skip

    async def delete_orphans(self) -> list[str]:
        """Delete what was found and is still not needed; the keys. Errors: Transient when a store is away."""
        deleted = []
        for key in sorted(self._orphans):
            if await self._unneeded([key]):
                await self._blobs.delete(key)
                deleted.append(key)
            self._orphans.discard(key)
        log.info("orphans deleted", count=len(deleted))
        return deleted

    async def _walk(self, prefix: str) -> bool:
        """One page of a listing; False when it was the last, and the next call begins anew."""
        page = await self._blobs.listed(prefix, self._place[prefix], PAGE)
        self._walked += len(page)
        old = await self._old(page)
        if old and len(self._orphans) < ORPHANS_KEPT_MAX:
            self._orphans |= await self._unneeded(old)
        is_last = len(page) < PAGE
        self._place[prefix] = "" if is_last else page[-1].key
        self._rounds[prefix] += is_last
        return not is_last

    async def _old(self, page: Sequence[Stored]) -> list[str]:
        with database.translated():
            now: datetime = await self._pool.fetchval("SELECT clock_timestamp()")
        return [one.key for one in page if now - one.modified_at > self._grace]

    async def _unneeded(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that are made as ours are and that nothing speaks of; a foreign object is left alone."""
        named = [found for key in keys if (found := _named(key)) is not None]
        if not named:
            return set()
        with database.translated():
            rows = await self._pool.fetch(QUERIES.referenced, *map(list, zip(*named, strict=True)))
        return {key for key, *_ in named} - {row["key"] for row in rows}


def _named(key: str) -> Named | None:
    """Key, tenant, request and candidate (None for an asset) of a key of ours; None for any other."""
    parts = key.split("/")
    if len(parts) < 4 or f"{parts[0]}/" not in PREFIXES or not is_uuid(parts[2]):
        return None
    candidate = parts[3][:36]
    return key, parts[1], uuid.UUID(parts[2]), uuid.UUID(candidate) if is_uuid(candidate) else None
