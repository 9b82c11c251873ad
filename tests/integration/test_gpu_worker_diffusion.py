"""The diffusion provider with a tiny random pipeline: real diffusers, real torch, no network."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from giclee.gpu_worker.provider import Ask, DeviceLost, Made, ModelUnusable, NotMade, Shape
from giclee.schemas.models import Model
from tests.contract.provider_suite import ProviderSuite
from tests.kit import tiny_models
from tests.kit.candidates import model
from tests.kit.wait import until

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.pipeline_folder(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture
def row(folder: Path) -> Model:
    return model("tiny", provider="diffusion", location=str(folder), batch_max=4, steps=2)


@pytest.fixture(scope="session")
def provider() -> Any:
    from giclee.gpu_worker.providers.diffusion import Diffusion

    return Diffusion("cpu")


def ask(seed: int, prompt: str = "a small red circle on a blue background", **more: Any) -> Ask:
    guidance, negative = more.pop("guidance_scale", 2.0), more.get("negative_prompt")
    size = {"width": 64, "height": 64, "steps": more.pop("steps", 2)}
    shape = Shape(model="tiny", **size, guidance_scale=guidance, negative=negative is not None)
    return Ask(shape=shape, prompt=prompt, seed=seed, **more)


async def test_one_image_is_lossless_bytes_of_the_asked_size_that_say_how_they_were_made(
    provider: Any, row: Model
) -> None:
    """PNG or WebP, the weights' hash, device, precision, batch and versions."""
    (made,) = await provider.make(row, [ask(1)], 1)
    assert isinstance(made, Made)
    with Image.open(io.BytesIO(made.body)) as image:
        assert image.size == (64, 64) and f"image/{image.format.lower()}" == made.content_type  # type: ignore[union-attr]
    assert made.weights_sha256 == (await provider.describe(row)).weights_sha256
    how = made.reproduction
    assert how is not None and (made.reproducibility, how.batch, how.dtype, how.seed) == ("exact", 1, "float32", 1)
    assert (how.device or "").startswith("cpu (") and {"torch", "diffusers"} == set(how.versions) and how.threads


@pytest.mark.parametrize("padded", [1, 2, 4])
async def test_the_same_seed_gives_the_same_bytes_at_the_same_padded_shape(
    provider: Any, row: Model, padded: int
) -> None:
    """Whoever shares the batch, wherever in it, full or padded: bitwise."""
    alone = [(await provider.make(row, [ask(seed)], padded))[0].body for seed in range(padded)]
    together = await provider.make(row, [ask(seed) for seed in range(padded)], padded)
    backwards = await provider.make(row, [ask(seed) for seed in reversed(range(padded))], padded)
    assert [one.body for one in together] == alone
    assert [one.body for one in reversed(backwards)] == alone
    assert len(set(alone)) == padded, "seeds make a difference"


async def test_other_prompts_in_the_batch_change_nothing(provider: Any, row: Model) -> None:
    """Prompts of other lengths, one too long to be read."""
    alone = (await provider.make(row, [ask(7)], 4))[0]
    others = [ask(1, "red"), ask(2, " ".join(["blue"] * 30)), ask(3, "a large white ring on black")]
    shared = (await provider.make(row, [*others, ask(7)], 4))[3]
    assert shared.body == alone.body


async def test_a_prompt_longer_than_the_encoder_reads_is_an_adjustment(provider: Any, row: Model) -> None:
    """Named, with both lengths in tokens; a short one is none."""
    (long, short) = await provider.make(row, [ask(1, " ".join(["red"] * 40)), ask(2)], 2)
    assert [(one.field, one.asked, one.used) for one in long.adjustments] == [("prompt", "42 tokens", "20 tokens")]
    assert short.adjustments == ()
    both = [ask(1, " ".join(["red"] * 40), strict=True), ask(2, strict=True)]
    refused, kept = await provider.make(row, both, 2)
    assert isinstance(refused, NotMade) and (refused.outcome, refused.code) == ("invalid", "param_unsupported")
    assert "prompt (42 tokens asked" in refused.message and kept.body == short.body


async def test_a_negative_prompt_counts_or_is_named_as_left_out(provider: Any, row: Model) -> None:
    """With guidance it changes the picture; at guidance 1 the pipeline would ignore it silently."""
    plain, negative = ask(1, guidance_scale=4.0), ask(1, guidance_scale=4.0, negative_prompt="green square")
    (without,), (with_,) = await provider.make(row, [plain], 1), await provider.make(row, [negative], 1)
    assert without.body != with_.body and with_.adjustments == ()
    (ignored,) = await provider.make(row, [ask(1, guidance_scale=1.0, negative_prompt="green")], 1)
    assert [one.field for one in ignored.adjustments] == ["negative_prompt"]
    (refused,) = await provider.make(row, [ask(1, guidance_scale=1.0, negative_prompt="green", strict=True)], 1)
    assert isinstance(refused, NotMade) and "guidance_scale is not over 1" in refused.message


