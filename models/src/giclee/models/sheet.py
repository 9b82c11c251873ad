"""Labelled contact sheets: prompts as a render, a draft and a final, and the pictures that the judge ranks worst."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from giclee.models import judge, measure, oracle, revisions, world
from giclee.models.sampling import SAMPLING

COLUMNS = 12
ZOOM = 2
CELL_PX = world.WIDTH_PX * ZOOM
LABEL_PX = 44
# Of the worst pictures: wrong ones that the judge likes best, and as many right ones that it likes least.
WORST_OF_A_KIND = 20
WORST_COLUMNS = 10


def draw_sheet(models: Path, png: Path) -> None:
    """Draw COLUMNS evaluation prompts; a red label is a picture that the oracle finds wrong."""
    seeds = list(range(world.EVALUATION_SEED_FIRST, world.EVALUATION_SEED_FIRST + COLUMNS))
    prompts = [world.prompt_of(seed) for seed in seeds]
    scoring = judge.load(models / "shapes-clip")
    rows = {"render": np.stack([world.render(world.scene_of(seed), seed) for seed in seeds])}
    for name, sampling in SAMPLING.items():
        pipeline = revisions.load(models / name)
        for noise in (0, 1):
            rows[f"{name} {noise}"] = revisions.generate(
                pipeline, prompts, [seed * 4 + noise for seed in seeds], sampling
            )
    sheet = Image.new("RGB", (COLUMNS * CELL_PX, len(rows) * (CELL_PX + LABEL_PX)), "white")
    ink = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(rows.items()):
        for column, (picture, prompt, seed) in enumerate(zip(pictures, prompts, seeds, strict=True)):
            x, y = column * CELL_PX, row * (CELL_PX + LABEL_PX)
            sheet.paste(Image.fromarray(picture).resize((CELL_PX - 4, CELL_PX - 4), Image.Resampling.NEAREST), (x, y))
            score = scoring.weakest(picture[None], prompt)[0]
            right = oracle.is_right(picture, world.scene_of(seed))
            words = " ".join(map(str, world.scene_of(seed)))
            label = f"{name}  {score:.2f}\n{words[:22]}\n{words[22:]}"
            ink.multiline_text((x, y + CELL_PX - 4), label, fill="black" if right else "red", spacing=1)
    sheet.save(png)


def draw_worst(models: Path, name: str, png: Path) -> None:
    """Draw what the judge ranks worst among one revision's validation pictures, wrong ones in red."""
    sample = measure.draw(revisions.load(models / name), SAMPLING[name], world.VALIDATION_SEED_FIRST)
    scores = measure.weakest(judge.load(models / "shapes-clip"), sample).ravel()
    right = sample.right.ravel()
    liked = np.flatnonzero(~right)[np.argsort(-scores[~right])][:WORST_OF_A_KIND]
    disliked = np.flatnonzero(right)[np.argsort(scores[right])][:WORST_OF_A_KIND]
    shown = [*liked, *disliked]
    rows = -(-len(shown) // WORST_COLUMNS)
    sheet = Image.new("RGB", (WORST_COLUMNS * CELL_PX, rows * (CELL_PX + LABEL_PX)), "white")
    ink = ImageDraw.Draw(sheet)
    for at, number in enumerate(shown):
        prompt, candidate = divmod(int(number), measure.CANDIDATES)
        x, y = at % WORST_COLUMNS * CELL_PX, at // WORST_COLUMNS * (CELL_PX + LABEL_PX)
        picture = Image.fromarray(sample.pictures[prompt, candidate])
        sheet.paste(picture.resize((CELL_PX - 4, CELL_PX - 4), Image.Resampling.NEAREST), (x, y))
        asked, seen = sample.asked[prompt], sample.seen[prompt][candidate]
        label = (
            f"{scores[number]:.2f}, overlap {seen.overlap:.2f}\n{asked.size} {asked.shape}\n"
            f"seen {seen.scene.size} {seen.scene.shape}"
        )
        ink.multiline_text((x, y + CELL_PX - 4), label, fill="black" if right[number] else "red", spacing=1)
    sheet.save(png)
