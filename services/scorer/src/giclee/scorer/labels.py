"""Labelled pictures: which were right, by people or an oracle, with what was measured of them. Pure but for the file.

JSON lines, or CSV with a header: `candidate_id` (or `id`, for pictures made elsewhere), `right` (true or false), and
where the scorer has no stored verdict `scores` (JSON: dimension to value), `asset_type`, `model` (name@revision) and
`long_side_px`, by which the gate's rows for small pictures are chosen.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from giclee.schemas.events import ImageScored
from giclee.schemas.parts import ModelUsed, is_uuid
from giclee.scorer.gate import SIDE_MAX_PX

ERRORS_SHOWN = 10
SCORE_MAX = 1e9
"""No dimension measures so much; NaN and infinities are over it too."""
TRUE, FALSE = ("true", "1", "yes", "right", "good"), ("false", "0", "no", "wrong", "bad")


@dataclass(frozen=True, slots=True)
class Label:
    """One picture. `scores` is empty until its stored verdict is looked up; `long_side_px` None: nobody said."""

    id: str
    right: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    asset_type: str = "generic"
    model: str = ""
    long_side_px: int | None = None

    def measured_as(self, scored: ImageScored) -> Label:
        """The same picture with what a stored verdict says of it."""
        values = {name: score.value for name, score in scored.scores.items() if score.value is not None}
        return replace(
            self,
            scores=values,
            asset_type=scored.asset_type,
            model=revision_of(scored.model),
            long_side_px=scored.long_side_px,
        )


def revision_of(model: ModelUsed | None) -> str:
    """`name@revision`; empty when nobody said."""
    return f"{model.name}@{model.revision}" if model else ""


class BadLabels(Exception):
    """The file cannot be used; every fault with its line, the first few of many."""

    def __init__(self, faults: list[str]) -> None:
        more = f"\n… and {len(faults) - ERRORS_SHOWN} more" if len(faults) > ERRORS_SHOWN else ""
        super().__init__("\n".join(faults[:ERRORS_SHOWN]) + more)


def read(path: Path) -> list[Label]:
    """Every label once. Errors: BadLabels for lines that are none, and for ids of which two lines say two things."""
    found: dict[str, Label] = {}
    faults: list[str] = []
    try:
        for number, row in _rows(path):
            try:
                label = _label(row)
            except ValueError as error:
                faults.append(f"{path}:{number}: {error}")
                continue
            before = found.setdefault(label.id, label)
            if before != label:
                faults.append(f"{path}:{number}: {label.id} {_contradiction(before, label)}; keep one line of it")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels([f"{path}: {error}"]) from error
    if not found and not faults:
        faults.append(f"{path}: no labels")
    if faults:
        raise BadLabels(faults)
    return list(found.values())


def _contradiction(one: Label, other: Label) -> str:
    if one.right != other.right:
        return "is said to be right and to be wrong"
    names = ("scores", "asset_type", "model", "long_side_px")
    return f"is there twice with another {next(n for n in names if getattr(one, n) != getattr(other, n))}"


def _rows(path: Path) -> Iterable[tuple[int, Any]]:
    text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a mark
    if path.suffix == ".csv":
        yield from enumerate(csv.DictReader(text.splitlines()), 2)
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, None


def _label(row: Any) -> Label:
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object")
    name = str(row.get("candidate_id") or row.get("id") or "")
    if not name:
        raise ValueError("no candidate_id and no id")
    return Label(
        id=str(UUID(name)) if is_uuid(name) else name,
        right=_truth(row.get("right")),
        scores=_scores(row.get("scores") or {}),
        asset_type=str(row.get("asset_type") or "generic"),
        model=str(row.get("model") or ""),
        long_side_px=_side(row.get("long_side_px")),
    )


def _truth(said: Any) -> bool:
    word = str(said).lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError(f"right is {said!r}; say true or false")
    return word in TRUE


def _scores(said: Any) -> dict[str, float]:
    try:
        found = json.loads(said) if isinstance(said, str) else said
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError('scores must be numbers by dimension, for example {"alignment": 0.93}')
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < SCORE_MAX:
            raise ValueError(f"scores must be numbers by dimension; {name} is {value!r}; leave out what has no value")
    return {str(name): float(value) for name, value in found.items()}


def _side(said: Any) -> int | None:
    """Absent, or whole pixels; a table says them as text."""
    if said in (None, ""):
        return None
    text = str(said)
    if isinstance(said, bool) or not text.isdecimal() or not 1 <= int(text) <= SIDE_MAX_PX:
        raise ValueError(f"long_side_px is {said!r}; say whole pixels, 1 to {SIDE_MAX_PX}, or leave it out")
    return int(text)
