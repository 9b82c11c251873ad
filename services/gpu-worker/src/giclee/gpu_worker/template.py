"""What a hosted model is sent: JSON with placeholders, from the model's own file or from its provider's defaults.

A text that is nothing but a placeholder becomes the value with its type; within a longer text it becomes its digits or
words. What is filled in is never looked at again, so a prompt cannot name a placeholder. Which placeholders a template
has is what its model takes: every other thing that was asked for is told as an adjustment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giclee.gpu_worker import adjusting
from giclee.gpu_worker.attempt import Attempt
from giclee.gpu_worker.provider import Ask, ModelUnusable
from giclee.schemas.models import Model

SUFFIX = ".json"
FILE_MAX_BYTES = 1024 * 1024
_HOLE = re.compile(r"\{(prompt|negative_prompt|seed|width|height|size|steps|guidance_scale)\}")


@dataclass(frozen=True, slots=True)
class Template:
    """JSON with placeholders, and the names of those it has."""

    told: Any
    takes: frozenset[str]

    def filled(self, ask: Ask, **instead: Any) -> Any:
        """The JSON for an ask; `instead` replaces values. What has no value is left out of its object."""
        shape = ask.shape
        values = {
            "prompt": ask.prompt,
            "negative_prompt": ask.negative_prompt if shape.negative else None,
            "seed": ask.seed,
            "width": shape.width,
            "height": shape.height,
            "size": f"{shape.width}x{shape.height}",
            "steps": shape.steps,
            "guidance_scale": shape.guidance_scale,
        }
        return _filled(self.told, {**values, **instead})


def of(told: Any) -> Template:
    """A template and what it takes."""
    return Template(told, frozenset(_HOLE.findall(json.dumps(told))))


def in_file(model: Model) -> Any:
    """The JSON in the file that a row's location names; None where it names no file.

    Errors: ModelUnusable for a file that is missing or is no JSON object.
    """
    if not model.location.endswith(SUFFIX):
        return None
    path = Path(model.location)
    try:
        with path.open("rb") as opened:
            told = json.loads(opened.read(FILE_MAX_BYTES + 1))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnusable(f"model {model.name}: {path} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(told, dict):
        raise ModelUnusable(f"model {model.name}: {path} holds no JSON object")
    return told


def tell_dropped(attempt: Attempt, takes: frozenset[str], who: str) -> None:
    """Tell as adjustments what was asked and has no place among what `who` takes."""
    attempt.adjustments += adjusting.left_out(attempt.model, attempt.ask, takes, f"{who} takes none")
    attempt.seed = attempt.ask.seed if "seed" in takes else None


def _filled(told: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(told, dict):
        filled = {name: _filled(one, values) for name, one in told.items()}
        return {name: one for name, one in filled.items() if one is not None or told[name] is None}
    if isinstance(told, list):
        return [_filled(one, values) for one in told]
    if not isinstance(told, str):
        return told
    whole = _HOLE.fullmatch(told)
    if whole:
        return values[whole[1]]
    return _HOLE.sub(lambda hole: "" if values[hole[1]] is None else str(values[hole[1]]), told)
