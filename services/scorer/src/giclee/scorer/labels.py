"""Labelled pictures: which were right, by people or an oracle, with what was measured of them. Pure but for the file.

JSON lines, or CSV with a header: `candidate_id` (or `id`, for pictures made elsewhere), `right` (true or false), and
where the scorer has no stored verdict `scores` (JSON: dimension to value), `asset_type`, `model`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ERRORS_SHOWN = 10
TRUE, FALSE = ("true", "1", "yes", "right", "good"), ("false", "0", "no", "wrong", "bad")


@dataclass(frozen=True, slots=True)
class Label:
    """One picture. `scores` is empty until its stored verdict is looked up."""

    id: str
    right: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    asset_type: str = "generic"
    model: str = ""


class BadLabels(Exception):
    """The file cannot be used; every fault with its line, the first few of many."""

    def __init__(self, faults: list[str]) -> None:
        more = f"\n… and {len(faults) - ERRORS_SHOWN} more" if len(faults) > ERRORS_SHOWN else ""
        super().__init__("\n".join(faults[:ERRORS_SHOWN]) + more)


def read(path: Path) -> list[Label]:
    """Every label once. Errors: BadLabels for lines that are none, and for ids that are said to be both."""
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
            if before.right != label.right:
                faults.append(f"{path}:{number}: {label.id} is said to be right and to be wrong; keep one line of it")
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels([f"{path}: {error}"]) from error
    if not found and not faults:
        faults.append(f"{path}: no labels")
    if faults:
        raise BadLabels(faults)
    return list(found.values())


def _rows(path: Path) -> Iterable[tuple[int, Any]]:
    text = path.read_text(encoding="utf-8")
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
    name = row.get("candidate_id") or row.get("id")
    if not name:
        raise ValueError("no candidate_id and no id")
    scores = row.get("scores") or {}
    if isinstance(scores, str):
        scores = json.loads(scores)
    if not isinstance(scores, dict) or not all(isinstance(one, int | float) for one in scores.values()):
        raise ValueError("scores must be numbers by dimension")
    return Label(str(name), _truth(row.get("right")), scores, str(row.get("asset_type") or "generic"),
                 str(row.get("model") or ""))  # fmt: skip


def _truth(said: Any) -> bool:
    word = str(said).lower()
    if word not in (*TRUE, *FALSE):
        raise ValueError(f"right is {said!r}; say true or false")
    return word in TRUE
