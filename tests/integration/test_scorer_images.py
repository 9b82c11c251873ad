"""Every file ends in a verdict: decoding in a child with limits, and the handler around it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from giclee.bus.blobs import MemoryBlobs
from giclee.bus.errors import Transient
from giclee.models import world
from giclee.schemas.envelope import Envelope
from giclee.schemas.events import ImageGenerated, ImageScored
from giclee.schemas.gates import GateRow
from giclee.scorer.decode import Decoded, Decoder, Refused
from giclee.scorer.dimension import Evaluator, Measured, Picture
from giclee.scorer.dimensions.compression import Compression
from giclee.scorer.dimensions.content import Content
from giclee.scorer.dimensions.exposure import Exposure
from giclee.scorer.dimensions.format import Format
from giclee.scorer.dimensions.sharpness import Sharpness
from giclee.scorer.gate import Gate, Gates
from giclee.scorer.handle import Scorer
from giclee.scorer.judge import Judge
from giclee.scorer.lane import Lane
from giclee.scorer.remote import Endpoint, Remote
from tests.kit.pictures import SCENE, file_of, hostile, mutated, odd_but_good, rendered
from tests.kit.verdicts import Remembers

EXAMPLE = Path(__file__).parents[2] / "schemas" / "examples" / "ImageGenerated.json"


class Says:
    """A dimension that gives every picture one value, or raises."""

    def __init__(self, value: Any = 1.0, certain: bool = True) -> None:
        self.value, self.certain = value, certain
        self.measured = 0

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        self.measured += len(pictures)
        if isinstance(self.value, Exception):
            raise self.value
        return [Measured(self.value, certain=self.certain) for _ in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("says", "1")


@asynccontextmanager
async def scorer(**dimensions: Any) -> AsyncIterator[Scorer]:
    """A scorer with the real decoder; every dimension passes unless a test says otherwise."""
    pixels = {"format": Format(), "content": Content(), "sharpness": Sharpness(), "exposure": Exposure(),
              "compression": Compression()}  # fmt: skip
    said = {**pixels, "alignment": Says(), "safety": Says(), **dimensions}
    lanes = {name: Lane(name, one, timeout_s=5) for name, one in said.items() if one is not None}
    running = [asyncio.create_task(lane.run()) for lane in lanes.values()]
    decoder = Decoder()
    try:
        yield Scorer(blobs=MemoryBlobs(), judge=Judge(decoder=decoder, lanes=lanes), store=Remembers())
    finally:
        for task in running:
            task.cancel()
        await decoder.stop()


async def generated(by: Scorer, body: bytes, content_type: str = "image/webp", **fields: Any) -> ImageGenerated:
    """An ImageGenerated whose blob is `body`."""
    ref = await by.blobs.put(f"candidates/{uuid.uuid4()}", body, content_type, width=64, height=64)
    example = ImageGenerated.model_validate_json(EXAMPLE.read_text())
    event = ImageGenerated.model_validate(
        {**example.model_dump(), "candidate_id": uuid.uuid4(), "image": ref, **fields}
    )
    event.delivered(Envelope(id=str(event.event_id())))
    return event


async def verdict(by: Scorer, body: bytes, **fields: Any) -> ImageScored:
    (found,) = await by.handle(await generated(by, body, **fields))
    assert isinstance(found, ImageScored)
    return found


async def test_a_good_picture_passes_with_every_dimension_and_the_gates_version() -> None:
    """Scores carry value, threshold, verdict and who measured."""
    async with scorer() as by:
        event = await generated(by, file_of(rendered()), labels={"channel": "email"})
        (found,) = await by.handle(event)
        assert isinstance(found, ImageScored)
        assert found.passes() and found.verdict == "pass" and found.gate_version == Gate().version
        assert set(found.scores) == Gate().required("generic", 64)
        assert found.scores["sharpness"].threshold == 0.5 and found.scores["safety"].evaluator == "says"
        assert (found.sha256, found.labels, found.hop) == (event.image.sha256, {"channel": "email"}, event.hop)


async def test_a_hostile_file_ends_in_a_verdict_that_is_no_pass() -> None:
    """Over 150 of them, one scorer: no exception, nothing passes, each under five seconds, and the decoder's child
    says why itself."""
    async with scorer() as by:
        await by.judge.decoder.check()
        child = by.judge.decoder._child
        for name, body in hostile().items():
            began = time.monotonic()
            found = await verdict(by, body)
            assert time.monotonic() - began < 5, name
            assert found.verdict in ("fail", "unsure") and not found.passes(), name
            assert (found.scores["format"].reason or "").startswith("decoding"), name
            assert found.scores["safety"].verdict == "unsure", f"{name}: what was not looked at is not safe"
        assert by.judge.decoder._child is child, "no file killed the child"


def test_the_corpus_is_large_enough() -> None:
    """At least 150 hostile files, no two the same."""
    assert len(set(hostile().values())) >= 150


async def test_files_with_changed_bytes_are_refused_or_are_pictures() -> None:
    """300 mutations: a verdict for each; a picture that comes out has the size its file says."""
    decoder = Decoder()
    decoded = 0
    for name, body in mutated(300).items():
        found = await decoder.decode(body)
        if isinstance(found, Decoded):
            decoded += 1
            assert found.pixels.dtype == np.uint8 and found.pixels.ndim == 3, name
    await decoder.stop()
    assert 0 < decoded < 300


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_every_orientation_comes_out_upright(orientation: int) -> None:
    """The eight ways a camera may say that it was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = rendered(64).crop((0, 0, 64, 32))
    turned = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    stored = upright if turned is None else upright.transpose(Image.Transpose(turned))
    decoder = Decoder()
    found = await decoder.decode(file_of(stored, "PNG", exif=exif))
    await decoder.stop()

    assert isinstance(found, Decoded) and found.pixels.shape == (32, 64, 3)
    assert (found.pixels == np.asarray(upright)).all()


