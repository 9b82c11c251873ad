"""Images by diffusers: any pipeline folder, or repository pinned by name and revision, safetensors only.

Everything that touches torch runs in one thread, so the event loop stays free and batches never overlap.
One generator per image, seeded from its candidate and drawn on the CPU: the same seed at the same padded
batch shape gives the same bytes whoever shares the batch (bitwise on CPUs: the grade `exact`).
"""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import inspect
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError

from giclee.gpu_worker import adjusting, picture, shelf
from giclee.gpu_worker import device as devices
from giclee.gpu_worker.provider import (
    Answer,
    Ask,
    Capabilities,
    Closed,
    Description,
    DeviceLost,
    Made,
    ModelUnusable,
    NotMade,
)
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment
from giclee.schemas.reproduction import Grade, Reproduction

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CFG_OVER = 1.0
"""At or below this guidance scale pipelines do not look at the empty or negative prompt."""
_PARAMETERS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance_scale",
    "generator": "seed",
}
"""What pipelines call the things that can be asked; one that a pipeline's signature lacks is left out."""
_UNBOUNDED = 1_000_000
"""Tokenizers without a limit of their own say a number over this."""
_LOAD_ERRORS = (OSError, ValueError, KeyError, AttributeError, ImportError, RuntimeError, TypeError, SafetensorError)


@dataclass(slots=True)
class Loaded:
    """A pipeline on the device."""

    pipeline: Any
    parameters: frozenset[str]
    weights_sha256: str

    @property
    def takes(self) -> frozenset[str]:
        """What it takes, by the names of asks."""
        return frozenset(asked for name, asked in _PARAMETERS.items() if name in self.parameters)