async def test_what_a_pipelines_signature_lacks_is_told(row: Model) -> None:
    """Neither steps, guidance nor a negative prompt, and a picture of another size: adjustments, never silence."""
    import numpy as np

    wide = np.random.default_rng(0).random((64, 96, 3))
    wish = ask(1, guidance_scale=4.0, negative_prompt="green", steps=9)
    pipeline = Scripted({}, wide)
    (made,) = await scripted(pipeline).make(row, [wish], 1)
    assert {one.field: one.used for one in made.adjustments} == {
        "negative_prompt": "left out", "steps": "left out", "guidance_scale": "left out", "size": "96x64",
    }  # fmt: skip
    assert (made.width, made.height) == (96, 64)
    (refused,) = await scripted(pipeline).make(row, [replace(wish, strict=True)], 1)
    assert isinstance(refused, NotMade) and pipeline.batches == [1], "refused before it was made"
    sized = replace(ask(1), asked=frozenset({"prompt", "size"}), strict=True)
    (late,) = await scripted(pipeline).make(row, [sized], 1)
    assert isinstance(late, NotMade) and "size (64x64 asked, 96x64" in late.message


class Scripted:
    """A pipeline that fails as told and else gives grey noise; `batches` are the sizes it was called with."""

    def __init__(
        self, fails: dict[int, Exception], image: Any = None, blocked: bool = False, first: Any = lambda generator: None
    ) -> None:
        self.first = first
        self.fails, self.image, self.blocked = fails, image, blocked
        self.batches: list[int] = []

    def __call__(
        self, prompt: Sequence[str], width: int, height: int, generator: Sequence[Any], output_type: str
    ) -> Any:
        import numpy as np
        import torch

        self.batches.append(len(prompt))
        self.first(generator)
        if len(prompt) in self.fails:
            raise self.fails[len(prompt)]
        made = [torch.rand(height, width, 3, generator=one).numpy() for one in generator]
        images = np.stack(made) if self.image is None else np.repeat(self.image[None], len(prompt), 0)
        return type("Output", (), {"images": images, "nsfw_content_detected": [self.blocked] * len(prompt)})()


def scripted(pipeline: Scripted) -> Any:
    from giclee.gpu_worker.providers.diffusion import Diffusion

    return Diffusion("cpu", load=lambda *_: pipeline)


async def test_out_of_memory_halves_the_batch_once(row: Model) -> None:
    """Four do not fit, two do: everyone gets an image, computed at the smaller shape and saying so."""
    import torch

    pipeline = Scripted({4: torch.OutOfMemoryError("CUDA out of memory")})
    answers = await scripted(pipeline).make(row, [ask(seed) for seed in range(3)], 4)
    assert pipeline.batches == [4, 2, 2]
    assert all(isinstance(one, Made) and one.reproduction and one.reproduction.batch == 2 for one in answers)


async def test_what_does_not_fit_even_halved_is_too_large_and_halved_only_once(row: Model) -> None:
    """A final answer: the chain goes on."""
    import torch

    no = torch.OutOfMemoryError("CUDA out of memory")
    pipeline = Scripted({4: no, 2: no, 1: no})
    answers = await scripted(pipeline).make(row, [ask(seed) for seed in range(4)], 4)
    assert pipeline.batches == [4, 2, 2]
    assert {one.outcome for one in answers if isinstance(one, NotMade)} == {"invalid"} and len(answers) == 4
    single = await scripted(Scripted({1: no})).make(row, [ask(0)], 1)
    assert isinstance(single[0], NotMade)


async def test_memory_of_a_failed_batch_is_free_when_the_smaller_one_runs(row: Model) -> None:
    """References are dropped outside of the except block: nothing of the first try lives in the second."""
    import gc
    import weakref

    import torch

    alive: list[Any] = []

    def hungry(generator: Sequence[Any]) -> None:
        if len(generator) == 4:
            activation = torch.ones(8)
            alive.append(weakref.ref(activation))
            raise torch.OutOfMemoryError("CUDA out of memory")
        gc.collect()
        assert alive[0]() is None, "the failed try's tensors are still there"

    answers = await scripted(Scripted({}, first=hungry)).make(row, [ask(seed) for seed in range(4)], 4)
    assert all(isinstance(one, Made) for one in answers)


