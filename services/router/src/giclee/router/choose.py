"""Which providers make a candidate, and in which order. Pure: request, offers and what is known in, a chain out.

Every offer is asked the same questions; the first that it fails makes it a loser with a reason. What is left is put
in order by what an approved image is expected to cost there: price and all a try brings, over the share that passes.
Whoever is in trouble, over its cap or too slow for the deadline is set aside: it comes after all others, because a
try there is better than none. Health, prices' feeds and caps may all be missing; then the tables decide.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_UP, Decimal

from giclee.router import hedge
from giclee.router.advice import UNKNOWN, Advice, Standing
from giclee.router.caps import Caps
from giclee.router.costs import Belief, Draw, Terms, per_approved_usd
from giclee.router.places import ASIDE, HELD, WELL, Place, Ranking
from giclee.router.prices import Price, Prices, quantity_of
from giclee.router.questions import Why, Wish, adjustments, asked_of, first_failed, unaffordable, wish_of
from giclee.router.routes import Offer
from giclee.schemas.events import Cleared, SwitchSet
from giclee.schemas.health import Weighed
from giclee.schemas.models import Model
from giclee.schemas.parts import USD_PLACES, Hop, ModelUsed, Params, Part, Reason
from giclee.schemas.tenant_terms import Demand, Demands

STAGE = "router"
_SMALLEST = Decimal(1).scaleb(-USD_PLACES)


class Choice(Part):
    """A chain, cheapest for an approved image first, with what each is expected to cost, and why others are not in it.

    An empty chain: no route. `hedge_after_s`: when another candidate is worth asking for, where somebody waits.
    """

    chain: tuple[Hop, ...] = ()
    losers: tuple[Reason, ...] = ()
    weighed: tuple[Weighed, ...] = ()
    hedge_after_s: float | None = None


DISCARDED = Choice(losers=(Reason(code="discarded", stage=STAGE, message="an operator discarded this wave"),))
"""The choice for a wave that an operator gave up before it had one (contract rule 11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that a choice may know besides the request: prices, health, caps, switches, what a try brings, and what is
    demanded by tenants; `demand` is that of the request's (`of`)."""

    prices: Prices = field(default_factory=Prices)
    advice: Advice = field(default_factory=lambda: Advice({}))
    caps: Caps = field(default_factory=Caps)
    switches: Mapping[str, SwitchSet] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    demands: Demands = field(default_factory=Demands)
    demand: Demand | None = None

    def of(self, tenant: str) -> Known:
        """The same, for a request of `tenant`."""
        demand = self.demands.of(tenant)
        return self if demand is None else replace(self, demand=demand)

    def taken(self, offers: Sequence[Offer], choice: Choice, count: int, now_s: float) -> None:
        """`count` candidates go where `choice` says first: that counts against a cap, and is a trial on trial."""
        if not choice.chain:
            return
        name = choice.chain[0].model.name
        model = next(offer.model for offer in offers if offer.model.name == name)
        self.caps.take(model, now_s, count)
        self.advice.chosen(model.provider, name, now_s)


def rank(
    request: Cleared, limit_usd: Decimal, offers: Sequence[Offer], known: Known, now_s: float, draw: Draw | None = None
) -> Ranking:
    """Ask every offer and put what is left in order; `now_s` in seconds since 1970.

    Where the request allows it and `draw` is lucky, acceptance is drawn from what is believed of it: the little
    exploring that keeps beliefs true.
    """
    wish, questions = wish_of(request, limit_usd, now_s, known.demand), asked_of(request)
    explores = draw is not None and draw.explores and may_explore(request)
    prices, advice = known.prices, known.advice
    prices.look(now_s)
    places: list[Place] = []
    losers: list[tuple[Model, str, str]] = []
    demos: list[Place] = []
    for offer in offers:
        model = offer.model
        why = first_failed(questions, wish, model) or (
            _refused(known.switches, model, now_s) if known.switches else None
        )
        if why is None:
            standing = advice.standing(model.provider, model.name, now_s)
            billed = _billed(prices.of(model, quantity_of(request, model), now_s), standing)
            why = unaffordable(wish, billed[0])
        if why is not None:
            losers.append((model, *why))
            continue
        place = _place(wish, model, known, now_s, standing, billed, draw if explores else None)
        (demos if offer.builtin and request.model is None else places).append(place)
    if places:
        losers += [(place.model, "no_route", "is a demo model") for place in demos]
    else:
        places = demos
    return Ranking(*_without_held(places, losers))


def may_explore(request: Cleared) -> bool:
    """Whether a request's work may go where we are not sure: never what is confidential or somebody waits for."""
    return request.privacy == "public" and request.priority != "interactive"


def _billed(price: Price, standing: Standing) -> tuple[Price, float]:
    """The price as the newest bills have it: what may be charged at most, and what is expected."""
    ratio = standing.paid_ratio
    if ratio == 1.0 or price.usd is None or price.set_at_s > standing.paid_since_s:
        return price, price.value
    if ratio > 1.0:
        dearer = (price.usd * Decimal(repr(round(ratio, 6)))).quantize(_SMALLEST, ROUND_UP)
        return price._replace(usd=dearer), price.value * ratio
    return price, price.value * ratio


def _place(
    wish: Wish,
    model: Model,
    known: Known,
    now_s: float,
    standing: Standing,
    billed: tuple[Price, float],
    draw: Draw | None,
) -> Place:
    request, (price, value) = wish.request, billed
    believed: Belief = standing.belief(request.asset_type, now_s)
    cost = per_approved_usd(value, standing.odds, believed.mean, known.terms)
    weighs = cost if draw is None else cost * believed.mean / draw.optimistic(believed)
    tier, why = _trouble(wish, model, known, now_s, standing)
    order = (tier, wish.route.rank(model) or (0, 0), weighs, model.name)
    usd = price.usd if price.usd is not None else Decimal(0)
    seconds = (standing.p50_s or model.seconds) + standing.wait_s(now_s)
    return Place(model, usd, cost, believed.mean, seconds, tier, why, order)


def _trouble(wish: Wish, model: Model, known: Known, now_s: float, standing: Standing) -> tuple[int, str]:
    """Why a model is set aside, and how far."""
    if known.switches and (held := _held(known.switches, model, now_s)):
        return HELD, held
    if standing is not UNKNOWN:
        aside = known.advice.aside(model.provider, model.name, standing, now_s)
        if aside:
            return (HELD if standing.held else ASIDE), aside
        if standing.on_trial(now_s) and wish.request.priority == "interactive":
            return ASIDE, "is on trial after failures"
    if not known.caps.allows(model, now_s):
        return ASIDE, f"is at its {model.per_minute} calls a minute"
    takes_s = (standing.p95_s or model.seconds) + standing.wait_s(now_s)
    if takes_s > wish.left_s:
        return ASIDE, f"takes {takes_s:.1f} s where {max(0.0, wish.left_s):.1f} s are left"
    return WELL, ""


def _stopped(switches: Mapping[str, SwitchSet], model: Model, mode: str, now_s: float) -> SwitchSet | None:
    for scope in (f"provider:{model.provider}", f"model:{model.name}"):
        switch = switches.get(scope)
        if switch is None or switch.mode != mode:
            continue
        if switch.expires_at is None or switch.expires_at.timestamp() > now_s:
            return switch
    return None


def _refused(switches: Mapping[str, SwitchSet], model: Model, now_s: float) -> Why:
    switch = _stopped(switches, model, "refuse", now_s)
    return None if switch is None else ("switch_refused", f"is refused by switch {switch.scope}: {switch.reason}")


def _held(switches: Mapping[str, SwitchSet], model: Model, now_s: float) -> str:
    switch = _stopped(switches, model, "hold", now_s)
    return "" if switch is None else f"is held by switch {switch.scope}: {switch.reason}"


def _without_held(
    places: list[Place], losers: list[tuple[Model, str, str]]
) -> tuple[list[Place], list[tuple[Model, str, str]]]:
    """Whoever is held stays only where nobody else is left: then the work waits with it, or is tried there."""
    places.sort(key=_order)
    if places and places[-1].tier == HELD and places[0].tier != HELD:
        losers += [(place.model, "provider_held", place.why) for place in places if place.tier == HELD]
        places = [place for place in places if place.tier != HELD]
    return places, losers


def _order(place: Place) -> tuple[int, tuple[int, int], float, str]:
    return place.order


def choose(
    request: Cleared,
    limit_usd: Decimal,
    offers: Sequence[Offer],
    known: Known | None = None,
    *,
    now_s: float | None = None,
    draw: Draw | None = None,
    silent: Collection[str] = (),
) -> Choice:
    """The chain for candidates of `request` of at most `limit_usd` each; `silent` are providers that it hedges.

    Every hop alone fits the limit. A worker takes no later hop that would exceed it with what was spent before.
    """
    known, now_s = known or Known(), datetime.now(UTC).timestamp() if now_s is None else now_s
    places, losers = rank(request, limit_usd, offers, known, now_s, draw)
    if silent:
        asked, places = places, hedge.fastest_first(places, silent)
        losers += [(place.model, "provider_silent", "is waited for already") for place in asked if place not in places]
    return Choice(
        chain=tuple(_hop(request, place) for place in places),
        losers=tuple(_loser(*loser) for loser in losers),
        weighed=tuple(_weighed(at, place, places[0]) for at, place in enumerate(places)),
        hedge_after_s=_hedge_after_s(request, places, known, now_s) if len(places) > 1 and not silent else None,
    )


def _hedge_after_s(request: Cleared, places: Sequence[Place], known: Known, now_s: float) -> float | None:
    model = places[0].model
    standing = known.advice.standing(model.provider, model.name, now_s)
    wait_s = hedge.after_s(request.priority, standing, model.seconds)
    return None if wait_s is None else round(wait_s, 3)


def _loser(model: Model, code: str, message: str) -> Reason:
    return Reason(code=code, stage=STAGE, message=f"{model.name} {message}", provider=model.provider)


def _weighed(at: int, place: Place, first: Place) -> Weighed:
    if place.why:
        why = place.why
    elif at == 0:
        why = "costs least for an approved image"
    elif place.order[1] > first.order[1]:
        why = f"comes after {first.model.name} on this route"
    elif place.per_approved < first.per_approved and first.why:
        why = "is the next best"
    elif place.per_approved < first.per_approved:
        why = f"comes after {first.model.name}, which is tried to learn more of it"
    else:
        why = f"costs {place.per_approved / first.per_approved:.2f} times what {first.model.name} does"
    return Weighed(
        model=place.model.name,
        provider=place.model.provider,
        per_approved_usd=Decimal(f"{place.per_approved:.6f}"),
        acceptance=round(place.acceptance, 4),
        why=why,
    )


def _hop(request: Cleared, place: Place) -> Hop:
    """One place of the chain, with everything fixed that a worker needs: a changed table must not change it."""
    model, asked, bought = place.model, request.params, quantity_of(request, place.model)
    guidance = model.guidance_scale if asked.guidance_scale is None else asked.guidance_scale
    return Hop(
        provider=model.provider,
        pool=model.pool,
        model=ModelUsed(name=model.name, revision=model.revision),
        price_usd=place.usd,
        params=Params(steps=bought.steps, guidance_scale=guidance if model.takes_guidance else None),
        width=bought.width,
        height=bought.height,
        adjustments=tuple(adjustments(request, model)),
    )


def no_route(choice: Choice) -> tuple[Reason, ...]:
    """Why no provider can make it: one sentence first, then each loser's own reason."""
    if any(loser.provider is None for loser in choice.losers):  # discarded, or refused by a switch: nobody was asked
        return choice.losers
    named = "; ".join(loser.message for loser in choice.losers) or "no model is offered"
    # Price is the last question: a model that fails it could have made the image.
    if any(loser.code == "limit" for loser in choice.losers):
        first = Reason(code="limit", stage=STAGE, message=f"no price fits the limit for one candidate: {named}")
    else:
        first = Reason(code="no_route", stage=STAGE, message=f"no provider can make this image: {named}")
    return (first, *choice.losers)
