"""Measures what the model card says, on evaluation seeds only; thresholds are chosen on validation seeds.

Prints one figure a line. `python -m giclee.models measure` runs all of it.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from nudenet import NudeDetector

from giclee.models import autoencoder, judge, oracle, revisions, world
from giclee.models.sampling import SAMPLING, Sampling

PROMPTS = 300
TUNING_PROMPTS = 150
# Candidates per prompt, as G12 has it.
CANDIDATES = 4
PRECISION_WANTED = 0.90
# NudeNet's own default for a finding.
NUDITY_MINIMUM = 0.25


class Sample(NamedTuple):
    """CANDIDATES pictures for each of some prompts, and whether the oracle finds each of them right."""

    prompts: list[str]
    pictures: np.ndarray  # (prompts, CANDIDATES, 64, 64, 3) uint8
    right: np.ndarray  # (prompts, CANDIDATES) bool
    seen: list[list[oracle.Seen]]
    asked: list[world.Scene]


def draw(pipeline: StableDiffusionPipeline, sampling: Sampling, seed_first: int, prompts: int = PROMPTS) -> Sample:
    """Draw from a pipeline: prompt n is that of seed_first + n, and its candidates differ in their noise."""
    seeds = range(seed_first, seed_first + prompts)
    said = [world.prompt_of(seed) for seed in seeds]
    rows = []
    for start in range(0, prompts, 25):
        part = range(start, min(start + 25, prompts))
        noise = [(seed_first + number) * CANDIDATES + n for number in part for n in range(CANDIDATES)]
        pictures = revisions.generate(
            pipeline, [said[number] for number in part for _ in range(CANDIDATES)], noise, sampling
        )
        rows.append(pictures.reshape(len(part), CANDIDATES, *pictures.shape[1:]))
    pictures = np.concatenate(rows)
    asked = [world.scene_of(seed) for seed in seeds]
    right = [[oracle.is_right(picture, scene) for picture in row] for row, scene in zip(pictures, asked, strict=True)]
    seen = [[oracle.look(picture) for picture in row] for row in pictures]
    return Sample(said, pictures, np.array(right), seen, asked)


def area_under_curve(scores: np.ndarray, right: np.ndarray) -> float:
    """Chance that a right picture scores above a wrong one, ties counted half. NaN if all are of one kind."""
    good, bad = scores[right], scores[~right]
    if not len(good) or not len(bad):
        return float("nan")
    return float((good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean())


def threshold_for(scores: np.ndarray, right: np.ndarray, precision: float = PRECISION_WANTED) -> float:
    """The lowest score from which on the accepted pictures are right with at least this precision; NaN if none is."""
    order = np.argsort(-scores)
    precise = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precise >= precision)
    return float(scores[order][enough[-1]]) if len(enough) else float("nan")


def selection_efficiency(scores: np.ndarray, right: np.ndarray) -> tuple[float, float, float, float]:
    """G12: p, best of CANDIDATES by score, pass at CANDIDATES, and (best - p) / (pass - p)."""
    p, ceiling = right.mean(), right.any(axis=1).mean()
    best = right[np.arange(len(right)), scores.argmax(axis=1)].mean()
    return float(p), float(best), float(ceiling), float((best - p) / (ceiling - p)) if ceiling > p else float("nan")


def seconds_per_image(pipeline: StableDiffusionPipeline, sampling: Sampling, batch: int) -> float:
    """Processor seconds per image on one core, the median of five calls after a first that warms up.

    Processor time and not wall time, so that a busy machine measures the same.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    took_s = []
    for _ in range(6):
        started_s = time.process_time()
        revisions.generate(pipeline, [world.prompt_of(n) for n in range(batch)], list(range(batch)), sampling)
        took_s.append((time.process_time() - started_s) / batch)
    torch.set_num_threads(threads)
    return float(np.median(took_s[1:]))


def say(name: str, figure: object) -> None:
    """One figure, one line."""
    print(f"{name:<58} {figure:.4f}" if isinstance(figure, float) else f"{name:<58} {figure}", flush=True)


def measure_revision(pipeline: StableDiffusionPipeline, name: str, sample: Sample) -> None:
    """How often and how fast one revision is right, by what it drew."""
    say(f"{name}: pictures", sample.right.size)
    say(f"{name}: all attributes right", float(sample.right.mean()))
    for place, attribute in enumerate(world.Scene._fields):
        rows = zip(sample.seen, sample.asked, strict=True)
        say(f"{name}: {attribute} right", float(np.mean([s.scene[place] == a[place] for row, a in rows for s in row])))
    for batch in (1, 8):
        say(f"{name}: core seconds per image, batch {batch}", seconds_per_image(pipeline, SAMPLING[name], batch))
    say_nudity(name, [*sample.pictures[:, 0]], sample.asked)


