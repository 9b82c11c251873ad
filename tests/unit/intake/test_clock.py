"""Which open requests a switch holds, in words of requests."""

from __future__ import annotations

from datetime import timedelta

from giclee.intake.clock import holds_of
from giclee.intake.store import Holds
from giclee.schemas.events import SwitchSet
from tests.unit.intake.builders import START


def switch(scope: str, mode: str = "hold", minutes: int | None = None) -> dict[str, SwitchSet]:
    expires_at = None if minutes is None else START + timedelta(minutes=minutes)
    made = SwitchSet(scope=scope, mode=mode, reason="r", actor="a", set_at=START, expires_at=expires_at)
    return {scope: made}


def test_every_kind_of_scope_holds_its_requests() -> None:
    """Tenants, batches, asset types, templates and models by name; stages by what waits for them."""
    rows = switch("all") | switch("tenant:acme") | switch("batch:b1") | switch("asset-type:generic")
    rows |= switch("template:t") | switch("model:m") | switch("stage:policy") | switch("stage:gpu-worker.local")
    stages = ("pending", "clearing", "generating")

    assert holds_of(rows, START) == Holds(True, ("acme",), ("b1",), ("generic",), stages, ("t",), ("m",))


def test_what_refuses_was_cleared_or_has_expired_holds_nothing() -> None:
    """Only a hold in force holds."""
    rows = switch("tenant:a", "refuse") | switch("tenant:b", "clear") | switch("tenant:c", minutes=-1)

    assert holds_of(rows, START) == Holds()
    assert holds_of(switch("tenant:d", minutes=1), START).tenants == ("d",)
