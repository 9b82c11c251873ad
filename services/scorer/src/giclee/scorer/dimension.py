"""One number about an image: the Protocol that dimensions fulfil. Entries live in `dimensions/`.

A dimension measures; what a value means is the gate's. What it cannot measure it says: a value of None, or
`certain=False`. What it raises counts as not measured. None of these ever passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import BaseModel

from giclee.schemas.prompts import PromptSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded image: (height, width, 3) uint8 sRGB, what it was asked to show, and what its file claimed."""

    pixels: np.ndarray
    prompt: str
    asset_type: str = "generic"
    format: str = "WEBP"
    claims: tuple[str, int, int] = ("image/webp", 0, 0)
    """Content type, width and height of the blob reference."""
    slots: tuple[PromptSlot, ...] = ()
    """What stands where in a prompt that was made of a template."""

    @property
    def long_side_px(self) -> int:
        return int(max(self.pixels.shape[:2]))


@dataclass(frozen=True, slots=True)
class Measured:
    """A value, higher is better; `certain` False when the dimension cannot really tell; why, in a few words.

    Where several judges disagree `value` is the lowest and `highest` the highest of what they say: the picture passes
    by the one and fails by the other. `version` is who measured, where that is known only with the answer; else the
    evaluator's own counts.
    """

    value: float | None
    certain: bool = True
    reason: str | None = None
    highest: float | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Who measures: a name, and a version that changes whenever the same picture could get another value.

    `unit` is the value's unit or range; `blind_to` says in words what this evaluator does not see.
    """

    name: str
    version: str
    unit: str = "0 to 1"
    blind_to: str = ""


def versioned(version: str, parameters: BaseModel) -> str:
    """A version with the hash of what an evaluator was told: other parameters give other values."""
    return f"{version}-{hashlib.sha256(parameters.model_dump_json().encode()).hexdigest()[:8]}"


class Dimension(Protocol):
    """Measures pictures, several at once where that is cheaper. Runs in a thread of its own."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        """One answer per picture, in order."""
        ...

    def describe(self) -> Evaluator: ...


class NotUsable(Exception):
    """A model that a dimension needs cannot be used; the message says which file and why."""
