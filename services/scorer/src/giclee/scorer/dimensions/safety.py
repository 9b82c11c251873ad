"""Exposed bodies, by the detector of NudeNet behind a Protocol: one vote, with a doubt band, that fails closed.

Only the weights of the package are used (its code swaps channels for paths and bytes, hides exposed boxes
under covered ones and drops low scores); it is AGPL in substance, see the README. No detection is not proof.
"""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from giclee.scorer.boxes import Face, distinct
from giclee.scorer.dimension import Evaluator, Measured, NotUsable, Picture

WEIGHTS_SHA256 = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
INPUT_PX = 320
LARGE_PX = 512
"""Pictures with a longer side are looked at a second time at twice the resolution: small bodies vanish at 320."""
KEPT = 8
"""Outputs that are remembered, 0.7 MB each at most: safety and faces ask about one picture within a batch or so."""

# fmt: off
CLASSES = (
    "FEMALE_GENITALIA_COVERED", "FACE_FEMALE", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED",
    "MALE_BREAST_EXPOSED", "ANUS_EXPOSED", "FEET_EXPOSED", "BELLY_COVERED", "FEET_COVERED", "ARMPITS_COVERED",
    "ARMPITS_EXPOSED", "FACE_MALE", "BELLY_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_COVERED", "FEMALE_BREAST_COVERED",
    "BUTTOCKS_COVERED",
)
FACES = [4 + CLASSES.index("FACE_FEMALE"), 4 + CLASSES.index("FACE_MALE")]  # rows of the model's output
# Policy per class: how much of its score counts. With the gate's 0.75, a class of weight 1 is doubted from
# 0.25 on, buttocks from 0.35 and male breasts from 0.6; classes not named do not count.
WEIGHTS: dict[str, float] = {
    "FEMALE_GENITALIA_EXPOSED": 1.0,
    "MALE_GENITALIA_EXPOSED": 1.0,
    "ANUS_EXPOSED": 1.0,
    "FEMALE_BREAST_EXPOSED": 1.0,
    "BUTTOCKS_EXPOSED": 0.7,
    "MALE_BREAST_EXPOSED": 0.4,
}
# fmt: on


class Detector(Protocol):
    """Finds classes in a picture."""

    def detect(self, pixels: np.ndarray) -> Mapping[str, float]:
        """The highest score of every class in (height, width, 3) uint8 RGB."""
        ...

    def describe(self) -> Evaluator: ...


class Safety:
    """1 minus the weighted score of the worst class."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture) for picture in pictures]

    def describe(self) -> Evaluator:
        return self._detector.describe()

    def _one(self, picture: Picture) -> Measured:
        pixels = picture.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return Measured(None, reason=f"not an RGB uint8 array but {pixels.dtype} {pixels.shape}")
        found = self._detector.detect(pixels)
        if not WEIGHTS.keys() <= found.keys():
            return Measured(None, reason="the detector did not answer for every class")
        worst, risk = max(((name, WEIGHTS[name] * found[name]) for name in WEIGHTS), key=_risk)
        return Measured(1 - risk, reason=None if risk < 0.1 else f"{worst} {found[worst]:.2f}")


def _risk(pair: tuple[str, float]) -> float:
    """Sorts NaN last, so that one class that is not a number makes the whole measurement not a number."""
    return float("inf") if pair[1] != pair[1] else pair[1]


class NudeNet:
    """The 320n model of the nudenet package. Errors: NotUsable when it is missing or is not the pinned one."""

    def __init__(self, *, threads: int = 1, weights: Path | None = None) -> None:
        import onnxruntime  # noqa: PLC0415 - 60 MB that a scorer with another detector does not need

        path = weights or _bundled()
        body = path.read_bytes() if path.is_file() else b""
        found = hashlib.sha256(body).hexdigest()
        if found != WEIGHTS_SHA256:
            why = f"has sha256 {found}, {WEIGHTS_SHA256} is pinned" if body else "is missing"
            raise NotUsable(f"safety: {path} {why}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._lock = threading.Lock()
        self._last: deque[tuple[weakref.ref[np.ndarray], int, Any]] = deque(maxlen=KEPT)

    def detect(self, pixels: np.ndarray) -> Mapping[str, float]:
        scores = np.max([self._scores(pixels, size) for size in _sizes(pixels)], axis=0)
        return {name: float(score) for name, score in zip(CLASSES, scores, strict=True)}

    def describe(self) -> Evaluator:
        return Evaluator("nudenet-320n", WEIGHTS_SHA256[:12])

    def faces(self, pixels: np.ndarray, score_min: float) -> Sequence[Face]:
        """Every face of at least that score, once: of boxes that overlap, the one with the highest score."""
        height, width = pixels.shape[:2]
        found: list[Face] = []
        for size in _sizes(pixels):
            output = self._output(pixels, size)
            scores = output[FACES].max(axis=0)  # (anchors,)
            at = np.nonzero(scores >= score_min)[0]
            by = max(height, width) / size / np.array([width, height] * 2)  # the square is padded at right and bottom
            x, y, w, h = output[:4, at]
            boxes = np.clip(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1) * by, 0, 1)
            found += [Face(float(scores[one]), *map(float, box)) for one, box in zip(at, boxes, strict=True)]
        return distinct(found)

    def _scores(self, pixels: np.ndarray, size_px: int) -> Any:
        """The highest score of every class over all anchors, (18,); nothing suppresses anything."""
        return self._output(pixels, size_px)[4:].max(axis=1)

    def _output(self, pixels: np.ndarray, size_px: int) -> Any:
        """(4 + 18, anchors). Kept for the last few pictures: whoever asks second about one does not wait for a run."""
        with self._lock:
            for known, size, output in self._last:
                if known() is pixels and size == size_px:
                    return output
            ((output,),) = self._session.run(None, {self._input: blob_of(pixels, size_px)})  # a batch of one
            self._last.append((weakref.ref(pixels), size_px, output))
            return output


def _sizes(pixels: np.ndarray) -> tuple[int, ...]:
    return (INPUT_PX, 2 * INPUT_PX) if max(pixels.shape[:2]) > LARGE_PX else (INPUT_PX,)


def blob_of(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """What the model was trained on, (1, 3, size, size): padded with black at right and bottom, bilinear."""
    import cv2  # noqa: PLC0415 - as onnxruntime

    height, width = pixels.shape[:2]
    side = max(height, width)
    square = cv2.copyMakeBorder(pixels, 0, side - height, 0, side - width, cv2.BORDER_CONSTANT)
    scaled = cv2.resize(square, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    blob: np.ndarray = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32) / 255
    return blob


def _bundled() -> Path:
    found = importlib.util.find_spec("nudenet")
    if found is None or found.origin is None:
        raise NotUsable("safety: the package nudenet is not installed")
    return Path(found.origin).parent / "320n.onnx"
