"""G12, G13 and G14 on pictures that the demo models really drew; truth is the pixel oracle, never part of the scorer.

`PYTHONPATH=services/publisher/src python -m tests.bench.judged --only g12,g13,g14` in `.venv-gpu`, from the checkout;
nothing has to run. Pictures are drawn from fixed seeds that nothing was trained on or chosen by, and kept under
`.giclee/bench`. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from giclee.models import measure as figures
from giclee.models import world
from giclee.schemas.gates import GateRow
from giclee.scorer import calibrate, calibration, drift
from giclee.scorer.gate import TABLE, Gate, overlaid
from giclee.scorer.reference import References, row_of
from tests.bench import funnel
from tests.bench.shapes import Judged, Studio, label_lines

MODELS = ("shapes-draft", "shapes-final")
SELECTION_FIRST, CALIBRATION_FIRST, TEST_FIRST = 3_000_000, 3_100_000, 3_200_000
SELECTION_PROMPTS = {"shapes-draft": 400, "shapes-final": 1000}
CANDIDATES = 4
BAD_RATE = 0.02
CONFIDENCE_ERROR = 0.05


class Line:
    """The gate over what was measured: a picture passes when every dimension that took part does."""

    def __init__(self, rows: Sequence[GateRow] = ()) -> None:
        self._gate = Gate(overlaid(TABLE, rows))

    def __call__(self, one: Judged) -> bool:
        rows = ((self._gate.row(name, "generic", world.WIDTH_PX), value) for name, value in one.values.items())
        return all(row is None or value >= row.pass_at for row, value in rows)


# ---- G12 ----------------------------------------------------------------------------------------------------


def selection(studio: Studio, share: float = 1.0) -> list[dict[str, Any]]:
    """Per model: AUC of right against wrong, and what choosing the best of four by alignment is worth."""
    rows = []
    for model in MODELS:
        prompts = round(SELECTION_PROMPTS[model] * share)
        judged = studio.judged(model, range(SELECTION_FIRST, SELECTION_FIRST + prompts), CANDIDATES)
        scores = np.array([one.values["alignment"] for one in judged]).reshape(prompts, CANDIDATES)
        right = np.array([one.right for one in judged]).reshape(prompts, CANDIDATES)
        p, best, ceiling, efficiency = figures.selection_efficiency(scores, right)
        row = {"model": model, "prompts": prompts, "wrong": int((~right).sum()), "p": p, "best_of_4": best,
               "pass_at_4": ceiling, "efficiency": efficiency, "efficiency_95": _spread(scores, right),
               "auc": figures.area_under_curve(scores.ravel(), right.ravel())}  # fmt: skip
        rows.append(row)
    return rows


def _spread(scores: np.ndarray, right: np.ndarray) -> list[float]:
    """The middle 95 % of the efficiency over 2,000 draws of the prompts with replacement."""
    chance = np.random.default_rng(0)
    draws = (chance.integers(0, len(scores), len(scores)) for _ in range(2000))
    found = [figures.selection_efficiency(scores[rows], right[rows])[3] for rows in draws]
    return [float(np.nanquantile(found, share)) for share in (0.025, 0.975)]


# ---- G13 ----------------------------------------------------------------------------------------------------


def promise(studio: Studio, labels: int, tests: int) -> list[dict[str, Any]]:
    """Calibrate on pictures of both models, half and half, then judge fresh ones: of both, and of each; and each model
    with a threshold of its own."""
    labelled, judged = _mixture(studio, CALIBRATION_FIRST, labels), _mixture(studio, TEST_FIRST, tests)
    common = _calibrated(studio, labelled)
    rows = [_kept("both", judged, common)]
    for model in MODELS:
        mine = [one for one in judged if one.model == model]
        own = _calibrated(studio, [one for one in labelled if one.model == model])
        rows += [_kept(model, mine, common), _kept(f"{model}, calibrated alone", mine, own)]
    return rows


def _mixture(studio: Studio, first: int, count: int) -> list[Judged]:
    """One picture a prompt, so that pictures are independent."""
    half = count // 2
    return [
        one
        for number, model in enumerate(MODELS)
        for one in studio.judged(model, range(first + number * half, first + (number + 1) * half))
    ]


def _calibrated(studio: Studio, judged: Sequence[Judged]) -> GateRow:
    """What `giclee scorer calibrate` makes of the labels. Errors: SystemExit when it refuses."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "labels.jsonl"
        file.write_text("\n".join(label_lines(studio, judged)))
        code = calibrate.main(["--labels", str(file), "--bad-rate", str(BAD_RATE), "--out", folder])
        if code:
            raise SystemExit(code)
        (written,) = Path(folder).glob("*/gate.toml")
        return GateRow.model_validate(tomllib.loads(written.read_text())["gate"][0])


