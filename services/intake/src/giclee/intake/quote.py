"""What a request would meet, for the dry run: policy's verdict, then the router's quote. Nothing is stored.

Both answer on their health ports, under one deadline; whoever is away makes the answer a 503, never a guess.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2

from giclee.bus.errors import Transient
from giclee.schemas.events import ImageRequested

_EXPECTED = (
    "cost_usd", "cost_per_approved_usd", "seconds_per_approved", "candidates_expected", "acceptance_ratio",
    "acceptance_known", "chain",
)  # fmt: skip


class Quoter:
    """Asks policy and router at their base addresses, within `deadline_s` together."""

    def __init__(self, policy_url: str | None, router_url: str | None, deadline_s: float) -> None:
        self._policy_url = policy_url
        self._router_url = router_url
        self._deadline_s = deadline_s

    async def quote(self, request: ImageRequested) -> dict[str, Any]:
        """Verdict, reasons and expectations for a request. Errors: Transient when either is away or too slow."""
        try:
            async with asyncio.timeout(self._deadline_s), httpx2.AsyncClient(trust_env=False) as client:
                values = request.model_dump_json(exclude_none=True)
                verdict = await self._ask(client, self._policy_url, "verdict", values)
                said = {name: verdict.get(name) for name in ("verdict", "reasons", "policy_version")}
                if verdict.get("verdict") != "cleared":
                    return {**said, "routable": None, "expected": None}
                quote = await self._ask(client, self._router_url, "quote", json.dumps({"cleared": verdict["cleared"]}))
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError) as error:
            raise Transient(f"no quote: {type(error).__name__} {error}") from error
        expected = {name: quote[name] for name in _EXPECTED if name in quote} if quote.get("routable") else None
        return {**said, "reasons": quote.get("reasons", []), "routable": quote.get("routable"), "expected": expected}

    async def _ask(self, client: httpx2.AsyncClient, base: str | None, name: str, body: str) -> dict[str, Any]:
        if base is None:
            raise Transient(f"nobody to ask for the {name}: its address is not set")
        url = f"{base.rstrip('/')}/internal/{name}"
        answer = await client.post(url, content=body, headers={"Content-Type": "application/json"})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
