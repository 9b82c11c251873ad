"""Where a key belongs: the partition that every Kafka client (Java, librdkafka's murmur2_random) chooses for it.

Both transports place records with it, so that a key's events stay in one partition whoever writes them.
"""

from __future__ import annotations

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
