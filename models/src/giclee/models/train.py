"""Trains everything from nothing, in the order in which each part needs the one before; every part can be resumed.

Leaves the three shipped folders in `out`, and checkpoints, latents and the judge's pool in `out/parts`.
"""

from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from giclee.models import autoencoder, denoiser, judge, judge_training, manifest, prompts, revisions, world
from giclee.models.sampling import SAMPLING, Sampling
from giclee.models.training import Run, settle

# Which average of the denoiser's weights each revision is. The draft is to be right in 0.25 to 0.5.
SNAPSHOT = {"shapes-draft": 250, "shapes-final": denoiser.STEPS}


class Part(NamedTuple):
    """Generated pictures of the judge's pool.

    Which average of the denoiser, how sampled, how many, from which seed on, and of which scenes.
    """

    snapshot: int
    sampling: Sampling
    pictures: int
    first: int
    of: world.Scene = world.Scene()


# Both revisions as they are sampled, and with other steps, because the judge must know mistakes in general and not
# one sampler's. Small crosses are what the final gets wrong: a few pixels make them diamonds. All of them training
# seeds that the denoiser's latents (the first 40,000) did not use.
POOL = (
    Part(250, SAMPLING["shapes-draft"], 12_000, 201_500),
    Part(denoiser.STEPS, SAMPLING["shapes-final"], 3_500, 217_500),
    Part(denoiser.STEPS, SAMPLING["shapes-final"], 2_500, 223_500, world.Scene(size="small", shape="cross")),
    Part(denoiser.STEPS, Sampling(4, 1.0), 1_500, 268_227),
    Part(denoiser.STEPS, Sampling(3, 1.0), 1_500, 270_727),
    Part(denoiser.STEPS, Sampling(8, 2.0), 1_000, 273_227),
    Part(denoiser.STEPS, Sampling(2, 1.0), 1_000, 274_227),
    Part(250, Sampling(6, 1.0), 1_500, 275_727),
    Part(250, Sampling(3, 1.0), 1_500, 277_727),
)
ROUND_TRIPS = range(200_000, 201_500)


def train(out: Path, seed: int = 0) -> None:
    """Train, save the three folders and write their manifests. Some 40 minutes on two cores."""
    settle(seed)
    parts = out / "parts"
    vae = autoencoder.train(Run(parts, "autoencoder", seed)).requires_grad_(False)
    tokenizer, encoder = prompts.train(Run(parts, "prompts", seed))
    denoiser.train(Run(parts, "denoiser", seed), vae, tokenizer, encoder)
    pipelines = {
        step: revisions.assemble(vae, tokenizer, encoder, snapshot(parts, step))
        for step in sorted({*SNAPSHOT.values(), *(part.snapshot for part in POOL)})
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
        seeds = list(ROUND_TRIPS)
        pictures = [_round_trips(vae, ROUND_TRIPS)]
        for part in POOL:
            mine = _seeds(part)
            pictures.append(_samples(pipelines[part.snapshot], part.sampling, mine))
            seeds += mine
            print(f"pool {part}", flush=True)
        np.savez(file, pictures=np.concatenate(pictures), seeds=np.array(seeds))
    drawn = np.load(file)
    return judge_training.Pool.of(drawn["pictures"], [world.scene_of(int(seed)) for seed in drawn["seeds"]])


def _seeds(part: Part) -> list[int]:
    """The first seeds whose scene is one of the part's."""

    def fits(seed: int) -> bool:
        return all(word in (None, shown) for word, shown in zip(part.of, world.scene_of(seed), strict=True))

    return list(islice(filter(fits, count(part.first)), part.pictures))


@torch.no_grad()
def _round_trips(vae: AutoencoderKL, seeds: range) -> np.ndarray:
    pixels = autoencoder.to_tensor(autoencoder.renders(seeds))
    parts = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in pixels.split(100)]
    return autoencoder.to_pictures(torch.cat(parts))


def _samples(pipeline: StableDiffusionPipeline, sampling: Sampling, seeds: list[int]) -> np.ndarray:
    parts = []
    for first in range(0, len(seeds), 100):
        part = seeds[first : first + 100]
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(revisions.generate(pipeline, [world.prompt_of(seed) for seed in part], part, sampling))
    return np.concatenate(parts)
