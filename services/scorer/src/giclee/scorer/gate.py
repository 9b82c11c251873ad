"""TABLE: what a measured value means, per dimension, asset type and picture size. Pure; fails closed.

A value at or over `pass_at` passes, one at or over `doubt_at` is unsure, one below fails; where judges disagree the
lowest must pass, or the highest fail. None, NaN, infinities, uncertain and missing measurements are unsure. The
version is the table's hash and stands on every verdict. The first row that fits counts. A dimension that no row fits,
for this asset type and size, is shown and decides nothing. The operator's file lies over the table, and what was set
since (`GateSet`) over both.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from giclee.bus import telemetry
from giclee.schemas.events import GateSet
from giclee.schemas.gates import GateRow as Row
from giclee.schemas.parts import Judgement, Score
from giclee.scorer.dimension import Evaluator, Measured

log = telemetry.logger(__name__)

# fmt: off
TABLE: tuple[Row, ...] = (
    # each 1 where nothing is wrong; pictures of the demo models measure 0.66 and more
    Row(dimension="format", pass_at=1.0, doubt_at=1.0),
    Row(dimension="content", pass_at=0.5, doubt_at=0.3),
    Row(dimension="sharpness", pass_at=0.5, doubt_at=0.3),
    Row(dimension="exposure", pass_at=0.5, doubt_at=0.3),
    Row(dimension="compression", pass_at=0.5, doubt_at=0.25),
    # the probability of the weakest asked attribute; of validation pictures that pass, 0.95 of the draft's and 0.995
    # of the final's are right (models/README.md, "measured")
    Row(dimension="alignment", pass_at=0.7, doubt_at=0.5),
    # 1 - the weighted score of the worst exposed class. On pictures of at most 128 px the detector sees bodies
    # in circles (README, "measured"), up to 0.70: there it may only raise a doubt, and only above 0.75.
    Row(dimension="safety", pass_at=0.25, doubt_at=None, long_side_max_px=128),
    Row(dimension="safety", pass_at=0.75, doubt_at=0.5),
    # 0.5 at the bounds of dimensions.BY_ASSET_TYPE; of 372 right pictures of the demo models all and 371 pass (README)
    Row(dimension="subject", asset_type="product-tile", pass_at=0.5, doubt_at=0.25),
    Row(dimension="background", asset_type="product-tile", pass_at=0.5, doubt_at=0.25),
)
# fmt: on


SIDE_MAX_PX = 4096
"""Larger pictures are not decoded."""


def version_of(table: tuple[Row, ...]) -> str:
    """The hash that verdicts carry."""
    text = "\n".join(repr((row.place(), row.pass_at, row.doubt_at)) for row in table)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def overlaid(*layers: Iterable[Row]) -> tuple[Row, ...]:
    """The rows of all layers, the last layer first: of rows about the same place the last one counts, and a row of
    one asset type or size stands before those of all."""
    rows: dict[str, Row] = {}
    for layer in layers:
        rows |= {row.place(): row for row in layer}
    return tuple(sorted(rows.values(), key=_narrowest_first))


def _narrowest_first(row: Row) -> tuple[object, ...]:
    return row.dimension, row.asset_type is None, row.asset_type or "", row.long_side_max_px or math.inf


BUILT_IN = overlaid(TABLE)


@dataclass(frozen=True, slots=True)
class Gate:
    """A table with its version."""

    table: tuple[Row, ...] = BUILT_IN

    @property
    def version(self) -> str:
        return version_of(self.table)

    def required(self, asset_type: str, long_side_px: int) -> frozenset[str]:
        """Dimensions that decide about such a picture: those of which a row fits it."""
        return frozenset(row.dimension for row in self.table if row.fits(row.dimension, asset_type, long_side_px))

    def row(self, dimension: str, asset_type: str, long_side_px: int) -> Row | None:
        """The first row that fits."""
        return next((one for one in self.table if one.fits(dimension, asset_type, long_side_px)), None)

    def strictest(self, dimension: str, asset_type: str) -> Row | None:
        """Of the rows that count at some size the one that lets least pass: for pictures of a size nobody said."""
        sizes = {one.long_side_max_px or SIDE_MAX_PX for one in self.table} | {SIDE_MAX_PX}
        rows = [row for size in sizes if (row := self.row(dimension, asset_type, size)) is not None]
        return max(rows, key=lambda row: row.pass_at, default=None)

    def scores(
        self,
        measured: Mapping[str, Measured | None],
        evaluators: Mapping[str, Evaluator],
        *,
        asset_type: str,
        long_side_px: int,
    ) -> dict[str, Score]:
        """A score for every dimension that was measured or is required."""
        rows = {name: self.row(name, asset_type, long_side_px) for name in measured}
        rows |= {name: self.row(name, asset_type, long_side_px) for name in self.required(asset_type, long_side_px)}
        return {
            name: _score(row, measured.get(name), evaluators.get(name))
            for name, row in sorted(rows.items())
            if row is not None or _finite(measured.get(name))
        }


def _score(row: Row | None, found: Measured | None, by: Evaluator | None) -> Score:
    """What a row says of a measurement; without a row it is shown, and stands in nobody's way."""
    who = by or Evaluator("none", "0")
    value, highest = (found.value, found.highest) if found is not None and _finite(found) else (None, None)
    return Score(
        value=value,
        threshold=row.pass_at if row is not None else None,
        verdict=_judged(row, found) if row is not None else "pass",
        evaluator=who.name,
        evaluator_version=(found.version if found is not None else None) or who.version,
        reason=found.reason if found is not None else "not measured",
        highest=highest if highest is not None and math.isfinite(highest) else None,
    )


def _finite(found: Measured | None) -> bool:
    return found is not None and found.value is not None and math.isfinite(found.value)


def _judged(row: Row, found: Measured | None) -> Judgement:
    """`pass` only where everything says so; every comparison is written so that NaN does not pass it."""
    if found is None or found.value is None or not found.certain or not _finite(found):
        return "unsure"
    at_best = found.value if found.highest is None else found.highest
    if found.value >= row.pass_at and at_best >= row.pass_at:
        return "pass"
    return "fail" if row.doubt_at is not None and at_best < row.doubt_at else "unsure"


def overall(scores: Mapping[str, Score], required: frozenset[str]) -> Judgement:
    """The image's verdict: pass only if every required dimension is there and every score passes."""
    if any(score.verdict == "fail" for score in scores.values()):
        return "fail"
    complete = bool(scores) and required <= scores.keys()
    return "pass" if complete and all(score.passes() for score in scores.values()) else "unsure"


class Gates:
    """The gate in force: built in, the operator's file, and what was set while this process runs.

    `live` is the table of `gate.set.v1`, which somebody else follows. `trouble` says why a row of it would judge what
    nobody measures; such a row counts, since a gate fails closed, and is logged.
    """

    def __init__(
        self,
        live: Mapping[str, GateSet],
        own: Iterable[Row] = (),
        trouble: Callable[[Row], str | None] = lambda row: None,
    ) -> None:
        self._live, self._own, self._trouble = live, tuple(own), trouble
        self._known: tuple[tuple[GateSet, ...], Gate] | None = None

    def now(self) -> Gate:
        """For the next image."""
        told = tuple(self._live.values())
        if self._known is None or self._known[0] != told:
            rows = [event.row for event in told if event.row is not None]
            for row in rows:
                if (why := self._trouble(row)) is not None:
                    log.error("a threshold that was set makes pictures unsure", place=row.place(), why=why)
            self._known = told, Gate(overlaid(TABLE, self._own, rows))
        return self._known[1]