class Diffusion:
    """A provider over diffusers. `load` turns a checked folder into a pipeline; tests give their own."""

    capabilities = Capabilities(
        seed=True,
        negative_prompt=True,
        steps=True,
        guidance=True,
        reference_image=False,
        concurrency=1,
        data_terms="Nothing leaves the host.",
    )

    def __init__(
        self,
        device: str = "auto",
        *,
        threads: int = 1,
        resident_max: int = 2,
        download: bool = False,
        load: Callable[[Model, Path, str], Any] | None = None,
    ) -> None:
        self.device = devices.choose(device)
        self._resident_max = resident_max
        self._download = download
        self._load = load or load_pipeline
        self._loaded: OrderedDict[tuple[str, ...], Loaded] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "device", initializer=devices.prepare, initargs=(threads,))
        self._closed = False

    async def make(self, model: Model, asks: Sequence[Ask], padded: int) -> Sequence[Answer]:
        return await self._in_thread(self._make, model, asks, padded)

    async def describe(self, model: Model) -> Description:
        loaded = await self._in_thread(self._resident, model)
        where = f"{self.device.describe()}: {self.device.reason}"
        return Description(weights_sha256=loaded.weights_sha256, where=where, resident=True)

    async def close(self) -> None:
        """The thread ends with the batch that it computes; a device that hangs must not keep a process from ending."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., Any], *values: object) -> Any:
        """Errors: Closed; those of the work."""
        if self._closed:
            raise Closed("the device's thread has ended")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    # ---- in the device's thread -----------------------------------------------------------------

    def _make(self, model: Model, asks: Sequence[Ask], padded: int) -> list[Answer]:
        loaded = self._resident(model)
        refused = {
            at: adjusting.refused(found) for at, ask in enumerate(asks) if (found := _forbidden(loaded, model, ask))
        }
        rest = [ask for at, ask in enumerate(asks) if at not in refused]
        made = iter(self._halving(model, loaded, rest, padded) if rest else ())
        return [refused[at] if at in refused else next(made) for at in range(len(asks))]

    def _halving(self, model: Model, loaded: Loaded, asks: Sequence[Ask], padded: int) -> list[Answer]:
        """The answers; where there was no memory for the batch, of its halves."""
        answers = self._attempt(model, loaded, asks, padded)
        if answers is not None:
            return answers
        half = padded // 2
        found: list[Answer] = []
        for first in range(0, len(asks), half or 1):
            part = asks[first : first + (half or 1)]
            again = self._attempt(model, loaded, part, half) if half else None
            found += again if again is not None else [_too_large(model, ask) for ask in part]
        return found

    def _attempt(self, model: Model, loaded: Loaded, asks: Sequence[Ask], padded: int) -> list[Answer] | None:
        """One batch; None when there was no memory for it."""
        began = time.perf_counter()
        try:
            images, blocked = self._images(loaded, asks, padded)
        except (RuntimeError, MemoryError) as error:
            if devices.lost(error):
                raise DeviceLost(str(error)) from error
            if not devices.out_of_memory(error):
                raise
            images = None
        if images is None:  # outside of the except block, whose traceback would keep every tensor alive
            gc.collect()
            devices.release()
            return None
        seconds = (time.perf_counter() - began) / len(asks)
        how = self._reproduction(model, padded)
        return [
            _answer(loaded, model, ask, image=images[at], blocked=blocked[at], seconds=seconds, how=how)
            for at, ask in enumerate(asks)
        ]

    def _images(self, loaded: Loaded, asks: Sequence[Ask], padded: int) -> tuple[Any, list[bool]]:
        """(padded, height, width, 3) floats in [0, 1], and which of them the pipeline itself blacked out."""
        shape = asks[0].shape
        rows = [*asks, *[asks[-1]] * (padded - len(asks))]
        said: dict[str, Any] = {
            "prompt": [ask.prompt for ask in rows],
            "width": shape.width,
            "height": shape.height,
            "num_inference_steps": shape.steps,
            "guidance_scale": shape.guidance_scale,
            "generator": [torch.Generator("cpu").manual_seed(ask.seed) for ask in rows],
            "output_type": "np",
        }
        if shape.negative and shape.guidance_scale > CFG_OVER:
            said["negative_prompt"] = [ask.negative_prompt or "" for ask in rows]
        with torch.inference_mode():
            made = loaded.pipeline(**{name: value for name, value in said.items() if name in loaded.parameters})
        blocked = getattr(made, "nsfw_content_detected", None) or [False] * padded
        return made.images, [bool(one) for one in blocked]

    def _resident(self, model: Model) -> Loaded:
        """The model on the device, loaded now if need be; the one longest unused makes room. Errors: ModelUnusable."""
        found = self._loaded.get(model.weights)
        if found is None:
            while len(self._loaded) >= self._resident_max:
                self._loaded.popitem(last=False)
                gc.collect()
                devices.release()
            folder = _folder(model, download=self._download)
            weights = shelf.verified(model, folder)
            pipeline = self._load(model, folder, self.device.name)
            parameters = frozenset(inspect.signature(type(pipeline).__call__).parameters)
            found = self._loaded[model.weights] = Loaded(pipeline, parameters, weights)
        self._loaded.move_to_end(model.weights)
        return found

    def _reproduction(self, model: Model, padded: int) -> Reproduction:
        return Reproduction(
            backend="diffusers",
            device=self.device.describe(),
            dtype=model.dtype,
            batch=padded,
            threads=torch.get_num_threads(),
            versions={"torch": torch.__version__, "diffusers": diffusers.__version__},
        )


def load_pipeline(model: Model, folder: Path, device: str) -> Any:
    """The pipeline in a folder, on a device. Never code from the folder, never a pickle. Errors: ModelUnusable."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()  # a log is no terminal
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder,
            dtype=DTYPES[model.dtype],
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,
        )
        pipeline.to(device)
    except _LOAD_ERRORS as error:
        raise ModelUnusable(f"model {model.name} in {folder} does not load: {type(error).__name__}: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _folder(model: Model, *, download: bool) -> Path:
    """Where the model's files are; a repository is looked up in the local cache, at its revision, unless told else."""
    folder = Path(model.location)
    if folder.is_dir():
        return folder
    try:
        found = diffusers.DiffusionPipeline.download(
            model.location, revision=model.revision, use_safetensors=True, local_files_only=not download
        )
    except _LOAD_ERRORS as error:
        where = f"{model.location} at {model.revision}"
        raise ModelUnusable(f"model {model.name}: {where} is neither a folder nor in the cache: {error}") from error
    return Path(found)


def _too_large(model: Model, ask: Ask) -> NotMade:
    size = f"{ask.shape.width}x{ask.shape.height}"
    return NotMade(outcome="invalid", message=f"{size} does not fit into the memory that {model.name} has here")


def _answer(
    loaded: Loaded, model: Model, ask: Ask, *, image: Any, blocked: bool, seconds: float, how: Reproduction
) -> Answer:
    if blocked:
        return NotMade(outcome="refused-content", message=f"{model.name} blacked the image out", seconds=seconds)
    pixels = picture.quantized(image)
    if pixels is None:
        return NotMade(outcome="unusable", message=f"{model.name} made values that are not finite", seconds=seconds)
    if picture.is_blank(pixels):
        return NotMade(outcome="unusable", message=f"{model.name} made one flat colour", seconds=seconds)
    height, width = pixels.shape[:2]
    found = [*_adjustments(loaded, model, ask), *_other_size(ask, width, height)]
    if ask.strict and found:
        return adjusting.refused(found)
    seeded = "seed" in loaded.takes
    return Made(
        body=picture.encode(pixels),
        content_type=picture.CONTENT_TYPE,
        width=width,
        height=height,
        seconds=seconds,
        weights_sha256=loaded.weights_sha256,
        adjustments=tuple(found),
        reproducibility=_grade(how, seeded=seeded),
        reproduction=how.model_copy(update={"seed": ask.seed if seeded else None}),
    )


def _grade(how: Reproduction, *, seeded: bool) -> Grade:
    """Weights are always pinned by their hash; what is left is the seed and the arithmetic."""
    if not seeded:
        return "none"
    return "exact" if (how.device or "").startswith("cpu") and how.dtype == "float32" else "perceptual"


# ---- what was asked and could not be done -------------------------------------------------------


def _forbidden(loaded: Loaded, model: Model, ask: Ask) -> list[Adjustment]:
    """What keeps a strict ask from being made."""
    return _adjustments(loaded, model, ask) if ask.strict else []


def _adjustments(loaded: Loaded, model: Model, ask: Ask) -> list[Adjustment]:
    """All that is known before the image is made."""
    found = [_shortened(loaded, "prompt", ask.prompt)]
    takes = loaded.takes
    if ask.negative_prompt and ask.shape.negative and "negative_prompt" in takes:
        if ask.shape.guidance_scale > CFG_OVER:
            found.append(_shortened(loaded, "negative_prompt", ask.negative_prompt))
        elif "negative_prompt" in ask.asked:
            why = "guidance_scale is not over 1"
            found.append(Adjustment(field="negative_prompt", asked="given", used="left out", reason=why))
    return [*(one for one in found if one), *adjusting.left_out(model, ask, takes, "the model takes none")]


def _other_size(ask: Ask, width: int, height: int) -> list[Adjustment]:
    shape = ask.shape
    if (width, height) == (shape.width, shape.height) or "size" not in ask.asked:
        return []
    asked, used = f"{shape.width}x{shape.height}", f"{width}x{height}"
    return [Adjustment(field="size", asked=asked, used=used, reason="the model makes no other")]


def _shortened(loaded: Loaded, field: str, text: str) -> Adjustment | None:
    """The adjustment for a text longer than the pipeline's longest reader takes; None where all of it was read."""
    readers = [getattr(loaded.pipeline, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
    limits = [(_limit(loaded, reader), reader) for reader in readers if reader is not None]
    if not limits:
        return None
    limit, reader = max(limits, key=lambda pair: pair[0])
    tokens = len(reader(text, truncation=False, verbose=False).input_ids)
    if tokens <= limit:
        return None
    return Adjustment(
        field=field, asked=f"{tokens} tokens", used=f"{limit} tokens", reason="the text encoder reads no more"
    )


def _limit(loaded: Loaded, reader: Any) -> int:
    limit = int(reader.model_max_length)
    if limit < _UNBOUNDED:
        return limit
    asked = inspect.signature(type(loaded.pipeline).__call__).parameters.get("max_sequence_length")
    return int(asked.default) if asked is not None else _UNBOUNDED
