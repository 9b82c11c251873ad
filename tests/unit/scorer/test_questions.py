"""What a prompt asks: subject, attributes and background apart, slots against their alternatives."""

from __future__ import annotations

import random

import pytest

from giclee.models import world
from giclee.schemas.prompts import PromptSlot
from giclee.scorer.questions import CONTRASTS, Misplaced, Question, clauses, questions_of


def named(questions: list[Question]) -> dict[str, tuple[str, ...]]:
    return {question.name: question.captions for question in questions}


def test_subject_attribute_and_background_are_asked_apart() -> None:
    """Each against what it is not, and known words against their alternatives."""
    found = named(questions_of("a red teapot made of glass on a wooden table, soft light"))
    assert [name for name, captions in found.items() if captions[1:] == CONTRASTS] == [
        'subject "a red teapot"',
        'attribute "made of glass"',
        'background "on a wooden table"',
        'detail "soft light"',
    ]
    assert found['colour "red" of "a red teapot"'][:3] == ("a red teapot", "a green teapot", "a blue teapot")
    assert "on a metal table" in found['material "wooden" of "on a wooden table"']
    assert len(found) == 7


def test_a_word_that_the_world_knows_does_not_hide_the_rest() -> None:
    """A red car is asked as a car; only prompts in the words of the world alone are asked as scenes."""
    assert 'subject "a red car"' in named(questions_of("a red car on the road"))
    for seed in range(40):
        prompt = world.prompt_of(seed)
        assert named(questions_of(prompt)) == {
            name: tuple(captions) for name, captions in world.alternatives_of(prompt).items()
        }


def test_two_colours_of_one_thing_are_not_each_others_alternatives() -> None:
    """Stripes in red and white are not compared with stripes in white and white."""
    found = named(questions_of("stripes red and white"))
    assert all("white" in one for one in found['colour "red" of "stripes red and white"'])
    assert "stripes white and white" not in found['colour "red" of "stripes red and white"']


def slots_of(prompt: str, *slots: tuple[str, str, tuple[str, ...]]) -> list[PromptSlot]:
    return [PromptSlot(name=name, at=prompt.index(value), value=value, alternatives=alternatives)
            for name, value, alternatives in slots]  # fmt: skip


def test_a_slot_is_asked_in_its_clause_and_free_text_by_its_clauses() -> None:
    """Only the value changes; the clauses around it are not repeated, whatever commas the caller's text has."""
    prompt = "catalogue photograph of a lamp, brass, front view, on a seamless white background, soft shadow"
    slots = slots_of(
        prompt,
        ("product", "a lamp, brass", ()),
        ("angle", "front", ("side", "top")),
        ("background", "white", ("black",)),
    )
    found = named(questions_of(prompt, slots))
    assert found["angle"] == ("front view", "side view", "top view")
    assert found["background"] == ("on a seamless white background", "on a seamless black background")
    assert found['product: subject "a lamp"'][0] == "a lamp" and found['product: detail "brass"'][0] == "brass"
    assert len(found) == 4


def test_slots_of_the_world_ask_what_its_free_prompts_ask() -> None:
    """The mechanism for templates gives the captions that the demo's judge was trained with."""
    for seed in range(40):
        scene = world.scene_of(seed)
        prompt, at, slots = world.phrase(scene), 0, []
        for name in ("size", "colour", "shape", "background"):
            value = getattr(scene, name)
            at = prompt.index(value, at)
            others = tuple(one for one in world.ALTERNATIVES[name] if one != value)
            slots.append(PromptSlot(name=name, at=at, value=value, alternatives=others))
        asked = {name: set(captions) for name, captions in world.alternatives_of(prompt).items()}
        found = questions_of(prompt, slots)
        assert {one.name: set(one.captions) for one in found} == asked
        assert all(one.captions[0] == prompt for one in found)


def test_a_slot_of_another_prompt_is_said() -> None:
    """A value that does not stand at its place."""
    prompt = "a red circle"
    with pytest.raises(Misplaced, match="slot colour"):
        questions_of("the red circle", slots_of(prompt, ("colour", "red", ("blue",))))


def test_every_clause_is_asked_whatever_the_text() -> None:
    """Over texts drawn at random: nothing raises, every part of every clause is the first caption of a question."""
    draw = random.Random(3)
    words = [
        "a",
        "red",
        "two",
        "on",
        "in",
        "with",
        "teapot",
        ",",
        ".",
        ";",
        "made of",
        "\n",
        "wearing",
        "glass",
        "café",
        "7",
    ]
    for _ in range(500):
        prompt = " ".join(draw.choices(words, k=draw.randint(0, 30)))
        questions = questions_of(prompt)
        told = " ".join(one.captions[0] for one in questions)
        assert all(word in told for clause in clauses(prompt) for word in clause.split())
        assert all(len(set(one.captions)) == len(one.captions) >= 2 for one in questions)


def test_clauses_end_at_commas_stops_and_lines() -> None:
    """Without empty ones."""
    assert clauses("a cat, reading; the news.\nat dawn") == ["a cat", "reading", "the news", "at dawn"]
    assert clauses(" , ; ...") == []
