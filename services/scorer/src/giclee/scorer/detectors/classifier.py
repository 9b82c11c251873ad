"""An image classifier exported to ONNX, in the folder that exporters write: model, labels, how to prepare a picture.

`model.onnx`, `config.json` with `id2label`, `preprocessor_config.json` with `size`, `image_mean` and `image_std`.
Labels of unknown meaning are refused, unless `config.json` says in `giclee_unsafe` how much each counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from giclee.scorer.detector import Vote, network, sha256_of, worst
from giclee.scorer.dimension import Evaluator, NotUsable
from giclee.scorer.pixels import softmax

UNSAFE_LABELS = frozenset({"nsfw", "unsafe", "porn", "hentai", "sexy", "sexual", "explicit", "nude", "nudity", "naked"})
SAFE_LABELS = frozenset({"sfw", "safe", "normal", "neutral", "drawing", "drawings"})
FILES = ("model.onnx", "config.json", "preprocessor_config.json")


class Classifier:
    """The most probable unsafe label. Errors: NotUsable naming the file and what it lacks."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self.name = folder.name
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise NotUsable(f"safety: {folder} has no {', '.join(missing)}; a classifier's folder has {_told(FILES)}")
        self._version = sha256_of(*(folder / name for name in FILES))[:12]
        try:
            config, prepared = (json.loads((folder / name).read_text()) for name in FILES[1:])
            self._labels = [str(config["id2label"][str(at)]).lower() for at in range(len(config["id2label"]))]
            self._weights = weights_of(self._labels, config.get("giclee_unsafe"))
            self._size = _size(prepared["size"])
            self._mean = np.asarray(prepared["image_mean"], np.float32).reshape(3)
            self._spread = np.asarray(prepared["image_std"], np.float32).reshape(3)
            self._session = network((folder / FILES[0]).read_bytes(), threads)
            self._input = self._session.get_inputs()[0]
            self._last = self._channels_last()
            self._told = self._tells_probabilities()
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise NotUsable(f"safety: {folder}: {type(error).__name__}: {error}") from error
        except NotUsable as error:
            raise NotUsable(f"safety: {folder}: {error}") from error

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        return [self._vote(pixels) for pixels in pictures]

    def describe(self) -> Evaluator:
        return Evaluator(
            f"onnx {self.name}",
            self._version,
            blind_to="bodies that are small in the picture: it sees all of it at once, at its own input size",
        )

    def _vote(self, pixels: np.ndarray) -> Vote:
        found = self._answer(pixels)
        likely = found if self._told else softmax(found)
        return worst(dict(zip(self._labels, map(float, likely), strict=True)), self._weights)

    def _answer(self, pixels: np.ndarray) -> np.ndarray:
        """(labels,) as the model says it. Errors: ValueError when it says another number of them."""
        import cv2  # noqa: PLC0415 - as onnxruntime

        how = cv2.INTER_AREA if max(pixels.shape[:2]) > max(self._size) else cv2.INTER_LINEAR
        scaled = cv2.resize(pixels, self._size[::-1], interpolation=how)
        ready = (scaled.astype(np.float32) / 255 - self._mean) / self._spread  # (height, width, 3)
        blob = ready[None] if self._last else np.ascontiguousarray(ready.transpose(2, 0, 1)[None])
        found = np.asarray(self._session.run(None, {self._input.name: blob})[0], np.float64)
        if found.shape != (1, len(self._labels)):
            raise ValueError(f"the model answers {found.shape}, id2label names {len(self._labels)}")
        answer: np.ndarray = found[0]
        return answer

    def _channels_last(self) -> bool:
        shape: list[Any] = list(self._input.shape)
        if len(shape) != 4 or self._input.type != "tensor(float)" or 3 not in (shape[1], shape[3]):
            raise ValueError(f"the model's input is {self._input.type} {shape}; a picture is float, 3 channels")
        sides = shape[1:3] if shape[1] != 3 else shape[2:]
        if any(isinstance(side, int) and side != wanted for side, wanted in zip(sides, self._size, strict=True)):
            raise ValueError(f"the model's input is {shape}, {FILES[2]} says {self._size}")
        return bool(shape[1] != 3)

    def _tells_probabilities(self) -> bool:
        """Whether the exported model ends in a softmax: then the answers to three unlike pictures all sum to 1."""
        height, width = self._size
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        said = [self._answer(one) for one in (np.zeros_like(noise), np.full_like(noise, 200), noise)]
        return all(one.min() >= 0 and abs(float(one.sum()) - 1) < 1e-3 for one in said)


def weights_of(labels: Sequence[str], told: dict[str, float] | None) -> dict[str, float]:
    """How much of each label's probability counts. Errors: ValueError for labels that nobody knows."""
    if told is not None:
        strange = sorted({name.lower() for name in told} - set(labels))
        if strange or not told or not all(0 <= weight <= 1 for weight in told.values()):
            raise ValueError(f"giclee_unsafe gives some of {_told(labels)} a weight from 0 to 1")
        return {name.lower(): float(weight) for name, weight in told.items()}
    unknown = [name for name in labels if name not in UNSAFE_LABELS | SAFE_LABELS]
    found = {name: 1.0 for name in labels if name in UNSAFE_LABELS}
    if unknown or not found:
        raise ValueError(
            f"which of {_told(labels)} are unsafe? Say so in config.json, for example "
            f'"giclee_unsafe": {{"{(unknown or list(labels))[0]}": 1.0}}'
        )
    return found


def _size(told: Any) -> tuple[int, int]:
    """Height and width of the model's input, in the forms that exporters write."""
    if not isinstance(told, dict):
        return int(told), int(told)
    edge: Any = told.get("shortest_edge", 0)
    return int(told.get("height", edge)), int(told.get("width", edge))


def _told(names: Sequence[str]) -> str:
    return ", ".join(names)
