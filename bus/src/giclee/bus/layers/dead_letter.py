"""The one place that catches everything. A record that cannot be handled becomes one dead letter and one
ImageStalled, both acknowledged before its offset may be committed; an outage never does.

A run of dead letters is an outage in disguise: 20 in a row, or half of the last 100, stop the stage before
the next one is written. Records that are invalid by themselves do not count, or anybody with a keyboard
could stop the line; nor does what an operator refuses, by a switch or by a cap on spending.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from typing import Any

from giclee.bus import dlq, failpoints, redaction, telemetry
from giclee.bus.errors import Exhausted, Fenced, Poison, Transient
from giclee.bus.layers import codec, switches
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

    def dies(self, error: Exception) -> None:
        """Note that a record is about to die. Errors: StageStopped when it is one too many."""
        if _class_of(error) == "invalid" or isinstance(error, switches.Refused) or _is_capped(error):
            return
        if self.in_a_row >= RUN_MAX or sum(self.recent) >= WINDOW_MAX:
            raise StageStopped(f"{self.in_a_row} dead letters in a row, {sum(self.recent)} of the last {WINDOW}")
        self.in_a_row += 1
        self.recent.append(True)


def _class_of(error: Exception) -> str:
    return error.dead_class if isinstance(error, Poison) else "bug"


def _is_capped(error: Exception) -> bool:
    """Whether a chain ended at an operator's cap: one tenant's cap must not stop the others."""
    reasons: tuple[Reason, ...] = getattr(error, "reasons", ())
    return bool(reasons) and reasons[-1].code == "spend_cap"


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
        message=redaction.message_of(error),
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
        reasons=tuple(_discreet(reason) for reason in reasons) or (default,),
        source=Position(topic=topic, partition=partition, offset=offset),
        dead_letter=at,
        fingerprint=letter.fingerprint,
        paid_usd=letter.paid_usd,
        replay_count=letter.replay_count,
        stalled_at=datetime.now(UTC),
        closes_by=getattr(getattr(event, "request", None), "closes_by", None),
    )


def _discreet(reason: Reason) -> Reason:
    """A reason as everybody may read it: some tell what a provider answered."""
    return reason.model_copy(update={"message": redaction.redact(reason.message)})


class Guard:
    """What a stage does with records that die."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stage = context.stage
        self._run = Run()

    def lived(self) -> None:
        self._run.lived()

    async def bury(self, delivery: Delivery, error: Exception) -> Emits:
        """Write the dead letter of a delivery, and what announces it. Errors: Transient, StageStopped."""
        burial = await self._burial_of(delivery, error)
        if not burial.wanted:
            return ()
        letter = letter_of(self._context, delivery, error, burial)
        self._run.dies(error)
        delivery.letter, delivery.error = letter, error
        log.error(
            "dead letter",
            dlq_id=letter.id,
            dead_class=letter.dead_class,
            error_type=letter.error_type,
            error=letter.message,
            origin=letter.origin,
            exc_info=error if letter.dead_class == "bug" else None,
        )
        telemetry.count("giclee_dead_letters_total", stage=self._stage.name, dead_class=letter.dead_class)
        return await self.write(delivery, letter, error)

    async def write(self, delivery: Delivery, letter: dlq.DeadLetter, error: Exception) -> Emits:
        """The announcement, once the dead letter is acknowledged. Errors: Transient; to be called again then."""
        await failpoints.reach("before-dead-letter")
        try:
            positions = await self._context.send([letter.record(delivery.record)])
        except Poison:
            positions = await self._context.send([letter.without_bytes(delivery.record)])
        await failpoints.reach("after-dead-letter")
        if self._stage.projection:
            return ()
        stalled = stalled_of(delivery, letter, error, positions[0])
        return [codec.encode(stalled, source=f"giclee/{self._stage.name}", cause=delivery.envelope)]

    async def _burial_of(self, delivery: Delivery, error: Exception) -> Burial:
        try:
            return await self._stage.bury(delivery.event, error)
        except (Transient, StageStopped, Fenced):
            raise
        except Exception as failed:  # a hook only adds what it knows; the record died all the same
            log.critical(
                "a bury hook failed", stage=self._stage.name, error=redaction.message_of(failed), exc_info=failed
            )
            return Burial()


def layer(context: Context, inner: Next) -> Next:
    """Turns whatever a handler raises into a dead letter, except an outage and a stop."""
    guard = Guard(context)

    async def guarded(delivery: Delivery) -> Emits:
        if delivery.letter is not None and delivery.error is not None:  # it died before; the broker was away then
            return await guard.write(delivery, delivery.letter, delivery.error)
        try:
            emits: Emits = await inner(delivery)
        except Transient as error:
            if error.scope == "dependency":
                raise
            return await guard.bury(delivery, Exhausted(str(error)))
        except (StageStopped, Fenced):
            raise
        except Exception as error:  # noqa: BLE001 - the one place of the house that may
            return await guard.bury(delivery, error)
        guard.lived()
        return emits

    return guarded
