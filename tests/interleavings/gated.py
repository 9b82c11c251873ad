"""The adapters of a process, each with the turnstile before it: Postgres, the memory transport, the bucket.

The database's clock runs ahead of the real one by what the scheduler says: `warp` shadows its time functions.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from giclee.bus.blobs import MemoryBlobs
from giclee.bus.errors import Poison, Transient
from giclee.bus.memory import MemoryReader, MemoryTransport
from giclee.bus.transport import Lookup, NumberedWriter, Partition, Reader, Rebalance, Record, Writer
from giclee.publisher import thumbnail as decoder
from giclee.publisher.derive import Thumbnail
from giclee.schemas.parts import BlobRef, Position
from tests.interleavings.clockwork import Life, LostReply, Turnstile, living

WARP = """
CREATE SCHEMA warp;
CREATE TABLE warp.clock (ahead interval NOT NULL);
INSERT INTO warp.clock VALUES ('0');
CREATE FUNCTION warp.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT pg_catalog.clock_timestamp() + ahead FROM warp.clock';
CREATE FUNCTION warp.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT pg_catalog.now() + ahead FROM warp.clock';
CREATE FUNCTION warp.transaction_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT warp.now()';
CREATE FUNCTION warp.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT warp.now()';
"""

# ---- Postgres -----------------------------------------------------------------------------------


def _connection_class(turnstile: Turnstile) -> type[asyncpg.Connection]:
    class Turned(asyncpg.Connection):
        """Every statement is an effect; one whose reply is lost has also lost its connection."""

        __slots__ = ()

        async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
            if args:
                return await super().execute(query, *args, timeout=timeout)
            if query.startswith(("BEGIN", "SELECT pg_advisory_unlock_all", "SET ")):
                async with turnstile.flight():
                    return await super().execute(query, timeout=timeout)
            status: str = await self._turned(query, super().execute(query, timeout=timeout))
            return status

        async def _execute(self, query: str, *args: Any, **more: Any) -> Any:
            return await self._turned(query, super()._execute(query, *args, **more))  # type: ignore[misc]

        async def _executemany(self, query: str, *args: Any, **more: Any) -> Any:
            return await self._turned(query, super()._executemany(query, *args, **more))  # type: ignore[misc]

        async def _turned(self, query: str, statement: Any) -> Any:
            try:
                async with turnstile.effect(_title(query)):
                    return await statement
            except LostReply:
                self.terminate()
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation") from None
            finally:
                statement.close()

        async def add_listener(self, channel: str, callback: Any) -> None:
            """Nobody is notified: what a relay finds, it finds when its clock says so."""

        async def remove_listener(self, channel: str, callback: Any) -> None:
            """As there is none."""

    return Turned


def _title(query: str) -> str:
    lines = [line.strip() for line in query.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("--"))[:60]


@contextmanager
def turned_postgres(turnstile: Turnstile) -> Iterator[None]:
    """Pools that are opened inside have connections that wait for their turn."""
    pools: Any = asyncpg.pool.Pool
    plain, opening = asyncpg.Connection, pools._get_new_connection

    async def opened(pool: Any) -> Any:
        async with turnstile.flight():
            return await opening(pool)

    asyncpg.Connection = _connection_class(turnstile)  # type: ignore[misc, assignment]
    pools._get_new_connection = opened
    try:
        yield
    finally:
        asyncpg.Connection = plain  # type: ignore[misc]
        pools._get_new_connection = opening


# ---- Kafka --------------------------------------------------------------------------------------


class GatedTransport:
    """The transport of one process on the broker that all share."""

    def __init__(self, inner: MemoryTransport, turnstile: Turnstile, life: Life, dice: random.Random) -> None:
        self.inner, self.turnstile, self.life, self.dice = inner, turnstile, life, dice
        self.readers: list[MemoryReader] = []

    async def cluster_id(self) -> str:
        return await self.inner.cluster_id()

    def reader(self, group: str, topics: Sequence[str]) -> Reader:
        reader = self.inner.reader(group, topics)
        self.readers.append(reader)
        return _GatedReader(self, reader, group)

    def lookup(self) -> Lookup:
        return self.inner.lookup()

    def writer(self, name: str) -> Writer:
        return _GatedWriter(self.turnstile, self.inner.writer(name))

    def numbered(self, name: str, topics: Sequence[str]) -> NumberedWriter:
        return _GatedNumbered(self.turnstile, self.inner.numbered(name, topics))


@asynccontextmanager
async def _broker_effect(turnstile: Turnstile, name: str) -> AsyncIterator[None]:
    try:
        async with turnstile.effect(name):
            yield
    except LostReply:
        raise Transient(f"{name}: no acknowledgement came") from None


class _GatedReader:
    """A member whose polls and commits wait for their turn, and to which some partitions come later than others.

    Effects name its group: two that wait side by side in one process must not be told apart by who came first.
    """

    def __init__(self, transport: GatedTransport, inner: MemoryReader, group: str) -> None:
        self._transport, self._inner, self._group = transport, inner, group
        self._paused: set[Partition] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, listener: Rebalance) -> None:
        async with _broker_effect(self._transport.turnstile, f"join {self._group}"):
            pass
        await self._inner.start(_Listener(listener, self._transport.life))

    async def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        async with _broker_effect(self._transport.turnstile, f"poll {self._group}"):
            pass
        dice, mine = self._transport.dice, sorted(self._inner.assignment())
        late = {at for at in mine if dice.random() < 0.3} - self._paused
        self._inner.pause(late)
        try:
            return await self._inner.poll(min(timeout_ms, 100) if late else timeout_ms, max_records)
        finally:
            self._inner.resume(late - self._paused)

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions)
        self._inner.pause(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)
        self._inner.resume(partitions)

    async def commit(self, offsets: Mapping[Partition, int]) -> None:
        async with _broker_effect(self._transport.turnstile, f"commit offsets {self._group}"):
            await self._inner.commit(offsets)


class _Listener:
    """What a group tells a member, told in the member's own life; the group does not suffer when that ends."""

    def __init__(self, inner: Rebalance, life: Life) -> None:
        self._inner, self._life = inner, life

    async def revoked(self, partitions: Collection[Partition]) -> None:
        await self._told(self._inner.revoked(partitions))

    async def assigned(self, partitions: Collection[Partition]) -> None:
        await self._told(self._inner.assigned(partitions))

    async def _told(self, call: Any) -> None:
        with living(self._life):
            task = asyncio.ensure_future(call)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # the group waits no longer
            task.cancel()
            await asyncio.wait({task})
            raise
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


