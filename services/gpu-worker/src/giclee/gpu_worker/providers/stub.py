"""Paints what the prompt asks with the shapes world's own renderer: for tests and for a line without models.

What tests need (failures, wrong pictures, waiting) comes through the constructor, never from a setting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from giclee.gpu_worker import adjusting, picture
from giclee.gpu_worker.picture import Pixels
from giclee.gpu_worker.provider import Answer, Ask, Capabilities, Closed, Description, Made
from giclee.models import world
from giclee.schemas.models import Model
from giclee.schemas.reproduction import Reproduction

CAPABILITIES = Capabilities(
    seed=True,
    negative_prompt=False,
    steps=False,
    guidance=False,
    reference_image=False,
    data_terms="Nothing leaves the process.",
)

TAKES = frozenset({"prompt", "seed", "width", "height"})


class Stub:
    """A provider that is always right, except as told.

    `instead(model, ask)` may answer an ask itself; `before(asks)` is awaited before a batch is painted;
    `mistakes` is the share of seeds, from 0 to 1, that get another shape than asked.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        *,
        instead: Callable[[Model, Ask], Answer | None] | None = None,
        before: Callable[[Sequence[Ask]], Awaitable[None]] | None = None,
        mistakes: float = 0.0,
    ) -> None:
        self.instead, self.before, self.mistakes = instead, before, mistakes
        self.batches: list[tuple[str, int, int]] = []
        """(model, asks, padded) of every batch, for tests of batching."""
        self._closed = False

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        self._check_open()
        self.batches.append((model.name, len(asks), padded))
        if self.before is not None:
            await self.before(asks)
        return await asyncio.to_thread(lambda: [self._answer(model, ask) for ask in asks])

    async def describe(self, model: Model) -> Description:
        self._check_open()
        return Description(weights_sha256=None, where="painted, not generated", resident=True)

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        """Errors: Closed."""
        if self._closed:
            raise Closed("the stub is closed")

    def _answer(self, model: Model, ask: Ask) -> Answer:
        found = self.instead(model, ask) if self.instead is not None else None
        if found is not None:
            return found
        began = time.perf_counter()
        adjustments = adjusting.left_out(model, ask, TAKES, "the stub reads none")
        if ask.strict and adjustments:
            return adjusting.refused(adjustments)
        body = picture.encode(paint(ask, self.mistakes))
        return Made(
            body=body,
            content_type=picture.CONTENT_TYPE,
            width=ask.shape.width,
            height=ask.shape.height,
            seconds=time.perf_counter() - began,
            adjustments=tuple(adjustments),
            reproducibility="exact",
            reproduction=Reproduction(backend="painted", seed=ask.seed, note="the same on every machine"),
        )


def paint(ask: Ask, mistakes: float = 0.0) -> Pixels:
    """(height, width, 3): what is asked, its open attributes drawn by the seed; for other prompts a gradient."""
    asked = world.parse(ask.prompt)
    chance = np.random.default_rng([ask.seed, 9])
    if not any(asked):
        return _gradient(ask, chance)
    drawn = world.scene_of(ask.seed % world.VALIDATION_SEED_FIRST)
    scene = world.Scene(*(said or open_ for said, open_ in zip(asked, drawn, strict=True)))
    if scene.colour == scene.background:
        free = [word for word in world.COLOURS if word != scene.colour]
        scene = scene._replace(**{"colour" if asked.colour is None else "background": str(chance.choice(free))})
    if chance.random() < mistakes:
        scene = scene._replace(shape=str(chance.choice([word for word in world.SHAPES if word != scene.shape])))
    side = max(ask.shape.width, ask.shape.height)
    square = world.render(scene, ask.seed, side)
    top, left = (side - ask.shape.height) // 2, (side - ask.shape.width) // 2
    cut: Pixels = np.ascontiguousarray(square[top : top + ask.shape.height, left : left + ask.shape.width])
    return cut


def _gradient(ask: Ask, chance: np.random.Generator) -> Pixels:
    first, last = chance.integers(20, 120, 3), chance.integers(130, 236, 3)
    ramp = np.linspace(0, 1, ask.shape.width)[None, :, None]
    row = np.rint(first + ramp * (last - first)).astype(np.uint8)  # (1, width, 3)
    whole: Pixels = np.repeat(row, ask.shape.height, axis=0)
    return whole
