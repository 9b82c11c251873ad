"""Each layer by itself and all of them around a handler, without a loop."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from giclee.bus import dlq
from giclee.bus.errors import Exhausted, Fenced, Poison, Transient
from giclee.bus.layers import around, codec
from giclee.bus.layers import switches as switch_layer
from giclee.bus.layers.dead_letter import StageStopped
from giclee.bus.stage import Burial, Context, Delivery, Stage
from giclee.bus.transport import Record
from giclee.schemas import envelope as wire
from giclee.schemas import topics
from giclee.schemas.events import (
    EVENTS,
    CancelRequested,
    Event,
    ImageRefused,
    ImageRequested,
    ImageStalled,
    SwitchSet,
)
from giclee.schemas.parts import Position, Reason, derived_id
from tests.kit.loops import PROMPT, header, request_record

EXAMPLES = Path(__file__).parents[3] / "schemas" / "examples"
REQUESTED, CANCELS = "image.requested.v1", "image.cancel-requested.v1"


class World:
    """A stage inside its layers; `sent` is what it acknowledged itself, `paused_s` how long it waited between tries."""

    def __init__(self, handle: Any, *, switches: Sequence[SwitchSet] = (), **fields: Any) -> None:
        self.sent: list[Record] = []
        self.paused_s: list[float] = []
        named = {"name": "policy", "reads": (ImageRequested,), "emits": (ImageRefused,), **fields}
        stage = Stage(handle=handle, **named)
        table = SimpleNamespace(rows={switch.scope: switch for switch in switches})
        parts = {"sleep": self._sleep, "switches": table}
        self.context = Context(stage=stage, send=self._send, cluster_id="c", parts=parts)
        self._handle = around(self.context, lambda delivery: stage.handle(delivery.event))

    async def _send(self, records: Sequence[Record]) -> Sequence[Position]:
        self.sent += records
        return [Position(topic=record.topic, partition=max(record.partition, 0), offset=3) for record in records]

    async def _sleep(self, seconds: float) -> None:
        self.paused_s.append(seconds)

    async def give(self, record: Record) -> list[Record]:
        """What comes out for a record; Errors: Transient, StageStopped."""
        placed = record if record.offset >= 0 else replace(record, partition=0, offset=7, timestamp_ms=1000)
        found = wire.read(placed.headers).at(placed.origin(), placed.timestamp_ms, placed.value)
        return list(await self._handle(Delivery(record=placed, envelope=found)))


def refusal(event: ImageRequested) -> ImageRefused:
    reason = Reason(code="policy_rule", stage="policy", message="no")
    return ImageRefused(**event.echo(), reasons=(reason,), policy_version="p", accepted_at=event.envelope.recorded_at)


class Handler:
    """Answers with a refusal, after the errors it was given; remembers what it saw."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.seen: list[Any] = []

    async def __call__(self, event: Any) -> list[Event]:
        self.seen.append(event)
        if self.errors:
            raise self.errors.pop(0)
        return [refusal(event)] if isinstance(event, ImageRequested) else []


def stalled(records: Sequence[Record]) -> ImageStalled:
    (record,) = records
    assert record.topic == "image.stalled.v1"
    return ImageStalled.model_validate_json(record.value or b"")


def switch(scope: str, mode: str = "hold", **fields: Any) -> SwitchSet:
    return SwitchSet(scope=scope, mode=mode, reason="because", actor="test", set_at=datetime.now(UTC), **fields)


def with_headers(record: Record, **named: str) -> Record:
    more = tuple(
        (name.replace("_", "-") if name.startswith("giclee") else name, text.encode()) for name, text in named.items()
    )
    return replace(record, headers=(*record.headers, *more))


# ---- retry and deadline -------------------------------------------------------------------------


async def test_a_record_with_bad_luck_is_tried_five_times_more_over_thirty_seconds() -> None:
    """Then it is a dead letter of class exhausted, and a replay may succeed."""
    handler = Handler(*(Transient("busy", scope="record") for _ in range(6)))
    world = World(handler)
    body = stalled(await world.give(request_record()))

    assert len(handler.seen) == 6
    assert 24 <= sum(world.paused_s) <= 36
    assert (body.dead_class, body.reasons[0].retryable) == ("exhausted", True)
    assert header(world.sent[0], "dlq-attempts") == "6"


async def test_the_last_try_counts() -> None:
    """Five failures and a success are a success."""
    world = World(Handler(*(Transient("busy", scope="record") for _ in range(5))))
    (emitted,) = await world.give(request_record())

    assert emitted.topic == "image.refused.v1"
    assert world.sent == []


