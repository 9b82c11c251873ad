"""What a hosted provider sent as a picture: known by its bytes, decoded as a whole, and only then an image.

No label counts. A flat colour is how content filters and failed decoders look, and so is the same picture for two
prompts: neither is an image that anybody asked for. Pillow only, because a hosted pool's worker has no numpy.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image

IMAGE_MAX_BYTES = 20 * 1024 * 1024
"""The scorer decodes no more."""
PIXELS_MAX = 4096 * 4096
"""The largest size that a request can ask for."""
BLANK_RANGE = 3
"""As in picture.py: the largest difference between the pixels of any channel that still counts as one flat colour."""
SEEN_MAX = 2000
_SNIFFED = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as it came, its size in pixels, and the SHA-256 of its pixels."""

    body: bytes
    content_type: str
    width: int
    height: int
    pixels_sha256: str


class Unusable(Exception):
    """Bytes that are no image anybody asked for; the message says what they are."""


def sniffed(body: bytes) -> str | None:
    """What a file is by its first bytes: `png`, `jpeg` or `webp`; None for everything else."""
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if body.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if body[:4] == b"RIFF" and body[8:12] == b"WEBP" else None


def decoded(body: bytes) -> Picture:
    """The picture that the bytes are. Errors: Unusable."""
    kind = sniffed(body)
    if kind is None:
        raise Unusable(f"{len(body)} bytes that are no PNG, JPEG or WebP: they begin with {body[:_SNIFFED]!r}")
    try:
        with Image.open(io.BytesIO(body), formats=[kind.upper()]) as opened:
            size = opened.size
            if size[0] * size[1] > PIXELS_MAX:
                raise Unusable(f"{size[0]}x{size[1]} pixels; at most {PIXELS_MAX} are decoded")
            opened.verify()
        with Image.open(io.BytesIO(body), formats=[kind.upper()]) as opened:  # a verified image cannot be read on
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                raise Unusable(f"an animation of {frames} frames")
            # 16 bits a channel come as I;16: convert() would cut them off at 255
            whole = (opened.point(lambda value: value / 256) if opened.mode.startswith("I") else opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Unusable(f"a {kind.upper()} that does not decode: {type(error).__name__}: {error}") from error
    _refuse_blank(whole)
    return Picture(body, f"image/{kind}", *size, hashlib.sha256(whole.tobytes()).hexdigest())


def from_base64(text: object) -> bytes:
    """The bytes of a Base64 text. Errors: Unusable for anything else."""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Unusable("the picture is not Base64")


def _refuse_blank(whole: Image.Image) -> None:
    """Errors: Unusable for one flat colour, or for nothing at all."""
    bands: list[tuple[int, int]] = list(whole.getextrema())  # type: ignore[arg-type]  # four bands, each (least, most)
    if bands[3][1] == 0:
        raise Unusable("a picture that is transparent everywhere")
    if all(most - least <= BLANK_RANGE for least, most in bands[:3]):
        raise Unusable("one flat colour")


class Album:
    """The pictures of one provider: nobody generates the same pixels for two prompts, so a second time they are a stock
    frame. `stock` holds the SHA-256 of the pixels, or of the file, of frames that are known already."""

    def __init__(self, stock: frozenset[str] = frozenset(), *, bytes_max: int = IMAGE_MAX_BYTES) -> None:
        self._stock, self._bytes_max = stock, bytes_max
        self._prompts: OrderedDict[str, str] = OrderedDict()

    async def added(self, body: bytes, prompt: str) -> Picture:
        """The picture that the bytes are. Errors: Unusable."""
        if len(body) > self._bytes_max:
            raise Unusable(f"{len(body)} bytes; at most {self._bytes_max} are taken")
        picture = await asyncio.to_thread(decoded, body)
        if self._stock & {picture.pixels_sha256, hashlib.sha256(body).hexdigest()}:
            raise Unusable("a known stock frame")
        first = self._prompts.setdefault(picture.pixels_sha256, prompt)
        if first != prompt:
            raise Unusable("the same picture as for another prompt: a stock frame")
        while len(self._prompts) > SEEN_MAX:
            self._prompts.popitem(last=False)
        return picture
