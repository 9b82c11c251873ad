"""What G9 measures, in one process: images beside random company against the same made alone, and what padding costs.

`python -m tests.bench.same TRIALS ROUNDS IMAGES` prints a JSON line for the trials, then one a round: images per second
and CPU milliseconds an image through the batcher, padded and unpadded, all of one shape and of two.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from giclee.gpu_worker.batch import Batcher
from giclee.gpu_worker.provider import Answer, Ask, Made, Provider, Shape
from giclee.gpu_worker.providers.diffusion import Diffusion
from giclee.models import world
from giclee.schemas import models
from giclee.schemas.models import Model
from tests.bench.measure import Wrong

ROWS = models.builtin(Path(__file__).parents[2] / "models")
SIZES = (1, 2, 4)
"""What batches are padded to, up to the demo models' `batch_max`."""
OTHERS = 50
"""Trials that are made at another padded size too."""
OUTSTANDING = 16
"""Asks that wait at any time: a worker's default number of candidates at once."""
MIXED = 0.2
"""Share of asks with a negative prompt, where there are two shapes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An ask at a place among others of its shape, computed at a padded size."""

    model: Model
    padded: int
    asks: tuple[Ask, ...]
    place: int


def trials(count: int, seed: int = 9) -> Iterator[Trial]:
    """Any model, padded size, number of others, place, prompts, negative prompts, guidance and seeds."""
    chance = random.Random(seed)
    for _ in range(count):
        model, padded = chance.choice(ROWS), chance.choice(SIZES)
        shape = _shape(model, guidance=chance.choice((1.0, 2.0, 4.0)), negative=chance.random() < 0.5)
        asks = tuple(_ask(chance, shape) for _ in range(chance.randint(1, padded)))
        yield Trial(model, padded, asks, chance.randrange(len(asks)))


def _shape(model: Model, *, guidance: float, negative: bool) -> Shape:
    size = {"width": model.width, "height": model.height, "steps": model.steps}
    return Shape(model=model.name, **size, guidance_scale=guidance, negative=negative)


def _ask(chance: random.Random, shape: Shape) -> Ask:
    return Ask(
        shape=shape,
        prompt=_text(chance),
        negative_prompt=_text(chance) if shape.negative else None,
        seed=chance.randrange(2**32),
    )


def _text(chance: random.Random) -> str:
    """A prompt of the shapes world; now and then a word, or more than the encoder reads."""
    known = world.prompt_of(chance.randrange(1_000_000))
    return chance.choice((known, known, known, chance.choice(known.split()), " ".join([known] * 5)))


async def single(provider: Provider, trial: Trial, padded: int | None = None) -> Made:
    """The trial's ask, made alone."""
    return _made((await provider.make(trial.model, [trial.asks[trial.place]], padded or trial.padded))[0])


async def is_same(provider: Provider, trial: Trial, alone: Made) -> bool:
    """Whether the trial's ask gets, beside the others, the very pixels that it got alone."""
    together = _made((await provider.make(trial.model, trial.asks, trial.padded))[trial.place])
    return bool(np.array_equal(_pixels(alone), _pixels(together)))


def _made(answer: Answer) -> Made:
    if not isinstance(answer, Made):
        raise Wrong(answer.message)
    return answer


def _pixels(made: Made) -> np.ndarray:
    pixels: np.ndarray = np.asarray(Image.open(io.BytesIO(made.body)))
    return pixels


async def tried(provider: Provider, count: int) -> dict[str, int]:
    """How many trials were the same, and how many of the first are at another padded size.

    Errors: Wrong where seeds and prompts make no difference, since then sameness says nothing.
    """
    found = {"trials": 0, "same": 0, "others": 0, "same_at_others": 0}
    seen: set[bytes] = set()
    for trial in trials(count):
        alone = await single(provider, trial)
        seen.add(alone.body)
        found["trials"] += 1
        found["same"] += await is_same(provider, trial, alone)
        if found["others"] < OTHERS:
            other = SIZES[SIZES.index(trial.padded) - 1]
            found["others"] += 1
            found["same_at_others"] += (await single(provider, trial, other)).body == alone.body
    if len(seen) < count * 0.95:
        raise Wrong(f"only {len(seen)} of {count} pictures differ")
    return found


# ---- what padding costs -------------------------------------------------------------------------


class Unpadded:
    """The same provider, whatever the batcher pads to."""

    def __init__(self, inner: Provider) -> None:
        self._inner, self.capabilities = inner, inner.capabilities
        self.describe, self.close = inner.describe, inner.close

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        return await self._inner.make(model, asks, len(asks))


async def saturated(provider: Provider, images: int, *, mixed: float, seed: int) -> list[float]:
    """Images per second, and CPU milliseconds an image, while OUTSTANDING asks wait at the batcher, `mixed` of them of
    another shape."""
    chance, model = random.Random(seed), next(row for row in ROWS if row.name == "shapes-final")
    shapes = [_shape(model, guidance=2.0, negative=negative) for negative in (False, True)]
    asks = iter([_ask(chance, shapes[chance.random() < mixed]) for _ in range(images)])
    batcher = Batcher({model.provider: provider})
    running = asyncio.create_task(batcher.run())

    async def candidate() -> None:
        for ask in asks:
            _made(await batcher.make(model, ask))

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await asyncio.gather(*(candidate() for _ in range(OUTSTANDING)))
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    running.cancel()
    return [images / took_s, cpu_s / images * 1000]


async def round_of(provider: Provider, images: int, number: int) -> dict[str, Any]:
    """Ours and the unpadded side on the same asks, who begins taking turns."""
    found: dict[str, Any] = {}
    for name, mixed in (("one", 0.0), ("two", MIXED)):
        sides = [("ours", provider), ("bare", Unpadded(provider))]
        for side, one in sides[:: -1 if number % 2 else 1]:
            found[f"{name}_{side}"] = await saturated(one, images, mixed=mixed, seed=number)
    return found


async def main(count: int, rounds: int, images: int) -> None:
    """Print the trials, then each round."""
    provider = Diffusion("cpu", threads=1)
    print(json.dumps(await tried(provider, count)), flush=True)
    await round_of(provider, OUTSTANDING, 0)  # warm
    for number in range(rounds):
        print(json.dumps(await round_of(provider, images, number)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in sys.argv[1:])))
