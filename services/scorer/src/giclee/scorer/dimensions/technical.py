"""Is it a picture at all: contrast, sharpness, exposure, structure, and the format its reference claims.

Fair to flat pictures: sharpness is that of the sharpest edges relative to the picture's own contrast, so a
disc on a plain background is as sharp as a photograph. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giclee.scorer.dimension import Evaluator, Measured, Picture

CONTRAST_FULL = 25.0
"""Levels of 255 between the darkest and brightest thousandth of some channel that count as full contrast."""
EDGE_FULL = 0.25
"""Steepest edges, in shares of the contrast per pixel: 0.5 is a hard edge, 0.2 a blur of 2 px, 0.1 one of 4 px."""
CORRELATION_FULL = 0.5
"""Correlation of neighbouring pixels: pictures have 0.8 and more, noise has none."""
SHOWN_FULL = 0.02
"""Share of the picture that must be neither pure black nor pure white."""
DARK_FULL, BRIGHT_FULL = 60.0, 15.0
"""Luma that the brightest thousandth must reach, and distance from white that the darkest must keep."""
LONG_SIDE_MAX_PX = 1024
"""Larger pictures are measured on their central cut-out of this size: edges keep their pixels."""
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Technical:
    """The weakest of five measurements, each in [0, 1]."""

    def measure(self, pictures: Sequence[Picture]) -> Sequence[Measured]:
        return [weakest(picture) for picture in pictures]

    def describe(self) -> Evaluator:
        return Evaluator("technical", "1")


def weakest(picture: Picture) -> Measured:
    """The value of the weakest measurement, named as the reason where it is not full."""
    claimed, width, height = picture.claims
    if FORMATS.get(picture.format) != claimed:
        return Measured(0.0, reason=f"format: the file is {picture.format}, its reference says {claimed}")
    if picture.pixels.shape[:2] != (height, width):
        size = "x".join(str(side) for side in picture.pixels.shape[1::-1])
        return Measured(0.0, reason=f"format: the picture is {size}, its reference says {width}x{height}")
    found = measurements(picture.pixels)
    name, value = min(found.items(), key=lambda pair: pair[1])
    return Measured(value, reason=None if value >= 1 else f"{name}: {value:.2f}")


def measurements(pixels: np.ndarray) -> dict[str, float]:
    """Every measurement of (height, width, 3) uint8."""
    cut: np.ndarray = _central(pixels).astype(np.float32)
    luma = cut @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # (height, width)
    low, high = np.percentile(cut.reshape(-1, 3), [0.1, 99.9], axis=0)  # (3,) each
    channel = int(np.argmax(high - low))
    spread = float(high[channel] - low[channel])
    dark, bright = np.percentile(luma, [0.1, 99.9])
    clipped = float(((cut <= 2).all(axis=2) | (cut >= 253).all(axis=2)).mean())
    exposure = min((1 - clipped) / SHOWN_FULL, float(bright) / DARK_FULL, (255 - float(dark)) / BRIGHT_FULL)
    plane = cut[:, :, channel]
    return {
        "contrast": _share(spread / CONTRAST_FULL),
        "sharpness": _share(_steepest(plane) / max(spread, 1.0) / EDGE_FULL),
        "exposure": _share(exposure),
        "structure": _share(_correlation(plane) / CORRELATION_FULL),
    }


def _share(value: float) -> float:
    return float(min(max(value, 0.0), 1.0))


def _central(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, left = max(0, (height - LONG_SIDE_MAX_PX) // 2), max(0, (width - LONG_SIDE_MAX_PX) // 2)
    return pixels[top : top + LONG_SIDE_MAX_PX, left : left + LONG_SIDE_MAX_PX]


def _steepest(plane: np.ndarray) -> float:
    """The change per pixel at the steepest thousandth of a (height, width) plane, over two pixels."""
    across = np.abs(plane[1:-1, 2:] - plane[1:-1, :-2]) / 2
    down = np.abs(plane[2:, 1:-1] - plane[:-2, 1:-1]) / 2
    return float(np.percentile(np.maximum(across, down), 99.9)) if across.size else 0.0


def _correlation(plane: np.ndarray) -> float:
    """The smaller correlation of neighbours along the two axes; 0 for a flat plane."""
    centred = plane - plane.mean()
    power = float((centred**2).mean())
    if power < 1e-6:
        return 0.0
    across = float((centred[:, 1:] * centred[:, :-1]).mean())
    down = float((centred[1:] * centred[:-1]).mean())
    return min(across, down) / power
