"""Where a picture's file ends: what follows is somebody else's program, archive or page. Pure.

Readers of pictures stop at the end and pass over the rest; readers of archives and pages begin elsewhere. A file that
is two things at once is not published.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

PNG_HEAD = 8
STANDALONE = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length: TEM, restarts and start of image."""
SOS, EOI = 0xDA, 0xD9


def end_of(body: bytes, kind: str) -> int:
    """Bytes that belong to the picture. Errors: ValueError for a file without an end."""
    ends: dict[str, Callable[[bytes], int]] = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}
    end = ends[kind](body)
    if end > len(body):
        raise ValueError(f"{end - len(body)} bytes are missing at the end")
    return end


def _png(body: bytes) -> int:
    at: int = PNG_HEAD
    while at + 8 <= len(body):
        (length,) = struct.unpack_from(">I", body, at)
        name = body[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at
    raise ValueError("a PNG without its end")


def _webp(body: bytes) -> int:
    (length,) = struct.unpack_from("<I", body, 4)
    return int(8 + length + length % 2)


def _jpeg(body: bytes) -> int:
    """Marker by marker; compressed data runs to the next marker that is neither stuffing nor a restart."""
    at = 2
    while at + 2 <= len(body):
        if body[at] != 0xFF:
            raise ValueError("a JPEG without a marker where one must be")
        marker = body[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker == EOI:
            return at + 2
        at += 2 if marker in STANDALONE else 2 + _length(body, at + 2)
        if marker == SOS:
            at = _after_data(body, at)
    raise ValueError("a JPEG without its end")


def _length(body: bytes, at: int) -> int:
    if at + 2 > len(body):
        raise ValueError("a JPEG segment without its length")
    return int(struct.unpack_from(">H", body, at)[0])


def _after_data(body: bytes, at: int) -> int:
    while True:
        at = body.find(b"\xff", at)
        if at < 0 or at + 1 >= len(body):
            raise ValueError("a JPEG without its end")
        if body[at + 1] == 0x00 or 0xD0 <= body[at + 1] <= 0xD7:
            at += 2
            continue
        return at
