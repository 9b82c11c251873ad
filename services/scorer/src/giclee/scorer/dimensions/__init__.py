"""TABLE: the dimensions by name. A row with a model imports its library when it is built.

To add one: a file here and a row below; its scores appear in ImageScored at once and decide nothing until
gate.py has a threshold for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from giclee.scorer.dimension import Dimension
from giclee.scorer.dimensions.compression import Compression
from giclee.scorer.dimensions.content import Content
from giclee.scorer.dimensions.exposure import Exposure
from giclee.scorer.dimensions.format import Format
from giclee.scorer.dimensions.sharpness import Sharpness


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to dimensions."""

    clip_dir: Path
    threads: int = 1
    stock: tuple[str, ...] = ()
    """Fingerprints of frames that providers send instead of a picture."""


def _alignment(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.alignment import Alignment  # noqa: PLC0415 - as its embedder
    from giclee.scorer.embed import Clip  # noqa: PLC0415 - torch is heavy

    return Alignment(Clip(kit.clip_dir, threads=kit.threads))


def _safety(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.safety import NudeNet, Safety  # noqa: PLC0415 - as its neighbours

    return Safety(NudeNet(threads=kit.threads))


TABLE: dict[str, Callable[[Kit], Dimension]] = {
    "format": lambda kit: Format(),
    "content": lambda kit: Content(kit.stock),
    "sharpness": lambda kit: Sharpness(),
    "exposure": lambda kit: Exposure(),
    "compression": lambda kit: Compression(),
    "alignment": _alignment,
    "safety": _safety,
}
