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
from giclee.scorer.gate import SIDE_MAX_PX, TABLE, Gate, overlaid, version_of
from giclee.scorer.labels import BadLabels, Label, read
from giclee.scorer.reference import LABELS_MIN, ReferenceRow, rows_of_labels
from giclee.scorer.store import SCHEMA, Store

REFUSED, UNUSABLE = 1, 2
LOST_MAX = 0.05
"""Share of the right pictures that may lie under the doubt band, where they fail without anybody looking."""


def passing(labels: Sequence[Label], gate: Gate, dimension: str) -> tuple[list[Label], Counter[str]]:
    """Labels that every other dimension passes, and how many each dimension kept out."""
    kept, kept_out = [], Counter[str]()
    for label in labels:
        failing = [name for name in _required(label, gate) - {dimension} if not _passes(label, gate, name)]
        kept_out.update(failing)
        if not failing:
            kept.append(label)
    return kept, kept_out


def _passes(label: Label, gate: Gate, name: str) -> bool:
    row = _row_of(label, gate, name)
    return name not in label.scores or row is None or label.scores[name] >= row.pass_at


def _required(label: Label, gate: Gate) -> set[str]:
    """Dimensions that decide about it."""
    return {row.dimension for row in gate.table if _row_of(label, gate, row.dimension) is not None}


def _row_of(label: Label, gate: Gate, name: str) -> GateRow | None:
    if label.long_side_px is None:
        return gate.strictest(name, label.asset_type)
    return gate.row(name, label.asset_type, label.long_side_px)


def chosen(labels: Sequence[Label], gate: Gate, dimension: str, asset_type: str | None) -> list[Label]:
    """Labels whose pictures the new row would judge: measured, of its asset type, and not another row's.

    Errors: BadLabels when there are none, with what there is.
    """
    measured = [label for label in labels if dimension in label.scores]
    if not measured:
        known = ", ".join(sorted({name for label in labels for name in label.scores})) or "none"
        raise BadLabels([f"no label has a score of {dimension}; the labels have: {known}"])
    mine = [label for label in measured if asset_type in (None, label.asset_type)]
    if not mine:
        known = ", ".join(sorted({label.asset_type for label in measured}))
        raise BadLabels([f"no label is of asset type {asset_type}; there are: {known}"])
    new = GateRow(dimension=dimension, pass_at=1.0, doubt_at=None, asset_type=asset_type)
    then = Gate(overlaid(gate.table, [new]))
    judged = [one for one in mine if then.row(dimension, one.asset_type, one.long_side_px or SIDE_MAX_PX) == new]
    if not judged:
        raise BadLabels([f"rows for smaller pictures or single asset types judge all {len(mine)} labels already; "
                         f"the row {new.place()} would change nothing for them"])  # fmt: skip
    return judged


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
    return [label if label.scores else label.measured_as(known[label.id]) for label in labels]


def calibrate(labels: Sequence[Label], asked: argparse.Namespace) -> Path:
    """Choose, write, and give the folder. Errors: TooFew, BadLabels."""
    gate = Gate(overlaid(TABLE, configured.read(os.environ.get("GICLEE_CONFIG")).gate))
    mine = chosen(labels, gate, asked.dimension, asked.asset_type)
    kept, kept_out = passing(mine, gate, asked.dimension)
    values = np.array([label.scores[asked.dimension] for label in kept], float)
    right = np.array([label.right for label in kept], bool)
    choice = choose(list(values), list(right), bad_rate=asked.bad_rate, confidence=asked.confidence)
    row = rows_from(choice, values, right, asked.dimension, asked.asset_type)
    kept_out[asked.dimension] = int((values < choice.threshold).sum())
    version = version_of(overlaid(gate.table, [row]))
    folder = Path(asked.out) / f"{datetime.now(UTC):%Y-%m-%d}-{version}"
    deciding = {name for label in mine for name in _required(label, gate)}
    references = rows_of_labels(mine, deciding, asked.asset_type)
    about = [
        *_promise(asked, mine, kept, choice, row),
        ("area", f"{report.area(values, right):.3f} under the ROC curve"),
        *_basis(mine, gate, references),
        ("gate", version),
    ]
    title = f"{asked.dimension} of {asked.asset_type or 'any asset type'}"
    found = report.Findings(
        title=title, values=values, right=right, choice=choice, bad_rate=asked.bad_rate, kept_out=kept_out, about=about
    )
    report.write(folder, found)
    (folder / "gate.toml").write_text(_toml(row, references, about))
    spread = {
        "dimension": asked.dimension,
        "asset_type": asked.asset_type,
        "by_model": _by_model(kept, asked.dimension),
    }
    (folder / "values.json").write_text(json.dumps(spread, indent=1) + "\n")
    for name, text in about:
        sys.stdout.write(f"{name:<12} {text}\n")
    return folder


