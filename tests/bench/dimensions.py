"""Milliseconds of processor that a dimension takes for one picture: `python -m tests.bench.dimensions`, one thread.

With the packages of .venv-gpu the detector of `faces` is measured too; safety has run it already where both ask.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before numpy is loaded

import numpy as np

from giclee.scorer import dimensions
from giclee.scorer.dimension import Dimension, Picture
from giclee.scorer.dimensions.luminance import Light, Luminance
from giclee.scorer.dimensions.palette import Palette, PaletteShare

OF = {"subject": "product-tile", "background": "product-tile", "safe-zone": "email-hero", "faces": "lifestyle-scene"}
RUNS = 15


def measured() -> dict[str, Dimension]:
    """What is there, by name."""
    kit = dimensions.Kit(clip_dir=Path())
    found: dict[str, Dimension] = {
        "palette of three": PaletteShare(Palette(colours=("#0b3d91", "#ffffff", "#f4c20d"), distance=5)),
        "luminance": Luminance(Light(reference=0.18, stops=1)),
    }
    for name, by_type in dimensions.BY_ASSET_TYPE.items():
        if name != "faces" or importlib.util.find_spec("nudenet"):
            found[name] = dimensions.ByAssetType(name, {one: build(kit) for one, build in by_type.items()})
    return found


def scene(side_px: int) -> np.ndarray:
    """A box on a soft gradient with grain: every colour is another, which costs a palette most."""
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    light = np.stack([90 + 70 * x, 90 + 40 * y, 120 + 0 * x], axis=2)
    light[(abs(x - 0.5) < 0.2) & (abs(y - 0.5) < 0.25)] = (200, 40, 40)
    grain = np.random.default_rng(0).normal(0, 3, light.shape)
    found: np.ndarray = (light + grain).clip(0, 255).astype(np.uint8)
    return found


def main() -> None:
    """A line per dimension and size: the median of RUNS."""
    for name, dimension in measured().items():
        for side_px in (64, 1024):
            times = []
            for _ in range(RUNS):
                picture = Picture(pixels=scene(side_px), prompt="", asset_type=OF.get(name, "generic"))
                began = time.process_time()
                dimension.measure([picture])
                times.append((time.process_time() - began) * 1000)
            print(f"{name:<18} {side_px:>5} px {statistics.median(times):>8.1f} ms")


if __name__ == "__main__":
    main()
