"""What proxies can do to what passes: cut, slow down, truncate, refuse, hold one frame. Each counts what it did."""

from __future__ import annotations

import asyncio
import re

from tests.chaos.proxy import Link, Rule

END_TXN = 26
"""Kafka's api_key of the request that commits or aborts a transaction."""
_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) /")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
SLOW_DOWN = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 78\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>"
)


class Cut(Rule):
    """Nothing of one process gets through until `mended`; one-way: it is heard, and gets no answer."""

    def __init__(self, caller: str, *, one_way: bool) -> None:
        self.dropped = 0
        self._caller, self._one_way = caller, one_way
        self._mended = asyncio.Event()

    def mend(self) -> None:
        """Let go of what waits: its connections end, as they do when a network comes back too late."""
        self._mended.set()

    async def admits(self, link: Link) -> bool:
        return await self._through(link, here=not self._one_way)

    async def to_part(self, link: Link, piece: bytes) -> bytes | None:
        return piece if await self._through(link, here=not self._one_way) else None

    async def to_caller(self, link: Link, piece: bytes) -> bytes | None:
        return piece if await self._through(link, here=True) else None

    async def _through(self, link: Link, *, here: bool) -> bool:
        if not here or link.caller != self._caller:
            return True
        self.dropped += 1
        await self._mended.wait()
        return False


class Slow(Rule):
    """Every piece waits."""

    def __init__(self, delay_s: float) -> None:
        self.delayed = 0
        self._delay_s = delay_s

    async def to_caller(self, link: Link, piece: bytes) -> bytes | None:
        self.delayed += 1
        await asyncio.sleep(self._delay_s)
        return piece


class Refuse(Rule):
    """Every HTTP request is answered 503, without its part hearing of it."""

    def __init__(self) -> None:
        self.refused = 0

    async def to_part(self, link: Link, piece: bytes) -> bytes | None:
        if not _REQUEST.match(piece):
            return piece  # the rest of a body that was let through
        self.refused += 1
        return None

    def answer(self, link: Link) -> bytes:
        return SLOW_DOWN


class Truncate(Rule):
    """The bodies of answers to GET end half-way, and then the connection."""

    def __init__(self) -> None:
        self.truncated = self.withheld_bytes = 0

    async def to_part(self, link: Link, piece: bytes) -> bytes | None:
        if found := _REQUEST.match(piece):
            link.method = found[1]
        return piece

    async def to_caller(self, link: Link, piece: bytes) -> bytes | None:
        head, found, body = piece.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        size = int(length[1]) if length and found and head.startswith(b"HTTP/1.1 200") else 0
        if link.method != b"GET" or size < 2:
            return piece
        link.over = True
        kept = body[: size // 2]
        self.truncated += 1
        self.withheld_bytes += size - len(kept)
        return head + found + kept


class HoldEndTxn(Rule):
    """One EndTxn waits for so long, then goes on, whatever its sender did meanwhile."""

    def __init__(self, hold_s: float) -> None:
        self.held_frames = self.delivered_frames = 0
        self._hold_s = hold_s

    async def to_part(self, link: Link, piece: bytes) -> bytes | None:
        if self.held_frames == 0 and int.from_bytes(piece[4:6], "big") == END_TXN:
            self.held_frames += 1
            await asyncio.sleep(self._hold_s)
            self.delivered_frames += 1
        return piece
