"""Every record of the corpus, in front of the owner of its topic and in front of everybody else who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from giclee.bus.layers import around
from giclee.bus.stage import Context, Delivery, Stage
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import topics
from giclee.schemas.parts import Position
from tests.kit.corpus import Odd, corpus
from tests.kit.loops import header


class Reader:
    """A stage inside its layers; what it wrote and what its handler saw."""

    def __init__(self, name: str, topic: str) -> None:
        self.sent: list[Record] = []
        self.seen: list[Any] = []
        events = topics.events_on(topic)
        stage = Stage(name=name, reads=events, emits=(), handle=self._handle, projection=name == topics.STATUS)
        self._through = around(Context(stage=stage, send=self._send, cluster_id="c"), lambda d: stage.handle(d.event))

    async def _handle(self, event: Any) -> list[Any]:
        self.seen.append(event)
        return []

    async def _send(self, records: Sequence[Record]) -> Sequence[Position]:
        self.sent += records
        return [Position(topic=record.topic, partition=0, offset=1) for record in records]

    async def read(self, odd: Odd, offset: int) -> None:
        record = replace(odd.record, partition=0, offset=offset, timestamp_ms=max(odd.record.timestamp_ms, 1))
        found = wire.read(record.headers).at(record.origin(), record.timestamp_ms, record.value)
        await self._through(Delivery(record=record, envelope=found))


async def test_every_odd_record_dies_once_at_its_owner_or_is_served() -> None:
    """One dead letter, class invalid, beside its source, with the bytes and headers it had; no reader ever raises."""
    rows = corpus()
    assert len({odd.kind for odd in rows}) >= 40 and len(rows) >= 300
    for offset, odd in enumerate(rows):
        owner = Reader(topics.owner_of(odd.record.topic) or "", odd.record.topic)
        await owner.read(odd, offset)
        letters = [record for record in owner.sent if record.topic == f"{odd.record.topic}.dlq"]
        assert (len(letters), len(owner.seen)) == ((1, 0) if odd.dies else (0, 1)), odd.kind
        for letter in letters:
            assert (letter.key, letter.value, header(letter, "dlq-class")) == (
                odd.record.key,
                odd.record.value,
                "invalid",
            )
            assert letter.headers[: len(odd.record.headers)] == odd.record.headers


async def test_nobody_else_makes_a_dead_letter_of_it() -> None:
    """The other readers of a topic skip what only its owner may bury (rule 12)."""
    for offset, odd in enumerate(corpus()):
        for name in topics.readers_of(odd.record.topic):
            if odd.dies and name not in (topics.owner_of(odd.record.topic), "router.health"):
                reader = Reader(name.replace(topics.POOL, "local"), odd.record.topic)
                await reader.read(odd, offset)
                assert (reader.sent, reader.seen) == ([], []), odd.kind
