"""A perceptual fingerprint: 768 bits that near-duplicates share, as 192 hex digits. Pure.

A DCT hash of colour: the picture is shrunk to 64 x 64, and each of the 16 x 16 lowest frequencies of each channel but
the means is a bit, set when it lies clearly above zero. Of plain pictures most frequencies are nearly zero, and noise
must not decide; a channel that shows nothing stays silent. Scaling, encoding and small changes of light move a few
bits; another place, shape or colour moves many. Pictures of one plain prompt are close: the README says how close.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SIDE_PX = 64
FINE_PX = 8 * SIDE_PX
"""Sides are taken apart to at least so many rows, so that runs of rows are of nearly the same length."""
WAVES = 16
CLEARLY = 0.2
"""Share of the root mean square that a frequency must have to count."""


def fingerprint(pixels: np.ndarray) -> str:
    """Of (height, width, 3) uint8."""
    waves = _cosines()
    planes: np.ndarray = pixels.transpose(2, 0, 1).astype(np.float32)  # (3, height, width)
    low = waves @ _shrunk(planes) @ waves.T  # (3, 16, 16)
    low[:, 0, 0] = 0.0  # the means: light alone is no difference
    bits = low > CLEARLY * np.sqrt((low**2).mean())
    return np.packbits(bits.ravel()).tobytes().hex()


def distance(one: str, other: str) -> int:
    """Bits in which two fingerprints differ, 0 to 768."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _shrunk(planes: np.ndarray) -> np.ndarray:
    """(3, SIDE_PX, SIDE_PX) means of areas."""
    return _means(_means(planes).swapaxes(1, 2)).swapaxes(1, 2)


def _means(planes: np.ndarray) -> np.ndarray:
    """(3, SIDE_PX, width): means of runs of rows, each row counted once; of small pictures, rows in between."""
    height = planes.shape[1]
    if height % SIDE_PX == 0:  # the usual sizes: whole runs
        whole: np.ndarray = planes.reshape(3, SIDE_PX, height // SIDE_PX, -1).mean(axis=2)
        return whole
    if height < SIDE_PX:
        at = np.clip((np.arange(SIDE_PX) + 0.5) * height / SIDE_PX - 0.5, 0, height - 1)
        below = np.minimum(at.astype(int), max(height - 2, 0))
        part = (at - below)[:, None]
        between: np.ndarray = planes[:, below] * (1 - part) + planes[:, np.minimum(below + 1, height - 1)] * part
        return between
    if height < FINE_PX:
        planes = planes.repeat(-(-FINE_PX // height), axis=1)
        height = planes.shape[1]
    starts = np.arange(SIDE_PX) * height // SIDE_PX
    counts: np.ndarray = np.diff(np.append(starts, height))[:, None]
    means: np.ndarray = np.add.reduceat(planes, starts, axis=1) / counts
    return means


@lru_cache
def _cosines() -> np.ndarray:
    """(WAVES, SIDE_PX): the lowest waves of a DCT-II."""
    places = (np.arange(SIDE_PX) + 0.5) * np.pi / SIDE_PX
    found: np.ndarray = np.cos(np.arange(WAVES)[:, None] * places[None, :]).astype(np.float32)
    return found
