"""The models this worker can make images with: rows of the models table, their files checked before use.

A folder with a manifest.json must hold exactly what it says, byte for byte, under the revision that the
row pins. A folder without one is hashed and taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giclee.gpu_worker.provider import ModelUnusable, NotMade, Shape
from giclee.schemas.models import Model
from giclee.schemas.parts import Hop

MANIFEST = "manifest.json"
WEIGHTS = ".safetensors"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Shelf:
    """Rows by name."""

    models: Mapping[str, Model]

    def find(self, hop: Hop) -> Model | NotMade:
        """The row that a hop names, or why it cannot be used here; a missing model may be there tomorrow."""
        model = self.models.get(hop.model.name)
        if model is None or model.provider != hop.provider:
            message = f"this worker has no model {hop.model.name} of provider {hop.provider}"
            return NotMade(outcome="transient", message=message, code="provider_transient")
        if model.revision != hop.model.revision:
            message = f"{model.name} is {model.revision} here, {hop.model.revision} was asked for"
            return NotMade(outcome="transient", message=message, code="provider_transient")
        return _refusal(model, hop) or model


def _refusal(model: Model, hop: Hop) -> NotMade | None:
    """What the model cannot do of a hop, by name; the router should not have sent it."""
    size = (hop.width, hop.height)
    fits = all(model.size_min <= side <= model.size_max and side % model.size_multiple == 0 for side in size)
    if not fits:
        limits = f"{model.size_min} to {model.size_max} px, multiples of {model.size_multiple}"
        message = f"{model.name} makes {limits}, not {hop.width}x{hop.height}"
        return NotMade(outcome="invalid", message=message, code="size_unsupported")
    steps = hop.params.steps or model.steps
    if steps > model.steps_max:
        message = f"{model.name} takes at most {model.steps_max} steps, not {steps}"
        return NotMade(outcome="invalid", message=message, code="param_unsupported")
    if hop.params.guidance_scale is not None and not model.takes_guidance:
        return NotMade(outcome="invalid", message=f"{model.name} takes no guidance_scale", code="param_unsupported")
    return None


def shape_of(model: Model, hop: Hop, *, negative: bool) -> Shape:
    """The batch shape of a hop; what the caller left open is the model's own."""
    guidance = hop.params.guidance_scale
    return Shape(
        model=model.name,
        width=hop.width,
        height=hop.height,
        steps=hop.params.steps or model.steps,
        guidance_scale=model.guidance_scale if guidance is None else guidance,
        negative=negative and model.takes_negative_prompt,
    )


# ---- what lies in a folder ----------------------------------------------------------------------


def verified(model: Model, folder: Path) -> str:
    """SHA-256 over the weights of a model's folder, its manifest checked where it has one.

    Errors: ModelUnusable naming every file that is missing, added or not what it was.
    """
    hashes = {name: _sha256(folder / name) for name in _files(folder)}
    if (folder / MANIFEST).exists():
        wrong = _differences(model, folder, hashes)
        if wrong:
            raise ModelUnusable(f"model {model.name} in {folder} cannot be used: {'; '.join(wrong)}")
    weights = {name: digest for name, digest in hashes.items() if name.endswith(WEIGHTS)}
    if not weights:
        raise ModelUnusable(f"model {model.name} in {folder} has no {WEIGHTS} file; other formats are not loaded")
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(weights.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _differences(model: Model, folder: Path, hashes: Mapping[str, str]) -> list[str]:
    try:
        told: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        expected: dict[str, str] = dict(told["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST} cannot be read: {type(error).__name__}: {error}"]
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - hashes.keys())]
    wrong += [f"{name} is not in {MANIFEST}" for name in sorted(hashes.keys() - expected.keys())]
    for name in sorted(expected.keys() & hashes.keys()):
        if expected[name] != hashes[name]:
            wrong.append(f"{name} has sha256 {hashes[name]}, {MANIFEST} says {expected[name]}")
    if told.get("revision") != model.revision:
        wrong.append(f"{MANIFEST} says revision {told.get('revision')}, {model.revision} is pinned")
    return wrong


def _files(folder: Path) -> list[str]:
    found: Iterable[Path] = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
