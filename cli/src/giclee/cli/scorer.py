"""`giclee scorer`: thresholds from labels; the scorer's own code does the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="The scorer's offline tools; they need giclee-scorer installed.")


@app.command()
def calibrate(
    labels: Annotated[Path, typer.Option(help="JSON lines or CSV: candidate_id, right; see the scorer's README.")],
    bad_rate: Annotated[float, typer.Option(help="Share of the accepted that may be bad, for example 0.02.")],
    confidence: Annotated[float, typer.Option(help="Of the promise.")] = 0.95,
    dimension: Annotated[str, typer.Option(help="Whose threshold is chosen.")] = "alignment",
    asset_type: Annotated[str | None, typer.Option(help="Only labels of it, and a row for it alone.")] = None,
    out: Annotated[Path, typer.Option(help="A folder is made in it.")] = Path("calibration"),
) -> None:
    """Choose a threshold that keeps a promise; write a gate file and a report. Exit 1: the labels cannot carry it."""
    words = ["--labels", str(labels), "--bad-rate", str(bad_rate), "--confidence", str(confidence),
             "--dimension", dimension, "--out", str(out)]  # fmt: skip
    if asset_type:
        words += ["--asset-type", asset_type]
    done = subprocess.run([sys.executable, "-m", "giclee.scorer.calibrate", *words], env=dict(os.environ), check=False)
    raise typer.Exit(done.returncode)
