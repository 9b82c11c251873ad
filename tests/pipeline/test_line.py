"""The whole line in one process: every path of the protocol, with each event first, last, twice and never."""

from __future__ import annotations

from decimal import Decimal

from giclee.schemas.events import ImageApproved, ImageGenerated, ImageRouted
from tests.kit.pipeline import running


async def test_a_request_becomes_approved_images(database: str) -> None:
    """Two wanted images are made, scored, approved with their evidence and closed; the sender's fields come along."""
    async with running(database) as line:
        rid = await line.ask(wanted=2, client_ref="sku-1", labels={"channel": "email"})
        closed = await line.closed(rid)

        approved = line.of(ImageApproved, rid)
        assert (closed.outcome, closed.approved, closed.candidates) == ("approved", 2, 2)
        assert {one.asset_id for one in closed.assets} == {one.asset_id for one in approved}
        assert all(one.client_ref == "sku-1" and one.labels == {"channel": "email"} for one in (*approved, closed))
        assert closed.cost_usd == Decimal("0.0008")
        for one in approved:
            assert await line.blobs.get(one.image)
            assert one.image.key.startswith("assets/default/")
            assert one.derivatives[0].role == "thumbnail"


async def test_a_rejected_image_is_replaced_within_the_cap(database: str) -> None:
    """Too few passers lead to another wave, until enough pass."""
    async with running(database, judged=lambda event: event.index >= 3) as line:
        rid = await line.ask(wanted=1)
        closed = await line.closed(rid)

        assert closed.outcome == "approved"
        assert closed.candidates == 4
        assert closed.rejected == {"alignment": 3}


async def test_a_request_that_nobody_can_serve_ends_with_everybodys_reason(database: str) -> None:
    """At once and for nothing: no provider is asked, and the closing says why each of them was not."""
    async with running(database) as line:
        rid = await line.ask(wanted=1, size={"width": 512, "height": 512})
        closed = await line.closed(rid)

        assert (closed.outcome, closed.approved, closed.cost_usd) == ("failed", 0, Decimal(0))
        assert line.of(ImageRouted, rid) == []
        assert {(one.code, one.provider, one.message.split()[0]) for one in closed.reasons if one.provider} == {
            ("size_unsupported", "stub", "painter"), ("no_route", "stub", "sketcher"),
        }  # fmt: skip


async def test_a_request_that_never_passes_ends_at_its_cap(database: str) -> None:
    """Nothing is approved that did not pass, and the cap is not overshot."""
    async with running(database, judged=lambda event: False) as line:
        rid = await line.ask(wanted=2, max_candidates=5)
        closed = await line.closed(rid)

        assert (closed.outcome, closed.approved, closed.candidates) == ("failed", 0, 5)
        assert len(line.of(ImageGenerated, rid)) == 5
