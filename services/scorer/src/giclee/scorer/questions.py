"""What a prompt asks, taken apart: one question per subject, attribute, background and template slot. Pure.

A question is a few captions of which the first is asked and the others are what could be there instead. Long prompts
are never one number: models read 77 tokens, and a long text is near to everything. Who asks is `dimensions/alignment`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from giclee.models import world
from giclee.schemas.prompts import PromptSlot

CONTRASTS = ("something else", "a blank image", "random noise")
"""What a clause is compared with where its alternatives are not known."""
QUESTIONS_MAX = 24
"""More are not asked, and then the prompt is not judged in full."""

_ENDS = re.compile(r"[,.;:\n]+")
_PLACES = re.compile(
    r"\b(?=(?:on|in|at|against|under|inside|behind|beside|near|in front of|over|with|wearing|holding|made of)\s+\w)",
    re.I,
)
_ATTRIBUTES = ("with", "wearing", "holding", "made of")
"""These say more of the subject; the other words of _PLACES say where it is."""
GROUPS: dict[str, tuple[str, ...]] = {
    "colour": ("red", "green", "blue", "yellow", "purple", "orange", "pink", "brown", "grey", "white", "black"),
    "count": ("one", "two", "three", "four", "five", "six"),
    "material": ("wooden", "metal", "glass", "plastic", "leather", "ceramic", "paper", "stone"),
}
"""Words whose alternatives are known wherever they stand: a red teapot is compared with teapots of other colours."""
_WORLD_WORDS = frozenset(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", " ", " ".join(world.PHRASINGS)))) | frozenset(
    ["a", "an", "something", *(word for words in world.ALTERNATIVES.values() for word in words)]
)


class Misplaced(ValueError):
    """A slot does not stand where its event says: the prompt is not the one that was assembled."""


@dataclass(frozen=True, slots=True)
class Question:
    """What it is about, and captions, the asked one first."""

    name: str
    captions: tuple[str, ...]


def questions_of(prompt: str, slots: Sequence[PromptSlot] = ()) -> list[Question]:
    """Everything a prompt asks; of a template its slots, else what its clauses say. Errors: Misplaced."""
    if slots:
        found = [question for slot in slots for question in _of_slot(prompt, slot, slots)]
    elif set(re.findall(r"\w+", prompt.lower())) <= _WORLD_WORDS and (known := world.alternatives_of(prompt)):
        found = [Question(name, tuple(captions)) for name, captions in known.items()]
    else:
        found = [question for at, clause in enumerate(clauses(prompt)) for question in _of_clause(clause, at == 0)]
    return list(dict.fromkeys(found))


def clauses(prompt: str) -> list[str]:
    """The parts of a prompt between commas, stops and line ends."""
    parts = [part.strip() for part in _ENDS.split(prompt)]
    return [part for part in parts if re.search(r"\w", part)]


def _of_slot(prompt: str, slot: PromptSlot, slots: Sequence[PromptSlot]) -> Iterator[Question]:
    """Its clause with the value against the same clause with each alternative; of free text, what its clauses say."""
    end = slot.at + len(slot.value)
    if prompt[slot.at : end] != slot.value:
        raise Misplaced(f"slot {slot.name} is not {slot.value!r} at character {slot.at}")
    # a value that another slot has would show up in the picture anyway: a blue circle on blue
    taken = {other.value for other in slots}
    others = [value for value in slot.alternatives if value not in taken]
    if not others:
        for at, clause in enumerate(clauses(slot.value)):
            for question in _of_clause(clause, at == 0):
                yield Question(f"{slot.name}: {question.name}", question.captions)
        return
    before = list(_ENDS.finditer(prompt, 0, slot.at))
    start = before[-1].end() if before else 0
    after = _ENDS.search(prompt, end)
    tail = prompt[end : after.start() if after else len(prompt)]
    captions = [f"{prompt[start : slot.at]}{value}{tail}".strip() for value in (slot.value, *others)]
    yield Question(slot.name, tuple(captions))


def _of_clause(clause: str, first: bool) -> Iterator[Question]:
    """The thing itself, what is said of it, and where it is, each apart; known words against their alternatives."""
    for at, part in enumerate(one.strip() for one in _PLACES.split(clause)):
        if not part:
            continue
        placed = _PLACES.match(part)
        told = part.lower().startswith(_ATTRIBUTES)
        role = (
            "attribute" if placed and told else "background" if placed else "subject" if first and at == 0 else "detail"
        )
        yield Question(f'{role} "{part}"', (part, *CONTRASTS))
        yield from _of_words(part)


def _of_words(part: str) -> Iterator[Question]:
    words = set(re.findall(r"\w+", part.lower()))
    for name, group in GROUPS.items():
        for word in group:
            if word in words:
                others = [other for other in group if other not in words]
                swapped = (re.sub(rf"\b{word}\b", other, part, flags=re.I) for other in others)
                yield Question(f'{name} "{word}" of "{part}"', (part, *swapped))