async def test_odd_files_come_out_as_the_same_upright_srgb_picture() -> None:
    """Palette, CMYK, 16 bits, opaque alpha, profiles, rotation; each (64, 64, 3) bytes."""
    expected: np.ndarray = world.render(SCENE, 1).astype(int)
    decoder = Decoder()
    for name, body in odd_but_good().items():
        found = await decoder.decode(body)
        assert isinstance(found, Decoded), (name, found)
        assert found.pixels.shape == (64, 64, 3) and found.pixels.dtype == np.uint8
        aim = expected[::-1, ::-1] if name == "rotated by exif" else expected
        if name == "grey of 16 bits":
            assert np.abs(found.pixels[..., 0].astype(int) - np.asarray(rendered().convert("L"))).max() <= 1
        else:
            assert np.abs(found.pixels - aim).mean() < (12 if "cmyk" in name else 8), name
    await decoder.stop()


async def test_the_largest_allowed_picture_is_decoded_within_its_limits() -> None:
    """4096 x 4096 with a rotation: 16.8 million pixels in 768 MB of address space."""
    exif = Image.Exif()
    exif[0x0112] = 6
    big = Image.effect_noise((4096, 4096), 20).convert("RGB")
    decoder = Decoder(wall_clock_s=60)
    found = await decoder.decode(file_of(big, "JPEG", quality=60, exif=exif))
    assert isinstance(found, Decoded) and found.pixels.shape == (4096, 4096, 3)
    await decoder.stop()


async def test_a_picture_that_kills_the_decoder_twice_is_unsure_and_the_next_one_is_fine() -> None:
    """A crash is isolated in the child; the verdict is not `fail`, for the file was not judged."""
    decoder = Decoder(module="tests.kit.bad_decoders")
    found = await decoder.decode(b"crash")
    assert found == Refused("the decoder gave up on it: it died", certain=False)
    decoder._module = "giclee.scorer.decode_child"
    assert isinstance(await decoder.decode(file_of(rendered())), Decoded)
    await decoder.stop()


async def test_a_picture_that_hangs_the_decoder_is_given_up_in_time() -> None:
    """Twice the wall clock, then unsure."""
    decoder = Decoder(wall_clock_s=0.3, module="tests.kit.bad_decoders")
    found = await decoder.decode(b"hang")
    assert isinstance(found, Refused) and not found.certain
    await decoder.stop()


async def test_who_is_cancelled_in_the_middle_does_not_spoil_the_next_answer() -> None:
    """Half an answer must not be read as another picture."""
    decoder = Decoder()
    big = file_of(Image.effect_noise((3000, 3000), 50).convert("RGB"), "PNG", compress_level=1)
    cut_off = asyncio.create_task(decoder.decode(big))
    for _ in range(3):
        await asyncio.sleep(0)
    cut_off.cancel()
    await asyncio.wait({cut_off})
    found = await decoder.decode(file_of(rendered()))
    assert isinstance(found, Decoded) and (found.pixels == world.render(SCENE, 1)).all()
    await decoder.stop()


NO_ANSWERS = (None, float("nan"), float("inf"), RuntimeError("the model broke"), MemoryError())
DOUBTS = [("alignment", 0.55), ("safety", 0.2)]
"""A value in the doubt band of each dimension, for pictures as small as these."""


