"""What a seed means, and what proxies do to what passes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.chaos.faults import TABLE
from tests.chaos.plan import draw, takes
from tests.chaos.proxy import Gate
from tests.chaos.rules import END_TXN, Cut, HoldEndTxn, Refuse, Truncate
from tests.chaos.stack import FULL
from tests.kit.service_process import free_port
from tests.kit.wait import until

HOUR_S = 3600.0
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_seed_repeats_its_plan() -> None:
    """The same seed draws the same faults at the same times, another one does not."""
    assert draw(7, HOUR_S, TABLE, FULL) == draw(7, HOUR_S, TABLE, FULL)
    assert draw(7, HOUR_S, TABLE, FULL) != draw(8, HOUR_S, TABLE, FULL)


def test_an_hour_has_every_fault_and_at_least_250() -> None:
    """Whatever the seed, no row of the table is left out."""
    for seed in range(20):
        plan = draw(seed, HOUR_S, TABLE, FULL)

        assert {one.name for one in plan} == {row.name for row in TABLE}
        assert len(plan) >= 250


def test_faults_that_need_the_same_thing_do_not_meet() -> None:
    """No two planned faults take one broker, bucket or process at one time."""
    rows = {row.name: row for row in TABLE}
    plan = draw(3, HOUR_S, TABLE, FULL)
    ends: dict[str, float] = {}
    for one in plan:
        for thing in takes(rows[one.name], one.target, FULL):
            assert ends.get(thing, 0.0) <= one.at_s
            ends[thing] = one.at_s + one.lasts_s


@asynccontextmanager
async def _gate(answer: Answer, *, frames: bool = False) -> AsyncIterator[Gate]:
    """A gate in front of a server that treats each connection by `answer`; the caller is this process, `me`."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    target = server.sockets[0].getsockname()[1]
    gate = Gate("part", free_port(), target, frames=frames, pids=lambda: {os.getpid(): "me"})
    async with gate.open():
        yield gate
    server.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1000):
        writer.write(piece)
    writer.close()


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1000)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789")
    await writer.drain()


async def test_a_cut_reaches_one_process_and_ends_when_it_is_mended() -> None:
    """Its caller hears nothing; another name's rule lets it through; both directions are counted."""
    async with _gate(_echo) as gate:
        gate.rules.append(Cut("somebody else", one_way=False))
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"

        cut = Cut("me", one_way=True)
        gate.rules.append(cut)
        writer.write(b"again")
        await until(lambda: cut.dropped)
        cut.mend()
        assert await reader.read(100) == b""
        writer.close()


async def test_half_a_body_is_withheld() -> None:
    """The length is promised, half of it comes, then the connection ends."""
    async with _gate(_body) as gate:
        rule = Truncate()
        gate.rules.append(rule)
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"GET /bucket/key HTTP/1.1\r\n\r\n")

        assert (await reader.read(-1)).endswith(b"\r\n\r\n01234")
        assert (rule.truncated, rule.withheld_bytes) == (1, 5)
        writer.close()


async def test_a_refused_request_never_reaches_the_part() -> None:
    """503, whole and well-formed."""
    async with _gate(_body) as gate:
        gate.rules.append(Refuse())
        reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        writer.write(b"PUT /bucket/key HTTP/1.1\r\n\r\n")

        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert f"Content-Length: {len(body)}".encode() in head
        writer.close()


async def test_one_end_of_a_transaction_arrives_although_its_sender_has_left() -> None:
    """Other requests pass at once; the held one is delivered after its time, its connection closed or not."""
    got: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1000):
            got.append(piece)

    def frame(key: int) -> bytes:
        return struct.pack(">ihhi", 8, key, 0, 1)

    async with _gate(keep, frames=True) as gate:
        rule = HoldEndTxn(0.2)
        gate.rules.append(rule)
        with socket.create_connection(("127.0.0.1", gate.port)) as sender:
            sender.sendall(frame(3))
            await until(lambda: got == [frame(3)])
            sender.sendall(frame(END_TXN))
            await until(lambda: rule.held_frames)
        await until(lambda: got == [frame(3), frame(END_TXN)])

        assert rule.delivered_frames == 1
