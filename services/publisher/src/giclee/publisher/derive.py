"""Derivatives of an approved image: a WebP thumbnail, made in a child process that may die of a hostile image."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from giclee.bus.errors import Poison, Transient
from giclee.bus.gather import Gathered

CONTENT_TYPE = "image/webp"
TOGETHER_MAX = 8
TIMEOUT_S = 20.0
"""Longest for TOGETHER_MAX images: the largest that is let in takes about 1.5 s on a slow core."""
FRAME_MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """WebP bytes and their size in pixels."""

    body: bytes
    width: int
    height: int


class Deriver:
    """One child, fed with a few images at a time; a child that dies or is too slow is replaced.

    When it dies, those that it was fed with are tried again one by one, so that only the guilty one fails.
    """

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None
        self._answer = Gathered(self._answered, TOGETHER_MAX)

    async def thumbnail(self, body: bytes) -> Thumbnail:
        """A picture of `body` at most 256 px on its long side.

        Errors: Poison when it is no image within the limits, Transient(record) when the child died of it.
        """
        frame = await self._answer(body)
        if frame[:1] == b"o":
            width, height = struct.unpack(">HH", frame[1:5])
            return Thumbnail(frame[5:], width, height)
        raise Poison(f"no thumbnail can be made: {frame[1:].decode(errors='replace')}")

    async def _answered(self, bodies: Sequence[bytes]) -> list[bytes]:
        finished = False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                frames = await self._asked(await self._running(), bodies)
            finished = True
            return frames
        except (OSError, EOFError) as error:  # TimeoutError is an OSError, IncompleteReadError an EOFError
            raise Transient(f"the decoder died of an image: {type(error).__name__}", scope="record") from error
        finally:
            if not finished:  # also when cancelled: a late answer must never be taken for the next image's
                self._kill()

    async def _asked(self, child: asyncio.subprocess.Process, bodies: Sequence[bytes]) -> list[bytes]:
        if child.stdin is None or child.stdout is None:
            raise OSError("the decoder has no pipes")
        child.stdin.writelines([part for body in bodies for part in (len(body).to_bytes(4, "big"), body)])
        return [await _frame(child.stdout) for _ in bodies]  # what the pipe does not take yet, the loop writes

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


async def _frame(source: asyncio.StreamReader) -> bytes:
    size = int.from_bytes(await source.readexactly(4), "big")
    if size > FRAME_MAX_BYTES:
        raise OSError(f"the decoder answers with {size} bytes")
    return await source.readexactly(size)


@asynccontextmanager
async def deriving() -> AsyncIterator[Deriver]:
    """A deriver whose child is gone at the end."""
    deriver = Deriver()
    try:
        yield deriver
    finally:
        await deriver.stop()
