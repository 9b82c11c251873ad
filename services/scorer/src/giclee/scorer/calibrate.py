"""`python -m giclee.scorer.calibrate`: a threshold with a promise, from labels; started by `giclee scorer calibrate`.

Only pictures that every other dimension of the gate passes are looked at, as only they could be approved. Writes a
gate file (rows for `[[gate]]` of the operator's file), the measured values that it rests on, and a report.
Exits 1 when the labels cannot carry the promise, 2 when they cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from giclee.bus import database
from giclee.bus.errors import Transient
from giclee.bus.settings import DatabaseSettings
from giclee.schemas.gates import GateRow
from giclee.schemas.strict import InvalidInput
from giclee.scorer import configured, report
from giclee.scorer.calibration import Choice, TooFew, choose
from giclee.scorer.gate import TABLE, Gate, overlaid, version_of
from giclee.scorer.labels import BadLabels, Label, read
from giclee.scorer.store import SCHEMA, Store

REFUSED, UNUSABLE = 1, 2
LOST_MAX = 0.05
"""Share of the right pictures that may lie under the doubt band, where they fail without anybody looking."""


def passing(labels: Sequence[Label], gate: Gate, dimension: str) -> tuple[list[Label], Counter[str]]:
    """Labels that every other dimension passes, and how many each dimension kept out."""
    kept, kept_out = [], Counter[str]()
    for label in labels:
        others = gate.required(label.asset_type, 0) - {dimension}
        failing = [name for name in others if not _passes(label, gate, name)]
        kept_out.update(failing)
        if not failing:
            kept.append(label)
    return kept, kept_out


def _passes(label: Label, gate: Gate, name: str) -> bool:
    row = gate.row(name, label.asset_type, 0)
    return name not in label.scores or row is None or label.scores[name] >= row.pass_at


def rows_from(choice: Choice, values: np.ndarray, right: np.ndarray, dimension: str, asset_type: str | None) -> GateRow:
    """The row to use: passes from the threshold on, doubt under it as far down as right pictures are found."""
    lowest = float(np.quantile(values[right], LOST_MAX)) if right.any() else choice.threshold
    return GateRow(
        dimension=dimension, pass_at=choice.threshold, doubt_at=min(lowest, choice.threshold), asset_type=asset_type
    )


async def with_scores(labels: Sequence[Label], url: str | None) -> list[Label]:
    """Labels with what the scorer measured. Errors: BadLabels for ids that it never judged."""
    bare = [label for label in labels if not label.scores]
    if not bare:
        return list(labels)
    if not url:
        raise BadLabels([f"{len(bare)} labels carry no scores; DATABASE_URL must name where the verdicts are"])
    async with database.connect(DatabaseSettings(url=url), schema=SCHEMA) as pool:
        known = await Store(pool).measured([label.id for label in bare])
    if unknown := [label.id for label in bare if label.id not in known]:
        raise BadLabels([f"{one} was never scored here; is it a candidate_id?" for one in unknown])
    return [label if label.scores else Label(label.id, label.right, *known[label.id]) for label in labels]


def calibrate(labels: Sequence[Label], asked: argparse.Namespace) -> Path:
    """Choose, write, and give the folder. Errors: TooFew."""
    gate = Gate(overlaid(TABLE, configured.read(os.environ.get("GICLEE_CONFIG")).gate))
    mine = [one for one in labels if asked.asset_type in (None, one.asset_type) and asked.dimension in one.scores]
    kept, kept_out = passing(mine, gate, asked.dimension)
    values = np.array([label.scores[asked.dimension] for label in kept], float)
    right = np.array([label.right for label in kept], bool)
    choice = choose(list(values), list(right), bad_rate=asked.bad_rate, confidence=asked.confidence)
    row = rows_from(choice, values, right, asked.dimension, asked.asset_type)
    kept_out[asked.dimension] = int((values < choice.threshold).sum())
    version = version_of(overlaid(gate.table, [row]))
    folder = Path(asked.out) / f"{datetime.now(UTC):%Y-%m-%d}-{version}"
    about = _about(asked, mine, kept, choice, row, version, report.area(values, right))
    title = f"{asked.dimension} of {asked.asset_type or 'any asset type'}"
    found = report.Findings(
        title=title, values=values, right=right, choice=choice, bad_rate=asked.bad_rate, kept_out=kept_out, about=about
    )
    report.write(folder, found)
    (folder / "gate.toml").write_text(_toml(row, about))
    spread = {
        "dimension": asked.dimension,
        "asset_type": asked.asset_type,
        "by_model": _by_model(kept, asked.dimension),
    }
    (folder / "values.json").write_text(json.dumps(spread, indent=1) + "\n")
    for name, text in about:
        sys.stdout.write(f"{name:<12} {text}\n")
    return folder


def _about(
    asked: argparse.Namespace, mine: Sequence[Label], kept: Sequence[Label], choice: Choice, row: GateRow,
    version: str, area: float,
) -> list[tuple[str, str]]:  # fmt: skip
    wrong = sum(not label.right for label in kept)
    return [
        ("promise", f"at most {asked.bad_rate:.1%} bad among the accepted, with {asked.confidence:.0%} confidence"),
        ("labels", f"{len(mine)}; {len(kept)} pass every other dimension, {wrong} of them bad"),
        ("area", f"{area:.3f} under the ROC curve"),
        ("threshold", f"{row.pass_at:.4f}; unsure from {row.doubt_at:.4f}"),
        ("accepts", f"{choice.accepted} of {len(kept)} ({choice.accepted / len(kept):.1%}), {choice.bad} of them bad"),
        ("bound", f"{choice.bound:.2%} at most, for pictures like these"),
        ("models", ", ".join(sorted({label.model for label in kept if label.model})) or "not said"),
        ("gate", version),
    ]


def _toml(row: GateRow, about: Sequence[tuple[str, str]]) -> str:
    head = "".join(f"# {name}: {text}\n" for name, text in about)
    values = row.model_dump(exclude_none=True)
    return head + "[[gate]]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


def _by_model(labels: Sequence[Label], dimension: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for label in labels:
        found.setdefault(label.model, []).append(round(float(label.scores[dimension]), 5))
    return {model: sorted(values) for model, values in found.items()}


def main(words: Sequence[str]) -> int:
    """Read, choose, write."""
    parser = argparse.ArgumentParser(prog="giclee scorer calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--bad-rate", type=float, required=True)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--dimension", default="alignment")
    parser.add_argument("--asset-type")
    parser.add_argument("--out", type=Path, default=Path("calibration"))
    asked = parser.parse_args(words)
    try:
        labels = asyncio.run(with_scores(read(asked.labels), os.environ.get("DATABASE_URL")))
        folder = calibrate(labels, asked)
    except TooFew as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    except (BadLabels, InvalidInput, Transient, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    sys.stdout.write(f"{folder}/index.html, {folder}/gate.toml\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