def measure_judge(scoring: judge.Judge, name: str, sample: Sample, threshold: float) -> None:
    """How well the weakest attribute tells right from wrong among one revision's pictures."""
    scores = weakest(scoring, sample)
    say(f"{name}: judge's AUC, weakest attribute", area_under_curve(scores.ravel(), sample.right.ravel()))
    p, best, ceiling, efficiency = selection_efficiency(scores, sample.right)
    say(f"{name}: p, best of 4, pass at 4", f"{p:.4f} {best:.4f} {ceiling:.4f}")
    say(f"{name}: selection efficiency", efficiency)
    for limit in (threshold, 0.5, 0.6, 0.7, 0.8, 0.9):
        kept = scores >= limit
        precision = float(sample.right[kept].mean()) if kept.any() else float("nan")
        recall = float(kept[sample.right].mean())
        say(f"{name}: at {limit:.3f}: precision, acceptance, recall", f"{precision:.3f} {kept.mean():.3f} {recall:.3f}")


def weakest(scoring: judge.Judge, sample: Sample) -> np.ndarray:
    """The judge's weakest attribute of every picture, (prompts, CANDIDATES)."""
    return np.stack([scoring.weakest(row, prompt) for row, prompt in zip(sample.pictures, sample.prompts, strict=True)])


def say_nudity(name: str, pictures: list[np.ndarray], asked: list[world.Scene]) -> None:
    """How often NudeNet raises a false alarm."""
    detector = NudeDetector()
    highest = [_exposed(detector.detect(np.ascontiguousarray(picture[..., ::-1]))) for picture in pictures]
    alarms = [scene for scene, score in zip(asked, highest, strict=True) if score >= NUDITY_MINIMUM]
    say(f"{name}: NudeNet alarms, of pictures", f"{len(alarms)} of {len(pictures)}")
    say(f"{name}: NudeNet alarms on circles", sum(scene.shape == "circle" for scene in alarms))
    say(f"{name}: NudeNet highest EXPOSED score", float(max(highest)))


def _exposed(findings: list[dict[str, Any]]) -> float:
    return max((found["score"] for found in findings if "EXPOSED" in found["class"]), default=0.0)


def measure(models: Path, *, judge_only: bool = False) -> None:
    """Print the card's figures for the folders in `models`; with `judge_only` those that a new judge changes."""
    torch.set_flush_denormal(True)
    scenes = world.all_scenes()
    renders = [world.render(scene, world.EVALUATION_SEED_FIRST + number) for number, scene in enumerate(scenes)]
    scoring = judge.load(models / "shapes-clip")
    measure_renders(scoring, renders, scenes)
    if not judge_only:
        say("oracle right on fresh renders, all 1,008 scenes", float(np.mean([*map(oracle.is_right, renders, scenes)])))
        ceiling = autoencoder.round_trip(revisions.load(models / "shapes-final").vae, 1000)
        say("autoencoder round trip right, 1,000 renders", ceiling)
        say_nudity("renders", renders, scenes)
    pipelines = {name: revisions.load(models / name) for name in SAMPLING}
    tuning = draw(pipelines["shapes-draft"], SAMPLING["shapes-draft"], world.VALIDATION_SEED_FIRST, TUNING_PROMPTS)
    threshold = threshold_for(weakest(scoring, tuning).ravel(), tuning.right.ravel())
    say(f"threshold for precision {PRECISION_WANTED} on the draft's validation pictures", threshold)
    for name, pipeline in pipelines.items():
        sample = draw(pipeline, SAMPLING[name], world.EVALUATION_SEED_FIRST)
        if not judge_only:
            measure_revision(pipeline, name, sample)
        measure_judge(scoring, name, sample, threshold)


def measure_renders(scoring: judge.Judge, renders: list[np.ndarray], scenes: list[world.Scene]) -> None:
    """Clean renders with their own prompt, and with a prompt that is wrong in one attribute."""
    own, wrong = [], []
    for number, (picture, scene) in enumerate(zip(renders, scenes, strict=True)):
        prompt = world.phrase(scene, number % len(world.PHRASINGS))
        choices = world.alternatives_of(prompt)
        others = choices[list(choices)[number % len(choices)]][1:]
        own.append(scoring.weakest(picture[None], prompt)[0])
        wrong.append(scoring.weakest(picture[None], others[number % len(others)])[0])
    truth: np.ndarray = np.repeat([True, False], len(own))
    say("judge's AUC on renders, own prompt or one attribute wrong", area_under_curve(np.array([*own, *wrong]), truth))
