"""TABLE: the providers by the name that rows of models carry. A row imports its library when it is built.

To add one: a file here, a row below, and its price (the row of its model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import SecretStr

from giclee.gpu_worker.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to providers. `keys` and `base_urls` by the provider's name, `deadline_s` for one paid call as
    a whole, `allow_private` for services in our own network."""

    device: str = "auto"
    threads: int = 1
    resident_max: int = 2
    download: bool = False
    keys: Mapping[str, SecretStr] = field(default_factory=dict)
    base_urls: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float = 120.0
    allow_private: bool = False


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