class _GatedWriter:
    def __init__(self, turnstile: Turnstile, inner: Writer) -> None:
        self._turnstile, self._inner = turnstile, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        if not records:
            return ()
        async with _broker_effect(self._turnstile, f"send {len(records)} {records[0].topic}"):
            return await self._inner.send(records)


class _GatedNumbered:
    def __init__(self, turnstile: Turnstile, inner: NumberedWriter) -> None:
        self._turnstile, self._inner = turnstile, inner

    async def open(self) -> int:
        async with _broker_effect(self._turnstile, "open transactions"):
            return await self._inner.open()

    async def send(self, records: Sequence[Record], first_number: int) -> None:
        async with _broker_effect(self._turnstile, f"transaction from {first_number}"):
            await self._inner.send(records, first_number)

    async def close(self) -> None:
        async with _broker_effect(self._turnstile, "close transactions"):
            await self._inner.close()


# ---- the bucket and the decoder -----------------------------------------------------------------


class GatedBlobs:
    """One process' way to the bucket that all share."""

    def __init__(self, inner: MemoryBlobs, turnstile: Turnstile) -> None:
        self._inner, self._turnstile = inner, turnstile

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put(self, key: str, body: bytes, content_type: str, *, width: int, height: int) -> BlobRef:
        async with _broker_effect(self._turnstile, f"put {key}"):
            return await self._inner.put(key, body, content_type, width=width, height=height)

    async def get(self, ref: BlobRef) -> bytes:
        async with _broker_effect(self._turnstile, f"get {ref.key}"):
            return await self._inner.get(ref)

    async def copy(self, ref: BlobRef, key: str) -> BlobRef:
        async with _broker_effect(self._turnstile, f"copy {key}"):
            return await self._inner.copy(ref, key)


class InlineDeriver:
    """The publisher's decoder without its child: it reaches nothing outside, so it needs no turn."""

    async def thumbnail(self, body: bytes) -> Thumbnail:
        try:
            width, height, webp = decoder.thumbnail(body)
        except decoder.Refused as refused:
            raise Poison(str(refused)) from refused
        return Thumbnail(webp, width, height)
