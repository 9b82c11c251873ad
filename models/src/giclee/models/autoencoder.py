"""Trains the autoencoder that both revisions share: renders to 4 x 16 x 16 latents and back.

Factor 4, because at factor 8 the outlines are lost and nothing later exceeds the autoencoder. Judged by the oracle.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL

from giclee.models import oracle, world
from giclee.models.training import Run, learning_rate

STEPS = 1600
BATCH = 16
PEAK_RATE = 2e-3
KL_WEIGHT = 1e-6
LATENT_SAMPLES = 2048


def build() -> AutoencoderKL:
    """Untrained: 0.41 M parameters."""
    channels = (16, 32, 48)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=world.WIDTH_PX,
    )


def to_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """(height, width, 3) uint8 pictures to (batch, 3, height, width) floats in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return stacked.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def to_pictures(tensor: torch.Tensor) -> np.ndarray:
    """(batch, 3, height, width) in [-1, 1] to (batch, height, width, 3) uint8, rounded as the pipeline does."""
    return tensor.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def renders(seeds: range) -> list[np.ndarray]:
    """One render per seed."""
    return [world.render(world.scene_of(seed), seed) for seed in seeds]


def train(run: Run) -> AutoencoderKL:
    """Train to the end, or go on where `run` was stopped; its latents have mean 0 and spread 1 in every channel."""
    model = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=1e-4)
    for step in run.steps(STEPS, model=model, optimizer=optimizer):
        optimizer.param_groups[0]["lr"] = learning_rate(step, STEPS, PEAK_RATE)
        pixels = to_tensor(renders(run.seeds(step, BATCH)))  # (batch, 3, 64, 64)
        posterior = model.encode(pixels).latent_dist
        error = model.decode(posterior.sample()).sample - pixels
        loss = error.abs().mean() + error.square().mean() + KL_WEIGHT * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        run.report(step, 50, loss=loss.item())
        if step % 200 == 199:
            run.say(step, right=round_trip(model, 500, world.VALIDATION_SEED_FIRST))
    standardise(model)
    return model.eval()


@torch.no_grad()
def standardise(model: AutoencoderKL) -> None:
    """Fold mean and spread of each latent channel into the 1 x 1 convolutions around the latents.

    The denoiser wants both to be 0 and 1, and the configuration has one scaling_factor for all channels and no shift.
    """
    parts = to_tensor(renders(range(LATENT_SAMPLES))).split(256)
    latents = torch.cat([model.encode(part).latent_dist.mode() for part in parts])  # (samples, 4, 16, 16)
    mean, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out_of = model.quant_conv, model.post_quant_conv
    # The first four outputs are means, the last four logarithms of variances.
    into.weight[:4] /= spread[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) / spread
    into.bias[4:] -= 2 * spread.log()
    out_of.bias += (out_of.weight * mean[None, :, None, None]).sum((1, 2, 3))
    out_of.weight *= spread[None, :, None, None]
    model.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def round_trip(model: AutoencoderKL, pictures: int, seed_first: int = world.EVALUATION_SEED_FIRST) -> float:
    """Share of renders of which the oracle still reads every attribute after encoding and decoding."""
    seeds = range(seed_first, seed_first + pictures)
    right = 0
    for start in range(0, pictures, 128):
        part = seeds[start : start + 128]
        decoded = model.decode(model.encode(to_tensor(renders(part))).latent_dist.mode()).sample
        right += sum(
            oracle.is_right(picture, world.scene_of(seed))
            for picture, seed in zip(to_pictures(decoded), part, strict=True)
        )
    return right / pictures
