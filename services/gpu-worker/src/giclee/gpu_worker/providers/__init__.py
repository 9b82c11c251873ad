"""TABLE: the providers by the name that rows of models carry. A row imports its library when it is built.

To add one: a file here, a row below, and its price (the row of its model). A hosted one stands in HOSTED too, and
passes the suites of tests/contract against its part of the lab (CONTRIBUTING.md).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from giclee.gpu_worker.attempt import Access
from giclee.gpu_worker.hosted import Hosted
from giclee.gpu_worker.provider import Provider
from giclee.gpu_worker.received import IMAGE_MAX_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What settings say to providers: to those on a device of ours, and to hosted ones by their names in TABLE.

    `keys` without an entry: no key. `base_urls` without an entry: where the provider's documentation says.
    `deadline_s` is for one image as a whole; `allow_private` lets pictures and redirects lie in our own network;
    `stock` are the SHA-256 of pictures that a provider gives instead of an image.
    """

    device: str = "auto"
    threads: int = 1
    resident_max: int = 2
    download: bool = False
    keys: Mapping[str, SecretStr] = field(default_factory=dict)
    base_urls: Mapping[str, str] = field(default_factory=dict)
    deadline_s: float = 120.0
    allow_private: bool = False
    image_max_bytes: int = IMAGE_MAX_BYTES
    stock: frozenset[str] = frozenset()

    def access(self, name: str) -> Access:
        """How the hosted provider of that name is reached."""
        key = self.keys.get(name)
        return Access(
            key=key.get_secret_value() if key is not None else None,
            base_url=self.base_urls.get(name),
            deadline_s=self.deadline_s,
            allow_private=self.allow_private,
            image_max_bytes=self.image_max_bytes,
            stock=self.stock,
        )


def _diffusion(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.diffusion import Diffusion  # noqa: PLC0415 - its library is heavy

    return Diffusion(kit.device, threads=kit.threads, resident_max=kit.resident_max, download=kit.download)


def _stub(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.stub import Stub  # noqa: PLC0415 - its library is heavy

    return Stub()


def _fal(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.fal import Fal  # noqa: PLC0415 - a worker loads what its rows name

    access = kit.access("fal")
    return Hosted(Fal(access), access)


def _replicate(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.replicate import Replicate  # noqa: PLC0415 - as above

    access = kit.access("replicate")
    return Hosted(Replicate(access), access)


def _openai(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.openai_images import OpenaiImages  # noqa: PLC0415 - as above

    access = kit.access("openai")
    return Hosted(OpenaiImages(access), access)


def _bedrock(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.bedrock import Bedrock  # noqa: PLC0415 - its library is heavy

    access = kit.access("bedrock")
    return Hosted(Bedrock(access), access)


def _comfyui(kit: Kit) -> Provider:
    from giclee.gpu_worker.providers.comfyui import Comfyui  # noqa: PLC0415 - as above

    access = kit.access("comfyui")
    return Hosted(Comfyui(access), access)


HOSTED = frozenset({"fal", "replicate", "openai", "bedrock", "comfyui"})
"""Those whose images may be billed: they are asked for what a request wants, and never to see whether they answer."""

TABLE: dict[str, Callable[[Kit], Provider]] = {
    "diffusion": _diffusion,
    "stub": _stub,
    "fal": _fal,
    "replicate": _replicate,
    "openai": _openai,
    "bedrock": _bedrock,
    "comfyui": _comfyui,
}


@asynccontextmanager
async def closing(made: Mapping[str, Provider]) -> AsyncIterator[None]:
    """Close them with the block, each of them whatever becomes of the others."""
    async with AsyncExitStack() as stack:
        for one in made.values():
            stack.push_async_callback(one.close)
        yield
