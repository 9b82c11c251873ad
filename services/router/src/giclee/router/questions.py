"""What a model must be able and allowed to do to be asked for an image. Pure; every no is a reason.

The cheapest question to answer comes first; the first no makes a model a loser. Whoever is not private enough, breaks
the tenant's terms, has no known price or is refused by a switch is out, whatever it costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from giclee.router.prices import Price
from giclee.router.routes import Route, route_of
from giclee.schemas.events import Cleared
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment, Priority
from giclee.schemas.tenant_terms import Demand

BULK_AGED_S, STANDARD_AGED_S = 3600.0, 1800.0
"""After so long in the line work may use the pools of the next priority: bulk is late, never starved."""


class Wish(NamedTuple):
    """What is asked of every model. `priority` is the request's, raised where it has waited long; `left_s` its time;
    `demand` its tenant's."""

    request: Cleared
    limit_usd: Decimal
    route: Route
    priority: Priority
    left_s: float
    demand: Demand | None = None


def wish_of(request: Cleared, limit_usd: Decimal, now_s: float, demand: Demand | None = None) -> Wish:
    """What `request` wants at `now_s`, in seconds since 1970."""
    left_s = request.closes_by.timestamp() - now_s
    return Wish(request, limit_usd, route_of(request), aged(request, now_s), left_s, demand)


Why = tuple[str, str] | None
"""A code of `reasons.TABLE` and a message; None when the question is passed."""


def aged(request: Cleared, now_s: float) -> Priority:
    """The priority whose pools a request may use now."""
    waited_s = now_s - request.accepted_at.timestamp()
    priority = request.priority
    if priority == "bulk" and waited_s > BULK_AGED_S:
        priority = "standard"
    if priority == "standard" and waited_s > STANDARD_AGED_S + BULK_AGED_S * (request.priority == "bulk"):
        priority = "interactive"
    return priority


def _pin(wish: Wish, model: Model) -> Why:
    pin = wish.request.model
    if pin is None or (pin.name == model.name and pin.revision in (None, model.revision)):
        return None
    if pin.name == model.name:
        return "no_route", f"has revision {model.revision}, not {pin.revision}"
    return "no_route", f"is not the model asked for, {pin.name}"


def _private(wish: Wish, model: Model) -> Why:
    if wish.request.privacy == "confidential" and not model.private:
        kept = "" if model.data_terms == "nothing-kept" else f" (what it is sent is {model.data_terms})"
        return "no_route", f"is not private{kept}, and the request is confidential"
    return None


def _terms(wish: Wish, model: Model) -> Why:
    broken = wish.demand.broken_by(model) if wish.demand is not None else None
    return ("no_route", broken) if broken else None


def _quality(wish: Wish, model: Model) -> Why:
    if wish.request.model is not None or wish.route.rank(model) is not None:
        return None
    return "no_route", f"makes {' and '.join(model.qualities)}, not {wish.request.quality}"


def _priority(wish: Wish, model: Model) -> Why:
    if wish.priority in model.priorities:
        return None
    return "no_route", f"works for {' and '.join(model.priorities)} requests, not {wish.priority} ones"


def _size(wish: Wish, model: Model) -> Why:
    size = wish.request.size
    if size is None:
        return None
    low, high, multiple = model.size_min, model.size_max, model.size_multiple
    fits = low <= size.width <= high and low <= size.height <= high
    if fits and not size.width % multiple and not size.height % multiple:
        return None
    limits = f"{low} to {high} pixels in steps of {multiple}"
    return "size_unsupported", f"makes sides of {limits}, not {size.width}x{size.height}"


def _steps(wish: Wish, model: Model) -> Why:
    steps = wish.request.params.steps
    if steps is None or steps <= model.steps_max:
        return None
    return "param_unsupported", f"takes at most {model.steps_max} steps, not {steps}"


def _guidance(wish: Wish, model: Model) -> Why:
    if wish.request.params.guidance_scale is None or model.takes_guidance:
        return None
    return "param_unsupported", "takes no guidance_scale"


def _negative(wish: Wish, model: Model) -> Why:
    # A template's own negative prompt is our habit, not the caller's wish: leaving it out is an adjustment.
    if not wish.request.negative_prompt or model.takes_negative_prompt or wish.request.template is not None:
        return None
    return "param_unsupported", "takes no negative prompt"


def _strict(wish: Wish, model: Model) -> Why:
    if not wish.request.strict:
        return None
    different = adjustments(wish.request, model)
    if not different:
        return None
    return "param_unsupported", f"would change {' and '.join(one.field for one in different)}, and strict forbids it"


Question = Callable[[Wish, Model], Why]

QUESTIONS: tuple[tuple[Question, Callable[[Cleared], object]], ...] = (
    (_pin, lambda request: request.model),
    (_private, lambda request: request.privacy == "confidential"),
    (_terms, lambda request: True),
    (_quality, lambda request: request.model is None),
    (_priority, lambda request: True),
    (_size, lambda request: request.size),
    (_steps, lambda request: request.params.steps),
    (_guidance, lambda request: request.params.guidance_scale is not None),
    (_negative, lambda request: request.negative_prompt),
    (_strict, lambda request: request.strict),
)
"""TABLE, in the order they are asked, and which requests they are asked for: most of them name few wishes.

The price is asked last of all: a model that fails it could have made the image.
"""


def asked_of(request: Cleared) -> tuple[Question, ...]:
    """The questions that matter to a request."""
    return tuple(question for question, matters in QUESTIONS if matters(request))


def first_failed(questions: Sequence[Question], wish: Wish, model: Model) -> Why:
    """The first of `questions` that a model fails."""
    for question in questions:
        why = question(wish, model)
        if why is not None:
            return why
    return None


def unaffordable(wish: Wish, price: Price) -> Why:
    """Whether a price is known and fits the limit of one candidate."""
    if price.usd is None:
        return "price_unknown", price.why
    if price.usd <= wish.limit_usd:
        return None
    return "limit", f"asks {price.usd} US dollars an image, the limit is {wish.limit_usd}"


def adjustments(request: Cleared, model: Model) -> list[Adjustment]:
    """What is made differently from what was asked, and why."""
    found, quality = [], request.quality
    if quality not in model.qualities and request.model is None:
        better = model.qualities[0]
        found.append(Adjustment(field="quality", asked=quality, used=better, reason=f"{model.name} stands in"))
    if request.negative_prompt and not model.takes_negative_prompt:
        reason = f"{model.name} takes no negative prompt; the template's was left out"
        found.append(Adjustment(field="negative_prompt", asked=request.negative_prompt, used="", reason=reason))
    if request.seed_asked and not model.takes_seed:
        reason = f"{model.name} takes no seed; the image cannot be made again from it"
        found.append(Adjustment(field="seed", asked=str(request.seed), used="", reason=reason))
    return found
