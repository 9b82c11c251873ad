"""What stands where in a prompt that was made of a template: policy assembles it, the scorer asks for each part."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from giclee.schemas.parts import LabelKey, Part, ShortText, Text


class PromptSlot(Part):
    """A place in a prompt that was made of a template: what stands there, from which character on, and what else could.

    `alternatives` are the other values that the template allows there; none where it takes any text.
    """

    name: LabelKey
    at: Annotated[int, Field(ge=0, le=4096)]
    value: Annotated[Text, StringConstraints(min_length=1, max_length=1024)]
    alternatives: Annotated[tuple[ShortText, ...], Field(max_length=32)] = ()


PromptSlots = Annotated[tuple[PromptSlot, ...], Field(max_length=16)]
