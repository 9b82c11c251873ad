"""Holds back what is no longer as it was when the gate was calibrated: `drift.py` decides, `store.py` keeps.

Without a calibrated reference there is nothing to drift from, and nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from giclee.bus import telemetry
from giclee.bus.gather import Gathered
from giclee.schemas.events import ImageScored
from giclee.schemas.parts import ModelUsed, Score
from giclee.scorer import drift
from giclee.scorer.drift import Spread
from giclee.scorer.labels import revision_of
from giclee.scorer.reference import References, Yardstick
from giclee.scorer.store import TOGETHER_MAX, UNSEEN, Counted, Drifts, Place

log = telemetry.logger(__name__)
Scores = Mapping[str, Score]


class Holds(Protocol):
    """What the handler needs of the watch."""

    async def held_back(self, scores: Scores, asset_type: str, model: ModelUsed) -> Scores: ...
    async def count(self, scored: ImageScored) -> None: ...


class Unwatched:
    """Nothing was calibrated."""

    async def held_back(self, scores: Scores, asset_type: str, model: ModelUsed) -> Scores:
        return scores

    async def count(self, scored: ImageScored) -> None:
        return None


class Watch:
    """Scores against the calibration's. A revision that was not in it is held back for `unseen_hold` requests."""

    def __init__(self, references: References, drifts: Drifts, *, unseen_hold: int) -> None:
        self._references, self._drifts, self._unseen_hold = references, drifts, unseen_hold
        self._shown: dict[tuple[str, str], set[str]] = {}
        self._count = Gathered(self._count_all, TOGETHER_MAX)

    async def held_back(self, scores: Scores, asset_type: str, model: ModelUsed) -> Scores:
        """The scores; where something is held back, what would pass is unsure and says why. Errors: Transient."""
        yardstick = self._references.of(asset_type, revision_of(model))
        if yardstick is None:
            return scores
        place = Place(asset_type, revision_of(model), yardstick.version)
        standing = await self._drifts.standing(place)
        held = dict(standing.held)
        if not yardstick.seen and self._unseen_hold and not standing.released:
            held.setdefault(UNSEEN, _unseen(place))
        self._show(place, set(held))
        return {
            name: _doubted(score, held.get(name) or _of_all(held, name, yardstick)) for name, score in scores.items()
        }

    async def count(self, scored: ImageScored) -> None:
        """Count a verdict that was stored for the first time. Errors: Transient."""
        model = scored.model
        if model is not None and self._references.of(scored.asset_type, revision_of(model)) is not None:
            await self._count((scored, model))

    async def _count_all(self, images: Sequence[tuple[ImageScored, ModelUsed]]) -> list[None]:
        groups: dict[tuple[str, str], list[tuple[ImageScored, ModelUsed]]] = {}
        for scored, model in images:
            groups.setdefault((scored.asset_type, revision_of(model)), []).append((scored, model))
        for (asset_type, revision), some in groups.items():
            await self._count_alike([scored for scored, _ in some], some[0][1], asset_type, revision)
        return [None] * len(images)

    async def _count_alike(
        self, images: Sequence[ImageScored], model: ModelUsed, asset_type: str, revision: str
    ) -> None:
        yardstick = self._references.of(asset_type, revision)
        counting = await self._drifts.first_of_requests(images, model)
        if yardstick is None or not counting:
            return
        place = Place(asset_type, revision, yardstick.version)
        step = partial(self._step, place, yardstick, [_values(scored) for scored in counting])
        for name in await self._drifts.count(place, step):
            log.error("held back for drift", asset_type=asset_type, model=revision, dimension=name)

    def _step(
        self, place: Place, yardstick: Yardstick, values: Sequence[Mapping[str, float]], before: Spread
    ) -> Counted:
        spread, raised = drift.after(before, yardstick, values)
        if yardstick.seen or not self._unseen_hold:
            return Counted(spread, raised)
        enough = spread.seen >= self._unseen_hold
        why = f"{spread.seen} requests, nothing drifted" if enough else None
        return Counted(spread, {UNSEEN: _unseen(place), **raised}, why)

    def _show(self, place: Place, held: set[str]) -> None:
        key = place.asset_type, place.model
        for name in held | self._shown.get(key, set()):
            telemetry.gauge(
                "giclee_drift", float(name in held), asset_type=place.asset_type, model=place.model, dimension=name
            )
        self._shown[key] = held


def _values(scored: ImageScored) -> dict[str, float]:
    return {name: score.value for name, score in scored.scores.items() if score.value is not None}


def _unseen(place: Place) -> str:
    return f"{place.model} was not in the calibration set"


def _of_all(held: Mapping[str, str], name: str, yardstick: Yardstick) -> str | None:
    return held.get(UNSEEN) if name in yardstick.rows else None


def _doubted(score: Score, why: str | None) -> Score:
    if why is None:
        return score
    verdict = "unsure" if score.verdict == "pass" else score.verdict
    reason = "; ".join(part for part in (f"drift: {why}", score.reason) if part)
    return score.model_copy(update={"verdict": verdict, "reason": reason})
