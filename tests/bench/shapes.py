"""Pictures that the demo models really drew, what the scorer measures of each, and what the pixel oracle sees.

Drawn and measured once: pictures and values are kept in a folder, by model, judge and seeds, so that a run that was
stopped goes on and another figure of the same pictures costs nothing. Runs in `.venv-gpu`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from giclee.models import oracle, revisions, world
from giclee.models.sampling import SAMPLING
from giclee.scorer.dimension import Dimension, Picture
from giclee.scorer.dimensions import TABLE, Kit

CHECKOUT = Path(__file__).parents[2]
BATCH = 100
NOISES_MAX = 1000
"""Noise seeds of one prompt: its own seed times this, and so many after it."""
PRICES_USD = {"shapes-draft": 0.0001, "shapes-final": 0.0004}
"""Of one image, as in the router's table."""


class Judged(NamedTuple):
    """One picture: the seed of its prompt, what every dimension measured, whether the oracle finds it right."""

    seed: int
    model: str
    values: dict[str, float]
    right: bool


@dataclass(frozen=True)
class Studio:
    """Draws with one of the demo models and measures with the scorer's own dimensions.

    `half`: the networks compute in bfloat16, three times as fast, with the same share of right pictures; the worker
    computes in float32. `safety`: NudeNet too, a tenth of a second a picture.
    """

    models: Path = CHECKOUT / "models"
    kept: Path = CHECKOUT / ".giclee/bench"
    half: bool = False
    safety: bool = False
    threads: int = 1
    _loaded: dict[str, object] = field(default_factory=dict)

    @cached_property
    def dimensions(self) -> dict[str, Dimension]:
        """The scorer's, by name."""
        kit = Kit(clip_dir=self.models / "shapes-clip", threads=self.threads)
        return {name: build(kit) for name, build in TABLE.items() if self.safety or name != "safety"}

    def revision(self, folder: str) -> str:
        """The beginning of a folder's revision, which changes with any of its files."""
        return str(json.loads((self.models / folder / "manifest.json").read_text())["revision"])[:8]

    def judged(self, model: str, seeds: Sequence[int], candidates: int = 1) -> list[Judged]:
        """`candidates` pictures of each prompt, in order."""
        found: list[Judged] = []
        prompts = max(1, BATCH // candidates)
        for first in range(0, len(seeds), prompts):
            found += self._part(model, seeds[first : first + prompts], candidates)
        return found

    def _part(self, model: str, seeds: Sequence[int], candidates: int) -> list[Judged]:
        made = "-half" if self.half else ""
        name = f"{model}-{self.revision(model)}-{seeds[0]}-{len(seeds)}x{candidates}{made}"
        file = self.kept / f"{name}-{self.revision('shapes-clip')}{'-safety' if self.safety else ''}.json"
        if file.exists():
            return [Judged(*row) for row in json.loads(file.read_text())]
        rows = self._measured(model, seeds, candidates, self._pictures(name, model, seeds, candidates))
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(rows))
        partial.replace(file)
        return rows

    def _pictures(self, name: str, model: str, seeds: Sequence[int], candidates: int) -> np.ndarray:
        """(seeds x candidates, 64, 64, 3) uint8, drawn or as they were kept."""
        file = self.kept / f"{name}.npy"
        if not file.exists():
            self.kept.mkdir(parents=True, exist_ok=True)
            partial = self.kept / f"{name}.partial.npy"
            np.save(partial, self._drawn(model, seeds, candidates))
            partial.replace(file)
        kept: np.ndarray = np.load(file)
        return kept

    def _drawn(self, model: str, seeds: Sequence[int], candidates: int) -> np.ndarray:
        torch.set_num_threads(self.threads)
        torch.set_flush_denormal(True)
        if model not in self._loaded:
            self._loaded[model] = revisions.load(self.models / model)
        asked = [(seed, seed * NOISES_MAX + number) for seed in seeds for number in range(candidates)]
        parts = []
        for first in range(0, len(asked), BATCH):
            part = asked[first : first + BATCH]
            prompts, noises = [world.prompt_of(seed) for seed, _ in part], [noise for _, noise in part]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                parts.append(revisions.generate(self._loaded[model], prompts, noises, SAMPLING[model]))
        pictures: np.ndarray = np.concatenate(parts)
        return pictures

    def _measured(self, model: str, seeds: Sequence[int], candidates: int, pixels: np.ndarray) -> list[Judged]:
        of = [seed for seed in seeds for _ in range(candidates)]
        claims = ("image/webp", world.WIDTH_PX, world.WIDTH_PX)
        pictures = [
            Picture(pixels=one, prompt=world.prompt_of(seed), claims=claims)
            for one, seed in zip(pixels, of, strict=True)
        ]
        columns = {name: dimension.measure(pictures) for name, dimension in self.dimensions.items()}
        return [
            Judged(
                seed, model, {name: _number(column[at].value) for name, column in columns.items()},
                oracle.is_right(pixels[at], world.scene_of(seed)),
            )
            for at, seed in enumerate(of)
        ]  # fmt: skip


def _number(value: float | None) -> float:
    return -1.0 if value is None else float(value)


def label_lines(studio: Studio, judged: Sequence[Judged]) -> Iterator[str]:
    """As `giclee scorer calibrate --labels` reads them."""
    for number, one in enumerate(judged):
        label = {"id": f"{one.model}-{one.seed}-{number}", "right": one.right, "scores": one.values}
        model = f"{one.model}@{studio.revision(one.model)}"
        yield json.dumps({**label, "model": model, "long_side_px": world.WIDTH_PX})
