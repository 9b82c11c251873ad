"""No fault of the scorer ends in a pass: every dimension, every fault, through its lane, the handler and the gate."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from giclee.bus.blobs import MemoryBlobs
from giclee.bus.errors import Poison, Transient
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import ImageGenerated, ImageScored
from giclee.scorer import dimensions
from giclee.scorer.decode import Decoded, Refused
from giclee.scorer.detectors.nudenet import NudeNet
from giclee.scorer.dimension import Evaluator, Measured, NotUsable, Picture
from giclee.scorer.gate import Gate
from giclee.scorer.handle import Scorer
from giclee.scorer.judge import Judge
from giclee.scorer.lane import Lane
from tests.kit.verdicts import Remembers

EXAMPLE = Path(__file__).parents[3] / "schemas" / "examples" / "ImageGenerated.json"
TYPE = "product-tile"
NAMES = tuple(sorted(Gate().required(TYPE, 64)))
"""Of the asset type that demands most."""
Answer = Callable[[Sequence[Picture]], Sequence[Measured]]


class Answers:
    """A dimension that answers as it is told."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return self._answer(pictures)

    def describe(self) -> Evaluator:
        return Evaluator("answers", "1")


class Decodes:
    """A decoder with one answer."""

    def __init__(self, answer: Decoded | Refused) -> None:
        self._answer = answer

    async def decode(self, body: bytes) -> Decoded | Refused:
        return self._answer


def raises(error: Exception) -> Answer:
    def answer(pictures: Sequence[Picture]) -> Sequence[Measured]:
        raise error

    return answer


def says(value: float | None, *, certain: bool = True) -> Answer:
    return lambda pictures: [Measured(value, certain=certain) for _ in pictures]


FAULTS: dict[str, Answer] = {
    "raises": raises(RuntimeError("the model is broken")),
    "runs out of memory": raises(MemoryError()),
    "the model went away": raises(NotUsable("the weights are gone")),
    "not a number": says(math.nan),
    "infinity": says(math.inf),
    "minus infinity": says(-math.inf),
    "nothing": says(None),
    "uncertain": says(1.0, certain=False),
    "too few answers": lambda pictures: [],
    "too many answers": lambda pictures: [Measured(1.0)] * (len(pictures) + 1),
    "no measurement": lambda pictures: [1.0] * len(pictures),  # type: ignore[list-item]
    "no list": lambda pictures: None,  # type: ignore[dict-item,return-value]
    "a word": lambda pictures: [Measured("high")] * len(pictures),  # type: ignore[arg-type]
    "None among them": lambda pictures: [None] * len(pictures),  # type: ignore[list-item]
}
GOOD = Decoded(np.full((64, 64, 3), 128, np.uint8), "WEBP")


@asynccontextmanager
async def scorer(
    answers: dict[str, Answer], decoded: Decoded | Refused = GOOD, timeout_s: float = 20
) -> AsyncIterator[Scorer]:
    """The handler over real lanes; dimensions that are not named answer 1."""
    lanes = {name: Lane(name, Answers(answer), timeout_s=timeout_s) for name, answer in answers.items()}
    running = [asyncio.create_task(lane.run()) for lane in lanes.values()]
    try:
        judge = Judge(decoder=Decodes(decoded), lanes=lanes)  # type: ignore[arg-type]
        yield Scorer(blobs=MemoryBlobs(), judge=judge, store=Remembers())
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def healthy(**faulty: Answer) -> dict[str, Answer]:
    return {name: faulty.get(name, says(1.0)) for name in NAMES}


async def generated(by: Scorer) -> ImageGenerated:
    ref = await by.blobs.put("candidates/acme/a", b"a picture", "image/webp", width=64, height=64)
    event = ImageGenerated.model_validate(
        {**json.loads(EXAMPLE.read_text()), "image": ref.model_dump(), "asset_type": TYPE}
    )
    event.delivered(Envelope(id=str(event.event_id())))
    return event


async def verdict(by: Scorer) -> ImageScored:
    (found,) = await by.handle(await generated(by))
    assert isinstance(found, ImageScored)
    return found


async def test_without_a_fault_it_passes() -> None:
    """Else the others would prove nothing."""
    async with scorer(healthy()) as by:
        found = await verdict(by)
    assert found.verdict == "pass" and found.passes()
    assert set(NAMES) >= dimensions.TABLE.keys(), "every dimension of all images decides"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_one_dimension_never_ends_in_a_pass(fault: str, name: str) -> None:
    """The others all say 1; the image is unsure, its score has no value that passes, and the lane works on."""
    async with scorer(healthy(**{name: FAULTS[fault]})) as by:
        found = await verdict(by)
    assert found.verdict in ("unsure", "fail") and not found.passes()
    assert not found.scores[name].passes()


@pytest.mark.parametrize("name", NAMES)
async def test_a_dimension_that_hangs_never_ends_in_a_pass(name: str) -> None:
    """The time-out is the verdict; the thread is let go at the end."""
    go = threading.Event()

    def hang(pictures: Sequence[Picture]) -> Sequence[Measured]:
        go.wait(20)
        return [Measured(1.0)] * len(pictures)

    try:
        async with scorer(healthy(**{name: hang}), timeout_s=0.3) as by:
            found = await verdict(by)
    finally:
        go.set()
    assert found.verdict == "unsure" and (found.scores[name].reason or "").startswith("failed: ")


@pytest.mark.parametrize("name", NAMES)
async def test_a_dimension_that_is_not_there_never_ends_in_a_pass(name: str) -> None:
    """Nobody built it; the gate asks for it all the same."""
    answers = healthy()
    del answers[name]
    async with scorer(answers) as by:
        found = await verdict(by)
    assert found.verdict == "unsure" and found.scores[name].reason == "not measured"


@pytest.mark.parametrize("certain", [True, False])
async def test_a_file_that_is_not_decoded_never_ends_in_a_pass(certain: bool) -> None:
    """Whether the file or the decoder failed; every dimension would have said 1."""
    async with scorer(healthy(), Refused("broken", certain=certain)) as by:
        found = await verdict(by)
    assert found.verdict == ("fail" if certain else "unsure")
    assert not any(score.passes() for score in found.scores.values())


async def test_other_bytes_than_the_reference_says_get_no_verdict() -> None:
    """A wrong sha256 is no image of ours: nothing is stored, nothing passes."""
    async with scorer(healthy()) as by:
        event = await generated(by)
        other = event.image.model_copy(update={"sha256": hashlib.sha256(b"another").hexdigest()})
        with pytest.raises((Poison, Transient)):
            await by.handle(event.model_copy(update={"image": other}))
        assert by.store.rows == {}  # type: ignore[attr-defined]


@pytest.mark.parametrize("fault", ["missing", "changed"])
def test_a_model_that_is_missing_or_changed_is_not_built(fault: str, tmp_path: Path) -> None:
    """The process ends instead of judging without it; alignment's: tests/integration/test_scorer_embed.py."""
    pytest.importorskip("onnxruntime")
    weights = tmp_path / "320n.onnx"
    if fault == "changed":
        weights.write_bytes(b"other weights")
    with pytest.raises(NotUsable):
        NudeNet(weights=weights)


async def test_a_verdict_that_cannot_be_stored_is_not_told() -> None:
    """The database is away: no event leaves."""

    class Away(Remembers):
        async def keep(self, scored: ImageScored) -> ImageScored:
            raise Transient("away")

    async with scorer(healthy()) as by:
        away = Scorer(blobs=by.blobs, judge=by.judge, store=Away())
        with suppress(Transient):
            pytest.fail(f"told {await away.handle(await generated(by))}")
