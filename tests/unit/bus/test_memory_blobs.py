"""The in-memory blob store passes the suite of the real one."""

from __future__ import annotations

import pytest

from giclee.bus.blobs import MemoryBlobs, disposition
from tests.contract.blob_suite import BlobSuite, Overwrite


@pytest.fixture
def store() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def overwrite(store: MemoryBlobs) -> Overwrite:
    async def change(key: str, body: bytes) -> None:
        store.stored[key] = body

    return change


class TestMemoryBlobs(BlobSuite):
    """All of the suite."""


@pytest.mark.parametrize("name", ['a".png', "a\r\nSet-Cookie: x", "ümlaut.png", "", "../../etc/passwd", "x" * 500])
def test_a_file_name_cannot_leave_its_header(name: str) -> None:
    """Whatever the name, Content-Disposition stays one ASCII header with one quoted plain name."""
    header = disposition(name)
    assert header.isascii() and header.isprintable()
    assert header.count('"') == 2 and "/" not in header.split('"')[1]
