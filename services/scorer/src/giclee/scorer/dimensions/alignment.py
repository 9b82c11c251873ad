"""Does it show what was asked: every asked attribute against its alternatives; the weakest counts.

For prompts of the shapes world the prompt is compared with the same prompt in each alternative of one
attribute; the softmax over them is the attribute's probability. Other prompts are taken apart into clauses,
each against what it is not. A prompt that the model cannot read in full is uncertain, and never passes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from giclee.models import world
from giclee.scorer.dimension import Evaluator, Measured, Picture

CONTRASTS = ("something else", "a blank image", "random noise")
"""What a clause is compared with where its alternatives are not known."""
CLAUSES_MAX = 8


class Embedder(Protocol):
    """Pictures and texts as rows of length 1, and how far apart they are told."""

    name: str
    scale: float
    weights_sha256: str

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray: ...
    def texts(self, texts: Sequence[str]) -> np.ndarray: ...
    def reads(self, text: str) -> str | None: ...


class Alignment:
    """Over one embedding model."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        seen = self._embedder.pictures([picture.pixels for picture in pictures])  # (n, embedding)
        return [self._one(row, picture.prompt) for row, picture in zip(seen, pictures, strict=True)]

    def describe(self) -> Evaluator:
        return Evaluator(f"open_clip {self._embedder.name}", self._embedder.weights_sha256[:12])

    def _one(self, seen: np.ndarray, prompt: str) -> Measured:
        unread = self._embedder.reads(prompt)
        asked = world.alternatives_of(prompt)
        questions = asked or {clause: [clause, *CONTRASTS] for clause in clauses(prompt)}
        if not questions:
            return Measured(None, reason="the prompt asks for nothing that can be compared")
        likely = {name: self._first(seen, captions) for name, captions in questions.items()}
        name, value = min(likely.items(), key=lambda pair: pair[1])
        reason = f"the model cannot judge this prompt: {unread}" if unread else f"{name}: {value:.2f}"
        return Measured(value, certain=unread is None, reason=reason[:200])

    def _first(self, seen: np.ndarray, captions: Sequence[str]) -> float:
        """The probability of the first caption among all."""
        logits = self._embedder.scale * (self._embedder.texts(captions) @ seen)  # (captions,)
        likely = np.exp(logits - logits.max())
        return float(likely[0] / likely.sum())


def clauses(prompt: str) -> list[str]:
    """The parts of a prompt between commas, stops and line ends, the first few of them."""
    parts = [part.strip() for part in re.split(r"[,.;:\n]+", prompt)]
    return [part for part in parts if re.search(r"\w", part)][:CLAUSES_MAX]