def _promise(
    asked: argparse.Namespace, mine: Sequence[Label], kept: Sequence[Label], choice: Choice, row: GateRow
) -> list[tuple[str, str]]:
    wrong = sum(not label.right for label in kept)
    return [
        ("promise", f"at most {asked.bad_rate:.1%} bad among the accepted, with {asked.confidence:.0%} confidence"),
        ("labels", f"{len(mine)}; {len(kept)} pass every other dimension, {wrong} of them bad"),
        ("threshold", f"{row.pass_at:.4f}; unsure from {row.doubt_at:.4f}"),
        ("accepts", f"{choice.accepted} of {len(kept)} ({choice.accepted / len(kept):.1%}), {choice.bad} of them bad"),
        ("bound", f"{choice.bound:.2%} at most, for pictures like these"),
    ]


def _basis(mine: Sequence[Label], gate: Gate, references: Sequence[ReferenceRow]) -> list[tuple[str, str]]:
    """What the labels did not say, and what was done about it."""
    sizeless = sum(label.long_side_px is None for label in mine)
    unsaid = sum("@" not in label.model for label in mine)
    partial = sum(not _required(label, gate) <= label.scores.keys() for label in mine)
    models = ", ".join(sorted({label.model for label in mine if label.model})) or "not said"
    watched = sorted({row.model for row in references if row.model})
    found = [
        ("models", models + (f"; {unsaid} labels name no revision" if unsaid and unsaid < len(mine) else "")),
        (
            "drift",
            f"{len(watched)} revisions have {LABELS_MIN} labels or more; images of others are held back at first",
        ),
    ]
    if sizeless:
        found.append(("sizes", f"{sizeless} labels have no long_side_px; the strictest row of any size judged them"))
    if partial:
        found.append(("unmeasured", f"{partial} labels lack a deciding dimension, which counted as passed"))
    return found


def _toml(row: GateRow, references: Sequence[ReferenceRow], about: Sequence[tuple[str, str]]) -> str:
    head = "".join(f"# {name}: {text}\n" for name, text in about)
    return head + _table("gate", row) + "".join(_table("reference", one) for one in references)


def _table(name: str, row: GateRow | ReferenceRow) -> str:
    values = row.model_dump(mode="json", exclude_none=True)
    return f"[[{name}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()) + "\n"


def _by_model(labels: Sequence[Label], dimension: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for label in labels:
        found.setdefault(label.model, []).append(round(float(label.scores[dimension]), 5))
    return {model: sorted(values) for model, values in found.items()}


def _share(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 < found < 1:
        raise argparse.ArgumentTypeError(f"{text}: a share between 0 and 1, for example 0.02 for 2 %")
    return found


def main(words: Sequence[str]) -> int:
    """Read, choose, write."""
    parser = argparse.ArgumentParser(prog="giclee scorer calibrate", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--bad-rate", type=_share, required=True)
    parser.add_argument("--confidence", type=_share, default=0.95)
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
