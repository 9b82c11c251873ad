"""What is made differently from what was asked: one rule for all providers.

An adjustment is about something that somebody asked for (`Ask.asked`): a size, steps or a seed that nobody named is the
model's or ours to choose. A strict ask allows none, so a provider that would adjust it is refused before it works.
"""

from __future__ import annotations

from collections.abc import Iterable

from giclee.gpu_worker.provider import Ask, NotMade
from giclee.schemas.events import Cleared
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment

CODE = "param_unsupported"


def asked_of(request: Cleared) -> frozenset[str]:
    """What a request asks for, of `provider.FIELDS`."""
    named = {
        "prompt": True,
        "negative_prompt": bool(request.negative_prompt),
        "seed": request.seed_asked,
        "size": request.size is not None,
        "steps": request.params.steps is not None,
        "guidance_scale": request.params.guidance_scale is not None,
    }
    return frozenset(name for name, asked in named.items() if asked)


def left_out(model: Model, ask: Ask, takes: frozenset[str], why: str) -> list[Adjustment]:
    """What was asked and has no place among what a model `takes` (names as in a hosted model's placeholders).

    A size that cannot be told may come all the same, which only the image shows; a strict ask does not wait for it.
    """
    shape = ask.shape
    sized = "size" in takes or takes >= {"width", "height"}
    negative = "negative_prompt" in takes and shape.negative
    rows = (
        ("seed", "seed" not in takes, str(ask.seed)),
        ("negative_prompt", bool(ask.negative_prompt) and not negative, "given"),
        # what equals the row's own is what is used anyway
        ("steps", "steps" not in takes and shape.steps != model.steps, str(shape.steps)),
        (
            "guidance_scale",
            "guidance_scale" not in takes and shape.guidance_scale != model.guidance_scale,
            f"{shape.guidance_scale:g}",
        ),
        ("size", ask.strict and not sized, f"{shape.width}x{shape.height}"),
    )
    return [
        Adjustment(field=name, asked=asked, used="left out", reason=why)
        for name, dropped, asked in rows
        if dropped and name in ask.asked
    ]


def refused(adjustments: Iterable[Adjustment]) -> NotMade:
    """The answer to a strict ask that would be, or was, made with these adjustments."""
    return NotMade(outcome="invalid", message=message_of(adjustments), code=CODE)


def message_of(adjustments: Iterable[Adjustment]) -> str:
    """Which fields would be changed, and how."""
    told = "; ".join(f"{one.field} ({one.asked} asked, {one.used}: {one.reason})" for one in adjustments)
    return f"strict forbids to change {told}"
