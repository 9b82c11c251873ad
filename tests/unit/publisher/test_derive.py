"""Thumbnails: small, upright, without metadata; hostile pictures die in the child and are their record's fault."""

from __future__ import annotations

import asyncio
import io
import struct
import zlib
from collections.abc import Sequence

import pytest
from PIL import Image

from giclee.bus.errors import Poison, Transient
from giclee.publisher import thumbnail
from giclee.publisher.derive import Deriver, deriving


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def opened(body: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


@pytest.mark.parametrize(("size", "expected"), [((1024, 512), (256, 128)), ((64, 64), (64, 64)), ((300, 1), (256, 1))])
def test_the_long_side_is_at_most_256_px_and_nothing_is_enlarged(size: tuple[int, int], expected: object) -> None:
    """The proportions stay; what is small stays as it is."""
    width, height, body = thumbnail.thumbnail(encoded(Image.new("RGB", size, "red")))

    assert (width, height) == expected
    assert (opened(body).format, opened(body).size) == ("WEBP", expected)


def test_what_shows_through_is_white() -> None:
    """A transparent picture gets a fixed ground."""
    _, _, body = thumbnail.thumbnail(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0))))

    assert opened(body).convert("L").getpixel((4, 4)) == 255


def test_a_turned_picture_is_put_upright_and_loses_its_metadata() -> None:
    """The camera's orientation is applied; no EXIF is left."""
    exif = Image.Exif()
    exif[0x0112] = 6
    width, height, body = thumbnail.thumbnail(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif))

    assert (width, height) == (20, 40)
    assert not opened(body).getexif()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not a picture",
        png_header(65_535, 65_535),
        png_header(5000, 10),
        encoded(Image.effect_noise((64, 64), 50))[:900],
        encoded(Image.new("RGB", (8, 8)), "GIF"),
        encoded(Image.new("RGB", (8, 8)), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]),
        b"\x00" * (thumbnail.SOURCE_MAX_BYTES + 1),
    ],
    ids=["empty", "text", "65535 squared", "too wide", "truncated", "gif", "animated", "too many bytes"],
)
def test_hostile_pictures_are_refused(body: bytes) -> None:
    """Whatever is outside the limits is refused before it costs anything."""
    with pytest.raises(thumbnail.Refused):
        thumbnail.thumbnail(body)


async def test_the_child_answers_one_after_the_other() -> None:
    """Many at once get each its own picture; a refused one in between disturbs nobody."""
    async with deriving() as deriver:
        bodies = [encoded(Image.new("RGB", (10 + i, 10), (i, 0, 0))) for i in range(12)] + [b"garbage"]
        found = await asyncio.gather(*(deriver.thumbnail(body) for body in bodies), return_exceptions=True)

    assert [one.width for one in found[:-1]] == [10 + i for i in range(12)]  # type: ignore[union-attr]
    assert isinstance(found[-1], Poison)


async def test_a_child_that_dies_is_replaced() -> None:
    """Its image is tried again by the bus; the next one gets a new child."""
    body = encoded(Image.new("RGB", (10, 10)))
    async with deriving() as deriver:
        await deriver.thumbnail(body)
        child = await deriver._running()
        child.kill()
        await child.wait()
        assert (await deriver.thumbnail(body)).width == 10


async def test_an_image_that_kills_the_child_is_tried_a_few_times() -> None:
    """A crash is Transient for this record alone, so that it ends as a dead letter and not as an outage."""

    class Mortal(Deriver):
        async def _asked(self, child: asyncio.subprocess.Process, bodies: Sequence[bytes]) -> list[bytes]:
            if b"deadly" in bodies:
                child.kill()
                await child.wait()
            return await super()._asked(child, bodies)

    deriver, harmless = Mortal(), encoded(Image.new("RGB", (10, 10)))
    found = await asyncio.gather(
        *(deriver.thumbnail(body) for body in (harmless, b"deadly", harmless)), return_exceptions=True
    )
    await deriver.stop()

    assert isinstance(found[1], Transient)
    assert found[1].scope == "record"
    assert [one.width for one in found[::2]] == [10, 10]  # type: ignore[union-attr]
