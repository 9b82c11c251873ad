"""Trains everything from nothing, in the order in which each part needs the one before; every part can be resumed.

Leaves the three shipped folders in `out`, and checkpoints, latents and the judge's pool in `out/parts`.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from giclee.models import autoencoder, denoiser, judge, judge_training, manifest, prompts, revisions, world
from giclee.models.sampling import SAMPLING, Sampling
from giclee.models.training import Run, settle

# Which average of the denoiser's weights each revision is. The draft is to be right in 0.25 to 0.5.
SNAPSHOT = {"shapes-draft": 250, "shapes-final": denoiser.STEPS}
# The judge's generated pictures: snapshot, sampling, how many. Both revisions as they are sampled, and their
# neighbours, because the judge must know mistakes in general and not one network's.
POOL = (
    (200, Sampling(4, 1.0), 1500),
    (250, SAMPLING["shapes-draft"], 4500),
    (300, Sampling(4, 1.0), 1500),
    (400, Sampling(8, 1.0), 1000),
    (600, Sampling(4, 1.0), 500),
    (denoiser.STEPS, Sampling(8, 2.0), 1500),
    (denoiser.STEPS, SAMPLING["shapes-final"], 500),
    (250, SAMPLING["shapes-draft"], 4000),
)
ROUND_TRIPS = 1500
# Where the pool's seeds begin: training seeds that the denoiser's latents (the first 40,000) did not use.
POOL_SEED_FIRST = 200_000


def train(out: Path, seed: int = 0) -> None:
    """Train, save the three folders and write their manifests. Some 40 minutes on two cores."""
    settle(seed)
    parts = out / "parts"
    vae = autoencoder.train(Run(parts, "autoencoder", seed)).requires_grad_(False)
    tokenizer, encoder = prompts.train(Run(parts, "prompts", seed))
    denoiser.train(Run(parts, "denoiser", seed), vae, tokenizer, encoder)
    pipelines = {
        step: revisions.assemble(vae, tokenizer, encoder, snapshot(parts, step))
        for step in sorted({*SNAPSHOT.values(), *(step for step, _, _ in POOL)})
    }
    pool = draw_pool(parts / "pool.npz", vae, pipelines)
    train_judge(out, seed, pool)
    for name, step in SNAPSHOT.items():
        revisions.save(pipelines[step], out / name)
    manifest.write_all(out)


def snapshot(parts: Path, step: int) -> torch.nn.Module:
    """The denoiser as its averaged weights were after so many steps."""
    network = denoiser.build()
    network.load_state_dict(torch.load(parts / f"denoiser.{step}.pt", weights_only=True))
    return network.eval()


def train_judge(out: Path, seed: int, pool: judge_training.Pool) -> None:
    """Train the judge's two halves and save it."""
    tokenizer = prompts.build_tokenizer()
    torch.manual_seed(seed)
    model = judge.build(len(tokenizer))
    judge_training.train_reading(Run(out / "parts", "reading", seed), model, tokenizer)
    captions = judge_training.encode_captions(model, tokenizer)
    judge.save(
        judge_training.train(Run(out / "parts", "judge", seed), model, captions, pool), tokenizer, out / "shapes-clip"
    )


def draw_pool(file: Path, vae: AutoencoderKL, pipelines: dict[int, StableDiffusionPipeline]) -> judge_training.Pool:
    """The judge's pool, drawn once and kept in `file`."""
    if not file.exists():
        first = POOL_SEED_FIRST
        pictures = [_round_trips(vae, range(first, first + ROUND_TRIPS))]
        first += ROUND_TRIPS
        for step, sampling, count in POOL:
            pictures.append(_samples(pipelines[step], sampling, range(first, first + count)))
            first += count
            print(f"pool {step:>6} {sampling} {count}", flush=True)
        np.savez(file, pictures=np.concatenate(pictures))
    drawn = np.load(file)["pictures"]
    asked = [world.scene_of(seed) for seed in range(POOL_SEED_FIRST, POOL_SEED_FIRST + len(drawn))]
    return judge_training.Pool.of(drawn, asked)


@torch.no_grad()
def _round_trips(vae: AutoencoderKL, seeds: range) -> np.ndarray:
    pixels = autoencoder.to_tensor(autoencoder.renders(seeds))
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pixels.split(100)]
    return autoencoder.to_pictures(torch.cat(parts))


def _samples(pipeline: StableDiffusionPipeline, sampling: Sampling, seeds: range) -> np.ndarray:
    parts = []
    for first in range(seeds.start, seeds.stop, 100):
        part = list(range(first, min(first + 100, seeds.stop)))
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(revisions.generate(pipeline, [world.prompt_of(seed) for seed in part], part, sampling))
    return np.concatenate(parts)
