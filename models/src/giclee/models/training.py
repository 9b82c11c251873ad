"""What every training loop here shares: a checkpoint to go on from, training seeds, the learning rate, progress.

A run that is stopped loses at most CHECKPOINT_STEPS steps and continues to the same result on the same machine.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from giclee.models import world

CHECKPOINT_STEPS = 100
WARM_UP_PART = 0.06


def settle(seed: int) -> None:
    """Make torch repeatable and quick on small CPUs: denormals in young networks cost up to ten times the time."""
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """One cycle: linear to the peak in the first WARM_UP_PART, then a cosine to a hundredth of it."""
    done = (step + 1) / steps
    if done < WARM_UP_PART:
        return peak * done / WARM_UP_PART
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP_PART) / (1 - WARM_UP_PART))))


class Run:
    """One part's training: its folder, its seed and its checkpoint."""

    def __init__(self, folder: Path, name: str, seed: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.seed = folder, name, seed
        self.checkpoint = folder / f"{name}.checkpoint.pt"
        self.started_s = time.monotonic()

    def seeds(self, step: int, batch: int) -> range:
        """Render seeds of one step, all of them training seeds."""
        first = (self.seed * 7919 + step * batch) % (world.VALIDATION_SEED_FIRST - batch)
        return range(first, first + batch)

    def steps(self, steps: int, **parts: Any) -> Iterator[int]:
        """The steps still to do. Loads the checkpoint into `parts` first, and saves them every CHECKPOINT_STEPS."""
        first = self._load(parts)
        for step in range(first, steps):
            # Each step has its own random numbers, so that a resumed run draws what an unbroken one would.
            torch.manual_seed(self.seed * 1_000_003 + step)
            yield step
            if step % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1 or step == steps - 1:
                self._save(step + 1, parts)

    def report(self, step: int, every: int, **figures: float) -> None:
        """Print the figures of every so many steps."""
        if step % every == every - 1:
            self.say(step, **figures)

    def say(self, step: int, **figures: float) -> None:
        """Print figures with the step and the seconds since the start."""
        told = "  ".join(f"{name} {figure:.4f}" for name, figure in figures.items())
        print(f"{self.name} {step + 1:>6}  {time.monotonic() - self.started_s:7.0f} s  {told}", flush=True)

    def _save(self, done: int, parts: dict[str, Any]) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        torch.save({"done": done, **{name: part.state_dict() for name, part in parts.items()}}, partial)
        partial.replace(self.checkpoint)

    def _load(self, parts: dict[str, Any]) -> int:
        if not self.checkpoint.exists():
            return 0
        saved = torch.load(self.checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return int(saved["done"])
