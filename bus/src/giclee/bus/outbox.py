"""Events leave with the decision that made them: rows of the same database transaction, sent by relays.

Two lanes. `plain`: any number of relays, at least once, in order per key as far as one relay goes.
`transactional` (approvals, revocations, closings): one relay at a time, exactly once for whoever reads
committed records, in order. A schema with an outbox has the table TABLE.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from giclee.bus import database, failpoints, telemetry
from giclee.bus.database import Connection, Pool
from giclee.bus.errors import Fenced, Poison, Transient
from giclee.bus.layers import codec
from giclee.bus.transport import NumberedWriter, Record, Transport, Writer
from giclee.schemas import topics
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import Event, ImageApproved, ImageRevoked, RequestClosed

TABLE = """
CREATE TABLE {schema}.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lane text NOT NULL CHECK (lane IN ('plain', 'transactional')),
    topic text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,
    number bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON {schema}.outbox (lane, id);
"""
"""For the first migration of a service that has an outbox."""

PLAIN, TRANSACTIONAL = "plain", "transactional"
EXACTLY_ONCE: tuple[type[Event], ...] = (ImageApproved, ImageRevoked, RequestClosed)

POLL_S = 1.0
"""A relay looks this often when nobody notifies it: rows of a connection that broke, a lost notification."""
PLAIN_ROWS_MAX = 500
PLAIN_BYTES_MAX = 8 * 1024 * 1024
TRANSACTION_ROWS = 50
"""A transaction of 1 to 50 records costs the same 10 to 32 ms. A request's rows stay together, so it may be more."""
NEIGHBOURS = 1000
"""How many ids further the other rows of a request are looked for; one decision writes at most 101."""
STANDBY_S = 2.0
SESSION_IDLE_MAX_S = 60
"""A relay's session that is silent for longer than any of its waits is ended by the server; its lock goes with it."""
PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Before starting over; a relay that has worked since begins with the first again."""
GAUGES_EVERY_S = 10.0

Encode = Callable[[Record], Awaitable[Record]]
"""Changes a record on its way out (Avro.from_json). Errors: Transient, Poison."""

log = telemetry.logger(__name__)


def lane_of(event: Event) -> str:
    """Which lane an event leaves by."""
    return TRANSACTIONAL if isinstance(event, EXACTLY_ONCE) else PLAIN


async def put(connection: Connection, schema: str, events: Sequence[Event], *, cause: Envelope | None = None) -> None:
    """Write `events` to the outbox of `schema`, inside the transaction of the decision that made them.

    They are sent in this order per lane. Errors: those of asyncpg.
    """
    await put_caused(connection, schema, [(event, cause) for event in events])


async def put_caused(connection: Connection, schema: str, events: Sequence[tuple[Event, Envelope | None]]) -> None:
    """As `put`, for the events of several decisions at once, each with what caused it."""
    if not events:
        return
    records = [codec.encode(event, source=f"giclee/{schema}", cause=cause) for event, cause in events]
    await connection.execute(
        _sql("put", schema),
        [lane_of(event) for event, _ in events],
        [record.topic for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [{name: text.decode() for name, text in record.headers} for record in records],
        _channel(schema),
    )


# ---- SQL ----------------------------------------------------------------------------------------

_QUERIES = database.Queries(Path(__file__).with_name("outbox.sql"))


@cache
def _sql(name: str, schema: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", schema):
        raise ValueError(f"not a schema: {schema!r}")
    return str(getattr(_QUERIES, name)).replace("{schema}", schema)


def _channel(schema: str) -> str:
    return f"{schema}_outbox"


def _record(row: Any) -> Record:
    headers = tuple((name, text.encode()) for name, text in row["headers"].items())
    return Record(topic=row["topic"], key=row["key"], value=row["value"], headers=headers)


# ---- what both relays do ------------------------------------------------------------------------


class _Relay:
    """A connection of its own, notifications, and starting over after whatever went wrong."""

    def __init__(self, pool: Pool, schema: str, lanes: Sequence[str], encode: Encode | None) -> None:
        self._encode = encode
        self.pool = pool
        self.schema = schema
        self.lanes = tuple(lanes)
        self.trouble: str | None = None
        self._gauges_at = 0.0
        self._failures = 0

    async def check(self) -> None:
        """For /readyz. Errors: Transient that says why nothing is sent."""
        if self.trouble:
            raise Transient(f"outbox of {self.schema}: {self.trouble}")

    async def keep(self, turn: Callable[[Connection, asyncio.Event], Awaitable[None]]) -> None:
        """Give `turn` a connection and an event that notifications set, again and again, until cancelled."""
        while True:
            try:
                with database.translated():
                    async with self.pool.acquire() as connection, _notified(connection, self.schema) as woken:
                        await turn(connection, woken)
            except (Transient, Fenced) as error:
                self.trouble = str(error)
                log.warning("the outbox relay starts over", schema=self.schema, lanes=self.lanes, error=str(error))
                await asyncio.sleep(PAUSES_S[min(self._failures, len(PAUSES_S) - 1)])
                self._failures += 1

    def _works(self) -> None:
        self.trouble, self._failures = None, 0

    async def rest(self, connection: Connection, woken: asyncio.Event) -> None:
        """Until there may be new rows."""
        self._works()
        now = asyncio.get_running_loop().time()
        if now >= self._gauges_at:
            self._gauges_at = now + GAUGES_EVERY_S
            await self._show(connection)
        try:
            async with asyncio.timeout(POLL_S):
                await woken.wait()
        except TimeoutError:
            pass

    async def _show(self, connection: Connection) -> None:
        for lane in self.lanes:
            waiting = await connection.fetchrow(self.sql("waiting"), lane)
            assert waiting is not None
            telemetry.gauge("giclee_outbox_waiting", waiting["rows"], lane=lane)
            telemetry.gauge("giclee_outbox_oldest_seconds", float(waiting["oldest_s"]), lane=lane)

    async def records(self, rows: Sequence[Any]) -> list[Record]:
        """The rows as they travel. Errors: those of `encode`."""
        records = [_record(row) for row in rows]
        return records if self._encode is None else [await self._encode(record) for record in records]

    def sql(self, name: str) -> str:
        return _sql(name, self.schema)

    def sent(self, rows: int) -> None:
        self._works()
        telemetry.count("giclee_outbox_sent_total", rows, lane=self.lanes[0])


@asynccontextmanager
async def _notified(connection: Connection, schema: str) -> AsyncIterator[asyncio.Event]:
    woken = asyncio.Event()

    def wake(*_: object) -> None:
        woken.set()

    try:
        await connection.add_listener(_channel(schema), wake)
        connection.add_termination_listener(wake)
        yield woken
    finally:
        with suppress(asyncpg.InterfaceError):  # the session has ended: the pool has the connection back already
            connection.remove_termination_listener(wake)
            await connection.remove_listener(_channel(schema), wake)


# ---- at least once ------------------------------------------------------------------------------


class PlainRelay:
    """Sends the plain lane; run it in every replica. Tests may give it both lanes.

    It holds one connection of the pool. A row that the broker will never take (too large) is left where it
    is, said loudly, and does not hold up the others.
    """

    def __init__(
        self,
        pool: Pool,
        schema: str,
        transport: Transport,
        *,
        lanes: Sequence[str] = (PLAIN,),
        encode: Encode | None = None,
    ) -> None:
        self._relay = _Relay(pool, schema, lanes, encode)
        self._transport = transport
        self._stuck: set[int] = set()
        self.check = self._relay.check

    async def run(self) -> None:
        """Until cancelled. Errors: only bugs; outages are waited for."""
        writer = self._transport.writer(f"{self._relay.schema}.outbox")
        await writer.start()
        try:
            await self._relay.keep(lambda connection, woken: self._send_always(connection, woken, writer))
        finally:
            await writer.stop()

    async def _send_always(self, connection: Connection, woken: asyncio.Event, writer: Writer) -> None:
        while True:
            woken.clear()
            if await self._send_some(connection, writer) == 0:
                await self._relay.rest(connection, woken)

    async def _send_some(self, connection: Connection, writer: Writer) -> int:
        """How many rows were taken, sent and deleted; the locks of one transaction keep others away."""
        relay = self._relay
        async with connection.transaction():
            rows = await connection.fetch(
                relay.sql("take_plain"), relay.lanes, PLAIN_ROWS_MAX, PLAIN_BYTES_MAX, list(self._stuck)
            )
            if rows:
                gone = await self._acknowledged(rows, writer)
                await connection.execute(relay.sql("drop"), gone)
                await failpoints.reach("before-outbox-commit")
        if rows:
            await failpoints.reach("after-outbox-commit")
        relay.sent(len(rows))
        return len(rows)

    async def _acknowledged(self, rows: Sequence[Any], writer: Writer) -> list[int]:
        """The ids of the rows that the broker took. Errors: Transient."""
        try:
            await writer.send(await self._relay.records(rows))
            return [row["id"] for row in rows]
        except Poison:
            log.error("a row cannot be sent; the others go one by one", schema=self._relay.schema)
        gone: list[int] = []
        for row in rows:
            try:
                await writer.send(await self._relay.records([row]))
                gone.append(row["id"])
            except Poison as error:
                self._stuck.add(row["id"])
                log.critical(
                    "an outbox row can never be sent", schema=self._relay.schema, id=row["id"], error=str(error)
                )
        return gone


# ---- exactly once -------------------------------------------------------------------------------
#
# How exactly once works. Ids become visible out of order, so they cannot number anything. The transactional
# relay, alone by an advisory lock, numbers the rows it sees and commits that; then sends them in one Kafka
# transaction with their numbers; then deletes them. After a crash it asks the log for the last number: numbered
# rows up to it were sent and go, later ones were not and are sent again under the same numbers. The lock is a
# session's: a relay that hangs loses its idle session, and its every write to the table goes through that session.


class TransactionalRelay:
    """Sends the transactional lane. Run it in every replica: one works, the others stand by.

    It holds one connection of the pool. `phase` says what it is at.
    """

    def __init__(
        self, pool: Pool, schema: str, transport: Transport, *, shard: int = 0, encode: Encode | None = None
    ) -> None:
        self._relay = _Relay(pool, schema, (TRANSACTIONAL,), encode)
        self._name = f"{schema}.relay.{shard}"
        self._transport = transport
        self.phase = "starting"
        self.check = self._relay.check

    async def run(self) -> None:
        """Until cancelled. Errors: only bugs; outages are waited for."""
        await self._relay.keep(self._lead_or_stand_by)

    async def _lead_or_stand_by(self, connection: Connection, woken: asyncio.Event) -> None:
        self.phase = "standing by"
        if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", self._name):
            self._relay.trouble = None
            await asyncio.sleep(STANDBY_S)
            return
        await connection.execute(f"SET idle_session_timeout = '{SESSION_IDLE_MAX_S}s'")
        writer = self._transport.numbered(self._name, tuple(dict.fromkeys(map(topics.topic_of, EXACTLY_ONCE))))
        try:
            await self._lead(connection, woken, writer)
        finally:
            await writer.close()  # before the pool takes the session, and its lock, back

    async def _lead(self, connection: Connection, woken: asyncio.Event, writer: NumberedWriter) -> None:
        relay = self._relay
        self.phase = "opening"
        last = await writer.open()
        telemetry.count("giclee_outbox_relay_starts_total", lane=TRANSACTIONAL)
        await connection.execute(relay.sql("drop_sent"), last)
        rows = await connection.fetch(relay.sql("numbered"))  # those that a crash left between number and log
        while True:
            woken.clear()
            if not rows:
                self.phase = "numbering"
                rows = await connection.fetch(relay.sql("number"), TRANSACTION_ROWS, last + 1, NEIGHBOURS)
            if rows:
                last = await self._send(connection, writer, sorted(rows, key=lambda row: row["number"]))
                rows = []
            else:
                self.phase = "resting"
                await relay.rest(connection, woken)

    async def _send(self, connection: Connection, writer: NumberedWriter, rows: Sequence[Any]) -> int:
        """The last number sent; the rows are on the log and gone from the table."""
        self.phase = "sending"
        await writer.send(await self._relay.records(rows), rows[0]["number"])
        self.phase = "dropping"
        await connection.execute(self._relay.sql("drop"), [row["id"] for row in rows])
        await failpoints.reach("after-transaction-rows")
        self._relay.sent(len(rows))
        return int(rows[-1]["number"])
