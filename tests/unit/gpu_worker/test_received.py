"""Bytes of strangers are a picture only when all of it decodes and somebody could have wanted it."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from array import array
from typing import Any

import pytest
from PIL import Image, ImageDraw

from giclee.gpu_worker.received import Album, Unusable, decoded, from_base64, sniffed


def picture(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (32, 24)) -> Image.Image:
    image = Image.new("RGB", size, (250, 250, 250))
    ImageDraw.Draw(image).ellipse((4, 4, 20, 20), fill=colour)
    return image


def saved(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def in_mode(mode: str, image: Image.Image) -> Image.Image:
    if mode == "P":
        return image.quantize()  # convert("P") would dither a plain colour
    if mode != "I;16":
        return image.convert(mode)
    grey = array("H", (value * 257 for value in image.convert("L").tobytes()))
    return Image.frombytes("I;16", image.size, grey.tobytes())


@pytest.mark.parametrize(("form", "kind"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
def test_a_picture_is_known_by_its_bytes(form: str, kind: str) -> None:
    """Three formats, whatever a label says."""
    found = decoded(saved(picture(), form))
    assert (found.content_type, found.width, found.height) == (f"image/{kind}", 32, 24)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_is_looked_at(mode: str) -> None:
    """Grey, palettes, alpha and sixteen bits are pictures too; in one colour none of them is."""
    image, plain = picture(), Image.new("RGB", (32, 24), (9, 9, 9))
    pair = [in_mode(mode, one) for one in (image, plain)]
    assert decoded(saved(pair[0])).width == 32
    with pytest.raises(Unusable, match="flat"):
        decoded(saved(pair[1]))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "0 bytes"),
        (b"<!doctype html><title>Maintenance</title>", "no PNG, JPEG or WebP"),
        (b'{"detail": "not found"}', "no PNG, JPEG or WebP"),
        (saved(picture(), "GIF"), "no PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "does not decode"),
        (saved(picture())[:-30], "does not decode"),
        (saved(picture(), "JPEG")[:300], "does not decode"),
        (saved(picture(), "WEBP")[:60], "does not decode"),
        (saved(Image.new("RGBA", (8, 8), (200, 30, 30, 0))), "transparent"),
        (saved(Image.new("RGB", (8, 8))), "one flat colour"),
    ],
)
def test_what_is_no_image(body: bytes, why: str) -> None:
    """Pages, other formats, broken and cut-off files, and what content filters paint."""
    with pytest.raises(Unusable, match=why):
        decoded(body)


def test_an_animation_is_no_image() -> None:
    """Nobody asked for the first frame of one."""
    frames = [picture(colour) for colour in ((200, 30, 30), (30, 200, 30))]
    with pytest.raises(Unusable, match="animation"):
        decoded(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]))


def test_a_bomb_is_not_unfolded() -> None:
    """A header that claims more pixels than anybody can ask for is refused before anything is decoded."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(Unusable):
        decoded(b"\x89PNG\r\n\x1a\n" + chunk + b"\0" * 100)


async def test_the_same_picture_for_another_prompt_is_a_stock_frame() -> None:
    """Whatever its compression: it is known by its pixels. For its own prompt it stays an image."""
    album = Album()
    await album.added(saved(picture()), "a red circle")
    await album.added(saved(picture()), "a red circle")
    with pytest.raises(Unusable, match="stock frame"):
        await album.added(saved(picture(), compress_level=1), "a blue square")
    await album.added(saved(picture((30, 30, 200))), "a blue square")


async def test_frames_that_are_known_are_refused_at_once() -> None:
    """By their pixels."""
    known = decoded(saved(picture())).pixels_sha256
    with pytest.raises(Unusable, match="known stock frame"):
        await Album(frozenset({known})).added(saved(picture(), "WEBP", lossless=True), "a red circle")


async def test_a_picture_has_a_bound_of_bytes() -> None:
    """Base64 of an answer is bounded like a download."""
    with pytest.raises(Unusable, match="at most 100"):
        await Album(bytes_max=100).added(saved(picture()), "a red circle")


@pytest.mark.parametrize("text", [None, 5, "not base64!", "YQ", ["aGk="]])
def test_what_is_no_base64(text: object) -> None:
    """Nothing is guessed."""
    with pytest.raises(Unusable):
        from_base64(text)


def test_base64_comes_back() -> None:
    """Byte for byte."""
    assert from_base64(base64.b64encode(b"\0\1\2").decode()) == b"\0\1\2"
    assert sniffed(b"RIFF1234WAVE") is None
