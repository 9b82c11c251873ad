"""Alignment: the weakest asked attribute counts, and what the model cannot read never passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from giclee.models import world
from giclee.schemas.prompts import PromptSlot
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.dimensions.alignment import Alignment
from giclee.scorer.gate import Gate
from giclee.scorer.questions import QUESTIONS_MAX

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


def of_template(prompt: str, **slots: tuple[str, tuple[str, ...]]) -> Picture:
    """A picture of the world's ASKED with the slots of its prompt, each with its value and alternatives."""
    placed = tuple(
        PromptSlot(name=name, at=prompt.index(value), value=value, alternatives=others)
        for name, (value, others) in slots.items()
    )
    return Picture(pixels=shows(ASKED), prompt=prompt, slots=placed)


SLOTS = {
    "size": ("small", ("medium", "large")),
    "colour": ("red", ("green", "blue", "orange")),
    "shape": ("circle", ("square", "ring")),
    "background": ("blue", ("red", "black")),
}


def test_slots_are_judged_against_their_alternatives_as_free_prompts_of_the_world_are() -> None:
    """Every attribute right passes; one that the picture shows otherwise fails, and its slot is named."""
    right, wrong = of_template(PROMPT, **SLOTS), of_template(PROMPT.replace("circle", "ring"), **{
        **SLOTS, "shape": ("ring", ("square", "circle"))
    })  # fmt: skip
    passed, failed = Alignment(Ideal()).measure([right, wrong])
    assert verdict(passed) == "pass" and passed.certain
    assert verdict(failed) == "fail" and (failed.reason or "").startswith("shape: 0.")


def test_a_slot_that_is_not_where_it_should_be_is_a_doubt() -> None:
    """The prompt that was drawn is not the one that was assembled."""
    picture = of_template(PROMPT, **SLOTS)
    moved = Picture(pixels=picture.pixels, prompt=f"the {PROMPT}", slots=picture.slots)
    (found,) = Alignment(Ideal()).measure([moved])
    assert (found.value, verdict(found)) == (None, "unsure")
    assert "slot size is not 'small' at character 2" in (found.reason or "")


class Limited(Ideal):
    """Reads every word, and ten of them at once; sees in a picture only what its first pixel row marks."""

    def reads(self, text: str) -> str | None:
        return None if len(text.split()) <= 10 else f"it reads 10 words, the text has {len(text.split())}"

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        found: np.ndarray = np.stack([self._unit(np.ones(len(PLACES)) * ("nothing" not in text)) for text in texts])
        return found


def test_a_prompt_longer_than_the_model_reads_is_judged_part_by_part() -> None:
    """Thirty words in short clauses are judged in full; one clause that is too long makes it a doubt, and is named."""
    short = ", ".join(f"a thing number {at} of many" for at in range(6))
    long = f"{short}, {' '.join(['very'] * 11)} large"
    pixels: np.ndarray = np.zeros((64, 64, 3), np.uint8)
    readable, cut = Alignment(Limited()).measure([Picture(pixels=pixels, prompt=one) for one in (short, long)])
    assert readable.certain and readable.value is not None
    assert not cut.certain and 'detail "very very' in (cut.reason or "")


def test_a_prompt_that_asks_more_than_is_judged_is_a_doubt() -> None:
    """However well the first of them fit."""
    prompt = ", ".join(f"thing {at}" for at in range(QUESTIONS_MAX + 1))
    (found,) = Alignment(Limited()).measure([Picture(pixels=shows(ASKED), prompt=prompt)])
    assert not found.certain and f"asks {QUESTIONS_MAX + 1} things" in (found.reason or "")


class Blind(Ideal):
    """An embedder that breaks on one word."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        found = super().texts(texts)
        found[["ring" in text for text in texts]] = np.nan
        return found


def test_one_answer_that_is_not_a_number_is_not_hidden_by_the_others() -> None:
    """The captions of one attribute are broken: no value of the others stands in."""
    (found,) = Alignment(Blind()).measure([Picture(pixels=shows(ASKED), prompt=PROMPT)])
    assert verdict(found) == "unsure" and found.value != found.value
