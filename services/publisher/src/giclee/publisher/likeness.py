"""Which pictures are nearly the same: by the fingerprints that the scorer took. Pure.

Two fingerprints (`ImageScored.phash`, 768 bits) within NEAR_BITS are one picture scaled, encoded or lit otherwise.
Split into more parts than that, at least one part is the same in both: that is how earlier ones are found.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from hashlib import blake2b

NEAR_BITS = 6
PARTS = 8
"""More than NEAR_BITS, so that near-duplicates share a part."""

_Print = tuple[int, int]
"""Hex digits of a fingerprint, and its bits."""


def nearest(mine: str, others: Mapping[uuid.UUID, str]) -> uuid.UUID | None:
    """Which of these assets is nearly the same; None when none is."""
    print_ = _read(mine)
    return next((asset for asset, other in sorted(others.items()) if _is_near(print_, _read(other))), None)


def parts(tenant: str, phash: str) -> list[int]:
    """Signed 64-bit names of the parts of a tenant's picture.

    A part takes every PARTS-th bit: of plain pictures the high frequencies are all zero, and a part made of them
    alone would be everybody's.
    """
    bits = f"{int(phash, 16):0{4 * len(phash)}b}"
    return [_name(f"{tenant}/{number}/{bits[number::PARTS]}") for number in range(PARTS)]


def _name(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def copies(ranked: Iterable[int], prints: Mapping[int, str | None]) -> frozenset[int]:
    """Those that are nearly the same as one before them; what has no fingerprint is like nothing."""
    kept: list[_Print] = []
    found = set()
    for index in ranked:
        text = prints.get(index)
        if text is None:
            continue
        mine = _read(text)
        if any(_is_near(mine, other) for other in kept):
            found.add(index)
        else:
            kept.append(mine)
    return frozenset(found)


def _read(phash: str) -> _Print:
    return len(phash), int(phash, 16)


def _is_near(one: _Print, other: _Print) -> bool:
    """Within NEAR_BITS; fingerprints of different lengths are nothing alike."""
    return one[0] == other[0] and (one[1] ^ other[1]).bit_count() <= NEAR_BITS
