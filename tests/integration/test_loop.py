"""THE loop on a real broker: what it promises while handlers work, fail, hang, and machines come and go."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from giclee.bus import kafka as bus_kafka
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import KafkaSettings
from giclee.bus.stage import Stage
from giclee.bus.transport import Record, Transport, Writer
from giclee.infra import topics as infra_topics
from giclee.schemas.events import Event, ImageRefused, ImageRequested, ImageStalled
from giclee.schemas.parts import Reason
from tests.kit import stack as parts
from tests.kit.loops import Collector, header, request_record, running
from tests.kit.wait import until

REQUESTED, REFUSED, STALLED = "image.requested.v1", "image.refused.v1", "image.stalled.v1"


@dataclass(frozen=True)
class Carrier:
    """A transport on topics of this test alone."""

    transport: Transport
    writer: Writer
    seen: Collector

    async def send(self, records: Sequence[Record]) -> None:
        await self.writer.send(records)


@pytest.fixture
async def carrier(kafka: parts.KafkaRunning, topic_prefix: str) -> AsyncIterator[Carrier]:
    async with carried(kafka, topic_prefix) as found:
        yield found


class carried:
    """Topics, a writer and a collector on one broker."""

    def __init__(self, kafka: parts.KafkaRunning, prefix: str) -> None:
        self.kafka, self.prefix = kafka, prefix

    async def __aenter__(self) -> Carrier:
        target = infra_topics.Target(self.kafka.bootstrap_servers, self.prefix, 1)
        await asyncio.to_thread(infra_topics.apply, target)
        settings = KafkaSettings(bootstrap_servers=self.kafka.bootstrap_servers, topic_prefix=self.prefix)
        transport = bus_kafka.KafkaTransport(settings)
        self.writer = transport.writer("test")
        await self.writer.start()
        self.seen = Collector(transport, (REFUSED, STALLED, f"{REQUESTED}.dlq"))
        await self.seen.__aenter__()
        return Carrier(transport, self.writer, self.seen)

    async def __aexit__(self, *_: object) -> None:
        await self.seen.__aexit__()
        await self.writer.stop()


def refusal(event: ImageRequested) -> ImageRefused:
    reason = Reason(code="policy_rule", stage="policy", message="no")
    return ImageRefused(**event.echo(), reasons=(reason,), policy_version="p", accepted_at=event.envelope.recorded_at)


async def refuse(event: ImageRequested) -> list[Event]:
    return [refusal(event)]


def stage(handle: object = refuse, **fields: object) -> Stage:
    return Stage(name="policy", reads=(ImageRequested,), emits=(ImageRefused,), handle=handle, **fields)  # type: ignore[arg-type]


def ids_of(records: Sequence[Record]) -> set[str]:
    return {json.loads(record.value or b"{}")["request_id"] for record in records}


async def test_every_record_is_answered(carrier: Carrier) -> None:
    """What was sent comes out as what the handler returned, with an id that follows from the request."""
    sent = [request_record() for _ in range(300)]
    async with running(carrier.transport, stage(), carrier.writer) as loop:
        await carrier.send(sent)
        await until(lambda: len(carrier.seen.on(REFUSED)) >= 300, 30)
        await until(lambda: not loop.progress.committable())

    assert ids_of(carrier.seen.on(REFUSED)) == ids_of(sent)
    assert len(set(carrier.seen.ids(REFUSED))) == 300


async def test_records_of_a_key_stay_in_order(carrier: Carrier) -> None:
    """However long single handlers take, one key's records are handled one after the other."""
    order: list[int] = []
    running_now: set[bytes] = set()

    async def slow_first(event: ImageRequested) -> list[Event]:
        key = event.envelope.headers[0][1] if event.envelope.headers else b""
        assert key not in running_now
        running_now.add(key)
        await asyncio.sleep(0.05 if event.wanted % 2 else 0)
        running_now.discard(key)
        order.append(event.wanted)
        return []

    rid = uuid.uuid4()
    async with running(carrier.transport, stage(slow_first), carrier.writer):
        await carrier.send([request_record(rid, wanted=number) for number in range(1, 21)])
        await until(lambda: len(order) == 20, 20)

    assert order == list(range(1, 21))


async def test_a_poison_record_becomes_one_dead_letter_and_the_partition_moves_on(carrier: Carrier) -> None:
    """Its bytes and headers are kept, the stall is announced with its place, the record behind it is answered."""

    async def picky(event: ImageRequested) -> list[Event]:
        if event.client_ref == "bad":
            raise Poison("this one never works, password=hunter2")
        return [refusal(event)]

    bad, good = request_record(client_ref="bad"), request_record()
    async with running(carrier.transport, stage(picky), carrier.writer):
        await carrier.send([bad, good])
        await until(lambda: carrier.seen.on(STALLED) and carrier.seen.on(REFUSED), 20)

    letter, stalled = carrier.seen.on(f"{REQUESTED}.dlq")[0], carrier.seen.on(STALLED)[0]
    body = ImageStalled.model_validate_json(stalled.value or b"")
    assert letter.value == bad.value
    assert header(letter, "dlq-class") == "poison"
    assert "hunter2" not in header(letter, "dlq-error-message")
    assert body.dead_letter.offset == letter.offset
    assert str(body.request_id) == header(letter, "dlq-request-id")