async def test_an_outage_is_nobodys_death() -> None:
    """It goes to the loop at once, in whatever try it comes."""
    handler = Handler(Transient("busy", scope="record"), Transient("database away"))
    world = World(handler)
    with pytest.raises(Transient, match="database away"):
        await world.give(request_record())

    assert len(handler.seen) == 2
    assert world.sent == []


async def test_a_handler_that_hangs_is_cut_off_and_tried_again() -> None:
    """Past its deadline it is cancelled, and that was one try."""
    import asyncio

    tries: list[bool] = []

    async def hangs_once(event: ImageRequested) -> list[Event]:
        tries.append(True)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return [refusal(event)]

    world = World(hangs_once, deadline_s=0.02)
    assert len(await world.give(request_record())) == 1
    assert len(tries) == 2


async def test_a_timeout_of_the_handlers_own_is_a_bug_and_not_the_deadline() -> None:
    """Adapters translate what their library raises; what they leave is unretried."""
    world = World(Handler(TimeoutError("mine")), deadline_s=30)
    assert stalled(await world.give(request_record())).dead_class == "bug"
    assert world.paused_s == []


# ---- dead letters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "dead_class", "retryable"),
    [
        (Poison("never"), "poison", False),
        (Poison("late", dead_class="deadline"), "deadline", False),
        (Exhausted("nobody left"), "exhausted", True),
        (ZeroDivisionError("oops"), "bug", False),
    ],
)
async def test_what_a_handler_raises_says_how_the_record_died(
    error: Exception, dead_class: str, retryable: bool
) -> None:
    """One dead letter beside its source, one stall that names both places."""
    world = World(Handler(error))
    record = request_record(client_ref="mine")
    body = stalled(await world.give(record))

    (letter,) = world.sent
    assert (letter.topic, letter.partition, letter.value, letter.key) == (
        f"{REQUESTED}.dlq",
        0,
        record.value,
        record.key,
    )
    assert header(letter, "dlq-class") == body.dead_class == dead_class
    assert body.reasons[0].retryable is retryable
    assert (body.source.offset, body.dead_letter.offset, body.client_ref) == (7, 3, "mine")
    assert header(letter, "dlq-fingerprint") == body.fingerprint


async def test_the_same_fault_at_the_same_place_is_the_same_dead_letter() -> None:
    """A duplicate after a crash counts once; its stall is the same event."""
    record = request_record()
    letters, events = [], []
    for _ in range(2):
        world = World(Handler(Poison("never")))
        events += await world.give(record)
        letters += world.sent

    assert header(letters[0], "dlq-id") == header(letters[1], "dlq-id")
    assert header(events[0], "ce_id") == header(events[1], "ce_id")


async def test_a_replay_that_dies_again_is_another_stall() -> None:
    """The replay count is part of the announcement's identity and goes on counting."""
    first, again = World(Handler(Poison("never"))), World(Handler(Poison("never")))
    record = request_record()
    (one,) = await first.give(record)
    back = dlq.replay_of(first.sent[0], run_id="r1")
    (two,) = await again.give(back)

    assert header(again.sent[0], "dlq-replay-count") == "1"
    assert header(again.sent[0], "dlq-replay-run-id") == "r1"
    assert stalled([two]).replay_count == 1
    assert header(one, "ce_id") != header(two, "ce_id")


async def test_twenty_deaths_in_a_row_stop_the_stage_before_the_next_is_written() -> None:
    """One record that lives begins the count anew."""
    handler = Handler(*(Poison("never") for _ in range(19)))
    world = World(handler)
    for _ in range(20):
        await world.give(request_record())
    handler.errors = [Poison("never") for _ in range(21)]
    for _ in range(20):
        await world.give(request_record())
    with pytest.raises(StageStopped):
        await world.give(request_record())

    assert len(world.sent) == 39


async def test_half_of_the_last_hundred_stop_the_stage() -> None:
    """Also where every second record lives."""
    handler = Handler()
    world = World(handler)
    with pytest.raises(StageStopped):
        for number in range(200):
            handler.errors = [Poison("never")] if number % 2 else []
            await world.give(request_record())

    assert len(world.sent) == 50


