"""Exposed parts of bodies, by the 320n detector of NudeNet over several views of a picture.

Only the weights of the package are used (its code swaps channels for paths and bytes, hides exposed boxes under covered
ones and drops low scores); it is AGPL in substance, see the README. No detection is not proof.

Bodies that are small in a picture vanish when all of it is shrunk to the model's input. So what is larger than the
input is looked at whole and enlarged, and large pictures in overlapping tiles as well: a view can only add risk.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giclee.scorer.boxes import Face, distinct
from giclee.scorer.detector import Vote, network, worst
from giclee.scorer.dimension import Evaluator, NotUsable
from giclee.scorer.remembered import Remembered

WEIGHTS_SHA256 = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"
VIEWS_VERSION = 2
"""Counts up whenever the views or the weights below change: the same picture could then get another vote."""
INPUT_PX = 320
ENLARGED_PX = 640
TILED_FROM_PX = 960
"""A longer side is looked at in tiles: beyond it the enlarged view shrinks faces of 40 px to where they are missed."""
TILE_PX = 640
STRIDE_SHARE = 0.8
"""Neighbouring tiles share a fifth, 128 px, so that what one cuts in two lies whole in the other."""
TILES_MAX = 16
"""16 tiles take 1.3 s on one core; pictures that would need more get larger tiles, shrunk to the input."""
FACE_FLOOR = 0.1
"""Boxes that are hardly a face by the model's own word are not kept."""

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

View = tuple[int, int, int, int, int]
"""Top, left, height and width of a part of a picture, and the side in pixels of the model's input for it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Over all views: the highest score of every class, (18,), and what may be faces."""

    scores: np.ndarray
    faces: tuple[Face, ...]


class NudeNet:
    """Runs a picture once, whoever asks. Errors: NotUsable when the weights are missing or are not the pinned ones."""

    def __init__(self, *, threads: int = 1, weights: Path | None = None) -> None:
        path = weights or bundled()
        body = path.read_bytes() if path.is_file() else b""
        found = hashlib.sha256(body).hexdigest()
        if found != WEIGHTS_SHA256:
            why = f"has sha256 {found}, {WEIGHTS_SHA256} is pinned" if body else "is missing"
            raise NotUsable(f"safety: {path} {why}")
        self._session = network(body, threads)
        self._input = self._session.get_inputs()[0].name
        self._lock = threading.Lock()
        self._known: Remembered[Seen] = Remembered()

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        return [worst(self.detect(pixels), WEIGHTS) for pixels in pictures]

    def detect(self, pixels: np.ndarray) -> Mapping[str, float]:
        """The highest score of every class over all views."""
        return {name: float(score) for name, score in zip(CLASSES, self._seen(pixels).scores, strict=True)}

    def faces(self, pixels: np.ndarray, score_min: float) -> Sequence[Face]:
        """Every face of at least that score, once: of boxes that overlap, the one with the highest score."""
        return distinct(face for face in self._seen(pixels).faces if face.score >= score_min)

    def describe(self) -> Evaluator:
        return Evaluator(
            "nudenet-320n",
            f"{WEIGHTS_SHA256[:12]}-{VIEWS_VERSION}",
            blind_to="four in ten exposed bodies at its own threshold; drawings; violence, hate, ages, likenesses",
        )

    def scores(self, pixels: np.ndarray, view: View) -> np.ndarray:
        """The highest score of every class in one view, (18,)."""
        return _scores(self._output(pixels, view))

    def _seen(self, pixels: np.ndarray) -> Seen:
        """Whoever asks second about a picture waits for the first and does not run it again."""
        with self._lock:
            if (known := self._known.of(pixels)) is not None:
                return known
            views = views_of(*pixels.shape[:2])
            outputs = [self._output(pixels, view) for view in views]
            faces = [face for view, output in zip(views, outputs, strict=True) for face in _faces(output, view, pixels)]
            found = Seen(np.max([_scores(output) for output in outputs], axis=0), tuple(faces))
            self._known.keep(pixels, found)
            return found

    def _output(self, pixels: np.ndarray, view: View) -> np.ndarray:
        """(4 + 18, anchors): centre, width and height of a box in pixels of the input, then a score for every class."""
        top, left, height, width, size_px = view
        blob = blob_of(pixels[top : top + height, left : left + width], size_px)
        ((output,),) = self._session.run(None, {self._input: blob})  # a batch of one
        found: np.ndarray = output
        return found


def _scores(output: np.ndarray) -> np.ndarray:
    """Over all anchors, (18,); nothing suppresses anything."""
    found: np.ndarray = output[4:].max(axis=1)
    return found


def _faces(output: np.ndarray, view: View, pixels: np.ndarray) -> list[Face]:
    """What may be faces in a view, in shares of the whole picture's sides."""
    top, left, height, width, size_px = view
    scores = output[FACES].max(axis=0)  # (anchors,)
    at = np.nonzero(scores >= FACE_FLOOR)[0]
    scale = max(height, width) / size_px  # the view lies at the input's upper left
    x, y, w, h = output[:4, at] * scale
    tall, wide = pixels.shape[:2]
    edges = np.stack([x - w / 2 + left, y - h / 2 + top, x + w / 2 + left, y + h / 2 + top], axis=1)
    boxes = np.clip(edges / [wide, tall, wide, tall], 0, 1)
    return [Face(float(scores[one]), *map(float, box)) for one, box in zip(at, boxes, strict=True)]


def views_of(height: int, width: int) -> list[View]:
    """What is looked at: all of a picture, from INPUT_PX on enlarged as well, over TILED_FROM_PX in tiles as well."""
    longest = max(height, width)
    whole = [(0, 0, height, width, INPUT_PX)]
    if longest > INPUT_PX:
        whole.append((0, 0, height, width, ENLARGED_PX))
    return whole + (_tiles(height, width) if longest > TILED_FROM_PX else [])


def _tiles(height: int, width: int) -> list[View]:
    """At most TILES_MAX tiles that cover everything."""
    side = TILE_PX
    while len(_starts(height, side)) * len(_starts(width, side)) > TILES_MAX:
        side = math.ceil(side * 1.1)
    return [
        (top, left, min(side, height), min(side, width), ENLARGED_PX)
        for top in _starts(height, side)
        for left in _starts(width, side)
    ]


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin along a length, evenly, none more than STRIDE_SHARE of a side from the next."""
    if length <= side:
        return [0]
    steps = math.ceil((length - side) / (side * STRIDE_SHARE))
    return [round(at * (length - side) / steps) for at in range(steps + 1)]


def blob_of(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """What the model was trained on, (1, 3, size, size): scaled to fit, black at right and bottom.

    Shrinking is by area, which finds more than the package's bilinear (0.50 against 0.29 for a face a quarter of 2,048
    px wide); scaling comes before padding, since a strip padded first would need its length squared.
    """
    import cv2  # noqa: PLC0415 - as onnxruntime

    height, width = pixels.shape[:2]
    scale = size_px / max(height, width)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(pixels, (wide, tall), interpolation=how)
    square = cv2.copyMakeBorder(scaled, 0, size_px - tall, 0, size_px - wide, cv2.BORDER_CONSTANT)
    blob: np.ndarray = np.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=np.float32) / 255
    return blob


def bundled() -> Path:
    """The weights in the installed package. Errors: NotUsable."""
    found = importlib.util.find_spec("nudenet")
    if found is None or found.origin is None:
        raise NotUsable("safety: the package nudenet is not installed")
    return Path(found.origin).parent / "320n.onnx"
