"""TABLE: the dimensions by name. A row imports its library when it is built.

To add one: a file here and a row below; its scores appear in ImageScored at once and decide nothing until
gate.py has a threshold for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from giclee.scorer.dimension import Dimension


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to dimensions."""

    clip_dir: Path
    threads: int = 1
    stock: tuple[str, ...] = ()
    """Fingerprints of frames that providers send instead of a picture."""


def _format(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.format import Format  # noqa: PLC0415 - as its neighbours

    return Format()


def _content(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.content import Content  # noqa: PLC0415 - as its neighbours

    return Content(kit.stock)


def _sharpness(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.sharpness import Sharpness  # noqa: PLC0415 - as its neighbours

    return Sharpness()


def _exposure(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.exposure import Exposure  # noqa: PLC0415 - as its neighbours

    return Exposure()


def _compression(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.compression import Compression  # noqa: PLC0415 - as its neighbours

    return Compression()


def _alignment(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.alignment import Alignment  # noqa: PLC0415 - as its embedder
    from giclee.scorer.embed import Clip  # noqa: PLC0415 - torch is heavy

    return Alignment(Clip(kit.clip_dir, threads=kit.threads))


def _safety(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.safety import NudeNet, Safety  # noqa: PLC0415 - as its neighbours

    return Safety(NudeNet(threads=kit.threads))


TABLE: dict[str, Callable[[Kit], Dimension]] = {
    "format": _format,
    "content": _content,
    "sharpness": _sharpness,
    "exposure": _exposure,
    "compression": _compression,
    "alignment": _alignment,
    "safety": _safety,
}