@pytest.mark.parametrize(
    ("name", "value"), [*((name, value) for name, _ in DOUBTS for value in NO_ANSWERS), *DOUBTS], ids=repr
)
async def test_a_dimension_that_does_not_answer_keeps_the_image_from_passing(name: str, value: Any) -> None:
    """Silence, nonsense, a failure and a doubt are unsure, never a pass; the others are measured all the same."""
    async with scorer(**{name: Says(value)}) as by:
        found = await verdict(by, file_of(rendered()))
        assert found.verdict == "unsure" and found.scores[name].verdict == "unsure"
        assert found.scores["content"].verdict == "pass"
        assert ImageScored.model_validate_json(found.model_dump_json()).verdict == "unsure"


async def test_a_dimension_that_is_not_there_keeps_the_image_from_passing() -> None:
    """A scorer without its safety model passes nothing."""
    async with scorer(safety=None) as by:
        found = await verdict(by, file_of(rendered()))
        assert (found.verdict, found.scores["safety"].reason) == ("unsure", "not measured")


async def test_a_dimension_that_is_not_certain_keeps_the_image_from_passing() -> None:
    """However high its value."""
    async with scorer(alignment=Says(1.0, certain=False)) as by:
        assert (await verdict(by, file_of(rendered()))).verdict == "unsure"


async def test_a_file_that_is_not_what_its_reference_says_fails() -> None:
    """A PNG called WebP; a picture of another size."""
    async with scorer() as by:
        assert (await verdict(by, file_of(rendered(), "PNG"))).verdict == "fail"
        assert (await verdict(by, file_of(rendered(128)))).verdict == "fail"


async def test_a_file_over_the_limit_is_not_even_fetched() -> None:
    """20 MB."""
    async with scorer() as by:
        event = await generated(by, b"x")
        heavy = event.model_copy(update={"image": event.image.model_copy(update={"size_bytes": 20 * 2**20 + 1})})
        (found,) = await by.handle(heavy)
        assert isinstance(found, ImageScored) and found.verdict == "fail"


async def test_nothing_is_judged_twice_and_only_the_same_bytes_count_as_judged() -> None:
    """Contract rule 8; other bytes of the same candidate are measured on their own."""
    safety = Says()
    async with scorer(safety=safety) as by:
        event = await generated(by, file_of(rendered()))
        first, again = await by.handle(event), await by.handle(event)
        assert first == again and safety.measured == 1
        other = await generated(by, file_of(rendered(), "WEBP", xmp=b"<x/>"), candidate_id=event.candidate_id)
        await by.handle(other)
        assert safety.measured == 2


async def test_a_bucket_that_is_away_is_an_outage_and_no_verdict() -> None:
    """The record waits; nothing is stored."""
    async with scorer() as by:
        event = await generated(by, file_of(rendered()))

        async def away(_: Any) -> bytes:
            raise Transient("the bucket is away")

        by.blobs.get = away  # type: ignore[method-assign, assignment]
        with pytest.raises(Transient):
            await by.handle(event)
        assert not by.store.rows  # type: ignore[attr-defined]


async def test_many_images_at_once_each_get_their_own_verdict() -> None:
    """Concurrent handlers share lanes and one decoder."""
    async with scorer() as by:
        good, bad = file_of(rendered()), file_of(Image.new("RGB", (64, 64), "grey"))
        found = await asyncio.gather(*(verdict(by, bad if at % 3 == 0 else good) for at in range(30)))
        assert [one.verdict for one in found] == ["fail" if at % 3 == 0 else "pass" for at in range(30)]


async def test_an_evaluator_that_hangs_leaves_the_others_and_the_process_alone() -> None:
    """Its pictures are unsure within its own deadline with every other score there, those of other types pass at once,
    and every lane still runs."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    endpoint = Endpoint(url=url, secret_env="OUR_SECRET", deadline_s=1.0)
    ours = Remote("ours", endpoint, secret=b"s" * 16, asset_types=frozenset({"paid-social"}))
    row = GateRow(dimension="ours", asset_type="paid-social", pass_at=0.5, doubt_at=0.1)
    async with scorer() as by:
        judge = replace(by.judge, lanes={**by.judge.lanes, "ours": ours}, gates=Gates({}, [row]))
        by = replace(by, judge=judge)
        began = time.monotonic()
        hung = [asyncio.create_task(verdict(by, file_of(rendered()), asset_type="paid-social")) for _ in range(6)]
        free = await verdict(by, file_of(rendered()), asset_type="generic")
        assert free.verdict == "pass" and "ours" not in free.scores
        for found in await asyncio.gather(*hung):
            assert found.verdict == "unsure" and "no answer within 1 s" in (found.scores["ours"].reason or "")
            assert [name for name, score in found.scores.items() if score.verdict != "pass"] == ["ours"]
        assert time.monotonic() - began < 10
        assert (await verdict(by, file_of(rendered()), asset_type="generic")).verdict == "pass"
    server.close()
