"""TABLE of versioned prompt templates with named slots, and the assembly of a prompt from one.

A user's value is data: it is checked against its slot and put between pieces of text that were cut when the
module was loaded. Nothing a user sends is ever read as a format, so braces and percent signs mean themselves.
A template that was published is never edited: a change is a new version beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from giclee.schemas.parts import Reason, TemplateUse
from giclee.schemas.prompts import PromptSlot
from giclee.schemas.strict import pointer

STAGE = "policy"
_SLOT = re.compile(r"\{([a-z_]+)\}")
_SPACES = re.compile(r"\s+")
SLOTS_MAX = 16
ALTERNATIVES_MAX = 32
"""What travels of a template: 16 slots with 32 other values each are more than any template here has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """What a template takes at one place: one of `allowed`, else text of at most `chars_max`, else a number.

    A slot with a `default` may be left out.
    """

    allowed: tuple[str, ...] = ()
    chars_max: int = 120
    number: tuple[float, float] | None = None
    default: str | None = None

    def trouble(self, value: object) -> str | None:
        """Why `value` does not fit, as a sentence's end; None when it does."""
        if self.number is not None:
            return _number_trouble(value, *self.number)
        if not isinstance(value, str):
            return "must be text"
        if self.allowed:
            return None if value in self.allowed else f"must be one of: {', '.join(self.allowed)}"
        if not value.strip():
            return "must not be empty"
        return None if len(value) <= self.chars_max else f"must have at most {self.chars_max} characters"


def _number_trouble(value: object, least: float, most: float) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "must be a number"
    return None if least <= value <= most else f"must be from {least:g} to {most:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A prompt with holes. The words around the slots and the negative prompt are locked."""

    text: str
    slots: Mapping[str, Slot]
    negative_prompt: str | None = None
    pieces: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        # split() with one group alternates: text, slot name, text, ...
        object.__setattr__(self, "pieces", tuple(_SLOT.split(self.text)))
        if set(self.pieces[1::2]) != set(self.slots):
            raise ValueError(f"the slots of {self.text!r} and its table differ")

    def assemble(self, variables: Mapping[str, object]) -> tuple[str, tuple[PromptSlot, ...]]:
        """The prompt with `variables` in place, and where they stand in it; they must have passed `troubles`.

        White space is collapsed on the way, so that the places are those of the finished prompt.
        """
        prompt, slots = "", []
        for at, piece in enumerate(self.pieces):
            is_slot = at % 2 == 1
            text = _SPACES.sub(" ", self._filled(piece, variables) if is_slot else piece)
            text = text.removeprefix(" ") if not prompt or prompt.endswith(" ") else text
            if is_slot and text.strip():
                start = len(prompt) + len(text) - len(text.lstrip())
                slots.append(self._place(piece, start, text.strip()))
            prompt += text
        return prompt.strip(), tuple(slots[:SLOTS_MAX])

    def _place(self, name: str, start: int, value: str) -> PromptSlot:
        others = tuple(one for one in self.slots[name].allowed if one != value)
        return PromptSlot(name=name, at=start, value=value, alternatives=others[:ALTERNATIVES_MAX])

    def _filled(self, name: str, variables: Mapping[str, object]) -> str:
        value = variables.get(name, self.slots[name].default)
        return f"{value:g}" if isinstance(value, float) else str(value)

    def troubles(self, variables: Mapping[str, object]) -> Iterable[tuple[str, str]]:
        """(slot, what is wrong) for every slot that is missing, unknown or filled wrongly."""
        for name, slot in self.slots.items():
            if name in variables:
                if trouble := slot.trouble(variables[name]):
                    yield name, trouble
            elif slot.default is None:
                yield name, "is missing"
        for name in variables:
            if name not in self.slots:
                yield name, f"is not a slot of this template; it has: {', '.join(self.slots)}"


COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "ring", "cross", "diamond")
_LIGHT = ("soft morning", "bright midday", "golden evening", "overcast", "studio")
_CLEAN = "text, watermark, signature, logo, frame, border, blurry, low quality"
_ANATOMY = f"extra fingers, deformed hands, {_CLEAN}"

