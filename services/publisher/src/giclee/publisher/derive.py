"""Derivatives of an approved image: a WebP thumbnail, made in a child process that may die of a hostile image."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from giclee.bus.errors import Poison, Transient

CONTENT_TYPE = "image/webp"
TIMEOUT_S = 20.0
"""Longest for one image: the largest that is let in takes about 1.5 s on a slow core."""
FRAME_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """WebP bytes and their size in pixels."""

    body: bytes
    width: int
    height: int


class Deriver:
    """One child, one image at a time; a child that dies or is too slow is replaced."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def thumbnail(self, body: bytes) -> Thumbnail:
        """A picture of `body` at most 256 px on its long side.

        Errors: Poison when it is no image within the limits, Transient(record) when the child died of it.
        """
        async with self._turn:
            frame = await self._answered(body)
        if frame[:1] == b"o":
            width, height = struct.unpack(">HH", frame[1:5])
            return Thumbnail(frame[5:], width, height)
        raise Poison(f"no thumbnail can be made: {frame[1:].decode(errors='replace')}")

    async def _answered(self, body: bytes) -> bytes:
        finished = False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                frame = await self._asked(await self._running(), body)
            finished = True
            return frame
        except (OSError, EOFError) as error:  # TimeoutError is an OSError, IncompleteReadError an EOFError
            raise Transient(f"the decoder died of an image: {type(error).__name__}", scope="record") from error
        finally:
            if not finished:  # also when cancelled: a late answer must never be taken for the next image's
                self._kill()

    async def _asked(self, child: asyncio.subprocess.Process, body: bytes) -> bytes:
        if child.stdin is None or child.stdout is None:
            raise OSError("the decoder has no pipes")
        child.stdin.write(len(body).to_bytes(4, "big") + body)
        await child.stdin.drain()
        size = int.from_bytes(await child.stdout.readexactly(4), "big")
        if size > FRAME_MAX_BYTES:
            raise OSError(f"the decoder answers with {size} bytes")
        return await child.stdout.readexactly(size)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is None or self._child.returncode is not None:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "giclee.publisher.thumbnail",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={},  # it needs nothing of ours, and an image must not reach a secret
            )
        return self._child

    def _kill(self) -> asyncio.subprocess.Process | None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        return child

    async def stop(self) -> None:
        """Kill the child, if there is one, and see it off."""
        child = self._kill()
        if child is not None:
            if child.stdin is not None:
                child.stdin.close()
            await child.wait()


@asynccontextmanager
async def deriving() -> AsyncIterator[Deriver]:
    """A deriver whose child is gone at the end."""
    deriver = Deriver()
    try:
        yield deriver
    finally:
        await deriver.stop()
