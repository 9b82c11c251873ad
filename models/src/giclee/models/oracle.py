"""The pixel oracle: says what a picture shows without knowing how it was drawn.

A test instrument and a benchmark's truth. It may label training samples of the CLIP as a person would, never
evaluation seeds, and it is no part of the scorer. Background: the border's median. Colour: the mode of the pixels
that differ from it. Shape and size: the template that overlaps best. Needs numpy only.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from giclee.models.world import COLOURS, SHAPES, SIZES, WIDTH_PX, Scene, coverage

# Below this overlap (intersection over union) a picture shows no shape, whatever it resembles. Renders reach 0.84.
OVERLAP_MINIMUM = 0.70
# A pixel whose RGB is further than this from the background's belongs to something else: a third of the distance
# between the two closest colours of the world, orange and yellow (76).
DIFFERENCE_RGB = 25.0
# Templates are laid at quarters of a pixel: a finer grid changes no overlap by more than 0.02.
STEPS_PER_PX = 4

_NAMES = tuple(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], dtype=np.float32)  # (8, 3)
_TEMPLATES = tuple((shape, size) for shape in SHAPES for size in SIZES)


class Seen(NamedTuple):
    """What the oracle reads off a picture, and the best template's overlap in [0, 1]."""

    scene: Scene
    overlap: float


def look(picture: np.ndarray) -> Seen:
    """Read a (64, 64, 3) uint8 picture. An empty one is a Scene with nothing but a background, and overlap 0."""
    pixels: np.ndarray = picture.astype(np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    ground = np.median(border, axis=0)  # (3,)
    background = _NAMES[_nearest(ground[None])[0]]
    other = np.linalg.norm(pixels - ground, axis=-1) > DIFFERENCE_RGB  # (64, 64)
    if not other.any():
        return Seen(Scene(background=background), 0.0)
    votes = np.bincount(_nearest(pixels[other]), minlength=len(_NAMES))
    votes[_NAMES.index(background)] = 0
    colour = int(votes.argmax())
    mask = _object_mask(pixels, ground, _PALETTE[colour])
    shape, size, overlap = _best_template(mask)
    return Seen(Scene(size, _NAMES[colour], shape, background), overlap)


def is_right(picture: np.ndarray, asked: Scene) -> bool:
    """Every attribute that was asked matches, and the best template overlaps by OVERLAP_MINIMUM."""
    seen = look(picture)
    return seen.overlap >= OVERLAP_MINIMUM and all(
        wanted is None or wanted == found for wanted, found in zip(asked, seen.scene, strict=True)
    )


def _nearest(pixels: np.ndarray) -> np.ndarray:
    """(n, 3) RGB to (n,) positions in the palette."""
    return np.linalg.norm(pixels[:, None] - _PALETTE, axis=-1).argmin(axis=1)


def _object_mask(pixels: np.ndarray, ground: np.ndarray, front: np.ndarray) -> np.ndarray:
    """(64, 64) bool: pixels more than half way from the background's colour to the object's."""
    way = front - ground
    return (pixels - ground) @ way > 0.5 * (way @ way)


def _best_template(mask: np.ndarray) -> tuple[str | None, str | None, float]:
    if not mask.any():
        return None, None, 0.0
    rows, columns = np.nonzero(mask)
    overlaps = []
    for shape, size in _TEMPLATES:
        template = _template_at(shape, size, columns.mean(), rows.mean())
        overlaps.append((mask & template).sum() / (mask | template).sum())
    best = int(np.argmax(overlaps))
    return *_TEMPLATES[best], float(overlaps[best])


def _template_at(shape: str, size: str, x_px: float, y_px: float) -> np.ndarray:
    """The template with its centroid at (x, y), to a quarter of a pixel."""
    x_step, y_step = round(x_px * STEPS_PER_PX), round(y_px * STEPS_PER_PX)
    whole_x, part_x = divmod(x_step, STEPS_PER_PX)
    whole_y, part_y = divmod(y_step, STEPS_PER_PX)
    shift = (whole_y - WIDTH_PX // 2, whole_x - WIDTH_PX // 2)
    return np.roll(_template(shape, size, part_x, part_y), shift, axis=(0, 1))


@cache
def _template(shape: str, size: str, part_x: int, part_y: int) -> np.ndarray:
    """(64, 64) bool with its centroid at pixel (32 + part_x/4, 32 + part_y/4)."""
    aim = np.array([part_x, part_y]) / STEPS_PER_PX + WIDTH_PX // 2
    centre = (aim + 0.5) / WIDTH_PX
    # Twice, because a shape's pixels may balance elsewhere than its centre.
    for _ in range(2):
        mask = coverage(shape, size, tuple(centre)) > 0.5
        rows, columns = np.nonzero(mask)
        centre = centre + (aim - np.array([columns.mean(), rows.mean()])) / WIDTH_PX
    return coverage(shape, size, tuple(centre)) > 0.5
