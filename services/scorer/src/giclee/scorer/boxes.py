"""Boxes that a detector finds: a face, and many boxes about one thing made one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

SAME = 0.4
"""Boxes that share more of their union than that are about one thing."""


class Face(NamedTuple):
    """One detection: its score and its box, in shares of the picture's sides from the upper left corner."""

    score: float
    left: float
    top: float
    right: float
    bottom: float


def distinct(found: Iterable[Face]) -> list[Face]:
    """The best box of each thing, the best first."""
    kept: list[Face] = []
    for face in sorted(found, reverse=True):
        if all(overlap(face, other) <= SAME for other in kept):
            kept.append(face)
    return kept


def overlap(one: Face, other: Face) -> float:
    """Shared area over the area of both together, 0 to 1."""
    wide = min(one.right, other.right) - max(one.left, other.left)
    high = min(one.bottom, other.bottom) - max(one.top, other.top)
    if wide <= 0 or high <= 0:
        return 0.0
    shared = wide * high
    return shared / (_area(one) + _area(other) - shared)


def _area(face: Face) -> float:
    return (face.right - face.left) * (face.bottom - face.top)
