"""What other services may ask before they act: POST /internal/orders and /internal/blobs. Answers, changes nothing.

`{orders: [[tenant, request_id], …]}` -> `{orders: [{tenant, request_id, state: open | closed | unheard, outcome}]}`;
`{blobs: [key, …]}` -> `{blobs: [{key, there}]}`, keys of our bucket. At most 1,000 of either.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from giclee.bus.blobs import Blobs
from giclee.publisher.store import Store

ASKED_MAX = 1000
LOOKS_AT_ONCE = 16


class Inquiries:
    """The endpoints, with what they look at. Errors: ValueError for a body that is not one; Transient."""

    def __init__(self, store: Store, bucket: Blobs) -> None:
        self._store = store
        self._bucket = bucket
        self._looking = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def orders(self, body: dict[str, Any]) -> dict[str, Any]:
        """How these requests stand."""
        keys = [(str(tenant), uuid.UUID(str(request_id))) for tenant, request_id in _asked(body, "orders")]
        known = await self._store.standing(keys)
        return {"orders": [_order(key, *known.get(key, ("unheard", None))) for key in keys]}

    async def blobs(self, body: dict[str, Any]) -> dict[str, Any]:
        """Whether these keys are in the bucket."""
        keys = [str(key) for key in _asked(body, "blobs")]
        there = await asyncio.gather(*map(self._is_there, keys))
        return {"blobs": [{"key": key, "there": found} for key, found in zip(keys, there, strict=True)]}

    async def _is_there(self, key: str) -> bool:
        async with self._looking:
            return any(one.key == key for one in await self._bucket.listed(key, "", 1))


def _asked(body: dict[str, Any], name: str) -> list[Any]:
    rows = body.get(name)
    if not isinstance(rows, list) or len(rows) > ASKED_MAX:
        raise ValueError(f"{name} must be a list of at most {ASKED_MAX}")
    return rows


def _order(key: tuple[str, uuid.UUID], state: str, outcome: str | None) -> dict[str, Any]:
    return {"tenant": key[0], "request_id": str(key[1]), "state": state, "outcome": outcome}
