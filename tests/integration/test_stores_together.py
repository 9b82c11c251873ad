"""Stores that gather concurrent calls on a real Postgres: together everybody gets what each would get alone."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from giclee.bus import database as databases
from giclee.bus.blobs import MemoryBlobs
from giclee.bus.settings import DatabaseSettings
from giclee.gpu_worker.claim import Claim, Row, Standing
from giclee.gpu_worker.claims import SCHEMA, Claims
from giclee.gpu_worker.outcome import Decision
from giclee.schemas.events import ImageRouted, ImageScored
from giclee.schemas.parts import BlobRef
from giclee.scorer.store import Store
from tests.kit.candidates import routed
from tests.kit.wait import until
from tests.unit.publisher.desk import desk, request

pytestmark = pytest.mark.real
SCORED = Path(__file__).parents[2] / "schemas" / "examples" / "ImageScored.json"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[databases.Pool]:
    settings = DatabaseSettings(url=SecretStr(database), pool_max=8)
    async with databases.connect(settings, SCHEMA) as opened:
        yield opened


def _opened(found: list[Claim | Row | Standing]) -> list[Claim]:
    return [one for one in found if isinstance(one, Claim)]


async def test_candidates_claimed_together_are_claimed_as_one_by_one(pool: databases.Pool) -> None:
    """Of thirty at once those of ended requests are ended, those of another are left, the rest are ours, each once."""
    one, two = Claims(pool, "local"), Claims(pool, "local")
    asked = [routed(offset=offset) for offset in range(30)]
    await asyncio.gather(*(one.end(event.tenant, event.request_id) for event in asked[:10]))
    taken = await asyncio.gather(*(two.open(event) for event in asked[10:20]))
    found = await asyncio.gather(*(one.open(event) for event in asked))

    assert found[:10] == [Standing.ENDED] * 10
    assert found[10:20] == [Standing.ELSEWHERE] * 10
    assert len(_opened(list(taken))) == 10
    for event, claim in zip(asked[20:], _opened(found), strict=True):
        assert claim.row.key == (event.candidate_id, event.hop)
        assert claim.row.record.origin() == event.envelope.origin
        assert (claim.row.fence, claim.row.price_usd, claim.row.limit_usd) == (1, Decimal("0.0004"), event.limit_usd)


async def test_fences_that_end_together_end_as_one_by_one(pool: databases.Pool) -> None:
    """One whose fence moved on is told so; the others are stored with what they paid."""
    claims = Claims(pool, "local")
    asked = [routed(offset=offset) for offset in range(8)]
    held = _opened(list(await asyncio.gather(*(claims.open(event) for event in asked))))
    await pool.execute("UPDATE gpu_worker.claims SET fence = 2 WHERE candidate_id = $1", asked[3].candidate_id)

    async def finish(event: ImageRouted, claim: Claim, number: int) -> Row | None:
        return await claims.finish(event, claim, Decision("failed", Decimal(number), {"number": number}))

    ends = await asyncio.gather(*(finish(event, held[n], n) for n, event in enumerate(asked)))
    assert ends.pop(3) is None
    assert [row and (row.key, row.outcome, row.prior_usd, row.detail) for row in ends] == [
        ((event.candidate_id, 0), "failed", Decimal(n), {"number": n}) for n, event in enumerate(asked) if n != 3
    ]


async def test_a_claim_whose_asker_was_cancelled_is_worked_on_by_the_next_delivery(pool: databases.Pool) -> None:
    """A statement goes on when its asker is cut off; what it claims is in hand, not lost until its lease ends."""
    claims, event = Claims(pool, "local"), routed()

    async def is_waiting() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    async with pool.acquire() as other, other.transaction():
        await other.execute("LOCK TABLE gpu_worker.claims IN SHARE MODE")
        asking = asyncio.create_task(claims.open(event))
        await until(is_waiting)
        asking.cancel()
        await asyncio.wait({asking})
    found = await claims.open(event)
    assert isinstance(found, Claim) and found.row.fence == 1


async def test_verdicts_kept_together_tell_the_first(pool: databases.Pool) -> None:
    """Twenty candidates, two verdicts that differ on each, all at once: both tell the same, the stored one."""
    store = Store(pool)
    example = ImageScored.model_validate_json(SCORED.read_text())
    ids = [uuid.uuid4() for _ in range(20)]

    def verdict(candidate_id: uuid.UUID, word: str) -> ImageScored:
        return example.model_copy(update={"candidate_id": candidate_id, "verdict": word})

    passed, failed = await asyncio.gather(
        asyncio.gather(*(store.keep(verdict(one, "pass")) for one in ids)),
        asyncio.gather(*(store.keep(verdict(one, "fail")) for one in ids)),
    )
    assert passed == failed
    assert list(await asyncio.gather(*(store.find(one, example.sha256) for one in ids))) == passed


class Busy(MemoryBlobs):
    """Shows when it is read, and lets nobody read before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.free = asyncio.Event(), asyncio.Event()

    async def get(self, ref: BlobRef) -> bytes:
        self.asked.set()
        await self.free.wait()
        return await super().get(ref)


@pytest.mark.parametrize("cut_off", [False, True])
async def test_an_image_and_its_score_told_at_once_seal_one_asset(database: str, cut_off: bool) -> None:
    """Also where the one that began is cut off in the middle: the other ends the order with the image."""
    blobs = Busy()
    async with desk(database, blobs) as publisher:
        asked = request(wanted=1, first_wave=1)
        await publisher.tell(asked.cleared())
        tasks = [asyncio.create_task(publisher.tell(event)) for event in (asked.generated(0), asked.scored(0, 0.9))]
        await blobs.asked.wait()
        if cut_off:
            tasks[0].cancel()
        blobs.free.set()
        await asyncio.wait(tasks)
        (approval,) = await publisher.approvals(asked)
        assert await blobs.get(approval.image)
        assert (await publisher.closing(asked)).outcome == "approved"
