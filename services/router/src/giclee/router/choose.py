"""Which providers make a candidate, and in which order. Pure: request, offers and health in, a chain out.

Every offer is asked the same questions, the cheapest first to answer; the first that it fails makes it a loser with
a reason. What is left is put in order: healthy before ailing, then as the route says, then by price. Health moves
an offer, it never removes one: its numbers may be old, and a provider that is avoided for ever cannot recover.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal
from typing import NamedTuple

from giclee.router.prices import price_of
from giclee.router.routes import Offer, Route, route_of
from giclee.schemas.events import Cleared
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment, Hop, ModelUsed, Params, Part, Reason

STAGE = "router"


class Choice(Part):
    """A chain, cheapest sensible provider first, and why each other model is not in it. An empty chain: no route."""

    chain: tuple[Hop, ...] = ()
    losers: tuple[Reason, ...] = ()


DISCARDED = Choice(losers=(Reason(code="discarded", stage=STAGE, message="an operator discarded this wave"),))
"""The choice for a wave that an operator gave up before it had one (contract rule 11)."""


class _Wish(NamedTuple):
    request: Cleared
    limit_usd: Decimal
    route: Route


_Why = tuple[str, str] | None
"""A code of `reasons.TABLE` and a message; None when the question is passed."""


def _pin(wish: _Wish, model: Model) -> _Why:
    pin = wish.request.model
    if pin is None or (pin.name == model.name and pin.revision in (None, model.revision)):
        return None
    if pin.name == model.name:
        return "no_route", f"has revision {model.revision}, not {pin.revision}"
    return "no_route", f"is not the model asked for, {pin.name}"


def _private(wish: _Wish, model: Model) -> _Why:
    if wish.request.privacy == "confidential" and not model.private:
        return "no_route", "is not private, and the request is confidential"
    return None


def _quality(wish: _Wish, model: Model) -> _Why:
    if wish.request.model is not None or wish.route.rank(model) is not None:
        return None
    return "no_route", f"makes {' and '.join(model.qualities)}, not {wish.request.quality}"


def _size(wish: _Wish, model: Model) -> _Why:
    size = wish.request.size
    if size is None:
        return None
    sides = (size.width, size.height)
    if all(model.size_min <= side <= model.size_max and side % model.size_multiple == 0 for side in sides):
        return None
    limits = f"{model.size_min} to {model.size_max} pixels in steps of {model.size_multiple}"
    return "size_unsupported", f"makes sides of {limits}, not {size.width}x{size.height}"


def _steps(wish: _Wish, model: Model) -> _Why:
    steps = wish.request.params.steps
    if steps is None or steps <= model.steps_max:
        return None
    return "param_unsupported", f"takes at most {model.steps_max} steps, not {steps}"


def _guidance(wish: _Wish, model: Model) -> _Why:
    if wish.request.params.guidance_scale is None or model.takes_guidance:
        return None
    return "param_unsupported", "takes no guidance_scale"


def _negative(wish: _Wish, model: Model) -> _Why:
    # A template's own negative prompt is our habit, not the caller's wish: leaving it out is an adjustment.
    if not wish.request.negative_prompt or model.takes_negative_prompt or wish.request.template is not None:
        return None
    return "param_unsupported", "takes no negative prompt"


def _price(wish: _Wish, model: Model) -> _Why:
    price = price_of(model, wish.request.params.steps or model.steps)
    if price <= wish.limit_usd:
        return None
    return "limit", f"asks {price} US dollars an image, the limit is {wish.limit_usd}"


QUESTIONS: tuple[Callable[[_Wish, Model], _Why], ...] = (
    _pin, _private, _quality, _size, _steps, _guidance, _negative, _price,
)  # fmt: skip
"""TABLE, in the order they are asked; a model that fails the price could have made the image."""


def choose(request: Cleared, limit_usd: Decimal, offers: Sequence[Offer], *, ailing: Collection[str] = ()) -> Choice:
    """The chain for candidates of `request` of at most `limit_usd` each; `ailing` names providers in trouble.

    Every hop alone fits the limit. A worker takes no later hop that would exceed it with what was spent before.
    """
    wish = _Wish(request, limit_usd, route_of(request))
    fit: list[Offer] = []
    losers: list[Reason] = []
    for offer in offers:
        why = _first_failed(wish, offer.model)
        if why is None:
            fit.append(offer)
        else:
            losers.append(_loser(offer.model, *why))
    own = [offer for offer in fit if not offer.builtin]
    if own and request.model is None:
        losers += [_loser(offer.model, "no_route", "is a demo model") for offer in fit if offer.builtin]
        fit = own
    fit.sort(key=lambda offer: _place(wish, offer.model, ailing))
    return Choice(chain=tuple(_hop(wish, offer.model) for offer in fit), losers=tuple(losers))


def _first_failed(wish: _Wish, model: Model) -> _Why:
    for question in QUESTIONS:
        why = question(wish, model)
        if why is not None:
            return why
    return None


def _loser(model: Model, code: str, message: str) -> Reason:
    return Reason(code=code, stage=STAGE, message=f"{model.name} {message}", provider=model.provider)


def _place(wish: _Wish, model: Model, ailing: Collection[str]) -> tuple[bool, tuple[int, int], Decimal, str]:
    price = price_of(model, wish.request.params.steps or model.steps)
    return model.provider in ailing, wish.route.rank(model) or (0, 0), price, model.name


def _hop(wish: _Wish, model: Model) -> Hop:
    """One place of the chain, with everything fixed that a worker needs: a changed table must not change it."""
    asked = wish.request.params
    steps = asked.steps or model.steps
    guidance = model.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
    size = wish.request.size
    return Hop(
        provider=model.provider,
        pool=model.pool,
        model=ModelUsed(name=model.name, revision=model.revision),
        price_usd=price_of(model, steps),
        params=Params(steps=steps, guidance_scale=guidance if model.takes_guidance else None),
        width=size.width if size else model.width,
        height=size.height if size else model.height,
        adjustments=tuple(_adjustments(wish, model)),
    )


def _adjustments(wish: _Wish, model: Model) -> list[Adjustment]:
    """What is made differently from what was asked, and why."""
    found = []
    quality, request = wish.request.quality, wish.request
    if quality not in model.qualities and request.model is None:
        better = model.qualities[0]
        found.append(Adjustment(field="quality", asked=quality, used=better, reason=f"{model.name} stands in"))
    if request.negative_prompt and not model.takes_negative_prompt:
        reason = f"{model.name} takes no negative prompt; the template's was left out"
        found.append(Adjustment(field="negative_prompt", asked=request.negative_prompt, used="", reason=reason))
    return found


def no_route(choice: Choice) -> tuple[Reason, ...]:
    """Why no provider can make it: one sentence first, then each loser's own reason."""
    if {loser.code for loser in choice.losers} & {"discarded", "switch_refused"}:  # nobody was asked
        return choice.losers
    named = "; ".join(loser.message for loser in choice.losers) or "no model is offered"
    # Price is the last question: a model that fails it could have made the image.
    if any(loser.code == "limit" for loser in choice.losers):
        first = Reason(code="limit", stage=STAGE, message=f"no price fits the limit for one candidate: {named}")
    else:
        first = Reason(code="no_route", stage=STAGE, message=f"no provider can make this image: {named}")
    return (first, *choice.losers)
