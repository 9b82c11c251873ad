"""Is the file what its reference claims: format and size. 1 when it is, 0 when it is not.

A file that cannot be decoded at all is given to this dimension by the handler.
"""

from __future__ import annotations

from collections.abc import Sequence

from giclee.scorer.dimension import Evaluator, Measured, Picture

CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Format:
    """The decoder's words against the blob reference's."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [_one(picture) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("format", "1", unit="0 or 1", blind_to="what the picture shows")


def _one(picture: Picture) -> Measured:
    claimed, width, height = picture.claims
    if CONTENT_TYPES.get(picture.format) != claimed:
        return Measured(0.0, reason=f"the file is {picture.format}, its reference says {claimed}")
    if picture.pixels.shape[:2] != (height, width):
        size = "x".join(str(side) for side in picture.pixels.shape[1::-1])
        return Measured(0.0, reason=f"the picture is {size}, its reference says {width}x{height}")
    return Measured(1.0)
