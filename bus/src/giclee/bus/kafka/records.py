"""Records that anyone may have written, made readable: a header name that is not UTF-8 must not stop a partition.

aiokafka decodes names strictly. One foreign record with a bad name would make every poll fail, and the records of
the same fetch that were decoded before it would be lost: it counts them as delivered. Here such a batch is read a
second time with bad bytes shown as `\\xff`. Everything else stays with the library's fast reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from giclee.bus.transport import Record

_LENGTH = Struct(">i").unpack_from
_LENGTH_AT = 8  # bytes of a batch before its length, which counts what follows the length
_OVERHEAD = 12


class _ForgivingBytes(bytearray):
    """Bytes whose parts decode without failing."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return found if isinstance(found, int) else _ForgivingBytes(found)

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, "backslashreplace")


class _ForgivingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    """The library's own slow reader of a batch, over forgiving bytes."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: Any = _ForgivingBytes(self._buffer)


class _Batch:
    """A batch of the fast reader that falls back. Records come twice then; the fetcher skips what it had."""

    def __init__(self, fast: Any, raw: bytes) -> None:
        self._fast = fast
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)

    def __next__(self) -> Any:
        return next(self._fast)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._fast
        except UnicodeDecodeError:
            yield from _ForgivingBatch(self._raw)


class ForgivingRecords:
    """Takes the place of the library's MemoryRecords: the batches in the bytes of one fetched partition."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._fast = MemoryRecords(raw)
        self._at = 0

    def has_next(self) -> bool:
        return bool(self._fast.has_next())

    def size_in_bytes(self) -> int:
        return int(self._fast.size_in_bytes())

    def next_batch(self) -> _Batch | None:
        fast = self._fast.next_batch()
        if fast is None:
            return None
        begin = self._at
        self._at = begin + _OVERHEAD + _LENGTH(self._raw, begin + _LENGTH_AT)[0]
        return _Batch(fast, self._raw[begin : self._at])


def ours(topic: str, number: int, one: Any) -> Record:
    """A Record of what the library read."""
    return Record(
        topic=topic, value=one.value, key=one.key, headers=one.headers,
        partition=number, offset=one.offset, timestamp_ms=one.timestamp,
    )  # fmt: skip


def install() -> None:
    """Make the library's fetcher read through ForgivingRecords."""
    fetcher.MemoryRecords = ForgivingRecords
