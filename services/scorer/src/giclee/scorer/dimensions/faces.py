"""Faces: how many, how large, whole or at the edge. By a detector behind a Protocol.

The value is the weakest of three shares, each under 0.5 beyond its bound; the reason says what was seen. Asked for no
faces in particular, all that matters is that none is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field, model_validator

from giclee.schemas.parts import StrictPart
from giclee.scorer.boxes import Face
from giclee.scorer.dimension import Evaluator, Measured, Picture, versioned
from giclee.scorer.pixels import share, trouble

SCORE_MIN, SCORE_SURE = 0.25, 0.45
"""From the first on it may be a face, from the second on it is one: one portrait at nine sizes in pictures of 128 to
2,048 px scored 0.45 to 0.85 down to 1/12 of the picture, in grey 0.56; the worst of 112 pictures of the shapes world
0.11."""


class FaceDetector(Protocol):
    """Finds faces in a picture."""

    def faces(self, pixels: np.ndarray, score_min: float) -> Sequence[Face]:
        """Every face of at least that score, once, of (height, width, 3) uint8 RGB."""
        ...

    def describe(self) -> Evaluator: ...


class Casting(StrictPart):
    """`count_min`, `count_max`: faces. `height_min`, `height_max`: of the largest, in shares of the picture's height.
    `margin`: that every face keeps from the picture's edges, in shares of its sides."""

    count_min: Annotated[int, Field(ge=0, le=100)] = 0
    count_max: Annotated[int, Field(ge=0, le=100)] = 100
    height_min: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    height_max: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0
    margin: Annotated[float, Field(gt=0, lt=0.5, strict=False)] = 0.01

    @model_validator(mode="after")
    def _are_in_order(self) -> Casting:
        if self.count_min > self.count_max or self.height_min > self.height_max:
            raise ValueError("count_min is at most count_max, and height_min at most height_max")
        return self


class Faces:
    """By one casting."""

    def __init__(self, detector: FaceDetector, casting: Casting) -> None:
        self._detector, self._casting = detector, casting

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture) for picture in pictures]

    def describe(self) -> Evaluator:
        by = self._detector.describe()
        return Evaluator(
            f"faces by {by.name}",
            f"1-{versioned(by.version, self._casting)}",
            unit="0 to 1, 0.5 at the casting's bounds",
            blind_to="faces under 12 px, under 1/12 of a picture (1/30 of one over 512 px), any in one of 64 px; from "
            "behind, masked, drawn; whose face it is, whether it is well made",
        )

    def _one(self, picture: Picture) -> Measured:
        if why := trouble(picture.pixels):
            return Measured(None, reason=why)
        seen = self._detector.faces(picture.pixels, SCORE_MIN)
        sure = [face for face in seen if face.score >= SCORE_SURE]
        doubted = len(seen) - len(sure)
        largest = max(sure, key=lambda face: face.bottom - face.top, default=None)
        said = f"{len(sure)} face{'' if len(sure) == 1 else 's'}"
        said += "" if largest is None else f", {_place(largest)}"
        said += f"; perhaps {doubted} more" if doubted else ""
        return Measured(self._value(sure, largest), certain=not doubted, reason=said)

    def _value(self, faces: Sequence[Face], largest: Face | None) -> float:
        casting, count = self._casting, len(faces)
        parts = [1.0]
        if count < casting.count_min:
            parts.append(count / casting.count_min / 2)
        if count > casting.count_max:
            parts.append((casting.count_max + 0.5) / (count + 0.5) / 2)
        if largest is not None:
            height = largest.bottom - largest.top
            parts += [height / casting.height_min / 2] if casting.height_min else []
            parts += [(1 - height) / (1 - casting.height_max) / 2] if casting.height_max < 1 else []
        edges = [min(face.left, face.top, 1 - face.right, 1 - face.bottom) for face in faces]
        return share(min([*parts, *(edge / casting.margin / 2 for edge in edges)]))


def _place(face: Face) -> str:
    x, y = (face.left + face.right) / 2, (face.top + face.bottom) / 2
    return f"the largest {face.bottom - face.top:.2f} of the height at {x:.2f}, {y:.2f}"
