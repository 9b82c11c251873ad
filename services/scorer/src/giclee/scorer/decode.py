"""Bytes of strangers to pixels, in a child process with limits: decoders are where images attack.

The child (decode_child.py) is kept, since starting one costs 0.2 s, and replaced when it dies, hangs or has
done its share. A picture that kills two children is refused; one that cannot be canonical sRGB is too.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np

from giclee.bus import telemetry

BODY_MAX_BYTES = 20 * 1024 * 1024
WALL_CLOCK_S = 10.0
START_S = 20.0
"""A child starts in 0.2 s; a machine under load takes longer."""
SHARE = 2000
"""Pictures per child, so that nothing that leaks can grow for ever."""
TRIES = 2

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class Decoded:
    """(height, width, 3) uint8 sRGB, upright, and the format of the file."""

    pixels: np.ndarray
    format: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there are no pixels. `certain` False: the decoder failed rather than the file."""

    reason: str
    certain: bool = True


class Decoder:
    """One child, one picture at a time."""

    def __init__(self, *, wall_clock_s: float = WALL_CLOCK_S, module: str = "giclee.scorer.decode_child") -> None:
        self._wall_clock_s, self._module = wall_clock_s, module
        self._child: asyncio.subprocess.Process | None = None
        self._done = 0
        self._clean = True
        self._turn = asyncio.Lock()

    async def decode(self, body: bytes) -> Decoded | Refused:
        """The pixels of a file, or why not. Never raises for what a file does."""
        if not body or len(body) > BODY_MAX_BYTES:
            return Refused(f"{len(body)} bytes; 1 to {BODY_MAX_BYTES} are decoded")
        async with self._turn:
            why = ""
            for _ in range(TRIES):
                try:
                    return await self._ask(body)
                except (OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
                    why = "it died" if not isinstance(error, TimeoutError) else f"over {self._wall_clock_s:g} s"
                    telemetry.count("giclee_decoder_restarts_total", why="time" if "over" in why else "death")
                    await self._drop()
            return Refused(f"the decoder gave up on it: {why}", certain=False)

    async def check(self) -> None:
        """Start the child now. Errors: OSError when it does not start."""
        async with self._turn:
            await self._running()

    async def stop(self) -> None:
        """End the child."""
        async with self._turn:
            await self._drop()

    async def _ask(self, body: bytes) -> Decoded | Refused:
        child = await self._running()
        assert child.stdin is not None and child.stdout is not None
        self._clean = False  # until the whole answer is read: who is cancelled in between leaves half of one behind
        async with asyncio.timeout(self._wall_clock_s):
            child.stdin.write(struct.pack(">I", len(body)) + body)
            await child.stdin.drain()
            (size,) = struct.unpack(">I", await child.stdout.readexactly(4))
            told = json.loads(await child.stdout.readexactly(size))
            height, width = int(told.get("height", 0)), int(told.get("width", 0))
            raw = await child.stdout.readexactly(height * width * 3)
        self._clean, self._done = True, self._done + 1
        if "refused" in told:
            return Refused(str(told["refused"]))
        return Decoded(np.frombuffer(raw, np.uint8).reshape(height, width, 3), str(told["format"]))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._child is not None and self._child.returncode is None and self._clean and self._done < SHARE:
            return self._child
        await self._drop()
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        self._done, self._clean = 0, True
        assert self._child.stdout is not None
        async with asyncio.timeout(START_S):
            await self._child.stdout.readexactly(1)  # it is ready, and its limits are in force
        return self._child

    async def _drop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        await child.wait()


@asynccontextmanager
async def decoding() -> AsyncIterator[Decoder]:
    """A decoder whose child ends with the context."""
    decoder = Decoder()
    try:
        yield decoder
    finally:
        await decoder.stop()
