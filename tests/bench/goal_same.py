"""G9: the same pixels whoever shares the batch, and what padding batches to fixed sizes costs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.measure import Result, Row, Wrong, cores, load, median, pin

CHECKOUT = Path(__file__).parents[2]
GPU_PYTHON = CHECKOUT / ".venv-gpu/bin/python"
COST_MAX = 0.03
SIDES = (
    "Ours: an image made by the diffusion provider at a random place among random others (prompts, negative prompts, "
    "seeds, how many; guidance and padded size are the batch's own), both demo models, float32 on the CPU. Baseline: "
    "the same ask alone at the same padded size; pixels are compared. Padding: 16 asks always waiting at the batcher, "
    "shapes-final; ours pads batches to 1, 2, 4, the baseline computes each at the size it has; the same asks, who "
    "begins taking turns. Two shapes: 20 % of the asks have a negative prompt, so that not every batch is full."
)


def _lines(trials: int, rounds: int, images: int) -> list[dict[str, Any]]:
    """What the measuring process prints. Errors: Wrong."""
    argv = [str(GPU_PYTHON), "-m", "tests.bench.same", str(trials), str(rounds), str(images)]
    done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=3600, check=False)
    if done.returncode != 0:
        raise Wrong(f"G9 ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def run(rounds: int, *, quick: bool) -> Result:
    """Measure G9. Errors: Wrong."""
    before = load()
    pin(cores())
    counted, *found = _lines(8 if quick else 200, 1 if quick else rounds, 16 if quick else 32)
    same = 100 * counted["same"] / counted["trials"]
    rows = [
        Row(goal="G9", says=f"trials of {counted['trials']} with the pixels of the single run", unit="%",
            ours=[same], bare=[100.0], ratio=same / 100, aim="all of them", met=counted["same"] == counted["trials"]),
    ]  # fmt: skip
    for name, says in (("one", "one shape"), ("two", "two shapes")):
        (ours_s, ours_ms), (bare_s, bare_ms) = (
            zip(*(one[f"{name}_{side}"] for one in found), strict=True) for side in ("ours", "bare")
        )
        ratio = median([theirs / mine for mine, theirs in zip(ours_ms, bare_ms, strict=True)])
        rows += [
            Row(goal="G9", says=f"CPU per image at saturation, {says}", unit="ms", ours=ours_ms, bare=bare_ms,
                ratio=ratio, aim=f"median over the rounds' ratios at least {1 - COST_MAX:.2f}",
                met=ratio >= 1 - COST_MAX),
            Row(goal="G9", says=f"images per second at saturation, {says}", unit="1/s", ours=ours_s, bare=bare_s,
                ratio=median([mine / theirs for mine, theirs in zip(ours_s, bare_s, strict=True)])),
        ]  # fmt: skip
    others = f"{counted['same_at_others']} of {counted['others']}"
    costs = f"At another padded size {others} single runs have the same pixels, which is why events record the size."
    return Result(goal="G9", title="The same pixels whoever shares the batch", sides=SIDES, rows=rows, costs=costs,
                  load=f"{before} before, {load()} after")  # fmt: skip
