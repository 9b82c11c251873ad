"""A strict request through the whole line: as asked, or not at all, with the field that stood in the way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from giclee.gpu_worker import picture
from giclee.gpu_worker.provider import Answer, Ask, Made
from giclee.gpu_worker.providers.stub import Stub, paint
from giclee.schemas.events import ImageApproved, ImageGenerated
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment
from tests.kit.pipeline import running

# the stub reads neither, and only the worker knows
UNREAD: dict[str, Any] = {"params": {"steps": 5}, "negative_prompt": "red"}


async def test_a_strict_request_is_made_as_asked_or_not_at_all(database: str) -> None:
    """What can be is approved without an adjustment, a lax one with it; what cannot be fails, unpaid, by its field."""
    async with running(database) as line:
        kept = await line.ask(strict=True, seed=7, size={"width": 64, "height": 64})
        lax, refused = await line.ask(**UNREAD), await line.ask(strict=True, **UNREAD)

        assert [(await line.closed(rid)).outcome for rid in (kept, lax)] == ["approved", "approved"]
        as_asked, adjusted = line.of(ImageApproved, kept)[0], line.of(ImageApproved, lax)[0]
        assert (as_asked.adjustments, as_asked.reproducibility, as_asked.reproduction.seed) == (
            (),
            "exact",
            as_asked.seed,
        )
        assert [one.field for one in adjusted.adjustments] == ["negative_prompt", "steps"]
        assert (adjusted.negative_prompt, adjusted.reproduction.backend) == ("red", "painted")
        closed = await line.closed(refused)
        assert (closed.outcome, closed.cost_usd, line.of(ImageGenerated, refused)) == ("failed", Decimal(0), [])
        told = [reason for reason in closed.reasons if reason.code == "param_unsupported"]
        assert [(one.provider, one.stage) for one in told] == [("stub", "gpu-worker.local")]
        assert "steps (5 asked, left out" in told[0].message


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"quality": "draft", "size": {"width": 48, "height": 48}}, "48x48"), ({"negative_prompt": "red"}, "negative")],
)
async def test_a_strict_request_that_nobody_can_make_ends_at_once(
    database: str, asked: dict[str, Any], field: str
) -> None:
    """After one wave, whether the router knew or only a worker; nothing is spent."""
    async with running(database) as line:
        rid = await line.ask(strict=True, **asked)
        closed = await line.closed(rid, within_s=20)
        assert (closed.outcome, closed.candidates, closed.cost_usd) == ("failed", 1, Decimal(0))
        assert any(field in reason.message for reason in closed.reasons)


async def test_a_strict_draft_does_not_go_on_as_final(database: str) -> None:
    """A better quality than asked is a difference too."""
    async with running(database, judged=lambda event: event.model.name == "painter") as line:
        lax, rid = await line.ask(quality="draft"), await line.ask(quality="draft", strict=True)
        assert (await line.closed(lax)).outcome == "approved"
        assert [one.field for one in line.of(ImageApproved, lax)[0].adjustments] == ["quality"]
        assert (await line.closed(rid)).outcome == "failed"
        assert {event.model.name for event in line.of(ImageGenerated, rid)} == {"sketcher"}


async def test_an_adjusted_image_of_a_strict_request_is_never_approved(database: str) -> None:
    """Not even where a provider made it differently without being asked first: it is paid for, and no image."""
    differently = (Adjustment(field="prompt", asked="9 words", used="8 words", reason="no more"),)

    def instead(_: Model, ask: Ask) -> Answer:
        said: dict[str, Any] = {"content_type": picture.CONTENT_TYPE, "width": 64, "height": 64, "seconds": 0.1}
        return Made(body=picture.encode(paint(ask)), adjustments=differently, **said)

    async with running(database, stub=Stub(instead=instead)) as line:
        closed = await line.closed(await line.ask(strict=True, max_candidates=1))
        assert (closed.outcome, closed.candidates, closed.cost_usd) == ("failed", 1, Decimal("0.0004"))
        assert line.events(ImageGenerated) == line.events(ImageApproved) == []
