"""Alignment: the weakest asked attribute counts, and what the model cannot read never passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from giclee.models import world
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.dimensions.alignment import Alignment, clauses
from giclee.scorer.gate import Gate

PLACES = {
    (name, word): at for at, (name, word) in enumerate((n, w) for n, ws in world.ALTERNATIVES.items() for w in ws)
}


class Ideal:
    """An embedder that sees exactly the attributes that a picture's first pixel row marks; reads the world's words."""

    name, scale, weights_sha256 = "ideal", 20.0, "f" * 64
    known = frozenset({word for _, word in PLACES} | {"a", "an", "on", "background", "picture", "of", "in", "with"})

    def pictures(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        found: np.ndarray = np.stack([self._unit(one[0, : len(PLACES), 0]) for one in pixels])
        return found

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self.pictures([shows(world.parse(text)) for text in texts])

    def reads(self, text: str) -> str | None:
        strange = [word for word in text.replace(",", " ").lower().split() if word not in self.known]
        return f"it does not know {strange[0]}" if strange else None

    def _unit(self, marks: np.ndarray) -> np.ndarray:
        found: np.ndarray = marks.astype(float) + 1e-3
        found /= np.linalg.norm(found)
        return found


def shows(scene: world.Scene) -> np.ndarray:
    """A picture that marks every attribute of a scene."""
    pixels: np.ndarray = np.zeros((64, 64, 3), np.uint8)
    for name, word in scene._asdict().items():
        if word is not None:
            pixels[0, PLACES[name, word], 0] = 1
    return pixels


def measured(pixels: np.ndarray, prompt: str) -> Measured:
    return Alignment(Ideal()).measure([Picture(pixels=pixels, prompt=prompt)])[0]


def verdict(found: Measured) -> str:
    return Gate().scores({"alignment": found}, {}, asset_type="generic", long_side_px=64)["alignment"].verdict


PROMPT = "a small red circle on a blue background"
ASKED = world.Scene("small", "red", "circle", "blue")


def test_a_picture_of_everything_asked_passes() -> None:
    """All four attributes."""
    assert verdict(measured(shows(ASKED), PROMPT)) == "pass"


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ("size", "large"),
        ("colour", "green"),
        ("shape", "square"),
        ("background", "orange"),
    ],
)
def test_one_wrong_attribute_is_enough_and_is_named(wrong: str, shown: str) -> None:
    """The weakest counts: the three right ones do not make up for it."""
    found = measured(shows(ASKED._replace(**{wrong: shown})), PROMPT)
    assert verdict(found) == "fail"
    assert (found.reason or "").startswith(wrong)


@pytest.mark.parametrize(
    "prompt",
    [
        "a small red circle on a blue background wearing a hat",
        "a photograph of a cat",
        "purple prose",
        "un cercle rouge",
    ],
)
def test_a_prompt_that_the_model_cannot_read_in_full_never_passes(prompt: str) -> None:
    """However well the rest fits: it cannot judge the hat."""
    found = measured(shows(ASKED), prompt)
    assert not found.certain and verdict(found) == "unsure"


@pytest.mark.parametrize("prompt", ["", "...", " , ; "])
def test_a_prompt_that_asks_nothing_is_not_measured(prompt: str) -> None:
    """None, hence unsure."""
    found = measured(shows(ASKED), prompt)
    assert found.value is None and verdict(found) == "unsure"


def test_a_batch_is_answered_in_order() -> None:
    """Each picture against its own prompt."""
    right = Picture(pixels=shows(ASKED), prompt=PROMPT)
    wrong = Picture(pixels=shows(ASKED._replace(shape="ring")), prompt=PROMPT)
    assert [verdict(one) for one in Alignment(Ideal()).measure([right, wrong, right])] == ["pass", "fail", "pass"]


def test_other_prompts_are_compared_clause_by_clause() -> None:
    """At most eight, without empty ones."""
    assert clauses("a cat, reading; the news.\nat dawn") == ["a cat", "reading", "the news", "at dawn"]
    assert len(clauses(",".join("abcdefghijkl"))) == 8
