"""The child that decodes: reads files from stdin, writes pixels to stdout, under limits it sets for itself.

Header first: nothing is decoded before format, size and frames are known to be allowed. Started only by
decode.py; it opens no file, no socket, and its address space is bounded. Needs Pillow, nothing else. What follows
the end of a picture is refused: published bytes are those that were judged, and must be nothing else as well.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import warnings
from typing import BinaryIO

from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from giclee.scorer.file_end import end_of

FORMATS = ("PNG", "JPEG", "WEBP")
SIDE_MAX_PX = 4096
PIXELS_MAX = 4096 * 4096
MEMORY_MAX_BYTES = 768 * 1024 * 1024
"""Address space. Decoding 16.8 million pixels with a profile and a rotation takes about 400 MB."""
_REFUSALS = (OSError, ValueError, SyntaxError, EOFError, ImageCms.PyCMSError, struct.error, IndexError, KeyError,
             TypeError, OverflowError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning,
             UnidentifiedImageError, ZeroDivisionError, AttributeError, RuntimeError)  # fmt: skip
"""What Pillow raises for broken files. Anything else ends the child, which counts as a refusal too."""


class Refusal(Exception):
    """A file that is not decoded; the message says why."""


def main() -> None:
    """Serve until stdin ends."""
    Image.init()
    _limit()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(b"+")
    sink.flush()
    while head := source.read(4):
        body = source.read(struct.unpack(">I", head)[0])
        _answer(sink, body)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    Image.MAX_IMAGE_PIXELS = PIXELS_MAX
    PngImagePlugin.MAX_TEXT_CHUNK = 1024 * 1024
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * 1024 * 1024
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _answer(sink: BinaryIO, body: bytes) -> None:
    try:
        image, kind = canonical(body)
        told, raw = {"format": kind, "width": image.width, "height": image.height}, image.tobytes()
    except Refusal as error:
        told, raw = {"refused": str(error)}, b""
    except UnidentifiedImageError:  # its own words name an address in memory
        told, raw = {"refused": "no PNG, JPEG or WebP that can be read"}, b""
    except _REFUSALS as error:
        told, raw = {"refused": f"{type(error).__name__}: {error}"[:300]}, b""
    head = json.dumps(told).encode()
    sink.write(struct.pack(">I", len(head)) + head + raw)
    sink.flush()


def canonical(body: bytes) -> tuple[Image.Image, str]:
    """An upright sRGB picture of 8 bits without transparency, and its format. Errors: Refusal, or Pillow's own."""
    with Image.open(io.BytesIO(body), formats=FORMATS) as opened:
        kind = str(opened.format)
        if kind not in FORMATS:
            raise Refusal(f"{kind} is not decoded")
        width, height = opened.size
        if max(width, height) > SIDE_MAX_PX or width * height > PIXELS_MAX:
            raise Refusal(f"{width}x{height} pixels; at most {SIDE_MAX_PX} a side are decoded")
        if getattr(opened, "n_frames", 1) != 1 or getattr(opened, "is_animated", False):
            raise Refusal("more than one frame")
        if extra := body[end_of(body, kind) :].strip(b"\x00"):
            raise Refusal(f"{len(extra)} bytes follow the picture")
        opened.load()
        image = ImageOps.exif_transpose(opened) or opened
        return _srgb(_opaque(image), opened.info.get("icc_profile")), kind


def _opaque(image: Image.Image) -> Image.Image:
    """Without its alpha channel. What lies under transparency depends on who shows it, so it cannot be judged."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    elif "transparency" in image.info:
        raise Refusal("has a transparent colour, which cannot be judged")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        alpha = image.getchannel(image.mode[-1].upper() if image.mode[-1].upper() in image.getbands() else "a")
        if alpha.getextrema()[0] != 255:
            raise Refusal("has transparency, which cannot be judged")
        return image.convert("L" if image.mode[0] == "L" else "RGB")
    return image


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """In sRGB, by the embedded profile where there is one; 16-bit greys are scaled, not cut off."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda level: level / 256).convert("L")
    elif image.mode in ("F", "1", "P", "HSV", "LAB", "YCbCr"):
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        if found is None:
            raise Refusal("its colour profile cannot be applied")
        return found
    return image.convert("RGB")


if __name__ == "__main__":
    main()
