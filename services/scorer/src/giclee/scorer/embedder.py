"""Pictures and texts in one space: the Protocol that embed.py fulfils; alignment and a vote by captions ask it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Embedder(Protocol):
    """Pictures and texts as rows of length 1, and how far apart they are told."""

    name: str
    scale: float
    weights_sha256: str

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray: ...
    def texts(self, texts: Sequence[str]) -> np.ndarray: ...
    def reads(self, text: str) -> str | None: ...
