"""A TCP proxy in front of a part: it knows which process is calling, and rules decide what gets through.

To a broker, requests travel as whole frames of Kafka's protocol, so that a rule sees what each one asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

CHUNK_BYTES = 64 * 1024
FRAME_MAX_BYTES = 16 * 1024 * 1024


class Link:
    """One connection through a gate; `caller` is found when a rule first asks, while the caller's socket is open."""

    def __init__(self, peer_port: int, gate: Gate) -> None:
        self._peer_port, self._gate = peer_port, gate
        self._caller: str | None = None
        self.method = b""
        """Of the last HTTP request, where a rule noted it."""
        self.over = False
        """Set by a rule: what is sent on now is the last of it."""

    @property
    def caller(self) -> str:
        """The name of the process that opened it; empty when nobody of the stack did."""
        if self._caller is None:
            self._caller = caller_of(self._peer_port, self._gate.port, self._gate.pids())
        return self._caller


class Rule:
    """What a gate asks about every connection and every piece; this one lets all through."""

    async def admits(self, link: Link) -> bool:
        """Whether a new connection may be made."""
        return True

    async def to_part(self, link: Link, piece: bytes) -> bytes | None:
        """What is sent on; None ends the connection."""
        return piece

    async def to_caller(self, link: Link, piece: bytes) -> bytes | None:
        """What is sent on; None ends the connection."""
        return piece

    def answer(self, link: Link) -> bytes:
        """What the caller is told before a connection that a rule has ended is closed."""
        return b""


class Gate:
    """One listening port in front of one port of a part. `rules` are asked in turn."""

    def __init__(
        self, name: str, port: int, target: int, *, frames: bool, pids: Callable[[], Mapping[int, str]]
    ) -> None:
        self.name, self.port, self.target, self.pids = name, port, target, pids
        self.rules: list[Rule] = []
        self._read = _frame if frames else _chunk

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen while the block runs. Errors: OSError when the port is taken."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(writer.get_extra_info("peername")[1], self)
        # cancelled only at the end of everything; Python 3.11's streams would report that as a mishap of theirs
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            for rule in tuple(self.rules):
                if not await rule.admits(link):
                    writer.transport.abort()
                    return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            pumps = {
                asyncio.create_task(self._pump(link, reader, back, writer)),
                asyncio.create_task(self._answers(link, there, writer)),
            }
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
                back.transport.abort()
        writer.close()

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, back: asyncio.StreamWriter, caller: asyncio.StreamWriter
    ) -> None:
        while piece := await self._read(reader):
            for rule in tuple(self.rules):
                passed = await rule.to_part(link, piece)
                if passed is None:
                    caller.write(rule.answer(link))
                    return
                piece = passed
            back.write(piece)
            await back.drain()

    async def _answers(self, link: Link, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await _chunk(there):
            for rule in tuple(self.rules):
                passed = await rule.to_caller(link, piece)
                if passed is None:
                    return
                piece = passed
            writer.write(piece)
            await writer.drain()
            if link.over:
                return


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(CHUNK_BYTES)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One request: its size in four bytes, then as many. Empty at the end."""
    head = await reader.readexactly(4)
    (size,) = struct.unpack(">i", head)
    if not 0 < size <= FRAME_MAX_BYTES:
        return b""
    return head + await reader.readexactly(size)


def caller_of(peer_port: int, gate_port: int, pids: Mapping[int, str]) -> str:
    """Which of these processes holds the socket from `peer_port` to `gate_port`; empty when none does."""
    inode = _inode(peer_port, gate_port)
    if inode is None:
        return ""
    wanted = f"socket:[{inode}]"
    for pid, name in pids.items():
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(entry) == wanted:
                        return name
    return ""


def _inode(local: int, remote: int) -> str | None:
    """Of the socket between two ports of this machine, as its opener holds it."""
    ends = f":{local:04X}", f":{remote:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(ends[0]) and fields[2].endswith(ends[1]):
            return fields[9]
    return None
