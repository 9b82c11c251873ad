"""What a request would cost and take, for intake's dry run: POST /internal/quote. Nothing is stored.

Takes `{cleared: ...}`, the clearance that policy's /internal/verdict gives. Answers `{routable, chain[], reasons[]}`
and, where routable, `{acceptance_ratio, acceptance_known, candidates_expected, cost_per_approved_usd, cost_usd,
seconds_per_approved}`. Expectations, not promises: the ratio is that of the last minute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_UP, Decimal
from typing import Any

from pydantic import ValidationError

from giclee.router.advice import acceptance
from giclee.router.choose import Choice, Known, choose, no_route
from giclee.router.routes import Offer
from giclee.schemas.events import Cleared, ImageCleared, ProviderHealth
from giclee.schemas.parts import usd_text
from giclee.schemas.strict import FieldError, InvalidInput, pointer

_SMALLEST_USD = Decimal("0.000001")


class Quote:
    """The endpoint with what it chooses from. `health` gives the rows that speak about now, by provider."""

    def __init__(
        self, offers: Sequence[Offer], health: Callable[[], Mapping[str, ProviderHealth]], known: Known | None = None
    ) -> None:
        self._offers = offers
        self._known = known or Known()
        self._health = health
        self._seconds = {offer.model.name: offer.model.seconds for offer in offers}

    async def quote(self, body: dict[str, Any]) -> dict[str, Any]:
        """The expectation for a clearance. Errors: InvalidInput when it is none."""
        try:
            cleared = ImageCleared.model_validate(body.get("cleared"))
        except ValidationError as error:
            rows = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidInput([FieldError(pointer(("cleared", *row["loc"])), row["msg"]) for row in rows]) from None
        choice = choose(cleared.request, cleared.limit_usd, self._offers, self._known.of(cleared.tenant))
        if not choice.chain:
            told = [reason.model_dump(mode="json", exclude_none=True) for reason in no_route(choice)]
            return {"routable": False, "chain": [], "reasons": told}
        return {"routable": True, "chain": self._chain(choice), "reasons": []} | self._expected(cleared.request, choice)

    def _chain(self, choice: Choice) -> list[dict[str, Any]]:
        return [
            {
                "provider": hop.provider,
                "model": hop.model.name,
                "revision": hop.model.revision,
                "price_usd": usd_text(hop.price_usd),
                "seconds": self._seconds[hop.model.name],
            }
            for hop in choice.chain
        ]

    def _expected(self, request: Cleared, choice: Choice) -> dict[str, Any]:
        """By the first of the chain; fallbacks are for when it fails."""
        hop = choice.chain[0]
        row = self._health().get(hop.provider)
        ratio = acceptance(row)
        candidates = min(request.max_candidates, math.ceil(request.wanted / ratio))
        seconds = (row.p50_s if row else None) or self._seconds[hop.model.name]
        each = (hop.price_usd / Decimal(str(ratio))).quantize(_SMALLEST_USD, ROUND_UP)
        return {
            "acceptance_ratio": round(ratio, 3),
            "acceptance_known": bool(row and row.scored),
            "candidates_expected": candidates,
            "cost_per_approved_usd": usd_text(each),
            "cost_usd": usd_text(hop.price_usd * candidates),
            "seconds_per_approved": round(seconds / ratio, 3),
        }