async def test_a_dead_cuda_context_is_a_lost_device(row: Model) -> None:
    """The process must end; a server once answered errors for 22 hours that way."""
    pipeline = Scripted({1: RuntimeError("CUDA error: an illegal memory access was encountered")})
    with pytest.raises(DeviceLost):
        await scripted(pipeline).make(row, [ask(0)], 1)


async def test_blank_blocked_and_infinite_pictures_are_no_images(row: Model) -> None:
    """A black picture is what filters and overflows look like; it is never stored."""
    import numpy as np

    flat, nan = np.zeros((64, 64, 3)), np.full((64, 64, 3), np.nan)
    for pipeline, outcome in [
        (Scripted({}, flat), "unusable"),
        (Scripted({}, nan), "unusable"),
        (Scripted({}, blocked=True), "refused-content"),
    ]:
        (answer,) = await scripted(pipeline).make(row, [ask(0)], 1)
        assert isinstance(answer, NotMade) and answer.outcome == outcome


async def test_a_broken_file_a_missing_file_and_pickles_are_said(tmp_path: Path, folder: Path) -> None:
    """Without a manifest too: the loader's error names the folder."""
    from giclee.gpu_worker.providers.diffusion import Diffusion

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not safetensors")
    gone = tmp_path / "gone"
    shutil.copytree(folder, gone)
    (gone / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    for place in (broken, gone, pickled):
        with pytest.raises(ModelUnusable, match=place.name):
            await Diffusion("cpu").describe(model("tiny", provider="diffusion", location=str(place)))


async def test_a_repository_is_loaded_from_the_cache_by_name_and_revision(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned; another revision of the same name is not taken for it, and nothing is downloaded."""
    from huggingface_hub import constants

    from giclee.gpu_worker.providers.diffusion import Diffusion

    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--acme--tiny"
    shutil.copytree(folder, repository / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.HF_HUB_CACHE", str(tmp_path), raising=False)
    pinned = model("tiny", provider="diffusion", location="acme/tiny", revision=revision, steps=2)
    (made,) = await Diffusion("cpu").make(pinned, [ask(1)], 1)
    assert isinstance(made, Made)
    with pytest.raises(ModelUnusable, match="acme/tiny at 999"):
        await Diffusion("cpu").describe(pinned.model_copy(update={"revision": "999"}))


async def test_only_so_many_models_stay_resident_and_the_one_longest_unused_goes(folder: Path) -> None:
    """A third model makes room; the first loads again when asked."""
    from giclee.gpu_worker.providers.diffusion import Diffusion, load_pipeline

    loads: list[str] = []

    def load(row: Model, place: Path, device: str) -> Any:
        loads.append(row.name)
        return load_pipeline(row, place, device)

    provider = Diffusion("cpu", resident_max=2, load=load)
    dtypes = ("float32", "float16", "bfloat16")
    a, b, c = (
        model(name, provider="diffusion", location=str(folder), dtype=dtypes["abc".index(name)]) for name in "abc"
    )
    for row in (a, b, a, c, a, b):
        await provider.describe(row)
    assert loads == ["a", "b", "c", "b"]


async def test_rows_of_the_same_weights_are_one_model_on_the_device(folder: Path) -> None:
    """A pool for each priority does not double what its model takes of the memory."""
    from giclee.gpu_worker.providers.diffusion import Diffusion, load_pipeline

    loads: list[str] = []

    def load(row: Model, place: Path, device: str) -> Any:
        loads.append(row.name)
        return load_pipeline(row, place, device)

    provider = Diffusion("cpu", resident_max=1, load=load)
    now, bulk = (model(name, provider="diffusion", pool=name, location=str(folder)) for name in ("now", "bulk"))
    for row in (now, bulk, now):
        await provider.describe(row)
    assert loads == ["now"]


def test_a_device_that_is_not_there_is_said() -> None:
    """And `auto` says why it chose what it chose."""
    import torch

    from giclee.gpu_worker import device

    assert device.choose("cpu").name == "cpu"
    if not torch.cuda.is_available():
        assert "no CUDA" in device.choose("auto").reason
        with pytest.raises(ValueError, match="cuda:0"):
            device.choose("cuda:0")


class TestDiffusion(ProviderSuite):
    """A device of ours is a provider like any other."""

    @pytest.fixture
    def provider(self) -> Any:
        from giclee.gpu_worker.providers.diffusion import Diffusion

        return Diffusion("cpu")

    async def test_its_thread_ends_with_it(self, provider: Any, row: Model) -> None:
        """A process that was told to stop is not kept by a thread that nobody asks any more."""
        before = set(threading.enumerate())
        await provider.describe(row)
        (thread,) = (one for one in threading.enumerate() if one not in before and one.name.startswith("device"))
        await provider.close()
        await until(lambda: not thread.is_alive())