@pytest.mark.parametrize("mode", ["invalid", "refused", "capped"])
async def test_what_is_not_our_failure_is_no_run(mode: str) -> None:
    """Invalid records, and what an operator refuses by a switch or a cap: else anybody could stop everybody."""
    cap = Reason(code="spend_cap", stage="gpu-worker.hosted", message="today's cap", retryable=True)
    capped = [Exhausted("budget", reasons=(cap,)) for _ in range(60)] if mode == "capped" else []
    world = World(Handler(*capped), switches=[switch("tenant:acme", "refuse")] if mode == "refused" else [])
    record = Record(topic=REQUESTED, value=b"{") if mode == "invalid" else request_record(tenant="acme")
    for _ in range(60):
        stalled(await world.give(record))
    (emitted,) = await world.give(request_record())

    assert emitted.topic == "image.refused.v1"


async def test_the_hook_decides_whose_death_it_was() -> None:
    """Another identity, what was paid, or that another owner decides and nothing is written."""

    async def claim(event: Event | None, error: BaseException) -> Burial:
        return Burial(origin="image.requested.v1:4:11")

    async def elsewhere(event: Event | None, error: BaseException) -> Burial:
        return Burial(wanted=False)

    world, silent = World(Handler(Poison("x")), bury=claim), World(Handler(Poison("x")), bury=elsewhere)
    body = stalled(await world.give(request_record()))

    assert (body.source.partition, body.source.offset) == (4, 11)
    assert (world.sent[0].partition, header(world.sent[0], "dlq-original-offset")) == (4, "11")
    assert await silent.give(request_record()) == []
    assert silent.sent == []


async def test_a_projection_announces_nothing() -> None:
    """Status is nobody's end: the dead letter is written, the line hears nothing of it."""
    world = World(Handler(Poison("x")), projection=True)
    assert await world.give(request_record()) == []
    assert len(world.sent) == 1


async def test_a_fenced_handler_is_left_alone() -> None:
    """Someone else has the work now; that is no death."""
    world = World(Handler(Fenced("moved on")))
    with pytest.raises(Fenced):
        await world.give(request_record())
    assert world.sent == []


async def test_headers_and_keys_of_any_bytes_are_kept() -> None:
    """What is no UTF-8, empty or repeated stays as it was; only marks of older deaths go."""
    headers = (("h", b"\xff\x00"), ("h", b""), ("ce_subject", b"\xfe"), ("dlq-id", b"old"), ("kafka_dlt-x", b"old"))
    world = World(Handler(Poison("x")))
    await world.give(replace(request_record(), key=b"\xff\xfe", headers=headers))

    (letter,) = world.sent
    assert letter.key == b"\xff\xfe"
    assert letter.headers[:3] == headers[:3]
    assert sum(name == "dlq-id" for name, _ in letter.headers) == 1
    assert "kafka_dlt-x" not in dict(letter.headers)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        '{"password": "hunter2"}',
        "{'api_key': 'hunter2'}",
        "Authorization: Bearer hunter2",
        "authorization=Basic hunter2hunter2",
        "postgresql://giclee:hunter2@host/db",
        "redis://:hunter2@host",
        "postgresql://giclee:p@hunter2@host/db",
        "https://s3/x?X-Amz-Signature=hunter2&y=1",
        "aws_secret_access_key = hunter2",
    ],
)
async def test_no_secret_is_written_into_a_dead_letter(text: str) -> None:
    """Neither in its header nor in the stall that everyone may read."""
    world = World(Handler(Poison(f"failed with {text}")))
    (event,) = await world.give(request_record())

    assert all(b"hunter2" not in raw for _, raw in world.sent[0].headers)
    assert b"hunter2" not in (event.value or b"")


# ---- switches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope", ["all", "stage:policy", "tenant:acme", "batch:b1", "asset-type:email-hero", "model:painter"]
)
async def test_a_hold_sends_the_record_aside_and_announces_nothing(scope: str) -> None:
    """It waits in the held topic, on its partition, with who held it and why; the handler never saw it."""
    handler = Handler()
    record = request_record(tenant="acme", batch_id="b1", asset_type="email-hero", model={"name": "painter"})
    world = World(handler, switches=[switch(scope)])

    assert await world.give(record) == []
    (held,) = world.sent
    assert (held.topic, held.partition, held.value) == (f"{REQUESTED}.held", 0, record.value)
    assert (header(held, "held-stage"), header(held, "held-scope")) == ("policy", scope)
    assert handler.seen == []


