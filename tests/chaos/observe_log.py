"""Readers of every topic that write down what they see: two live ones, and another client at the end.

They survive brokers that die: a reader that breaks opens again where it was. README.md says what the lines mean.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from confluent_kafka import Consumer, KafkaException, Message
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import TopicPartition as ClientPartition

POLL_MS = 200
AGAIN_S = 0.5
ASK_TIMEOUT_S = 10.0
END_EVERY_S = 0.1
FINAL_BATCH = 1000

Line = dict[str, Any]
Ends = Mapping[tuple[str, int], tuple[int, int]]
"""(topic, partition) -> where it begins and where it ends, by the brokers."""


def written(raw: bytes | None) -> Any:
    """Bytes as a JSON value: text where they are UTF-8, else base64."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


@dataclass
class LiveReader:
    """Follows all topics of a prefix at one isolation level until cancelled; `file` gets a line per record."""

    servers: str
    prefix: str
    isolation: str
    file: Path
    on_line: Callable[[Line], None] = lambda line: None
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    breaks: int = 0
    following: asyncio.Event = field(default_factory=asyncio.Event)
    _consumer: AIOKafkaConsumer | None = None

    async def run(self) -> None:
        """Until cancelled; starts over where it was after whatever the brokers did."""
        while True:
            try:
                await self._follow()
            except (KafkaError, KafkaException, OSError, TimeoutError):
                self.breaks += 1
                await asyncio.sleep(AGAIN_S)

    async def at(self, topic: str, partition: int) -> int:
        """Everything before this offset was read; -1 while nothing can be said."""
        place = TopicPartition(self.prefix + topic, partition)
        if self._consumer is None or place not in self._consumer.assignment():
            return self.positions.get(place, -1)
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                found: int = await self._consumer.position(place)
        except (KafkaError, TimeoutError):
            return -1
        return found

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.servers,
            isolation_level=self.isolation,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=POLL_MS,
            metadata_max_age_ms=10_000,
            request_timeout_ms=10_000,
        )
        try:
            await consumer.start()
            await self._place(consumer)
            self._consumer = consumer
            self.following.set()
            with self.file.open("ab") as out:
                while True:
                    self._write(await consumer.getmany(timeout_ms=POLL_MS), out)
        finally:
            self._consumer = None
            await consumer.stop()

    async def _place(self, consumer: AIOKafkaConsumer) -> None:
        """Assign every partition there is, each at the first record that was not read yet."""
        ends = await asyncio.to_thread(ends_of, self.servers, self.prefix)
        if not ends:
            raise TimeoutError("there are no topics yet")
        begins = {TopicPartition(self.prefix + topic, number): begin for (topic, number), (begin, _) in ends.items()}
        consumer.assign(list(begins))
        for place, begin in begins.items():
            consumer.seek(place, self.positions.setdefault(place, begin))

    def _write(self, batches: Mapping[TopicPartition, Sequence[Any]], out: Any) -> None:
        seen_at = time.time()
        for place, records in batches.items():
            for record in records:
                line = {
                    "topic": record.topic.removeprefix(self.prefix),
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp_ms": record.timestamp,
                    "key": written(record.key),
                    "headers": [[name, written(raw)] for name, raw in record.headers],
                    "value": written(record.value),
                    "isolation": self.isolation,
                    "seen_at": seen_at,
                }
                out.write(orjson.dumps(line) + b"\n")
                self.on_line(line)
            self.positions[place] = records[-1].offset + 1
        out.flush()


# ---- at the end -----------------------------------------------------------------------------------------


def _client(servers: str) -> Consumer:
    return Consumer(
        {"bootstrap.servers": servers, "group.id": "observer", "isolation.level": "read_committed", "log_level": 2,
         "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "error"}
    )  # fmt: skip


def ends_of(servers: str, prefix: str) -> Ends:
    """Where every partition begins and ends now. Errors: KafkaException while brokers are away."""
    client = _client(servers)
    try:
        found = {}
        for name, topic in client.list_topics(timeout=ASK_TIMEOUT_S).topics.items():
            if name.startswith(prefix) and not name.startswith("__"):
                for number in topic.partitions:
                    place = ClientPartition(name, number)
                    found[name.removeprefix(prefix), number] = client.get_watermark_offsets(place, ASK_TIMEOUT_S)
        return found
    finally:
        client.close()


def read_all(servers: str, prefix: str, ends: Ends, file: Path, within_s: float) -> dict[tuple[str, int], int]:
    """Every committed record before `ends`, by another client, each partition in its order; how far it came."""
    client, deadline = _client(servers), time.monotonic() + within_s
    reached = {place: begin for place, (begin, _) in ends.items()}
    try:
        client.assign(
            [ClientPartition(prefix + topic, n, begin) for (topic, n), (begin, end) in ends.items() if end > begin]
        )
        with file.open("wb") as out:
            while any(reached[place] < end for place, (_, end) in ends.items()) and time.monotonic() < deadline:
                for message in _told(client.consume(FINAL_BATCH, timeout=POLL_MS / 1000)):
                    place, is_record = (message.topic().removeprefix(prefix), message.partition()), not message.error()
                    if is_record and message.offset() < ends[place][1]:
                        out.write(orjson.dumps(_line(message, prefix)) + b"\n")
                    reached[place] = max(reached[place], message.offset() + is_record)
    finally:
        client.close()
    return reached


def _told(messages: Sequence[Message]) -> Iterator[Message]:
    """Records, and the ends of partitions, which say how far those are past markers of transactions."""
    for message in messages:
        error = message.error()
        if error is None or error.code() == ClientError._PARTITION_EOF:
            yield message
        elif error.fatal():
            raise KafkaException(error)


def _line(message: Message, prefix: str) -> Line:
    return {
        "topic": message.topic().removeprefix(prefix),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp_ms": message.timestamp()[1],
        "key": written(message.key()),
        "headers": [[name, written(raw)] for name, raw in message.headers() or ()],
        "value": written(message.value()),
        "isolation": "final",
        "seen_at": time.time(),
    }
