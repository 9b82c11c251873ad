"""The worker or the scorer as a process, whole but for what it computes: the image is prepared, every score is 1.

`python -m tests.bench.stubbed gpu_worker|scorer` runs the service's own entry point with other rows in its table
of providers or dimensions. Claims, leases, batches, the bucket, stored verdicts, topics: all are real.
"""

from __future__ import annotations

import runpy
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np

SEED = 2_000_000


def picture() -> np.ndarray:
    """(64, 64, 3): the one image that all candidates get."""
    from giclee.models import world

    return world.render(world.scene_of(SEED), SEED)


def worker() -> None:
    """Prepare the provider `stub` of the worker."""
    from giclee.gpu_worker import picture as encoding
    from giclee.gpu_worker import providers
    from giclee.gpu_worker.provider import Answer, Ask, Description, Made
    from giclee.gpu_worker.providers.stub import CAPABILITIES
    from giclee.schemas.models import Model

    body = encoding.encode(picture())

    class Prepared:
        """Answers at once."""

        capabilities = CAPABILITIES

        async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
            made = Made(body=body, content_type=encoding.CONTENT_TYPE, width=64, height=64, seconds=0.0)
            return [made] * len(asks)

        async def describe(self, model: Model) -> Description:
            return Description(weights_sha256=None, where="prepared", resident=True)

        async def close(self) -> None: ...

    providers.TABLE["stub"] = lambda kit: Prepared()


def scorer() -> None:
    """Let every dimension of the scorer answer 1 at once, and the decoder know the picture already.

    Every picture is given a fingerprint of its own: they are all the same one, and orders want several.
    """
    from giclee.scorer import decode, dimensions, phash
    from giclee.scorer.decode import Decoded
    from giclee.scorer.dimension import Evaluator, Measured, Picture

    class Content:
        """A dimension that likes everything."""

        def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
            return [Measured(1.0)] * len(pictures)

        def describe(self) -> Evaluator:
            return Evaluator("bench", "1")

    class Known:
        """A decoder that does not look."""

        def __init__(self) -> None:
            self._decoded = Decoded(picture(), "WEBP")

        async def decode(self, body: bytes) -> Decoded:
            return self._decoded

        async def check(self) -> None: ...

    @asynccontextmanager
    async def decoding() -> AsyncIterator[Known]:
        yield Known()

    decode.decoding = decoding  # type: ignore[assignment]
    phash.fingerprint = lambda pixels: secrets.token_hex(96)
    dimensions.TABLE |= {name: lambda kit: Content() for name in dimensions.TABLE}
    dimensions.BY_ASSET_TYPE.clear()


if __name__ == "__main__":
    service = sys.argv.pop(1)
    {"gpu_worker": worker, "scorer": scorer}[service]()
    runpy.run_module(f"giclee.{service}", run_name="__main__", alter_sys=True)