@pytest.mark.parametrize(
    "one",
    [
        switch("tenant:other"),
        switch("stage:router"),
        switch("all", "clear"),
        switch("all", expires_at=datetime.now(UTC) - timedelta(seconds=1)),
    ],
)
async def test_other_scopes_and_what_is_over_stop_nothing(one: SwitchSet) -> None:
    """A switch of someone else, a cleared one and an expired one."""
    assert len(await World(Handler(), switches=[one]).give(request_record(tenant="acme"))) == 1


async def test_a_template_can_be_switched() -> None:
    """By its id, whatever its version."""
    body = {"request_id": str(uuid.uuid4()), "template": {"id": "hero", "version": 2}}
    world = World(Handler(), switches=[switch("template:hero")])
    assert await world.give(Record(topic=REQUESTED, value=json.dumps(body).encode())) == []
    assert len(world.sent) == 1


async def test_a_refusal_by_switch_is_a_dead_letter_with_its_reason() -> None:
    """Its caller hears of it, and a replay finds the switch cleared."""
    body = stalled(await World(Handler(), switches=[switch("all", "refuse")]).give(request_record()))
    assert (body.dead_class, body.reasons[0].code) == ("poison", "switch_refused")


async def test_a_stage_that_can_refuse_answers_for_what_a_switch_refuses() -> None:
    """Its answer is emitted like any other, with the switch named; the handler never saw the record."""
    told: list[Reason] = []

    async def refuse(event: ImageRequested, reason: Reason) -> list[Event]:
        told.append(reason)
        return [refusal(event)]

    handler = Handler()
    (emitted,) = await World(handler, switches=[switch("all", "refuse")], refuse=refuse).give(request_record())

    assert (emitted.topic, handler.seen) == ("image.refused.v1", [])
    assert [(reason.code, reason.message) for reason in told] == [("switch_refused", "all: because")]


COMMON = {"all", "stage", "tenant", "batch"}
SCOPES = {
    "ImageRequested": {"asset-type", "template", "model"},
    "ImageCleared": {"asset-type", "template", "model"},
    "CandidatesRequested": {"asset-type", "template", "model"},
    "ImageRefused": {"asset-type"},
    "ImageRouted": {"asset-type", "template", "model", "provider"},
    "ImageGenerated": {"asset-type", "model", "provider"},
    "GenerationFailed": set(),
    "ImageScored": {"asset-type", "model", "provider"},
}
"""The kinds of switches that each event of the line falls under, beside those that all do."""


@pytest.mark.parametrize("name", SCOPES)
def test_every_kind_of_switch_applies_where_the_event_says_what_it_is_about(name: str) -> None:
    """Of every event of the line, with everything given that may be given."""
    values = json.loads((EXAMPLES / f"{name}.json").read_text())
    asked = values if name == "ImageRequested" else values.get("request", {})
    if asked:
        asked |= {"model": {"name": "painter"}, "template": {"id": "hero", "version": 1, "variables": {}}}
    if name == "ImageRequested":
        del asked["prompt"]
    event = EVENTS[f"giclee.{name}.v1"].model_validate_json(json.dumps({**values, "batch_id": "b1"}))
    kinds = {scope.partition(":")[0] for scope in switch_layer.scopes(event, "scorer")}

    assert kinds == COMMON | SCOPES[name]


async def test_a_discard_passes_every_switch() -> None:
    """It is an end; a hold must not keep it."""
    handler = Handler()
    marked = with_headers(request_record(), **{wire.REPLAY_FOR: "policy", wire.DISCARD: "1"})
    await World(handler, switches=[switch("all")]).give(marked)

    assert handler.seen[0].envelope.discard


async def test_cancels_and_projections_pass_every_switch() -> None:
    """A hold must not keep a request from being cancelled, nor hide what is held."""
    cancel = Record(topic=CANCELS, value=json.dumps({"request_id": str(uuid.uuid4())}).encode())
    publisher, status = Handler(), Handler()
    await World(publisher, switches=[switch("all")], name="publisher", reads=(CancelRequested,), emits=()).give(cancel)
    await World(status, switches=[switch("all")], name="intake.status", projection=True).give(request_record())

    assert len(publisher.seen) == len(status.seen) == 1


