"""What dimensions that need numpy only share: planes of a picture and how its neighbours differ. Pure."""

from __future__ import annotations

import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
LONG_SIDE_MAX_PX = 1024
"""Larger pictures are measured on their central cut-out of this size: pixels keep their size."""


def share(value: float) -> float:
    """Between 0 and 1."""
    return float(min(max(value, 0.0), 1.0))


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
