"""The one place that catches everything. A record that cannot be handled becomes one dead letter and one
ImageStalled, both acknowledged before its offset may be committed; an outage never does.

A run of dead letters is an outage in disguise: 20 in a row, or half of the last 100, stop the stage before
the next one is written. Records that are invalid by themselves do not count, or anybody with a keyboard
could stop the line.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

from giclee.bus import dlq, telemetry
from giclee.bus.errors import Exhausted, Fenced, Poison, Transient
from giclee.bus.layers import codec
from giclee.bus.stage import Burial, Context, Delivery, Emits, Next
from giclee.schemas import parts
from giclee.schemas.events import CandidateEvent, ImageGenerated, ImageRouted, ImageStalled, WaveEvent
from giclee.schemas.parts import Position, Reason

RUN_MAX = 20
WINDOW = 100
WINDOW_MAX = 50

log = telemetry.logger(__name__)


class StageStopped(Exception):
    """Too many records in a row died; somebody must look before more are drained into the dead letters."""


class Run:
    """Counts dead letters among the last records of one stage."""

    def __init__(self) -> None:
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.in_a_row = 0

    def lived(self) -> None:
        self.in_a_row = 0
        self.recent.append(False)

    def dies(self, dead_class: str) -> None:
        """Note that a record is about to die. Errors: StageStopped when it is one too many."""
        if dead_class == "invalid":
            return
        if self.in_a_row >= RUN_MAX or sum(self.recent) >= WINDOW_MAX:
            raise StageStopped(f"{self.in_a_row} dead letters in a row, {sum(self.recent)} of the last {WINDOW}")
        self.in_a_row += 1
        self.recent.append(True)


def _class_of(error: Exception) -> str:
    return error.dead_class if isinstance(error, Poison) else "bug"


def _known(delivery: Delivery) -> dict[str, Any]:
    """Whose record it was, as far as that can be read at all."""
    event, envelope = delivery.event, delivery.envelope
    if event is not None:
        known = {name: getattr(event, name, None) for name in ("request_id", "tenant", "candidate_id")}
    else:
        loose = codec.peek(delivery.record.value)
        known = {name: loose.get(name) for name in ("request_id", "tenant", "candidate_id")}
        known["request_id"] = known["request_id"] or envelope.subject
    found: dict[str, Any] = {}
    for name, value in known.items():
        text = str(value) if value is not None else ""
        fits = parts.is_tenant(text) if name == "tenant" else parts.is_uuid(text)
        found[name] = text if fits else None
    if isinstance(event, ImageRouted):
        hop = event.chain[event.hop]
        found |= {"provider": hop.provider, "model": hop.model.name}
    elif isinstance(event, ImageGenerated):
        found |= {"provider": event.provider, "model": event.model.name}
    return found


def letter_of(context: Context, delivery: Delivery, error: Exception, burial: Burial) -> dlq.DeadLetter:
    """The dead letter of a delivery that failed with `error`."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    paid = burial.paid_usd if burial.paid_usd is not None else getattr(error, "paid_usd", None)
    return dlq.DeadLetter(
        stage=context.stage.name,
        dead_class=_class_of(error),
        error_type=type(error).__name__,
        message=dlq.message_of(error),
        attempts=max(delivery.attempts, 1),
        origin=burial.origin or delivery.record.origin(),
        timestamp_ms=delivery.record.timestamp_ms,
        group=context.topic_prefix + context.stage.group,
        first_failed_at=delivery.first_failed_at or now,
        last_failed_at=now,
        version=context.version,
        paid_usd=paid,
        replay_count=delivery.envelope.replay_count,
        replay_run=delivery.envelope.replay_run,
        **_known(delivery),
    )


def stalled_of(delivery: Delivery, letter: dlq.DeadLetter, error: Exception, at: Position) -> ImageStalled:
    """The announcement of a dead letter that lies at `at`."""
    event = delivery.event
    topic, partition, offset = letter.place()
    reasons = getattr(error, "reasons", ())
    code = letter.dead_class if letter.dead_class in ("poison", "exhausted", "deadline", "bug") else "undecodable"
    default = Reason(code=code, stage=letter.stage, message=letter.message, retryable=letter.dead_class == "exhausted")
    echo = event.echo() if event is not None and hasattr(event, "echo") else {"request_id": letter.request_id}
    echo = {name: value for name, value in echo.items() if value is not None}
    return ImageStalled(
        **({"tenant": letter.tenant} if letter.tenant and "tenant" not in echo else {}),
        **echo,
        candidate_id=letter.candidate_id,
        index=event.index if isinstance(event, CandidateEvent) else None,
        hop=event.hop if isinstance(event, CandidateEvent) else None,
        wave=event.wave_number() if isinstance(event, WaveEvent) else None,
        stage=letter.stage,
        dead_class=letter.dead_class,
        reasons=tuple(reasons) or (default,),
        source=Position(topic=topic, partition=partition, offset=offset),
        dead_letter=at,
        fingerprint=letter.fingerprint,
        paid_usd=letter.paid_usd,
        replay_count=letter.replay_count,
        stalled_at=datetime.now(UTC),
        closes_by=getattr(getattr(event, "request", None), "closes_by", None),
    )


def layer(context: Context, inner: Next) -> Next:
    """Turns whatever a handler raises into a dead letter, except an outage and a stop."""
    run = Run()
    stage = context.stage

    async def bury(delivery: Delivery, error: Exception) -> Emits:
        burial = await stage.bury(delivery.event, error)
        if not burial.wanted:
            return ()
        letter = letter_of(context, delivery, error, burial)
        run.dies(letter.dead_class)
        log.error(
            "dead letter",
            dlq_id=letter.id,
            dead_class=letter.dead_class,
            error_type=letter.error_type,
            error=letter.message,
            origin=letter.origin,
            exc_info=error if letter.dead_class == "bug" else None,
        )
        telemetry.count("giclee_dead_letters_total", stage=stage.name, dead_class=letter.dead_class)
        positions = await context.send([letter.record(delivery.record)])
        if stage.projection:
            return ()
        stalled = stalled_of(delivery, letter, error, positions[0])
        return [codec.encode(stalled, source=f"giclee/{stage.name}", cause=delivery.envelope)]

    async def guarded(delivery: Delivery) -> Emits:
        try:
            emits: Emits = await inner(delivery)
        except Transient as error:
            if error.scope == "dependency":
                raise
            return await bury(delivery, Exhausted(str(error)))
        except (StageStopped, Fenced):
            raise
        except Exception as error:  # noqa: BLE001 - the one place of the house that may
            return await bury(delivery, error)
        run.lived()
        return emits

    return guarded