async def test_a_request_without_an_id_keeps_the_one_it_had_when_it_was_held() -> None:
    """Its id follows from its place; sent back it has another place, and must stay the same request."""
    from giclee.replay.switches import _back

    record = Record(topic=REQUESTED, value=json.dumps({"prompt": PROMPT}).encode())
    first = Handler()
    (emitted,) = await World(first).give(record)
    world = World(Handler(), switches=[switch("all")])
    await world.give(record)
    second = Handler()
    await World(second).give(replace(_back(world.sent[0].to(REQUESTED), "policy"), partition=3, offset=99))

    assert first.seen[0].request_id == second.seen[0].request_id
    assert json.loads(emitted.value or b"")["request_id"] == str(second.seen[0].request_id)


# ---- codec --------------------------------------------------------------------------------------


async def test_a_bare_json_value_is_a_request() -> None:
    """No headers, no key, no id: the id follows from the place, the same at every redelivery and reader."""
    record = Record(topic=REQUESTED, value=json.dumps({"prompt": PROMPT}).encode())
    seen = [Handler(), Handler(), Handler()]
    await World(seen[0]).give(record)
    await World(seen[1], name="intake.status").give(record)
    await World(seen[2]).give(replace(record, partition=1, offset=7, timestamp_ms=1000))

    ids = [handler.seen[0].request_id for handler in seen]
    assert ids[0] == ids[1] == derived_id("c", REQUESTED, 0, 7, 1000)
    assert ids[2] != ids[0]


@pytest.mark.parametrize("base64_", [False, True])
async def test_structured_mode_is_a_request(base64_: bool) -> None:
    """Attributes stand in the value; the id follows from source and id, and what follows names its cause."""
    body = {"prompt": PROMPT}
    value: dict[str, Any] = {"specversion": "1.0", "id": "41", "source": "/crm", "type": ImageRequested.type_name}
    value |= {"data_base64": base64.b64encode(json.dumps(body).encode()).decode()} if base64_ else {"data": body}
    record = Record(
        topic=REQUESTED,
        value=json.dumps(value).encode(),
        headers=(("content-type", b"application/cloudevents+json; charset=utf-8"),),
    )
    handler = Handler()
    (emitted,) = await World(handler).give(record)

    assert handler.seen[0].request_id == derived_id("/crm", "41")
    assert handler.seen[0].envelope.id == "41"
    assert header(emitted, "ce_causationid") == "41"


@pytest.mark.parametrize(
    "value",
    [
        {"id": "1"},
        {"data_base64": "ü"},
        {"data_base64": "a"},
        {"data_base64": 7},
        {"data_base64": "e30=", "type": "other"},
        {"data": None},
        {"data": "text"},
        [],
        "x",
    ],
)
async def test_a_bad_structured_event_is_invalid(value: Any) -> None:
    """Never a bug: twenty of those would stop the stage."""
    headers = (("content-type", wire.STRUCTURED.encode()),)
    record = Record(topic=REQUESTED, value=json.dumps(value).encode(), headers=headers)
    assert stalled(await World(Handler()).give(record)).dead_class == "invalid"


async def test_an_upstream_systems_own_headers_name_the_request() -> None:
    """ce_source and ce_id make the id; a redelivery by the upstream system is the same request."""
    record = Record(topic=REQUESTED, value=json.dumps({"prompt": PROMPT}).encode())
    seen = [Handler(), Handler()]
    for number, handler in enumerate(seen):
        placed = replace(record, partition=number, offset=number, timestamp_ms=5)
        await World(handler).give(with_headers(placed, ce_source="/crm", ce_id="9"))

    assert {handler.seen[0].request_id for handler in seen} == {derived_id("/crm", "9")}


@pytest.mark.parametrize("own", [{}, {"ce_source": "/crm", "ce_id": "9"}, {"ce_subject": "order-7"}])
async def test_a_request_that_is_replayed_keeps_its_id(own: dict[str, str]) -> None:
    """It was announced under that id; under another one nobody would ever hear of it again."""
    record = with_headers(Record(topic=REQUESTED, value=json.dumps({"prompt": PROMPT}).encode()), **own)
    world = World(Handler(Poison("not yet")))
    announced = stalled(await world.give(record)).request_id
    back = replace(dlq.replay_of(world.sent[0], run_id="r"), partition=5, offset=50, timestamp_ms=77)
    handler = Handler()
    await World(handler).give(back)

    assert handler.seen[0].request_id == announced


async def test_a_replay_is_for_one_stage() -> None:
    """Others skip it without a word, undecodable or not."""
    handler = Handler()
    world = World(handler)
    for raw in (request_record().value, b"{"):
        record = Record(topic=REQUESTED, value=raw, headers=((wire.REPLAY_FOR, b"intake.status"),))
        assert await world.give(record) == []

    assert handler.seen == []
    assert world.sent == []


