"""A cancel races an approval: exactly one end, whichever wins; a cancelled request has no approved asset (rule 6).

`python -m tests.integration.test_cancel_race DATABASE_URL TRIALS` runs as many trials as wanted and prints a figure.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter

import pytest

from giclee.infra import migrate
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import Desk, desk, request

pytestmark = pytest.mark.real
TRIALS = 200
AT_ONCE = 8
OFFSETS_S = (-0.05, 0.3)
"""How long after the event that decides the order a cancel comes: sealing the image takes most of that time."""


async def _trial(one: Desk, two: Desk, dice: random.Random) -> tuple[str, Request]:
    """One order, decided by its score on one replica and by a cancel on another; how it ended."""
    asked = request(wanted=1, first_wave=1, selection=dice.choice(["best", "first"]))
    await one.tell(asked.cleared(), asked.generated(0))
    offset_s = dice.uniform(*OFFSETS_S)

    async def approve() -> None:
        await asyncio.sleep(max(0.0, -offset_s))
        await one.tell(asked.scored(0))

    async def cancel() -> None:
        await asyncio.sleep(max(0.0, offset_s))
        await two.tell(asked.cancel("user", complete=dice.random() < 0.5))

    await asyncio.gather(approve(), cancel())
    closed, approvals = await one.closings(asked), await one.approvals(asked)
    assert len(closed) == 1, f"{len(closed)} ends"
    wanted = {"cancelled": 0, "approved": 1}[closed[0].outcome]
    assert len(approvals) == closed[0].approved == len(closed[0].assets) == wanted
    assert await one.fetchval("SELECT count(*) FROM publisher.assets WHERE request_id = $1", asked.id) == wanted
    return closed[0].outcome, asked


async def trials(url: str, count: int, seed: int = 15) -> Counter[str]:
    """How often each end was reached in `count` trials on two replicas."""
    dice = random.Random(seed)
    ended: Counter[str] = Counter()
    async with desk(url, pool_max=8) as one, desk(url, one.blobs, pool_max=8) as two:

        async def some() -> None:
            while sum(ended.values()) < count:
                ended[(await _trial(one, two, dice))[0]] += 1

        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(some())
    return ended


async def test_a_cancel_and_an_approval_are_one_end(database: str) -> None:
    """Two hundred races around the decision, on two replicas: both win sometimes, and never both at once."""
    ended = await trials(database, TRIALS)
    assert set(ended) == {"approved", "cancelled"}


if __name__ == "__main__":
    asyncio.run(migrate.migrate(sys.argv[1]))
    print(dict(asyncio.run(trials(sys.argv[1], int(sys.argv[2])))))
