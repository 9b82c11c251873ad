"""What another gate would have said of pictures that were measured before: no model is called. Pure.

A score that was unsure over its threshold was not certain, and no threshold makes it so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from giclee.schemas.events import ImageScored
from giclee.schemas.parts import Score
from giclee.scorer.dimension import Evaluator, Measured
from giclee.scorer.gate import Gate, overall

CHANGES_MAX = 1000


@dataclass
class Comparison:
    """Verdicts by how they went under one gate and under the other, dimensions that changed, and the changes.

    `by_type` counts (asset type, before, after); `approved` and `refused` the dimensions that made images pass that
    did not, or no longer pass.
    """

    looked_at: int = 0
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_type: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    approved: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    dimensions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    changes: list[dict[str, Any]] = field(default_factory=list)


def compare(verdicts: Iterable[ImageScored], one: Gate, other: Gate) -> Comparison:
    """Judge every stored measurement by both gates."""
    found = Comparison()
    for scored in verdicts:
        before, after = judged(scored, one), judged(scored, other)
        found.looked_at += 1
        found.verdicts[before[0], after[0]] += 1
        found.by_type[scored.asset_type, before[0], after[0]] += 1
        moved = [name for name in after[1] if name in before[1] and before[1][name].verdict != after[1][name].verdict]
        moved += [name for name in after[1] if name not in before[1]]
        for name in moved:
            was = before[1][name].verdict if name in before[1] else "none"
            found.dimensions[name, was, after[1][name].verdict] += 1
        if "pass" in (before[0], after[0]) and before[0] != after[0]:
            (found.approved if after[0] == "pass" else found.refused).update(moved)
        if before[0] != after[0] and len(found.changes) < CHANGES_MAX:
            found.changes.append(_change(scored, before[0], after[0], moved, after[1]))
    return found


def judged(scored: ImageScored, gate: Gate) -> tuple[str, dict[str, Score]]:
    """The verdict and scores that a gate gives to what was measured."""
    measured = {name: _measured(score) for name, score in scored.scores.items()}
    who = {name: Evaluator(score.evaluator, score.evaluator_version) for name, score in scored.scores.items()}
    long_side_px = scored.long_side_px or 0
    scores = gate.scores(measured, who, asset_type=scored.asset_type, long_side_px=long_side_px)
    return overall(scores, gate.required(scored.asset_type, long_side_px)), scores


def _measured(score: Score) -> Measured | None:
    if score.reason == "not measured":
        return None
    doubted = score.verdict == "unsure" and score.value is not None
    certain = not (doubted and score.threshold is not None and score.value >= score.threshold)  # type: ignore[operator]
    return Measured(score.value, certain=certain, reason=score.reason, highest=score.highest)


def _change(scored: ImageScored, before: str, after: str, moved: list[str], scores: dict[str, Score]) -> dict[str, Any]:
    why = ", ".join(f"{name} {scores[name].value} against {scores[name].threshold}" for name in moved)
    return {
        "request_id": str(scored.request_id),
        "candidate_id": str(scored.candidate_id),
        "asset_type": scored.asset_type,
        "before": before,
        "after": after,
        "why": why,
    }