async def test_a_replay_for_nobody_is_said_by_the_owner() -> None:
    """Anyone may write headers: a stage that does not exist must not make every reader skip the record."""
    record = with_headers(request_record(), **{wire.REPLAY_FOR: "polcy"})

    assert stalled(await World(Handler()).give(record)).dead_class == "invalid"
    assert await World(Handler(), name="intake.status", projection=True).give(record) == []


@pytest.mark.parametrize("topic", [row.name for row in topics.all_topics() if row.readers and "dlq" not in row.name])
def test_what_cannot_be_decoded_always_has_an_owner(topic: str) -> None:
    """Closings too, whose other readers are one per pool."""
    assert topic.endswith(".held") or "<" not in (topics.owner_of(topic) or "<")


async def test_only_the_first_reader_owns_what_cannot_be_decoded() -> None:
    """One fault, one dead letter: the row of the topic names its owner, everyone else skips it."""
    garbage = Record(topic=REQUESTED, value=b"\xff")
    status = World(Handler(), name="intake.status", projection=True)

    assert await status.give(garbage) == []
    assert status.sent == []
    assert stalled(await World(Handler()).give(garbage)).dead_class == "invalid"


async def test_every_error_of_an_invalid_request_is_named() -> None:
    """By JSON pointer, all at once."""
    body = {"request_id": "x", "prompt": "", "wanted": 0, "budget": 1}
    found = stalled(await World(Handler()).give(Record(topic=REQUESTED, value=json.dumps(body).encode())))

    assert {"/request_id", "/prompt", "/wanted", "/budget"} <= {reason.pointer for reason in found.reasons}


async def test_a_stage_may_emit_only_what_it_names() -> None:
    """Anything else is a bug and says so."""

    async def wrong(event: ImageRequested) -> list[Event]:
        return [CancelRequested(**event.echo())]

    world = World(wrong)
    assert stalled(await world.give(request_record())).dead_class == "bug"
    assert "CancelRequested" in header(world.sent[0], "dlq-error-message")


async def test_what_follows_names_its_cause_and_keeps_the_trace() -> None:
    """Emitted events carry the id of what led to them."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    record = with_headers(request_record(), ce_id="up-1", ce_source="/crm", traceparent=trace)
    (emitted,) = await World(Handler()).give(record)

    assert header(emitted, "ce_causationid") == "up-1"
    assert header(emitted, "traceparent") == trace


def nested(**fields: Any) -> dict[str, Any]:
    rid = str(uuid.uuid4())
    return {"request_id": rid, "request": {"request_id": rid, "prompt": PROMPT, **fields}}


@pytest.mark.parametrize(
    "body",
    [
        nested(request_id=str(uuid.uuid4())),
        nested(tenant="other"),
        nested(unknown=1),
        nested(webhook={"url": "https://x"}),
        {**nested(), "tenant": "other"},
        {"batch_id": "b"},
        {"request_id": str(uuid.uuid4()), "reason": 7, "extra": 1},
    ],
)
async def test_a_cancel_is_as_strict_as_a_request(body: dict[str, Any]) -> None:
    """What it carries of its request is of that request and tenant, or it is refused."""
    world = World(Handler(), name="publisher", reads=(CancelRequested,), emits=())
    record = Record(topic=CANCELS, value=json.dumps(body).encode())
    assert stalled(await world.give(record)).dead_class == "invalid"


def test_what_is_encoded_is_decoded() -> None:
    """An event of ours comes back as it was, whatever reads it."""
    request = ImageRequested.model_validate({"request_id": uuid.uuid4(), "prompt": "x"})
    request.delivered(wire.Envelope())
    event = refusal(request)
    record = codec.encode(event, source="giclee/policy")
    assert codec.decode(record, wire.read(record.headers), "c") == event


def test_scopes_go_from_wide_to_narrow() -> None:
    """The widest switch that stops an event is the one it waits under."""
    event = ImageRequested.model_validate({"request_id": uuid.uuid4(), "prompt": "x", "tenant": "acme"})
    rows = {one.scope: one for one in (switch("tenant:acme"), switch("all"), switch("stage:policy"))}
    now = datetime.now(UTC)

    assert [found.scope for found in [switch_layer.in_force(rows, event, "policy", now)] if found] == ["all"]
    del rows["all"]
    assert [found.scope for found in [switch_layer.in_force(rows, event, "policy", now)] if found] == ["stage:policy"]
