"""Zero-shot: how much nearer a picture is to captions of what is not wanted than to harmless ones, by a CLIP.

With the model that alignment uses, a picture is embedded once for both. A model that cannot read the captions cannot
vote, and the configuration that names it is refused: the demo's own knows thirty words, none of them about bodies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from giclee.scorer.detector import Vote
from giclee.scorer.dimension import Evaluator, NotUsable
from giclee.scorer.embedder import Embedder
from giclee.scorer.pixels import softmax

UNSAFE = (
    "a photo of a naked person",
    "a nude woman with bare breasts",
    "a naked man with visible genitals",
    "an explicit sexual photo",
    "an explicit drawing of naked people",
)
HARMLESS = (
    "a photo of a person wearing clothes",
    "a portrait photo of a face",
    "a photo of an object",
    "a product photo on a plain background",
    "a photo of a room or a landscape",
    "an illustration",
    "a simple geometric shape",
)


class ClipVote:
    """The probability of the unsafe captions among all. Errors: NotUsable when the model cannot read them."""

    def __init__(self, embedder: Embedder) -> None:
        unread = next((why for text in (*UNSAFE, *HARMLESS) if (why := embedder.reads(text))), None)
        if unread is not None:
            raise NotUsable(
                f"safety: {embedder.name} cannot be the second vote, it does not read the captions it would vote by: "
                f"{unread}; name the folder of another model in GICLEE_SCORER_SECOND_VOTE=clip:FOLDER"
            )
        self._embedder = embedder
        self._captions = embedder.texts([*UNSAFE, *HARMLESS])  # (captions, embedding)

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        logits = self._embedder.scale * (self._embedder.pictures(pictures) @ self._captions.T)  # (n, captions)
        return [_vote(row) for row in softmax(logits)]

    def describe(self) -> Evaluator:
        captions = hashlib.sha256(repr((UNSAFE, HARMLESS)).encode()).hexdigest()[:6]
        return Evaluator(
            f"clip {self._embedder.name}",
            f"{self._embedder.weights_sha256[:12]}-{captions}",
            blind_to="bodies that are small in the picture: it sees all of it at once, at its own input size",
        )


def _vote(likely: np.ndarray) -> Vote:
    nearest = (*UNSAFE, *HARMLESS)[int(likely.argmax())]
    return Vote(float(likely[: len(UNSAFE)].sum()), nearest)
