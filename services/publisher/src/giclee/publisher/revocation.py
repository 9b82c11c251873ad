"""Takes an approval back: the asset's next version, as ImageRevoked on the lane of approvals (rules 16, 17).

The order it came from stays as it ended; its closing names version 1, and the highest version is the truth.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from giclee.bus import database, outbox
from giclee.publisher.closing import STAGE
from giclee.schemas.events import ImageApproved, ImageRevoked

REASON_CODES = ("rights", "legal", "safety", "brand", "quality", "requested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Why an asset must not be used any more, and who says so."""

    reason_code: str
    reason: str
    by: str
    take_down_by: datetime | None = None
    replaced_by: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is known of a revoked asset now; `is_new` when it was revoked just now."""

    document: dict[str, Any]
    is_new: bool


def revocation_of(approval: ImageApproved, version: int, wish: Wish, now: datetime) -> ImageRevoked:
    """The event. `blobs` are all the bytes that subscribers may have fetched."""
    return ImageRevoked(
        **approval.echo(),
        asset_id=approval.asset_id,
        version=version,
        reason_code=wish.reason_code,
        reason=wish.reason,
        revoked_by=wish.by,
        revoked_at=now,
        take_down_by=wish.take_down_by,
        replaced_by=wish.replaced_by,
        blobs=(approval.image, *approval.derivatives),
    )


async def revoke(
    connection: database.Connection, queries: database.Queries, tenant: str, asset: uuid.UUID, wish: Wish
) -> Revoked | None:
    """Revoke an asset inside a transaction, unless somebody was first; None when there is no such asset."""
    row = await connection.fetchrow(queries.lock_asset, tenant, asset)
    if row is None:
        return None
    document: dict[str, Any] = row["document"]
    if row["status"] == "revoked":
        return Revoked(document, is_new=False)
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    event = revocation_of(ImageApproved.model_validate(document), row["version"] + 1, wish, now)
    document = {**document, **orjson.loads(event.model_dump_json(exclude_none=True))}
    await connection.execute(queries.revoke_asset, asset, event.version, document, now)
    await outbox.put(connection, STAGE, [event])
    return Revoked(document, is_new=True)
