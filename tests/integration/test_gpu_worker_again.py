"""An image made again from what its event records: pixel by pixel where its grade is exact, else alike."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from giclee.gpu_worker import outcome
from giclee.gpu_worker.provider import Ask, Made, Shape
from giclee.schemas import models
from giclee.schemas.events import ImageApproved, ImageGenerated
from giclee.schemas.models import Model
from giclee.schemas.parts import BlobRef
from tests.kit.candidates import hop, routed

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
EXAMPLE = json.loads((ROOT / "schemas/examples/ImageApproved.json").read_text())
ROWS = {row.name: row for row in models.builtin(ROOT / "models")}
PROMPTS = ("a small red circle on a blue background", "large white ring", "a green cross on orange")


@dataclass(frozen=True)
class Told:
    """A stored claim, as far as its events need it."""

    detail: dict[str, Any]
    outcome: Any = "generated"
    fence: int = 1
    spent_usd: Decimal = Decimal("0.0001")


@pytest.fixture(scope="session")
def provider() -> Any:
    from giclee.gpu_worker.providers.diffusion import Diffusion

    return Diffusion("cpu")


async def generated(provider: Any, row: Model, padded: int, folder: Path) -> tuple[ImageGenerated, Path]:
    """The event of an image that was made in company, and the file with its bytes."""
    shape = Shape(model=row.name, width=64, height=64, steps=5, guidance_scale=3.0, negative=True)
    asks = [Ask(shape=shape, prompt=text, negative_prompt="blue", seed=at) for at, text in enumerate(PROMPTS[:padded])]
    made = (await provider.make(row, asks, padded))[-1]
    assert isinstance(made, Made)
    asked = {"prompt": asks[-1].prompt, "negative_prompt": "blue"}
    event = routed(hop(row), seed=asks[-1].seed, request=asked)
    image = BlobRef(bucket="b", key="k", sha256="0" * 64, size_bytes=1, content_type="image/webp", width=64, height=64)
    (found, _) = outcome.events_of(event, Told(outcome.made(event, shape, made, image).detail))
    assert isinstance(found, ImageGenerated)
    (folder / "image.webp").write_bytes(made.body)
    return found, folder / "image.webp"


def again(
    event: ImageGenerated | ImageApproved, image: Path, capsys: Any, **instead: Any
) -> tuple[int, dict[str, Any]]:
    """What the command says of an event, in a provider of its own, some fields changed."""
    from giclee.gpu_worker import remake

    file = image.with_suffix(".json")
    file.write_text(event.model_copy(update=instead).model_dump_json(exclude_none=True))
    code = remake.main([str(file), str(image), "--models", str(ROOT / "models")])
    said = capsys.readouterr().out
    return code, json.loads(said) if said else {}


def approved(event: ImageGenerated) -> ImageApproved:
    """The approval of an image: what its event records, carried on."""
    told = json.loads(event.model_dump_json(exclude_none=True))
    return ImageApproved.model_validate(
        EXAMPLE | {name: told[name] for name in ImageApproved.model_fields if name in told}
    )


async def test_an_exact_image_is_made_again_pixel_by_pixel(provider: Any, tmp_path: Path, capsys: Any) -> None:
    """From either event, in another process' place: alone, at the padded size that it had in company. Another seed is
    seen, and other weights are said before anything is made."""
    event, image = await generated(provider, ROWS["shapes-draft"], 4, tmp_path)
    assert event.reproducibility == "exact" and event.reproduction is not None and event.reproduction.batch == 4
    for one in (event, approved(event)):
        code, said = await _off_loop(again, one, image, capsys)
        assert (code, said["identical"], said["differently"]) == (0, True, [])
    other = event.reproduction.model_copy(update={"seed": 77})
    code, said = await _off_loop(again, event, image, capsys, reproduction=other)
    assert (code, said["kept"], said["bits"] > 16) == (1, False, True)
    for instead in (
        {"model": event.model.model_copy(update={"weights_sha256": "0" * 64})},
        {"model": event.model.model_copy(update={"revision": "another"})},
        {"reproduction": None},
    ):
        assert await _off_loop(again, event, image, capsys, **instead) == (2, {})


async def test_a_perceptual_image_looks_the_same_made_again(provider: Any, tmp_path: Path, capsys: Any) -> None:
    """Made with half precision, again with the whole: other pixels, hardly another fingerprint, and the reason told."""
    half = ROWS["shapes-draft"].model_copy(update={"dtype": "bfloat16"})
    event, image = await generated(type(provider)("cpu"), half, 1, tmp_path)
    assert event.reproducibility == "perceptual"
    code, said = await _off_loop(again, event, image, capsys)
    assert (code, said["identical"], said["kept"]) == (0, False, True)
    assert said["differently"] == ["dtype: bfloat16 then, float32 now"]


async def _off_loop(work: Any, *words: Any, **named: Any) -> Any:
    import asyncio

    return await asyncio.to_thread(work, *words, **named)


async def test_whoever_shares_the_batch_the_pixels_are_those_of_the_single_run(provider: Any) -> None:
    """Eight trials of the 200 of `make bench`: any others, any place, any padded size, both demo models."""
    from tests.bench import same

    found = await same.tried(provider, 8)
    assert found["same"] == found["trials"] == 8
