"""Colour as people see it: CIE Lab of sRGB (D65, 2 degrees), and how far apart two colours look, CIEDE2000. Pure.

A difference of 1 is about the least that is noticed, 2 to 3 a small one, 10 a plain one, 100 black against white.
"""

from __future__ import annotations

import numpy as np

# sRGB to XYZ, IEC 61966-2-1, and its white point
_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    np.float32,
)
_WHITE = _XYZ.sum(axis=1)
_LINEAR = np.where(
    np.arange(256) / 255 <= 0.04045, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)
_25_TO_7 = 25.0**7


def linear(pixels: np.ndarray) -> np.ndarray:
    """Linear light, (…, 3) in [0, 1], of (…, 3) uint8 sRGB."""
    found: np.ndarray = _LINEAR[pixels]
    return found


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Relative luminance, (…) in [0, 1], of (…, 3) uint8 sRGB; 1 is white."""
    found: np.ndarray = linear(pixels) @ _XYZ[1]
    return found


def lab(pixels: np.ndarray) -> np.ndarray:
    """(…, 3) float32, L from 0 to 100, of (…, 3) uint8 sRGB."""
    ratio = linear(pixels) @ _XYZ.T / _WHITE  # (…, 3): X, Y, Z against white
    bent = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = bent[..., 0], bent[..., 1], bent[..., 2]
    found: np.ndarray = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)
    return found


def of_hex(text: str) -> tuple[int, int, int]:
    """sRGB of `#rrggbb`."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def ciede2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How different colours look, (…), of Lab colours (…, 3) each; one shape may be broadcast to the other.

    Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula" (2005), whose test pairs the tests compare with.
    """
    l_1, a_1, b_1 = np.moveaxis(np.asarray(one, np.float64), -1, 0)
    l_2, a_2, b_2 = np.moveaxis(np.asarray(other, np.float64), -1, 0)
    # a is stretched where there is little chroma, so that greys are told apart as people do
    mean_c_7 = ((np.hypot(a_1, b_1) + np.hypot(a_2, b_2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(mean_c_7 / (mean_c_7 + _25_TO_7))
    a_1, a_2 = a_1 * stretch, a_2 * stretch
    c_1, c_2 = np.hypot(a_1, b_1), np.hypot(a_2, b_2)
    h_1, h_2 = np.degrees(np.arctan2(b_1, a_1)) % 360, np.degrees(np.arctan2(b_2, a_2)) % 360
    grey = c_1 * c_2 == 0

    turn = np.where(grey, 0.0, (h_2 - h_1 + 180) % 360 - 180)
    # half a turn has two directions; the paper takes the one that does not pass 0
    turn = np.where((turn == -180) & (h_2 >= h_1), 180.0, turn)
    d_l, d_c = l_2 - l_1, c_2 - c_1
    d_h = 2 * np.sqrt(c_1 * c_2) * np.sin(np.radians(turn / 2))

    mean_l, mean_c = (l_1 + l_2) / 2, (c_1 + c_2) / 2
    mean_h = _mean_hue(h_1, h_2, grey)
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c = 1 + 0.045 * mean_c
    s_h = 1 + 0.015 * mean_c * _hue_weight(mean_h)
    mean_c_7 = mean_c**7
    blue = np.exp(-(((mean_h - 275) / 25) ** 2))
    turned = -2 * np.sqrt(mean_c_7 / (mean_c_7 + _25_TO_7)) * np.sin(np.radians(60 * blue))
    light, chroma, hue = d_l / s_l, d_c / s_c, d_h / s_h
    found: np.ndarray = np.sqrt(np.maximum(light**2 + chroma**2 + hue**2 + turned * chroma * hue, 0.0))
    return found


def _mean_hue(h_1: np.ndarray, h_2: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Half way along the shorter arc, in degrees; of a grey and a colour the colour's."""
    both = h_1 + h_2
    around = np.where(both < 360, both + 360, both - 360)
    found: np.ndarray = np.where(grey, both, np.where(np.abs(h_1 - h_2) <= 180, both, around) / 2)
    return found


def _hue_weight(hue: np.ndarray) -> np.ndarray:
    found: np.ndarray = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    return found
