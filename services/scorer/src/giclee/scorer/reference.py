"""How the values of a calibration lay, for later ones to be compared: `[[reference]]` in the operator's file.

`giclee scorer calibrate` writes them beside the threshold: per deciding dimension, for all labelled pictures and for
each model revision and asset type of which there are enough. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from giclee.schemas.gates import Bound, DimensionName
from giclee.schemas.parts import AssetTypeName, StrictPart
from giclee.scorer.labels import Label

LABELS_MIN = 100
"""A row of fewer labels could only be told from something entirely different."""
LEVELS = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
"""Shares of the calibration under each edge; fine at the ends, where models break first."""


class ReferenceRow(StrictPart):
    """Labelled values by bin: `counts[0]` lie under `edges[0]`, `counts[i]` from `edges[i - 1]` on to under `edges[i]`.

    `asset_type` and `model` (name@revision) say of which pictures; absent: of all that were labelled.
    """

    dimension: DimensionName
    asset_type: AssetTypeName | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    edges: Annotated[tuple[Bound, ...], Field(min_length=1, max_length=40, strict=False)]
    counts: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2, max_length=41, strict=False)]

    @model_validator(mode="after")
    def _bins_fit(self) -> ReferenceRow:
        if len(self.counts) != len(self.edges) + 1 or not all(one < two for one, two in pairwise(self.edges)):
            raise ValueError("edges rise, and there is one count more than edges")
        if sum(self.counts) < LABELS_MIN:
            raise ValueError(f"counts come to at least {LABELS_MIN} labels")
        return self

    def bin_of(self, value: float) -> int:
        """The place of a value in `counts`."""
        return int(np.searchsorted(self.edges, value, side="right"))


def row_of(dimension: str, values: Sequence[float], asset_type: str | None = None,
           model: str | None = None) -> ReferenceRow:  # fmt: skip
    """The row of these values. Edges are values that occur, and the next number above the highest."""
    ranked = np.sort(np.asarray(values, float))
    places = [math.floor(level * len(ranked)) for level in LEVELS]
    edges = np.unique([*(float(ranked[place]) for place in places), float(np.nextafter(ranked[-1], np.inf))])
    counts = np.bincount(np.searchsorted(edges, ranked, side="right"), minlength=len(edges) + 1)
    return ReferenceRow(dimension=dimension, asset_type=asset_type, model=model, edges=tuple(edges.tolist()),
                        counts=tuple(counts.tolist()))  # fmt: skip


def rows_of_labels(labels: Sequence[Label], dimensions: Iterable[str], asset_type: str | None) -> list[ReferenceRow]:
    """Rows for all these labels, and for each model and asset type of which there are enough."""
    models = [None, *sorted({label.model for label in labels if "@" in label.model})]
    types = [asset_type] if asset_type else [None, *sorted({label.asset_type for label in labels})]
    found = []
    for dimension in sorted(dimensions):
        for kind in types:
            for model in models:
                values = [
                    label.scores[dimension]
                    for label in labels
                    if dimension in label.scores and kind in (None, label.asset_type) and model in (None, label.model)
                ]
                if len(values) >= LABELS_MIN:
                    found.append(row_of(dimension, values, kind, model))
    return found


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What the scores of one asset type by one model revision are compared with: a row per dimension.

    `seen`: the very revision was among the labelled pictures. `version` is the hash of the rows.
    """

    rows: Mapping[str, ReferenceRow]
    seen: bool
    version: str


class References:
    """The rows of the operator's file, by what they are about."""

    def __init__(self, rows: Iterable[ReferenceRow]) -> None:
        self._rows = tuple(rows)
        self._found: dict[tuple[str, str], Yardstick | None] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def of(self, asset_type: str, model: str) -> Yardstick | None:
        """The nearest rows; None where nothing was calibrated that fits."""
        key = asset_type, model
        if key not in self._found:
            self._found[key] = self._nearest(asset_type, model)
        return self._found[key]

    def _nearest(self, asset_type: str, model: str) -> Yardstick | None:
        fitting = [row for row in self._rows if row.asset_type in (None, asset_type) and _near(row, model) >= 0]
        rows: dict[str, ReferenceRow] = {}
        for row in sorted(fitting, key=lambda one: (_near(one, model), one.asset_type is not None)):
            rows[row.dimension] = row  # the last one, the nearest, counts
        if not rows:
            return None
        text = "\n".join(f"{name} {rows[name].edges} {rows[name].counts}" for name in sorted(rows))
        seen = any(row.model == model for row in fitting)
        return Yardstick(rows, seen, hashlib.sha256(text.encode()).hexdigest()[:12])


def _near(row: ReferenceRow, model: str) -> int:
    """2: of this revision; 1: of another revision of this name; 0: of all labelled pictures; -1: of another model."""
    if row.model is None:
        return 0
    if row.model == model:
        return 2
    return 1 if row.model.rpartition("@")[0] == model.rpartition("@")[0] else -1
