"""Where keys belong: the fast ways give what Kafka's own algorithm, written plainly by others, gives."""

from __future__ import annotations

from aiokafka.partitioner import murmur2 as plain
from hypothesis import given
from hypothesis import strategies as st

from giclee.bus.placement import murmur2, partition_of, partitions_of


@given(st.binary(max_size=300))
def test_the_hash_is_kafkas(key: bytes) -> None:
    """For keys of any length, those with a rest of one to three bytes included."""
    assert murmur2(key) == plain(key) & 0xFFFFFFFF


@given(st.integers(0, 10).flatmap(lambda words: st.lists(st.binary(min_size=4 * words, max_size=4 * words))))
def test_keys_of_one_length_are_hashed_together_as_one_by_one(keys: list[bytes]) -> None:
    """However many there are, and with every bit pattern that could spill from one lane into the next."""
    assert partitions_of(keys, 2**31) == [partition_of(key, 2**31) for key in keys]


def test_full_lanes_do_not_spill() -> None:
    """All bits set and none, side by side."""
    keys = [b"\xff" * 36, b"\x00" * 36] * 9 + [b"\xff" * 36]

    assert partitions_of(keys, 2**31) == [partition_of(key, 2**31) for key in keys]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 64))
def test_mixed_keys_keep_their_order(keys: list[bytes], partitions: int) -> None:
    """Keys of different lengths are placed too, each at its own place in the answer."""
    assert partitions_of(keys, partitions) == [partition_of(key, partitions) for key in keys]
