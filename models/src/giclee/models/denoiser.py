"""Trains the denoiser of both revisions: the draft is an early average of the weights, the final the last one.

What made it converge on two cores: a frozen text encoder that already reads (prompts.py), the prompt added to the time
embedding so that it scales every layer, latents encoded once, and half of the training at high noise, where the picture
has to come from the prompt alone. v-prediction with zero terminal SNR, hence DDIM with trailing steps.
"""

import copy
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch.nn import functional
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from giclee.models import autoencoder, prompts, world
from giclee.models.training import Run

STEPS = 2500
BATCH = 32
PEAK_RATE = 1.2e-3
WARM_UP_STEPS = 200
# The rate falls over the last part only, so that an early weight average is a usable draft.
DECAY_PART = 0.35
AVERAGE_DECAY = 0.998
# Averages kept on the way: one becomes the draft, all of them make mistakes for the judge to learn from.
SNAPSHOTS = (75, 100, 125, 150, 175, 200, 250, 300, 400, 600, 1000, 1600, STEPS)
# Share of prompts left empty, for classifier-free guidance.
PART_EMPTY = 0.10
# Share of examples that are noise alone: the first of the sampler's steps, which decides the shape.
PART_NOISE = 0.12
NOISE_LEVELS = 1000
LATENT_RENDERS = 40_000


def build() -> UNet2DConditionModel:
    """Untrained: 4.9 M parameters.

    Attention only at 4 x 4, in the middle. More of it costs a third of the speed, and the text arrives with the time.
    """
    return UNet2DConditionModel(
        sample_size=world.WIDTH_PX // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        cross_attention_dim=prompts.HIDDEN,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
        resnet_time_scale_shift="scale_shift",
    )


def build_scheduler() -> DDIMScheduler:
    """The noise of training and sampling."""
    return DDIMScheduler(
        num_train_timesteps=NOISE_LEVELS,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,  # unused by trailing steps; the pipeline rewrites any other number
    )


@torch.no_grad()
def encode_renders(vae: AutoencoderKL, file: Path) -> np.ndarray:
    """Latents of the training renders, (LATENT_RENDERS, 4, 16, 16) fp16, encoded once and memory-mapped after."""
    if not file.exists():
        parts = []
        for first in range(0, LATENT_RENDERS, 100):
            pixels = autoencoder.to_tensor(autoencoder.renders(range(first, first + 100)))
            parts.append(vae.encode(pixels).latent_dist.mode().mul(vae.config.scaling_factor).half().numpy())
        np.save(file, np.concatenate(parts))
    return np.load(file, mmap_mode="r")


def noise_levels(count: int) -> torch.Tensor:
    """Time steps with a density that grows with the noise, and PART_NOISE of them at the last."""
    levels = (torch.rand(count).pow(0.65) * NOISE_LEVELS).long().clamp(max=NOISE_LEVELS - 1)
    return torch.where(torch.rand(count) < PART_NOISE, NOISE_LEVELS - 1, levels)


class Average:
    """An exponential average of a network's weights; starts as the weights themselves."""

    def __init__(self, network: UNet2DConditionModel) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: UNet2DConditionModel, step: int) -> None:
        """Move towards the network; faster at first."""
        kept = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - kept)


def learning_rate(step: int) -> float:
    """Up, level, and down over the last DECAY_PART."""
    left = (STEPS - step) / (STEPS * DECAY_PART)
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP_STEPS, max(left, 0.01))


def train(
    run: Run, vae: AutoencoderKL, tokenizer: PreTrainedTokenizerFast, encoder: CLIPTextModel
) -> UNet2DConditionModel:
    """Train to the end, or go on; leaves the averages of SNAPSHOTS in the run's folder."""
    latents = encode_renders(vae, run.folder / "latents.npy")
    scheduler = build_scheduler()
    model = build().to(memory_format=torch.channels_last)
    average = Average(model)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    for step in run.steps(STEPS, model=model, average=average.network, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(step)
        seeds = torch.randint(len(latents), (BATCH,)).tolist()
        hidden = encoder(prompts.tokens_of(tokenizer, _prompts(seeds, step))).last_hidden_state
        clean = torch.from_numpy(np.stack([latents[seed] for seed in seeds])).float()  # (batch, 4, 16, 16)
        loss = _loss(model, scheduler, clean, hidden)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.follow(model, step)
        run.report(step, 50, loss=loss.item())
        if step + 1 in SNAPSHOTS:
            torch.save(average.network.state_dict(), run.folder / f"{run.name}.{step + 1}.pt")
    return average.network


def _prompts(seeds: list[int], step: int) -> list[str]:
    # A render meets another phrasing, or an empty prompt, each time it is drawn.
    chance = np.random.default_rng([step, 4])
    return ["" if chance.random() < PART_EMPTY else prompts.training_prompt(seed, step) for seed in seeds]


def _loss(
    model: UNet2DConditionModel, scheduler: DDIMScheduler, clean: torch.Tensor, hidden: torch.Tensor
) -> torch.Tensor:
    levels = noise_levels(len(clean))
    noise = torch.randn_like(clean)
    noisy = scheduler.add_noise(clean, noise, levels).contiguous(memory_format=torch.channels_last)
    aim = scheduler.get_velocity(clean, noise, levels)
    # bfloat16 takes 0.7 of the time where the processor has matrix units for it, and about as long where not.
    with torch.autocast("cpu", torch.bfloat16):
        told = model(noisy, levels, hidden).sample
    return functional.mse_loss(told.float(), aim)
