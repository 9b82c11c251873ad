"""Makes an image again from its own event, and says whether that kept what the event's grade promises.

`python -m giclee.gpu_worker.remake EVENT IMAGE [--models DIR] [--config FILE] [--device cpu]`: EVENT is an
ImageApproved or ImageGenerated as JSON (`giclee assets show ID --json`), IMAGE its bytes (`giclee assets get ID`).
Prints JSON. Exit code 0: as promised, 1: not, 2: it cannot be made again here. Nothing is sent to a hosted provider.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import ValidationError

from giclee.gpu_worker import picture, providers
from giclee.gpu_worker.picture import Pixels
from giclee.gpu_worker.provider import Ask, Made, ModelUnusable, Provider, Shape
from giclee.schemas import models
from giclee.schemas.events import ImageApproved, ImageGenerated
from giclee.schemas.models import OWN_PROVIDERS, Model
from giclee.schemas.reproduction import Reproduction
from giclee.schemas.strict import InvalidInput

ALIKE_BITS = 16
"""Of the 768 of `picture.fingerprint`. Over 40 prompts half precision moved at most 10; another seed at least 21
where the model draws nearly the same picture for every seed, and 76 where it does not."""

Recorded = ImageApproved | ImageGenerated


@dataclass(frozen=True, slots=True)
class Again:
    """What came of it. `bits` of 768 differ; `differently`: what was not here as it was there."""

    grade: str
    kept: bool
    identical: bool
    bits: int
    differently: tuple[str, ...]


def event_of(text: str) -> Recorded:
    """The event in a JSON text. Errors: ModelUnusable where it is none, or says too little."""
    try:
        told = json.loads(text)
        kind: type[Recorded] = ImageApproved if isinstance(told, dict) and "asset_id" in told else ImageGenerated
        found = kind.model_validate(told)
    except (ValueError, ValidationError) as error:
        raise ModelUnusable(f"no ImageApproved or ImageGenerated: {error}") from error
    if found.reproduction is None or found.reproduction.seed is None or found.prompt is None:
        raise ModelUnusable(
            f"its grade is {found.reproducibility}: prompt, seed or the way it was made are not recorded"
        )
    return found


def row_of(event: Recorded, rows: Mapping[str, Model]) -> Model:
    """The row of the model that made it. Errors: ModelUnusable."""
    model = rows.get(event.model.name)
    if model is None or model.revision != event.model.revision:
        raise ModelUnusable(f"there is no model {event.model.name} of revision {event.model.revision} here")
    if model.provider not in OWN_PROVIDERS:
        raise ModelUnusable(f"{model.provider} would have to be paid for it; only models of our own are asked again")
    return model


async def made_again(event: Recorded, model: Model, provider: Provider) -> Made:
    """The image as the event says it was made: alone, but in a batch of the same padded size.

    Errors: ModelUnusable for other weights, and where there is no image this time.
    """
    weights = (await provider.describe(model)).weights_sha256
    if weights != event.model.weights_sha256:
        raise ModelUnusable(f"the weights of {model.name} are {weights}, not {event.model.weights_sha256}")
    how = event.reproduction or Reproduction(backend="unknown")
    (answer,) = await provider.make(model, [_ask(event, model, how)], how.batch or 1)
    if not isinstance(answer, Made):
        raise ModelUnusable(f"no image this time: {answer.message}")
    return answer


def _ask(event: Recorded, model: Model, how: Reproduction) -> Ask:
    shape = Shape(
        model=model.name,
        width=event.image.width,
        height=event.image.height,
        steps=event.params.steps or model.steps,
        guidance_scale=model.guidance_scale if event.params.guidance_scale is None else event.params.guidance_scale,
        negative=bool(event.negative_prompt) and model.takes_negative_prompt,
    )
    seed = event.seed if how.seed is None else how.seed
    return Ask(shape=shape, prompt=event.prompt or "", negative_prompt=event.negative_prompt, seed=seed)


def compared(event: Recorded, first: bytes, made: Made) -> Again:
    """The image of then beside the image of now."""
    one, other = _pixels(first), _pixels(made.body)
    identical = np.array_equal(one, other)
    bits = int((picture.fingerprint(one) ^ picture.fingerprint(other)).sum())
    grade = event.reproducibility or "none"
    kept = {"exact": identical, "perceptual": bits <= ALIKE_BITS}.get(grade, True)
    return Again(grade, kept, identical, bits, _differently(event.reproduction, made.reproduction))


def _differently(then: Reproduction | None, now: Reproduction | None) -> tuple[str, ...]:
    if then is None or now is None:
        return ()
    before, after = then.model_dump(exclude={"note"}), now.model_dump(exclude={"note"})
    return tuple(f"{name}: {before[name]} then, {after[name]} now" for name in before if before[name] != after[name])


def _pixels(body: bytes) -> Pixels:
    with Image.open(io.BytesIO(body)) as opened:
        pixels: Pixels = np.asarray(opened.convert("RGB"))
    return pixels


def main(words: Sequence[str]) -> int:
    """Make it again, print what came of it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m giclee.gpu_worker.remake", description=__doc__)
    parser.add_argument("event", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder of the demo models")
    parser.add_argument("--config", help="the operator's file, where the model is one of its rows")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(words)
    try:
        event = event_of(asked.event.read_text())
        model = row_of(event, models.load(asked.config, models.builtin(asked.models))[0])
        threads = (event.reproduction and event.reproduction.threads) or 1
        provider = providers.TABLE[model.provider](providers.Kit(device=asked.device, threads=threads))
        again = compared(event, asked.image.read_bytes(), asyncio.run(made_again(event, model, provider)))
    except (OSError, ModelUnusable, InvalidInput) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(asdict(again), indent=2) + "\n")
    return 0 if again.kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