# fmt: off
TABLE: dict[tuple[str, int], Template] = {
    # what the demo models can draw: every slot closed
    ("shape", 1): Template(
        text="a {size} {colour} {shape} on a {background} background",
        slots={"size": Slot(allowed=("small", "medium", "large"), default="medium"), "colour": Slot(allowed=COLOURS),
               "shape": Slot(allowed=SHAPES), "background": Slot(allowed=COLOURS)}),
    ("generic", 1): Template(
        text="{subject}, {style}",
        slots={"subject": Slot(chars_max=400),
               "style": Slot(allowed=("photograph", "flat illustration", "line drawing", "watercolour", "3d render"),
                             default="photograph")}),
    ("product-tile", 1): Template(
        text="catalogue photograph of {product}, {angle} view, centred, whole product visible, on a seamless "
             "{background} background, even studio light, soft shadow",
        slots={"product": Slot(chars_max=160), "angle": Slot(allowed=("front", "side", "three-quarter", "top"),
                                                             default="front"),
               "background": Slot(allowed=("white", "light grey", "black", "beige", "pastel blue"), default="white")},
        negative_prompt=f"people, hands, props, {_CLEAN}"),
    # version 2 names the material, which version 1 left to chance
    ("product-tile", 2): Template(
        text="catalogue photograph of {product} made of {material}, {angle} view, centred, whole product visible, "
             "on a seamless {background} background, even studio light, soft shadow",
        slots={"product": Slot(chars_max=160), "material": Slot(chars_max=60),
               "angle": Slot(allowed=("front", "side", "three-quarter", "top"), default="front"),
               "background": Slot(allowed=("white", "light grey", "black", "beige", "pastel blue"), default="white")},
        negative_prompt=f"people, hands, props, {_CLEAN}"),
    ("lifestyle-scene", 1): Template(
        text="lifestyle photograph of {product} in {setting}, {light} light, {people} people in the picture, natural "
             "colours, shallow depth of field",
        slots={"product": Slot(chars_max=160), "setting": Slot(chars_max=160),
               "light": Slot(allowed=_LIGHT, default="soft morning"), "people": Slot(number=(0, 6), default="0")},
        negative_prompt=_ANATOMY),
    ("paid-social", 1): Template(
        text="scroll-stopping advertising picture of {product}, {mood} mood, {colour} colour scheme, strong focal "
             "point, empty space at the {space} for a headline",
        slots={"product": Slot(chars_max=160), "mood": Slot(allowed=("energetic", "calm", "playful", "premium")),
               "colour": Slot(allowed=COLOURS), "space": Slot(allowed=("top", "bottom", "left", "right"),
                                                              default="top")},
        negative_prompt=_ANATOMY),
    ("landing-visual", 1): Template(
        text="wide hero picture for a web page about {topic}, showing {subject}, {light} light, calm composition, "
             "subject on the {side}, plain area on the other side",
        slots={"topic": Slot(chars_max=120), "subject": Slot(chars_max=200), "light": Slot(allowed=_LIGHT,
                                                                                       default="studio"),
               "side": Slot(allowed=("left", "right"), default="right")},
        negative_prompt=_ANATOMY),
    ("email-hero", 1): Template(
        text="banner photograph of {product} for {occasion}, {colour} accents, simple composition that reads at "
             "small size, no clutter",
        slots={"product": Slot(chars_max=160), "occasion": Slot(chars_max=80), "colour": Slot(allowed=COLOURS,
                                                                                          default="white")},
        negative_prompt=_ANATOMY),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Assembled:
    """A prompt: what the model reads, what is kept out, and, where it was made of a template, what stands where."""

    prompt: str
    negative_prompt: str | None
    slots: tuple[PromptSlot, ...] = ()


def assemble(use: TemplateUse, negative_prompt: str | None) -> Assembled | tuple[Reason, ...]:
    """The prompt a request asks for by template, or every reason why there is none."""
    template = TABLE.get((use.id, use.version))
    if template is None:
        return (_unknown(use),)
    troubles = tuple(
        Reason(code="template_slot", stage=STAGE, message=f"{name} {what}", pointer=_place(name))
        for name, what in template.troubles(use.variables)
    )
    if troubles:
        return troubles
    negatives = [text for text in (template.negative_prompt, negative_prompt) if text]
    prompt, slots = template.assemble(use.variables)
    return Assembled(prompt, ", ".join(negatives) or None, slots)


def _place(name: str) -> str:
    return pointer(("template", "variables", name))


def _unknown(use: TemplateUse) -> Reason:
    versions = [str(version) for name, version in TABLE if name == use.id]
    if versions:
        where, message = "version", f"template {use.id} has version {', '.join(versions)}, not {use.version}"
    else:
        names = ", ".join(dict.fromkeys(name for name, _ in TABLE))
        where, message = "id", f"there is no template {use.id}; there are: {names}"
    return Reason(code="template_unknown", stage=STAGE, message=message, pointer=pointer(("template", where)))
