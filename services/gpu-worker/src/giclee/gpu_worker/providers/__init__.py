"""TABLE: the providers by the name that rows of models carry. A row imports its library when it is built.

To add one: a file here, a row below, and its price (the row of its model).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from giclee.gpu_worker.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to providers."""

    device: str = "auto"
    threads: int = 1
    resident_max: int = 2
    download: bool = False


def _diffusion(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.diffusion import Diffusion  # noqa: PLC0415 - its library is heavy

    return Diffusion(kit.device, threads=kit.threads, resident_max=kit.resident_max, download=kit.download)


def _stub(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.stub import Stub  # noqa: PLC0415 - its library is heavy

    return Stub()


TABLE: dict[str, Callable[[Kit], Provider]] = {
    "diffusion": _diffusion,
    "stub": _stub,
}
