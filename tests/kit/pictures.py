"""Picture files for tests: good ones, and more than thirty that mean harm or are merely odd."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from giclee.models import world

SCENE = world.Scene("large", "red", "square", "blue")


def rendered(width_px: int = 64) -> Image.Image:
    """A large red square on blue."""
    return Image.fromarray(world.render(SCENE, 1, width_px), "RGB")


def file_of(image: Image.Image, kind: str = "WEBP", **said: Any) -> bytes:
    """The image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}) | said)
    return buffer.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, raw: bytes, *extra: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG put together by hand, so that it can lie."""
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + _chunk(b"IDAT", zlib.compress(raw, 9)) + _chunk(b"IEND", b"")


def undecodable() -> dict[str, bytes]:
    """Files that must be refused, by what is wrong with them."""
    good_png, good_jpeg, good_webp = (file_of(rendered(), kind) for kind in ("PNG", "JPEG", "WEBP"))
    frames = [rendered(), Image.new("RGB", (64, 64), "green")]
    shown = rendered().convert("RGBA")
    shown.putalpha(Image.linear_gradient("L").resize((64, 64)))
    palette = rendered().quantize(8)
    return {
        "empty": b"",
        "one byte": b"\x89",
        "text": b"hello",
        "html": b"<html><script>alert(1)</script></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(%stdin) run\n",
        "zip": b"PK\x03\x04" + bytes(60),
        "zeros": bytes(100_000),
        "noise": random.Random(1).randbytes(50_000),
        "png signature only": good_png[:8],
        "png header only": good_png[:33],
        "png cut in half": good_png[: len(good_png) // 2],
        "png with a broken checksum": good_png[:29] + b"\x00\x00\x00\x00" + good_png[33:],
        "png of 100000 x 100000": png(100_000, 100_000, b"\x00" * 1000),
        "png of 2^31 - 1": png(2**31 - 1, 2**31 - 1, b"\x00"),
        "png without pixels": png(0, 0, b""),
        "png of 5000 x 8": png(5000, 8, b"\x00" * (5000 * 3 + 1) * 8),
        "png with too little data": png(64, 64, b"\x00" * 10),
        "png with a text bomb": png(
            64, 64, b"\x00" * 193 * 64, _chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(60_000_000)))
        ),
        "png of an impossible depth": png(64, 64, b"\x00" * 193 * 64, bits=7),
        "animated png": file_of(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "animated webp": file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "jpeg cut in half": good_jpeg[: len(good_jpeg) // 2],
        "jpeg start only": good_jpeg[:4],
        "jpeg with a lying size": good_jpeg.replace(b"\x00\x40\x00\x40", b"\xff\xff\xff\xff", 1),
        "webp cut in half": good_webp[: len(good_webp) // 2],
        "webp with a lying length": good_webp[:4] + b"\xff\xff\xff\x7f" + b"WEBPVP8L" + b"\xff" * 40,
        "webp with transparency": file_of(shown, "WEBP"),
        "png with transparency": file_of(shown, "PNG"),
        "png with a transparent colour": file_of(palette, "PNG", transparency=0),
        "rgb png with a transparent colour": file_of(rendered(), "PNG", transparency=(33, 96, 214)),
        "gif": file_of(rendered(), "GIF"),
        "bmp": file_of(rendered(), "BMP"),
        "tiff": file_of(rendered(), "TIFF"),
        "icon": file_of(rendered(), "ICO"),
        "several frames in one jpeg": file_of(rendered(), "MPO", save_all=True, append_images=frames[1:]),
        "broken profile": file_of(rendered(), "PNG", icc_profile=b"\x00" * 200),
    }


def odd_but_good() -> dict[str, bytes]:
    """Files that decode to the same picture, or nearly, by what is odd about them."""
    grey = np.asarray(rendered().convert("L")).astype(np.uint16) * 257
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    opaque = rendered().convert("RGBA")
    return {
        "png": file_of(rendered(), "PNG"),
        "jpeg": file_of(rendered(), "JPEG", quality=95),
        "webp": file_of(rendered()),
        "png with padding": file_of(rendered(), "PNG") + bytes(500),
        "palette": file_of(rendered().quantize(32), "PNG"),
        "opaque alpha": file_of(opaque, "PNG"),
        "cmyk jpeg": file_of(rendered().convert("CMYK"), "JPEG", quality=95),
        "grey of 16 bits": file_of(Image.fromarray(grey), "PNG"),
        "rotated by exif": file_of(rendered(), "JPEG", quality=95, exif=upside_down),
        "with a profile": file_of(rendered(), "PNG", icc_profile=srgb),
        "progressive jpeg": file_of(rendered(), "JPEG", progressive=True),
    }


TAILS = {
    "zip": b"PK\x03\x04" + bytes(26) + b"x" * 40,
    "html": b"<html><script>alert(1)</script></html>",
    "php": b"<?php system($_GET['c']); ?>",
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
    "javascript": b"/*\xff\xd9*/=1;alert(1)//",
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}), "jpeg": ("JPEG", {}), "progressive jpeg": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}), "lossy webp": ("WEBP", {"lossless": False}),
}  # fmt: skip


NOT_TAKEN = (
    "TGA", "PCX", "PPM", "SGI", "PDF", "EPS", "ICNS", "DDS", "JPEG2000", "AVIF", "MSP", "XBM", "QOI",
)  # fmt: skip


def hostile() -> dict[str, bytes]:
    """Over 150 files that must be refused: those above, every file cut at every tenth, with something behind its end,
    of a format that is not taken, too large in one direction, or with metadata that explodes."""
    files = {name: file_of(rendered(), kind, **said) for name, (kind, said) in KINDS.items()}
    found = undecodable()
    for name, body in files.items():
        found |= {f"{name} cut at {tenth}0 %": body[: len(body) * tenth // 10] for tenth in range(1, 10)}
        found |= {f"{name} and {tail}": body + text for tail, text in TAILS.items()}
        found[f"{name} without its last byte"] = body[:-1]
    for kind in NOT_TAKEN:
        try:
            image = rendered(128).convert("1" if kind in ("MSP", "XBM") else "RGB")
            found[f"a {kind.lower()}"] = file_of(image, kind)
        except (OSError, KeyError):  # a Pillow that cannot write it
            continue
    sides = [(4097, 1), (1, 4097), (4096, 4097), (65_535, 65_535), (100_000, 1), (1, 2**31 - 1), (0, 64), (64, 0)]
    found |= {f"png of {w} x {h}": png(w, h, b"\x00" * 100) for w, h in sides}
    found |= {
        f"jpeg of {w} x {h}": _resized(files["jpeg"], w, h)
        for w, h in [(65_535, 65_535), (5000, 64), (64, 5000), (0, 64), (4097, 4097)]
    }
    found |= {f"png of {depth} bits in colour {colour}": png(64, 64, b"\x00" * 193 * 64, bits=depth, colour=colour)
              for depth, colour in [(0, 2), (3, 0), (32, 2), (255, 2), (8, 1), (8, 5), (8, 7), (16, 3)]}  # fmt: skip
    bomb = zlib.compress(bytes(80_000_000))
    for name, chunk in {
        "iTXt": b"a\x00\x01\x00\x00\x00" + bomb,
        "iCCP": b"a\x00\x00" + bomb,
        "zTXt": b"b\x00\x00" + bomb,
    }.items():
        found[f"png with an {name} bomb"] = png(64, 64, b"\x00" * 193 * 64, _chunk(name.encode(), chunk))
    found["png whose pixels are a bomb"] = png(64, 64, bytes(50_000_000))[:200]
    found["jpeg of 65,535 restarts"] = files["jpeg"][:-2] + b"\xff\xd0" * 65_535
    found["jpeg without its end"] = files["jpeg"][:-2]
    found["png without its end"] = files["png"][:-12]
    found["png in a png"] = files["png"][:-12] + files["png"]
    found["webp in a riff of audio"] = files["webp"].replace(b"WEBP", b"WAVE", 1)
    found["png called a jpeg inside"] = b"\xff\xd8\xff\xe0" + files["png"]
    return found


def _resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The file with another size in its frame header."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def mutated(count: int) -> dict[str, bytes]:
    """Good files with a few bytes changed: most are broken, some are merely other pictures."""
    dice = random.Random(7)
    files = [file_of(rendered(), kind, **said) for kind, said in KINDS.values()]
    found = {}
    for number in range(count):
        body = bytearray(files[number % len(files)])
        for _ in range(dice.choice([1, 2, 8])):
            body[dice.randrange(len(body))] = dice.randrange(256)
        found[f"mutation {number}"] = bytes(body)
    return found


def portrait() -> np.ndarray:
    """A photograph of a face, (512, 512, 3): Grace Hopper by the US Navy, 1984, public domain, cut to a square."""
    with Image.open(Path(__file__).with_name("portrait.jpg")) as photo:
        found: np.ndarray = np.asarray(photo.convert("RGB"))
    return found
