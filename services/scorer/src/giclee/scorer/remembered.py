"""What a model found of a picture, kept for as long as the picture lives: several dimensions ask of one."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

import numpy as np

Found = TypeVar("Found")


class Remembered(Generic[Found]):
    """By the array itself. Not thread-safe: whoever runs the model takes turns anyway."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[weakref.ref[np.ndarray], Found]] = {}

    def __len__(self) -> int:
        """Pictures that are remembered now."""
        return len(self._seen)

    def of(self, pixels: np.ndarray) -> Found | None:
        """What was found of this very array."""
        known = self._seen.get(id(pixels))
        return None if known is None else known[1]

    def keep(self, pixels: np.ndarray, found: Found) -> None:
        """Until the array goes, unless it could be written to. What the decoder gives cannot."""
        if not pixels.flags.writeable and id(pixels) not in self._seen:
            key, seen = id(pixels), self._seen
            seen[key] = (weakref.ref(pixels, lambda _: seen.pop(key, None) and None), found)
