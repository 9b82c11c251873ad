"""TABLE: the dimensions of every image by name; BY_ASSET_TYPE: those of some asset types, with what each demands.

A row with a model imports its library when it is built. To add one: a file here and a row below; its scores appear in
ImageScored at once and decide nothing until gate.py has a threshold for it. An operator's own: evaluators.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from giclee.scorer.dimension import Dimension, Evaluator, Measured, Picture
from giclee.scorer.dimensions.background import Background, Evenness
from giclee.scorer.dimensions.compression import Compression
from giclee.scorer.dimensions.content import Content
from giclee.scorer.dimensions.exposure import Exposure
from giclee.scorer.dimensions.faces import Casting, Faces
from giclee.scorer.dimensions.format import Format
from giclee.scorer.dimensions.safe_zone import SafeZone, Zone, Zones
from giclee.scorer.dimensions.sharpness import Sharpness
from giclee.scorer.dimensions.subject import Framing, Subject

if TYPE_CHECKING:
    from giclee.scorer.detectors.nudenet import NudeNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to dimensions."""

    clip_dir: Path
    threads: int = 1
    stock: tuple[str, ...] = ()
    """Fingerprints of frames that providers send instead of a picture."""
    second_vote: str = "skin"
    """Who votes on safety beside NudeNet, as `detectors.second` reads it."""


def _alignment(kit: Kit) -> Dimension:
    from giclee.scorer.dimensions.alignment import Alignment  # noqa: PLC0415 - as its embedder
    from giclee.scorer.embed import loaded  # noqa: PLC0415 - torch is heavy

    return Alignment(loaded(kit.clip_dir, kit.threads))


def _safety(kit: Kit) -> Dimension:
    from giclee.scorer.detectors import second  # noqa: PLC0415 - as its neighbours
    from giclee.scorer.dimensions.safety import Safety  # noqa: PLC0415

    return Safety(_detector(kit.threads), second(kit.second_vote, clip_dir=kit.clip_dir, threads=kit.threads))


@cache
def _detector(threads: int) -> NudeNet:
    """One for safety and faces, so that a picture is run through it once."""
    from giclee.scorer.detectors.nudenet import NudeNet  # noqa: PLC0415 - as its neighbours

    return NudeNet(threads=threads)


TABLE: dict[str, Callable[[Kit], Dimension]] = {
    "format": lambda kit: Format(),
    "content": lambda kit: Content(kit.stock),
    "sharpness": lambda kit: Sharpness(),
    "exposure": lambda kit: Exposure(),
    "compression": lambda kit: Compression(),
    "alignment": _alignment,
    "safety": _safety,
}

_SIDES = (Zone(name="left", right=0.3), Zone(name="right", left=0.7))
_ENDS = (Zone(name="top", bottom=0.25), Zone(name="bottom", top=0.75))

BY_ASSET_TYPE: dict[str, Mapping[str, Callable[[Kit], Dimension]]] = {
    # what the template of a tile promises: centred, the whole product, a seamless ground
    "subject": {"product-tile": lambda kit: Subject(Framing())},
    "background": {"product-tile": lambda kit: Background(Evenness())},
    # where these layouts put text; shown only, since a gate must know the layout
    "safe-zone": {
        "email-hero": lambda kit: SafeZone(Zones(zones=_SIDES)),
        "landing-visual": lambda kit: SafeZone(Zones(zones=_SIDES)),
        "paid-social": lambda kit: SafeZone(Zones(zones=_SIDES + _ENDS)),
    },
    # shown only: how many people a scene should have is the request's to say
    "faces": {
        "lifestyle-scene": lambda kit: Faces(_detector(kit.threads), Casting()),
        "paid-social": lambda kit: Faces(_detector(kit.threads), Casting()),
    },
}


WITH_A_MODEL = frozenset({"alignment", "safety", "faces"})
"""Those that run one; all others are arithmetic over pixels."""


class ByAssetType:
    """One name, measured as each asset type demands; others are not measured."""

    def __init__(self, name: str, dimensions: Mapping[str, Dimension]) -> None:
        self._name, self._dimensions = name, dimensions

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [self._one(picture) for picture in pictures]

    def describe(self) -> Evaluator:
        told = {asset_type: one.describe() for asset_type, one in sorted(self._dimensions.items())}
        versions = "\n".join(f"{asset_type} {one.version}" for asset_type, one in told.items())
        first = next(iter(told.values()))
        version = f"{first.version.partition('-')[0]}-{hashlib.sha256(versions.encode()).hexdigest()[:8]}"
        return Evaluator(first.name, version, unit=first.unit, blind_to=first.blind_to)

    def _one(self, picture: Picture) -> Measured:
        dimension = self._dimensions.get(picture.asset_type)
        if dimension is None:
            return Measured(None, reason=f"{self._name} is not measured for {picture.asset_type}")
        return dimension.measure([picture])[0]