@pytest.mark.parametrize("raw", [b"{", b"", None, b"\xff", b'{"prompt":"x","wanted":0}', b"[" * 90_000, b'"text"'])
async def test_garbage_on_the_public_topic_is_invalid_and_never_blocks(carrier: Carrier, raw: bytes | None) -> None:
    """One dead letter of class invalid with reasons, one stall that names the source, no closing promised."""
    async with running(carrier.transport, stage(), carrier.writer):
        garbage = Record(topic=REQUESTED, key=b"", value=raw, headers=(("h", b"\xff\xfe"),))
        await carrier.send([garbage, request_record()])
        await until(lambda: carrier.seen.on(STALLED) and carrier.seen.on(REFUSED), 20)

    letters = carrier.seen.on(f"{REQUESTED}.dlq")
    body = ImageStalled.model_validate_json(carrier.seen.on(STALLED)[0].value or b"")
    assert [header(one, "dlq-class") for one in letters] == ["invalid"]
    assert letters[0].value == raw
    assert body.reasons
    assert body.source.topic == REQUESTED


async def test_an_outage_pauses_the_stage_and_dead_letters_nothing(carrier: Carrier) -> None:
    """While what is behind a handler is away the stage is unready; afterwards everything is answered."""
    away = True

    async def dependent(event: ImageRequested) -> list[Event]:
        if away:
            raise Transient("database away")
        return [refusal(event)]

    async with running(carrier.transport, stage(dependent), carrier.writer) as loop:
        await carrier.send([request_record() for _ in range(40)])
        await until(lambda: bool(loop._outages), 20)
        with pytest.raises(Transient, match="database away"):
            await loop.check()
        away = False
        await until(lambda: len(carrier.seen.on(REFUSED)) == 40, 30)
        await loop.check()

    assert carrier.seen.on(f"{REQUESTED}.dlq") == []


async def test_a_run_of_dead_letters_stops_the_stage(carrier: Carrier) -> None:
    """The twenty-first failure in a row is not written: somebody must look before a topic is drained."""

    async def broken(event: ImageRequested) -> list[Event]:
        raise ZeroDivisionError("a bug")

    async with running(carrier.transport, stage(broken, concurrency=1), carrier.writer) as loop:
        await carrier.send([request_record() for _ in range(60)])
        await until(lambda: loop.stopped_because, 30)
        with pytest.raises(Transient, match="stopped itself"):
            await loop.check()

    assert len(carrier.seen.on(f"{REQUESTED}.dlq")) == 20


async def test_a_second_replica_takes_its_share_and_nothing_is_lost(carrier: Carrier) -> None:
    """A member that joins while handlers work costs nothing but repeats, which carry the same id."""

    async def slow(event: ImageRequested) -> list[Event]:
        await asyncio.sleep(0.02)
        return [refusal(event)]

    sent = [request_record() for _ in range(400)]
    async with running(carrier.transport, stage(slow, concurrency=4), carrier.writer) as first:
        await carrier.send(sent)
        await until(lambda: len(carrier.seen.on(REFUSED)) > 20, 20)
        async with running(carrier.transport, stage(slow, concurrency=4), carrier.writer) as second:
            await until(lambda: len(ids_of(carrier.seen.on(REFUSED))) == 400, 60)
            assert len(first.reader.assignment()) + len(second.reader.assignment()) == 6
            assert second.reader.assignment()

    assert ids_of(carrier.seen.on(REFUSED)) == ids_of(sent)


async def test_a_stop_drains_what_is_running_and_loses_nothing(carrier: Carrier) -> None:
    """Handlers that had begun finish and are committed; what had not begun is answered by the next process."""
    begun = asyncio.Event()
    release = asyncio.Event()

    async def held(event: ImageRequested) -> list[Event]:
        begun.set()
        await release.wait()
        return [refusal(event)]

    sent = [request_record() for _ in range(30)]
    async with running(carrier.transport, stage(held, concurrency=5), carrier.writer) as loop:
        await carrier.send(sent)
        await asyncio.wait_for(begun.wait(), 20)
        loop.stop()
        release.set()
    drained = len(carrier.seen.on(REFUSED)) if await until(lambda: len(carrier.seen.on(REFUSED)) >= 5, 10) else 0
    async with running(carrier.transport, stage(), carrier.writer):
        await until(lambda: len(ids_of(carrier.seen.on(REFUSED))) == 30, 30)

    assert 5 <= drained < 30
    assert len(carrier.seen.on(REFUSED)) == 30


async def test_the_broker_dies_and_comes_back(topic_prefix: str) -> None:
    """kill -9 of the only broker in the middle of the work: every record is answered afterwards."""
    with parts.kafka_part() as broker:
        async with carried(broker, topic_prefix) as carrier:

            async def slow(event: ImageRequested) -> list[Event]:
                await asyncio.sleep(0.01)
                return [refusal(event)]

            sent = [request_record() for _ in range(300)]
            async with running(carrier.transport, stage(slow, concurrency=4), carrier.writer):
                await carrier.send(sent)
                await until(lambda: len(carrier.seen.on(REFUSED)) > 30, 20)
                broker.running.kill()
                broker.running.start(wait=False)  # a part dies with the thread that started it
                await asyncio.to_thread(broker.running.wait_ready)
                await until(lambda: len(ids_of(carrier.seen.on(REFUSED))) == 300, 60)

            assert ids_of(carrier.seen.on(REFUSED)) == ids_of(sent)
            assert carrier.seen.on(f"{REQUESTED}.dlq") == []
