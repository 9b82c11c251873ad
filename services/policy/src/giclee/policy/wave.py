"""How many candidates a cleared request starts with and what each may cost: contract 3.2, rules 2 and 4.

limit_usd   the asset type's, or twice the price of the dearest model that the request may use; at most the budget
escalation  the same for the final quality, where a draft may go on as one
first_wave  as many as wanted or as the asset type starts with; at most max_candidates; at most as many as
            the budget holds limits; never less than one, since the limit itself is at most the budget
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_UP, Decimal
from typing import NamedTuple

from giclee.policy.asset_types import AssetType
from giclee.schemas.events import ImageRequested
from giclee.schemas.models import Model

SMALLEST_USD = Decimal("0.000001")
ATTEMPTS = 2
"""Attempts that a limit leaves room for: after a worker is lost its attempt counts as paid."""


class Wave(NamedTuple):
    """Wave 0: `candidates` of at most `limit_usd` each; `escalation_usd` is a later, final candidate's limit."""

    candidates: int
    limit_usd: Decimal
    escalation_usd: Decimal | None = None


def wave_zero(request: ImageRequested, row: AssetType, models: Iterable[Model] = ()) -> Wave:
    """The wave that a clearance carries. `models` are all that can be asked for, built in and the operator's."""
    budget, models = request.budget_usd, tuple(models)
    limit = _limit(request, row, models)
    least = row.first_wave_draft if request.quality == "draft" else row.first_wave
    count = min(max(least, request.wanted), request.candidate_cap())
    if budget is not None and limit:
        count = max(1, min(count, int(budget / limit)))
    return Wave(count, limit, _escalation(request, row, models))


def _escalation(request: ImageRequested, row: AssetType, models: Iterable[Model]) -> Decimal | None:
    """None where a draft stays one: its caller named a model or is strict, or its asset type does not escalate."""
    if request.quality != "draft" or request.model is not None or request.strict or not row.escalates:
        return None
    return _limit(request.model_copy(update={"quality": "final"}), row, models)


def _limit(request: ImageRequested, row: AssetType, models: Iterable[Model]) -> Decimal:
    limit = max([row.limit_usd, *_limits(request, models)])
    return limit if request.budget_usd is None else min(limit, request.budget_usd)


def _limits(request: ImageRequested, models: Iterable[Model]) -> list[Decimal]:
    """What a candidate of each model needs, where the request may use it and can pay it.

    A model dearer than the whole budget must not raise the limit: the budget would hold one candidate only.
    """
    prices = [_price(request, model) for model in models if _may_use(request, model)]
    budget = request.budget_usd
    return [price * ATTEMPTS for price in prices if budget is None or price <= budget]


def _price(request: ImageRequested, model: Model) -> Decimal:
    """At most what the router will ask for an image: more steps than the model's own cost in proportion."""
    steps = max(request.params.steps or model.steps, model.steps)
    return (model.price_usd * steps / model.steps).quantize(SMALLEST_USD, ROUND_UP)


def _may_use(request: ImageRequested, model: Model) -> bool:
    if request.model is not None:
        return request.model.name == model.name
    sides = (request.size.width, request.size.height) if request.size else (model.width, model.height)
    fits = all(model.size_min <= side <= model.size_max for side in sides)
    return fits and request.quality in model.qualities and (model.private or request.privacy == "public")
