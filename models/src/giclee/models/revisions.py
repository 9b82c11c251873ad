"""The two shipped revisions as diffusers pipelines: how they are saved, loaded and asked for pictures."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from giclee.models import world
from giclee.models.denoiser import build_scheduler
from giclee.models.sampling import Sampling


def assemble(
    vae: AutoencoderKL, tokenizer: PreTrainedTokenizerFast, encoder: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The trained parts as one pipeline. No safety checker: that is the scorer's work."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load(folder: Path) -> StableDiffusionPipeline:
    """A shipped revision, on the processor in float32. No network is used."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, torch_dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write a revision in half precision. The pipeline itself is left in half precision."""
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)


def generate(pipeline: StableDiffusionPipeline, prompts: list[str], seeds: list[int], sampling: Sampling) -> np.ndarray:
    """One picture per prompt and seed, (batch, 64, 64, 3) uint8; a picture does not depend on its neighbours."""
    pictures = pipeline(
        prompts,
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type="np",
        width=world.WIDTH_PX,
        height=world.WIDTH_PX,
    ).images  # (batch, 64, 64, 3) floats in [0, 1]
    return np.rint(pictures * 255).astype(np.uint8)
