"""Arithmetic that dimensions and detectors share: planes of a picture, how its neighbours differ. Numpy only, pure."""

from __future__ import annotations

import numpy as np
from PIL import Image

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LONG_SIDE_MAX_PX = 1024
"""Larger pictures are measured on their central cut-out of this size: pixels keep their size."""


def share(value: float) -> float:
    """Between 0 and 1."""
    return float(min(max(value, 0.0), 1.0))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    likely: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    likely /= likely.sum(axis=-1, keepdims=True)
    return likely


def central(pixels: np.ndarray, side_max_px: int = LONG_SIDE_MAX_PX) -> np.ndarray:
    """The middle of (height, width, 3) uint8, as float32."""
    height, width = pixels.shape[:2]
    top, left = max(0, (height - side_max_px) // 2), max(0, (width - side_max_px) // 2)
    cut: np.ndarray = pixels[top : top + side_max_px, left : left + side_max_px]
    return cut.astype(np.float32)


def luma(cut: np.ndarray) -> np.ndarray:
    """(height, width) of (height, width, 3)."""
    found: np.ndarray = cut @ LUMA
    return found


def strongest(cut: np.ndarray) -> tuple[np.ndarray, float]:
    """The channel with the widest range, (height, width), and that range in levels, extremes of a thousandth aside."""
    low, high = np.percentile(cut.reshape(-1, 3), [0.1, 99.9], axis=0)  # (3,) each
    channel = int(np.argmax(high - low))
    return cut[:, :, channel], float(high[channel] - low[channel])


def trouble(pixels: np.ndarray) -> str | None:
    """Why an array cannot be measured as a picture; None when it can."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        return f"not an RGB uint8 array but {pixels.dtype} {pixels.shape}"
    return None


def reduced(pixels: np.ndarray, long_side_px: int) -> np.ndarray:
    """(height, width, 3) uint8 of at most `long_side_px`, each pixel the mean of what it stands for; never enlarged."""
    height, width = pixels.shape[:2]
    by = max(height, width) / long_side_px
    if by <= 1:
        return pixels
    size = (max(1, round(width / by)), max(1, round(height / by)))
    found: np.ndarray = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return found


def ring(picture: np.ndarray, part: float) -> np.ndarray:
    """The border of (height, width, …), (height, width) bool: `part` of the shorter side wide, at least one pixel."""
    height, width = picture.shape[:2]
    wide = max(1, round(min(height, width) * part))
    mask: np.ndarray = np.ones((height, width), bool)
    mask[wide : height - wide, wide : width - wide] = False
    return mask


def from_ground(colours: np.ndarray, known: np.ndarray, rounds: int = 4) -> np.ndarray:
    """How far each pixel of a (height, width, channels) picture is from its ground: (height, width).

    The ground is a plane per channel, an even colour or a soft gradient, fitted to the pixels of `known` (bool). The
    half of them that fits worst is left out and the plane fitted again, so that what stands on the ground does not
    bend it.
    """
    height, width, channels = colours.shape
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    plane = np.stack([np.ones(height * width), down.ravel(), across.ravel()], axis=1)  # (pixels, 3)
    flat, use = colours.reshape(-1, channels), known.ravel()
    # the median first: a fit by least squares would start from what stands on the ground as well
    apart = np.linalg.norm(flat - np.median(flat[use], axis=0), axis=1)
    for _ in range(rounds):
        kept = use & (apart <= np.quantile(apart[use], 0.5))
        found, *_ = np.linalg.lstsq(plane[kept], flat[kept], rcond=None)  # (3, channels)
        apart = np.linalg.norm(flat - plane @ found, axis=1)
    shape: np.ndarray = apart.reshape(height, width)
    return shape
