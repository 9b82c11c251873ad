"""The child process that decodes images: `python -m giclee.publisher.thumbnail`, spoken to by `derive.py`.

Whatever an image does to a decoder, it does here: address space is limited, the parent holds the clock, only
three formats open, warnings are errors. Reads and writes frames: 4 bytes of length, big-endian, then the bytes.
An answer is b"o", width and height (2 bytes each) and a WebP, or b"r" and the reason why the image is refused.
"""

from __future__ import annotations

import io
import resource
import signal
import struct
import sys
import warnings
from typing import BinaryIO

from PIL import Image, ImageOps

LONG_SIDE_MAX_PX = 256
SOURCE_SIDE_MAX_PX = 4096
SOURCE_MAX_PX = 16_777_216
SOURCE_MAX_BYTES = 20 * 1024 * 1024
FORMATS = ("PNG", "JPEG", "WEBP")
ADDRESS_SPACE_MAX_BYTES = 1024 * 1024 * 1024
"""Three copies of the largest picture in RGBA, and the interpreter."""
WEBP_QUALITY = 80


_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,  # Pillow's word for a broken PNG
    EOFError,
    MemoryError,
    struct.error,
    Warning,
    Image.DecompressionBombError,
)


class Refused(Exception):
    """An image that is not worth decoding, or cannot be."""


def thumbnail(body: bytes) -> tuple[int, int, bytes]:
    """Width, height and WebP bytes of a picture at most 256 px on its long side, upright, without metadata.

    Never enlarges. Errors: Refused with the reason.
    """
    if len(body) > SOURCE_MAX_BYTES:
        raise Refused(f"{len(body)} bytes are more than {SOURCE_MAX_BYTES}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:
                _check(image)
                image.load()
                small = _flat(ImageOps.exif_transpose(image))
                small.thumbnail((LONG_SIDE_MAX_PX, LONG_SIDE_MAX_PX), Image.Resampling.LANCZOS)
                out = io.BytesIO()
                small.save(out, "WEBP", quality=WEBP_QUALITY, method=4)
        except _BROKEN as error:
            raise Refused(f"{type(error).__name__}: {error}") from error
    return small.width, small.height, out.getvalue()


def _check(image: Image.Image) -> None:
    """The limits that a header tells, before anything is decoded."""
    width, height = image.size
    if max(width, height) > SOURCE_SIDE_MAX_PX or width * height > SOURCE_MAX_PX:
        raise Refused(f"{width} x {height} px are more than {SOURCE_SIDE_MAX_PX} a side or {SOURCE_MAX_PX}")
    if getattr(image, "n_frames", 1) != 1:
        raise Refused("it has more than one frame")


def _flat(image: Image.Image) -> Image.Image:
    """RGB without transparency: what shows through is white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image.convert("RGB")


def answer(body: bytes) -> bytes:
    """The frame that answers an image."""
    try:
        width, height, webp = thumbnail(body)
    except Refused as refused:
        return b"r" + str(refused).encode(errors="replace")[:1000]
    return b"o" + struct.pack(">HH", width, height) + webp


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer images until the parent closes the pipe, by choice or by dying."""
    while len(head := source.read(4)) == 4:
        frame = answer(source.read(int.from_bytes(head, "big")))
        sink.write(len(frame).to_bytes(4, "big") + frame)
        sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe when it is done
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_MAX_BYTES, ADDRESS_SPACE_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)
