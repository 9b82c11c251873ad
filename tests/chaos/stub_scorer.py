"""The scorer as a process without a model: `python -m tests.chaos.stub_scorer`.

Bucket, decoder child, stored verdicts, topics and failpoints are the service's own; only what is measured differs:
a number drawn from the pixels, so that the same picture gets the same verdict from every replica, and one in four
does not pass.
"""

from __future__ import annotations

import hashlib
import runpy
from collections.abc import Callable, Sequence

import numpy as np

from giclee.scorer import dimensions, phash
from giclee.scorer.dimension import Dimension, Evaluator, Measured, Picture

PASSES_FROM = 0.25
"""Share of pictures that do not pass `alignment`; the other dimensions like everything."""


class Drawn:
    """A dimension that looks at the hash of the pixels."""

    def __init__(self, name: str) -> None:
        self._name = name

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [Measured(self._value(one)) for one in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("stub", "1")

    def _value(self, picture: Picture) -> float:
        if self._name != "alignment":
            return 1.0
        drawn = hashlib.sha256(picture.pixels.tobytes()).digest()[0] / 256
        return 0.9 if drawn >= PASSES_FROM else 0.1


def drawn(name: str) -> Callable[[dimensions.Kit], Dimension]:
    """What the table of dimensions holds."""
    return lambda kit: Drawn(name)


def print_of(pixels: np.ndarray) -> str:
    """Of other bits for every picture: painted ones resemble each other, and here no order may fail for that."""
    return hashlib.shake_256(pixels.tobytes()).hexdigest(96)


if __name__ == "__main__":
    dimensions.TABLE |= {name: drawn(name) for name in dimensions.TABLE}
    for name, rows in dimensions.BY_ASSET_TYPE.items():
        dimensions.BY_ASSET_TYPE[name] = dict.fromkeys(rows, drawn(name))
    phash.fingerprint = print_of
    runpy.run_module("giclee.scorer", run_name="__main__", alter_sys=True)
