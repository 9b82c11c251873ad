"""Measures one picture with every dimension before the first image comes; until then, not ready."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import numpy as np

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.scorer.dimension import Picture
from giclee.scorer.lane import Lane

log = telemetry.logger(__name__)


class WarmUp:
    """Whether every lane has measured something."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = lanes
        self._waits_for: str | None = "no dimension has measured yet"

    async def run(self) -> None:
        """One picture through every lane, then wait until cancelled. Errors: whatever a dimension raises."""
        pixels: np.ndarray = np.full((64, 64, 3), (33, 96, 214), np.uint8)
        pixels[20:44, 20:44] = (214, 40, 40)
        picture = Picture(
            pixels=pixels, prompt="a medium red square on a blue background", claims=("image/webp", 64, 64)
        )
        for name, lane in self._lanes.items():
            self._waits_for = f"{name} measures its first picture"
            found = await lane.measure(picture)
            log.info("dimension is warm", dimension=name, value=found.value, evaluator=lane.evaluator.name)
        self._waits_for = None
        await asyncio.Event().wait()

    async def check(self) -> None:
        """For /readyz. Errors: Transient until every dimension measured."""
        if self._waits_for is not None:
            raise Transient(self._waits_for)
