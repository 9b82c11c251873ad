"""Where a key belongs: the partition that every Kafka client (Java, librdkafka's murmur2_random) chooses for it.

Both transports place records with it, so that a key's events stay in one partition whoever writes them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from struct import Struct

_SEED = 0x9747B28C  # constants of Kafka's MurmurHash2
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_WORDS = [Struct(f"<{count}I").unpack_from for count in range(65)]
"""Readers of 0 to 64 little-endian words: a key of ours is a UUID as text, which is 9."""


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, 0 to 2^32 - 1."""
    length = len(key)
    count = length >> 2
    read = _WORDS[count] if count < len(_WORDS) else Struct(f"<{count}I").unpack_from
    found = _SEED ^ length
    for word in read(key):
        word = word * _M & _MASK
        found = (found * _M & _MASK) ^ ((word ^ word >> 24) * _M & _MASK)
    if rest := key[count << 2 :]:
        found = (found ^ int.from_bytes(rest, "little")) * _M & _MASK
    found = (found ^ found >> 13) * _M & _MASK
    return found ^ found >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` in a topic of so many partitions."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


TOGETHER_MIN = 5
"""Fewer keys are hashed faster one by one."""


def partitions_of(keys: Sequence[bytes], partitions: int) -> list[int]:
    """The partition of each key. Hashes keys of one length (ids are) together: eight times as fast for hundreds."""
    if len(keys) < TOGETHER_MIN or len(set(map(len, keys))) > 1 or len(keys[0]) % 4 or sys.byteorder != "little":
        return [partition_of(key, partitions) for key in keys]
    return [(found & 0x7FFFFFFF) % partitions for found in _together(keys, len(keys[0]))]


def _together(keys: Sequence[bytes], length: int) -> list[int]:
    """MurmurHash2 of many keys at once, in the lanes of long integers.

    Two integers hold the hashes of the even and of the odd keys, 64 bits each, of which the lower 32 are the hash.
    The upper ones give a product room, so that one multiplication of a long integer is one in every lane; a mask
    then drops them. The word number i of all keys is every (length / 4)th word of the joined keys; taken as a long
    integer its lower lanes are the even keys' words and, 32 bits up, the odd keys'.
    """
    pairs = (len(keys) + 1) // 2
    every = int.from_bytes(b"\x01\0\0\0\0\0\0\0" * pairs, "little")  # times n: n in each lane
    low, low_8, low_17, low_19 = (every * ((1 << bits) - 1) for bits in (32, 8, 17, 19))
    words = memoryview(b"".join(keys) + bytes(length * (len(keys) % 2))).cast("I")
    hashes = [every * (_SEED ^ length)] * 2
    for place in range(length // 4):
        both = int.from_bytes(words[place :: length // 4].tobytes(), "little")
        for side in (0, 1):
            word = (both >> 32 * side & low) * _M & low
            word = (word ^ word >> 24 & low_8) * _M & low
            hashes[side] = (hashes[side] * _M & low) ^ word
    found = array("Q", bytes(16 * pairs))
    for side in (0, 1):
        last = (hashes[side] ^ hashes[side] >> 13 & low_19) * _M & low
        last ^= last >> 15 & low_17
        found[side::2] = array("Q", last.to_bytes(8 * pairs, "little"))
    return found[: len(keys)].tolist()
