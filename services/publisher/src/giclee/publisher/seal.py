"""Seals a passer: its bytes verified, copied to `assets/`, derived, and told as a fact, before any decision (rule 6).

Keys name the bytes, so sealing twice, here or in another replica, makes the same objects.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid

from giclee.bus.blobs import Blobs
from giclee.publisher import derive
from giclee.publisher.closing import asset_of
from giclee.publisher.derive import Deriver
from giclee.publisher.facts import Fact, SealedImage, seal_fact
from giclee.publisher.order import Order
from giclee.schemas.parts import BlobRef, Derivative

_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
THUMBNAIL = "thumbnail"
_Which = tuple[str, uuid.UUID, int]


def suffix_of(content_type: str) -> str:
    """The file name ending of a content type."""
    return _SUFFIXES.get(content_type, ".bin")


class Sealer:
    """Moves passing images to where assets live."""

    def __init__(self, blobs: Blobs, deriver: Deriver) -> None:
        self._blobs = blobs
        self._deriver = deriver
        self._sealing: dict[_Which, asyncio.Task[Fact]] = {}

    async def seal(self, order: Order, index: int) -> Fact:
        """The fact that this candidate's image is safe. The caller stores it.

        An image and its score are often learned of together: whoever comes second gets the first one's fact, or
        error. Errors: Poison when the image is gone, has other bytes or cannot be decoded; Transient when the store
        is away.
        """
        which = order.tenant, order.request_id, index
        sealing = self._sealing.get(which)
        if sealing is None:
            sealing = self._sealing[which] = asyncio.create_task(self._seal(order, index))
            sealing.add_done_callback(lambda done: self._forget(which, done))
        return await asyncio.shield(sealing)  # one of them may be cancelled

    def _forget(self, which: _Which, done: asyncio.Task[Fact]) -> None:
        del self._sealing[which]
        if not done.cancelled():
            done.exception()  # it is theirs who wait; there may be nobody left

    async def _seal(self, order: Order, index: int) -> Fact:
        """The bytes verified, copied and derived.

        The score, or the person, that lets it pass names the sha256 of the very bytes that are copied: they are
        hashed when they are read and again when they are put.
        """
        outcome, score = order.outcomes[index], order.score_of(index)
        image = outcome.image
        if image is None or score is None or not order.passes(index):
            raise ValueError(f"candidate {index} of {order.request_id} has not passed")
        folder = f"assets/{order.tenant}/{order.request_id}/{asset_of(order, index)}"
        body = await self._blobs.get(image)
        original = await self._blobs.put(
            _key(folder, "original", image), body, image.content_type, width=image.width, height=image.height
        )
        if original.sha256 != image.sha256:
            raise ValueError(f"{original.key} has other bytes than {image.key}")
        thumbnail = await self._thumbnail(folder, body)
        sealed = SealedImage(candidate_id=outcome.candidate_id, image=original, derivatives=(thumbnail,))
        return seal_fact(index, score.measure, sealed)

    async def _thumbnail(self, folder: str, body: bytes) -> Derivative:
        made = await self._deriver.thumbnail(body)
        digest = hashlib.sha256(made.body).hexdigest()[:16]
        key = f"{folder}/{THUMBNAIL}-{digest}{suffix_of(derive.CONTENT_TYPE)}"
        ref = await self._blobs.put(key, made.body, derive.CONTENT_TYPE, width=made.width, height=made.height)
        return Derivative(role=THUMBNAIL, **ref.model_dump())


def _key(folder: str, role: str, image: BlobRef) -> str:
    return f"{folder}/{role}-{image.sha256[:16]}{suffix_of(image.content_type)}"
