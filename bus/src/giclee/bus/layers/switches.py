"""Holds or refuses work that an operator has stopped, before the handler sees it (contract rule 19).

What is held goes to `<topic>.held`, is not a dead letter and announces nothing; the replay service sends
it back when the switch changes. No stage handles a record before the switches were read to their end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from giclee.bus.errors import Poison
from giclee.bus.stage import Context, Delivery, Next
from giclee.bus.transport import Record
from giclee.schemas import events
from giclee.schemas.events import Event, SwitchSet
from giclee.schemas.parts import Reason

NEVER_HELD = (events.CancelRequested, events.RequestClosed, events.ImageStalled)
"""Ends and their announcements pass every switch, discards too: a hold must not keep a request from being cancelled."""


class Refused(Poison):
    """A switch refuses this work."""


def scopes(event: Event, stage: str) -> Iterator[str]:
    """The switch scopes an event falls under, widest first."""
    yield "all"
    yield f"stage:{stage}"
    request = getattr(event, "request", None) or event
    named = {
        "tenant": getattr(event, "tenant", None),
        "batch": getattr(event, "batch_id", None),
        "asset-type": getattr(request, "asset_type", None),
        "template": getattr(getattr(request, "template", None), "id", None),
        "model": getattr(getattr(request, "model", None), "name", None),
        "provider": getattr(event, "provider", None),
    }
    if isinstance(event, events.ImageRouted):
        hop = event.chain[event.hop]
        named |= {"provider": hop.provider, "model": hop.model.name}
    yield from (f"{kind}:{name}" for kind, name in named.items() if name)


def stops(switch: SwitchSet | None, now: datetime) -> bool:
    """Whether a switch is in force at `now`; stages and the replay service ask the same."""
    return (
        switch is not None
        and switch.mode in ("hold", "refuse")
        and not (switch.expires_at and switch.expires_at <= now)
    )


def in_force(rows: dict[str, SwitchSet], event: Event, stage: str, now: datetime) -> SwitchSet | None:
    """The first switch that stops this event at this stage; an expired one stops nothing."""
    for scope in scopes(event, stage):
        switch = rows.get(scope)
        if stops(switch, now):
            return switch
    return None


def layer(context: Context, inner: Next) -> Next:
    """Looks at the switches that `context.parts["switches"]` follows; without it nothing is stopped."""
    table = context.parts.get("switches")
    stage = context.stage

    async def unless_stopped(delivery: Delivery) -> Sequence[Event]:
        event = delivery.event
        stopped = None
        passes = delivery.envelope.discard or isinstance(event, NEVER_HELD)
        if table is not None and table.rows and event is not None and not passes:
            stopped = None if stage.projection else in_force(table.rows, event, stage.name, datetime.now(UTC))
        if stopped is None:
            handled: Sequence[Event] = await inner(delivery)
            return handled
        if stopped.mode == "refuse":
            reason = Reason(code="switch_refused", stage=stage.name, message=f"{stopped.scope}: {stopped.reason}")
            if stage.refuse is not None:
                return await stage.refuse(event, reason)
            raise Refused(f"switch {stopped.scope} refuses", dead_class="poison", reasons=(reason,))
        await context.send([held(delivery.record, stage.name, stopped, event)])
        return ()

    return unless_stopped


def held(record: Record, stage: str, switch: SwitchSet, event: Event | None) -> Record:
    """The record as it waits in `<topic>.held`: its bytes, who held it, under which switch, for which request."""
    request_id = getattr(event, "request_id", None)
    extra = (
        ("held-stage", stage.encode()),
        ("held-scope", switch.scope.encode()),
        ("held-origin", record.origin().encode()),
        *((("held-request-id", str(request_id).encode()),) if request_id else ()),
    )
    return record.to(f"{record.topic}.held", partition=record.partition, extra=extra)
