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


def distance(one: str, other: str) -> int:
    """Bits in which two fingerprints differ; of different lengths, they are nothing alike."""
    return (int(one, 16) ^ int(other, 16)).bit_count() if len(one) == len(other) else 4 * max(len(one), len(other))


def is_near(one: str, other: str) -> bool:
    return distance(one, other) <= NEAR_BITS


def nearest(mine: str, others: Mapping[uuid.UUID, str]) -> uuid.UUID | None:
    """Which of these assets is nearly the same; None when none is."""
    return next((asset for asset, other in sorted(others.items()) if is_near(mine, other)), None)


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
    kept: list[str] = []
    found = set()
    for index in ranked:
        mine = prints.get(index)
        if mine is None:
            continue
        if any(is_near(mine, other) for other in kept):
            found.add(index)
        else:
            kept.append(mine)
    return frozenset(found)
