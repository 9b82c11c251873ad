"""One vote on whether a picture may be shown: the Protocol that detectors fulfil. Entries live in `detectors/`.

A detector says how risky a picture is; how votes come together is `dimensions/safety.py`, what the result means is the
gate's. One that has nothing to say abstains, which is neither a pass nor an alarm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from giclee.scorer.dimension import Evaluator, NotUsable


@dataclass(frozen=True, slots=True)
class Vote:
    """How risky a picture is, 0 to 1, and by what; None abstains. NaN is no vote: nothing passes with it."""

    risk: float | None
    why: str = ""


class Detector(Protocol):
    """Votes on pictures, (height, width, 3) uint8 sRGB each."""

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        """One vote per picture, in order."""
        ...

    def describe(self) -> Evaluator: ...


def worst(scores: Mapping[str, float], weights: Mapping[str, float]) -> Vote:
    """The class that weighs most. One score that is not a number, or is missing, makes the whole vote not a number."""
    missing = sorted(weights.keys() - scores.keys())
    if missing:
        return Vote(float("nan"), f"no answer for {missing[0]}")
    risks = {name: weights[name] * scores[name] for name in weights}
    name = max(risks, key=lambda one: float("inf") if risks[one] != risks[one] else risks[one])
    return Vote(risks[name], f"{name} {scores[name]:.2f}")


def network(body: bytes, threads: int) -> Any:
    """An onnxruntime session on the CPU. Errors: NotUsable when the bytes are no model."""
    import onnxruntime  # noqa: PLC0415 - 60 MB that a scorer without such a detector does not need
    from onnxruntime.capi import onnxruntime_pybind11_state as raised  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
    except (raised.Fail, raised.InvalidProtobuf, raised.InvalidGraph, raised.NotImplemented, RuntimeError) as error:
        raise NotUsable(f"it is no ONNX model that loads: {str(error)[:200]}") from error


def sha256_of(*paths: Path) -> str:
    """Of the files' bytes, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