def _kept(pictures: str, judged: Sequence[Judged], row: GateRow) -> dict[str, Any]:
    """Bad among approved with its bound, and acceptance against the best threshold that the truth allows."""
    line, before = Line([row]), Line()
    accepted = [one for one in judged if line(one)]
    bad = sum(not one.right for one in accepted)
    built_in = [one for one in judged if before(one)]
    best = _oracle(judged)
    return {
        "pictures": pictures,
        "threshold": row.pass_at,
        "count": len(judged),
        "right": sum(one.right for one in judged),
        "auc": figures.area_under_curve(
            np.array([one.values["alignment"] for one in judged]), np.array([one.right for one in judged])
        ),
        "approved": len(accepted),
        "bad": bad,
        "bad_share": bad / len(accepted) if accepted else float("nan"),
        "bad_upper_95": calibration.upper_bound(bad, len(accepted), CONFIDENCE_ERROR) if accepted else 1.0,
        "oracle_accepts": best,
        "of_oracle": len(accepted) / best if best else float("nan"),
        "of_right": sum(one.right for one in accepted) / max(1, sum(one.right for one in judged)),
        "built_in_approved": len(built_in),
        "built_in_bad_share": sum(not one.right for one in built_in) / max(1, len(built_in)),
    }


def _oracle(judged: Sequence[Judged]) -> int:
    """The most pictures that any threshold accepts with no more than BAD_RATE bad among them."""
    ranked = sorted(judged, key=lambda one: -one.values["alignment"])
    wrong = np.cumsum([not one.right for one in ranked])
    allowed = np.flatnonzero(wrong <= BAD_RATE * np.arange(1, len(ranked) + 1))
    return int(allowed[-1]) + 1 if len(allowed) else 0


def alarms(studio: Studio, labels: int, tests: int) -> list[dict[str, Any]]:
    """Calibrated on the final's pictures alone; then pictures of either model, each as a revision never labelled.

    `approved_before_alarm` is what a watch without any hold lets through; with the default hold it is none at all
    until so many requests are counted.
    """
    mine = studio.judged("shapes-final", range(CALIBRATION_FIRST + labels // 2, CALIBRATION_FIRST + labels))
    line = Line([_calibrated(studio, mine)])
    names = sorted({row.dimension for row in TABLE} & mine[0].values.keys())
    known = References(row_of(name, [one.values[name] for one in mine]) for name in names)
    return [{"calibrated_on": "shapes-final", "pictures": model,
             **_watched(known, line, _mixture_of(studio, model, tests))}
            for model in MODELS]  # fmt: skip


def _mixture_of(studio: Studio, model: str, tests: int) -> list[Judged]:
    return [one for one in _mixture(studio, TEST_FIRST, tests) if one.model == model]


def _watched(known: References, line: Line, judged: Sequence[Judged]) -> dict[str, Any]:
    yardstick = known.of("generic", "unheard@1")
    assert yardstick is not None
    spread, raised, at = drift.Spread(), dict[str, str](), None
    for number, one in enumerate(judged, start=1):
        spread, raised = drift.after(spread, yardstick, [one.values])
        if raised:
            at = number
            break
    before = [one for one in judged[:at] if line(one)]
    passing = [one for one in judged if line(one)]
    return {
        "count": len(judged),
        "alarm_at": at,
        "why": next(iter(raised.items()), None),
        "approved_before_alarm": len(before),
        "bad_before_alarm": sum(not one.right for one in before),
        "would_be_approved": len(passing),
        "would_be_bad_share": sum(not one.right for one in passing) / max(1, len(passing)),
    }


# ---- G14 ----------------------------------------------------------------------------------------------------


def yields(studio: Studio, share: float = 1.0) -> list[dict[str, Any]]:
    """Per model and number wanted."""
    return [row for model in reversed(MODELS) for row in funnel.measure(studio, model, Line(), share)]


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judged", description=__doc__)
    parser.add_argument("--only", default="g12,g13,g14", help="goals, separated by commas")
    parser.add_argument("--calibrate", type=int, default=4000, help="pictures to calibrate on")
    parser.add_argument("--test", type=int, default=4000, help="fresh pictures to test on")
    parser.add_argument("--share", type=float, default=1.0, help="of the prompts of G12 and the orders of G14")
    parser.add_argument("--half", action="store_true", help="networks compute in bfloat16: three times as fast")
    parser.add_argument("--safety", action="store_true", help="NudeNet takes part: a tenth of a second a picture")
    parser.add_argument("--models", type=Path, default=Studio.models)
    parser.add_argument("--kept", type=Path, default=Studio.kept, help="folder of pictures drawn before")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    """Print a JSON line for each figure."""
    asked = _asked(words)
    studio = Studio(models=asked.models, kept=asked.kept, half=asked.half, safety=asked.safety)
    goals: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "g12": lambda: selection(studio, asked.share),
        "g13": lambda: promise(studio, asked.calibrate, asked.test) + alarms(studio, asked.calibrate, asked.test),
        "g14": lambda: yields(studio, asked.share),
    }
    for goal in asked.only.split(","):
        for row in goals[goal]():
            print(json.dumps({"goal": goal, **_rounded(row)}), flush=True)
    return 0


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(one) for one in value]
        return round(value, 6) if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
