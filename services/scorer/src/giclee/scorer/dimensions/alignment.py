"""Does it show what was asked: every question the prompt asks, apart, and the weakest answer counts.

A question's captions are compared with the picture; the softmax over them is the probability of the asked one. A
question that the model cannot read, and a prompt that asks too many, make the measurement uncertain: it never passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.embedder import Embedder
from giclee.scorer.pixels import softmax
from giclee.scorer.questions import QUESTIONS_MAX, Misplaced, Question, questions_of

METHOD_VERSION = 2
"""Counts up whenever a prompt is taken apart in another way."""
Known = Mapping[str, np.ndarray]
"""Captions as the model sees them, (embedding,) each."""


class Alignment:
    """Over one embedding model."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        seen = self._embedder.pictures([picture.pixels for picture in pictures])  # (n, embedding)
        asked = [_asked(picture) for picture in pictures]
        captions = list(dict.fromkeys(_captions(asked)))  # of all pictures: to encode many texts takes little longer
        known = dict(zip(captions, self._embedder.texts(captions), strict=True)) if captions else {}
        return [self._one(row, questions, known) for row, questions in zip(seen, asked, strict=True)]

    def describe(self) -> Evaluator:
        return Evaluator(
            f"open_clip {self._embedder.name}",
            f"{self._embedder.weights_sha256[:12]}-{METHOD_VERSION}",
            blind_to="what the model has no words for; numbers over a few; which of two things an attribute belongs to",
        )

    def _one(self, seen: np.ndarray, questions: Sequence[Question] | Misplaced, known: Known) -> Measured:
        if isinstance(questions, Misplaced):
            return Measured(None, certain=False, reason=str(questions)[:200])
        if not questions:
            return Measured(None, reason="the prompt asks for nothing that can be compared")
        asked = questions[:QUESTIONS_MAX]
        values = [self._first(seen, np.stack([known[caption] for caption in one.captions])) for one in asked]
        value, weakest = min(zip(values, asked, strict=True), key=lambda pair: _nan_first(pair[0]))
        unread = self._unread(questions)
        return Measured(value, certain=unread is None, reason=(unread or f"{weakest.name}: {value:.2f}")[:200])

    def _unread(self, questions: Sequence[Question]) -> str | None:
        """Why the answers are not all there is to say about the prompt."""
        if len(questions) > QUESTIONS_MAX:
            return f"the prompt asks {len(questions)} things, {QUESTIONS_MAX} are judged"
        for question in questions:
            for caption in question.captions:
                if why := self._embedder.reads(caption):
                    return f"the model cannot judge {question.name}: {why}"
        return None

    def _first(self, seen: np.ndarray, captions: np.ndarray) -> float:
        """The probability of the first caption among all, (captions, embedding)."""
        return float(softmax(self._embedder.scale * (captions @ seen))[0])


def _asked(picture: Picture) -> Sequence[Question] | Misplaced:
    """Everything its prompt asks, or why that cannot be said."""
    try:
        return questions_of(picture.prompt, picture.slots)
    except Misplaced as error:
        return error


def _captions(asked: Sequence[Sequence[Question] | Misplaced]) -> Iterator[str]:
    for questions in asked:
        if not isinstance(questions, Misplaced):
            yield from (caption for one in questions[:QUESTIONS_MAX] for caption in one.captions)


def _nan_first(value: float) -> float:
    """An answer that is not a number is the weakest of all."""
    return value if value == value else float("-inf")
