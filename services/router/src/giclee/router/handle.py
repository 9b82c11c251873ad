"""Stage `router`: a wave in, one event per candidate out. Contract 3.2, rules 2, 4 and 11."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from giclee.bus import telemetry
from giclee.router.choose import DISCARDED, Choice, Known, choose
from giclee.router.costs import Draw
from giclee.router.routes import Catalogue
from giclee.router.waves import Asked, Wave, answers, seed_of
from giclee.schemas.events import CandidatesRequested, GenerationFailed, ImageCleared, ImageRouted
from giclee.schemas.parts import Reason

STAGE = "router"
Clock = Callable[[], float]


def now() -> float:
    """Seconds since 1970."""
    return datetime.now(UTC).timestamp()


class Store(Protocol):
    """Remembers the first choice for every wave."""

    async def first(self, asked: Asked) -> Wave: ...


class Router:
    """The stage's handler with what it chooses from and by."""

    def __init__(self, catalogue: Catalogue, store: Store, known: Known | None = None, clock: Clock = now) -> None:
        self._catalogue = catalogue
        self._store = store
        self._known = known or Known()
        self._clock = clock

    async def handle(self, event: ImageCleared | CandidatesRequested) -> list[ImageRouted | GenerationFailed]:
        """Answer every index of the wave from the first choice made for it, however often the wave comes.

        A discard is the choice of nobody, for a wave that has no other.
        """
        if event.envelope.discard:
            return await self._answer(event, DISCARDED)
        now_s, draw = self._clock(), Draw(seed_of(event, event.indices().start))
        choice = choose(
            event.request, event.limit_usd, self._catalogue.offers, self._known.of(event.tenant),
            now_s=now_s, draw=draw, silent=getattr(event, "hedges", ()),
        )  # fmt: skip
        return await self._answer(event, choice, now_s)

    async def refuse(
        self, event: ImageCleared | CandidatesRequested, reason: Reason
    ) -> list[ImageRouted | GenerationFailed]:
        """Fail every index of a wave by a switch, unless the wave has a choice."""
        return await self._answer(event, Choice(losers=(reason,)))

    async def _answer(
        self, event: ImageCleared | CandidatesRequested, choice: Choice, now_s: float = 0.0
    ) -> list[ImageRouted | GenerationFailed]:
        wave = await self._store.first(self._asked(event, choice))
        first = wave.choice.chain[0].model.name if wave.choice.chain else "none"
        telemetry.count("giclee_router_candidates_total", wave.count, model=first)
        if wave.choice == choice:  # a wave that comes again is no new call
            self._known.taken(self._catalogue.offers, choice, wave.count, now_s)
        return answers(event, wave)

    def _asked(self, event: ImageCleared | CandidatesRequested, choice: Choice) -> Asked:
        indices = event.indices()
        wave = Wave(first_index=indices.start, count=len(indices), limit_usd=event.limit_usd, choice=choice)
        return Asked(
            tenant=event.tenant,
            request_id=event.request_id,
            number=event.wave_number(),
            wave=wave,
            tables=self._catalogue.version,
            closes_by=event.closes_by,
        )
