"""Could there be a body at all: the share of skin tones, by the chrominance rule of Chai and Ngan (1999).

Weak, but it has nothing in common with a neural detector: a coloured picture without any skin tone shows no body, and
an alarm on it is a doubt. Where there are skin tones, or no colours, it abstains: wood and sand have them too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giclee.scorer.detector import Vote
from giclee.scorer.dimension import Evaluator

CB, CR = (77, 127), (133, 173)
"""Levels of 255 of skin of every complexion: brightness differs, chrominance hardly."""
NONE_SHARE = 0.002
"""Less is no skin: at 1,024 px a patch of 46 x 46, about where the detector ceases to see a body."""
COLOURED_SHARE = 0.02
COLOURED_LEVELS = 12
"""A picture of which less than a fiftieth lies so far from grey has no colours to judge by."""
SAMPLED_PX = 512
"""Of longer sides every n-th pixel is looked at: averaging would make up colours that are not there."""


class Skin:
    """Clean, or nothing to say."""

    def votes(self, pictures: Sequence[np.ndarray]) -> Sequence[Vote]:
        return [_vote(pixels) for pixels in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("skin", "1", blind_to="everything that has skin tones or no colours, where it abstains")


def _vote(pixels: np.ndarray) -> Vote:
    skin, coloured = shares(pixels)
    if coloured < COLOURED_SHARE:
        return Vote(None, "no colours")
    if skin >= NONE_SHARE:
        return Vote(None, f"{skin:.0%} skin tones")
    return Vote(0.0, "no skin tones")


def shares(pixels: np.ndarray) -> tuple[float, float]:
    """How much of (height, width, 3) uint8 sRGB is patches of skin's chrominance, and how much has a colour."""
    step = -(-max(pixels.shape[:2]) // SAMPLED_PX)
    red, green, blue = np.moveaxis(pixels[::step, ::step].astype(np.float32), 2, 0)
    cb = 128 - 0.168736 * red - 0.331264 * green + 0.5 * blue  # (height / step, width / step), ITU-R BT.601
    cr = 128 + 0.5 * red - 0.418688 * green - 0.081312 * blue
    skin = (cb >= CB[0]) & (cb <= CB[1]) & (cr >= CR[0]) & (cr <= CR[1])
    coloured = np.maximum(np.abs(cb - 128), np.abs(cr - 128)) >= COLOURED_LEVELS
    return float(_eroded(_eroded(skin).T).mean()), float(coloured.mean())


def _eroded(mask: np.ndarray) -> np.ndarray:
    """True where the rows above and below are as well: the soft edge between two colours has the tones in between."""
    framed = np.pad(mask, ((1, 1), (0, 0)), mode="edge")
    found: np.ndarray = framed[:-2] & mask & framed[2:]
    return found
