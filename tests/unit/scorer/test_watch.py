"""The handler and the watch: what is held back is no pass, and each stored verdict is counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from giclee.schemas.events import ImageScored
from giclee.schemas.parts import ModelUsed, Score
from tests.kit.verdicts import Remembers
from tests.unit.scorer.test_faults import generated, healthy, scorer


class Doubts:
    """Holds back alignment of whatever comes, and remembers what was counted."""

    def __init__(self) -> None:
        self.counted: list[ImageScored] = []

    async def held_back(self, scores: Mapping[str, Score], asset_type: str, model: ModelUsed) -> Mapping[str, Score]:
        doubted = scores["alignment"].model_copy(update={"verdict": "unsure", "reason": f"drift: {model.name}"})
        return {**scores, "alignment": doubted}

    async def count(self, scored: ImageScored) -> None:
        self.counted.append(scored)


async def test_an_image_that_is_held_back_is_unsure_and_says_why() -> None:
    """In the verdict and in the stored event, which names the model; the value stays."""
    async with scorer(healthy()) as by:
        doubts = Doubts()
        watched = replace(by, watch=doubts)
        event = await generated(by)
        (found,) = await watched.handle(event)
        (again,) = await watched.handle(event)

    assert isinstance(found, ImageScored) and again == found
    assert found.verdict == "unsure" and not found.passes()
    assert (found.scores["alignment"].value, found.scores["alignment"].reason) == (1.0, f"drift: {event.model.name}")
    assert found.model == event.model
    assert doubts.counted == [found], "a redelivery is not counted"


async def test_a_verdict_that_another_replica_stored_first_is_counted_there() -> None:
    """Not here as well."""

    class Theirs(Remembers):
        async def keep(self, scored: ImageScored) -> ImageScored:
            return scored.model_copy(update={"seconds": 9.0})

    doubts = Doubts()
    async with scorer(healthy()) as by:
        (found,) = await replace(by, watch=doubts, store=Theirs()).handle(await generated(by))
    assert isinstance(found, ImageScored) and found.seconds == 9.0
    assert doubts.counted == []
