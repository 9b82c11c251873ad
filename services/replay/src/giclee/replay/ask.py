"""What only other services know: the state of orders, claims and blobs. Asked on their health ports, with a deadline.

Who does not answer makes the answer unknown, never an error: an operator must be able to act while half of the
line is away. Whoever was silent is left alone for a while, so that a run is not slowed down by asking.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from giclee.bus import telemetry

DEADLINE_S = 2.0
SILENT_S = 15.0
"""How long nobody asks a service that did not answer."""
AT_ONCE = 1000

log = telemetry.logger(__name__)


class Neighbours:
    """The publisher, and a worker of each pool, by the addresses of their health ports."""

    def __init__(self, publisher_url: str | None, worker_urls: Mapping[str, str]) -> None:
        self._publisher_url = publisher_url
        self._worker_urls = worker_urls
        self._silent_until: dict[str, float] = {}

    async def orders(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
        """(tenant, request id) -> `{state: open | closed | unheard, outcome}`; nothing of those nobody could tell."""
        rows = await self._asked(self._publisher_url, "orders", [list(key) for key in keys])
        return {(row["tenant"], row["request_id"]): row for row in rows}

    async def blobs(self, keys: Sequence[str]) -> dict[str, bool]:
        """Key in the bucket -> whether it is there."""
        return {row["key"]: row["there"] for row in await self._asked(self._publisher_url, "blobs", list(keys))}

    async def claims(self, pool: str, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
        """(candidate id, hop) -> `{state: live | done | none, outcome, ended, spent_usd, limit_usd}`."""
        rows = await self._asked(self._worker_urls.get(pool), "claims", [list(key) for key in keys])
        return {(row["candidate_id"], row["hop"]): row for row in rows}

    async def calls(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """`{calls: […], spent: […]}` of the ledger, which any worker can read; None where none answers."""
        for base in dict.fromkeys(self._worker_urls.values()):
            try:
                async with asyncio.timeout(DEADLINE_S), httpx2.AsyncClient(trust_env=False) as client:
                    answer = await client.post(f"{base.rstrip('/')}/internal/calls", json=dict(asked))
                    answer.raise_for_status()
                    found: dict[str, Any] = answer.json()
                    return found
            except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                log.warning("a worker does not answer", asked="calls", error=f"{type(error).__name__} {error}")
        return None

    async def _asked(self, base: str | None, name: str, keys: list[Any]) -> list[dict[str, Any]]:
        if base is None or not keys or time.monotonic() < self._silent_until.get(base, 0):
            return []
        found: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(DEADLINE_S), httpx2.AsyncClient(trust_env=False) as client:
                for start in range(0, len(keys), AT_ONCE):
                    url = f"{base.rstrip('/')}/internal/{name}"
                    answer = await client.post(url, json={name: keys[start : start + AT_ONCE]})
                    answer.raise_for_status()
                    found += answer.json()[name]
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            self._silent_until[base] = time.monotonic() + SILENT_S
            log.warning("a neighbour does not answer", asked=name, error=f"{type(error).__name__} {error}")
        return found
