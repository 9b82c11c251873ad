"""What every blob store must do; MemoryBlobs and the real object store run these same tests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from giclee.bus.blobs import BLOB_MAX_BYTES, Blobs
from giclee.bus.errors import Poison, Transient

Overwrite = Callable[[str, bytes], Awaitable[None]]
"""Puts other bytes under a key behind the store's back."""

PNG = "image/png"


def a_key() -> str:
    return f"candidates/default/{uuid4()}/{uuid4()}-0-1"


class BlobSuite:
    """Subclasses give the fixtures `store` and `overwrite`."""

    async def test_what_was_put_comes_back(self, store: Blobs) -> None:
        """The bytes of a ref are the bytes that were put, and the ref describes them."""
        body = bytes(range(256)) * 40
        ref = await store.put(a_key(), body, PNG, width=64, height=32)
        assert await store.get(ref) == body
        assert (ref.sha256, ref.size_bytes) == (hashlib.sha256(body).hexdigest(), len(body))
        assert (ref.content_type, ref.width, ref.height) == (PNG, 64, 32)

    async def test_a_redelivered_put_is_done_already(self, store: Blobs) -> None:
        """The same bytes under the same key succeed again with the same ref."""
        key = a_key()
        first = await store.put(key, b"same", PNG, width=1, height=1)
        assert await store.put(key, b"same", PNG, width=1, height=1) == first

    @pytest.mark.parametrize("other", [b"xame", b"same and more", b"", b"sam"])
    async def test_other_bytes_never_replace_what_is_there(self, store: Blobs, other: bytes) -> None:
        """A second owner of a key is refused as Poison and the first one's bytes stay."""
        key = a_key()
        ref = await store.put(key, b"same", PNG, width=1, height=1)
        with pytest.raises(Poison):
            await store.put(key, other, PNG, width=1, height=1)
        assert await store.get(ref) == b"same"

    @pytest.mark.parametrize("damaged", [b"sbme", b"sam", b"same!", b""])
    async def test_damaged_bytes_are_never_returned(self, store: Blobs, overwrite: Overwrite, damaged: bytes) -> None:
        """A flipped bit, a shorter and a longer object are this record's bad luck, not its content."""
        ref = await store.put(a_key(), b"same", PNG, width=1, height=1)
        await overwrite(ref.key, damaged)
        with pytest.raises(Transient) as caught:
            await store.get(ref)
        assert caught.value.scope == "record"

    async def test_a_missing_object_is_poison(self, store: Blobs) -> None:
        """Nothing brings back an object that is not there; waiting for it would block the line."""
        ref = await store.put(a_key(), b"x", PNG, width=1, height=1)
        with pytest.raises(Poison):
            await store.get(ref.model_copy(update={"key": a_key()}))

    async def test_another_bucket_is_never_read(self, store: Blobs) -> None:
        """A ref from elsewhere cannot make us read what is not ours."""
        ref = await store.put(a_key(), b"x", PNG, width=1, height=1)
        with pytest.raises(Poison):
            await store.get(ref.model_copy(update={"bucket": "someone-elses"}))
        with pytest.raises(Poison):
            await store.presign(ref.model_copy(update={"bucket": "someone-elses"}), 60, filename="a.png")

    async def test_a_copy_has_the_same_bytes_under_its_own_key(self, store: Blobs) -> None:
        """A copy is verified, can be repeated, and outlives its source's key."""
        ref = await store.put(a_key(), b"picture", "image/webp", width=3, height=4)
        target = a_key().replace("candidates/", "assets/")
        copied = await store.copy(ref, target)
        assert copied == await store.copy(ref, target)
        assert copied == ref.model_copy(update={"key": target})
        assert await store.get(copied) == b"picture"

    async def test_a_damaged_source_is_never_copied(self, store: Blobs, overwrite: Overwrite) -> None:
        """What is approved is what was scored."""
        ref = await store.put(a_key(), b"picture", PNG, width=1, height=1)
        await overwrite(ref.key, b"pictura")
        target = a_key()
        with pytest.raises(Transient):
            await store.copy(ref, target)
        with pytest.raises(Poison):
            await store.get(ref.model_copy(update={"key": target}))

    @pytest.mark.parametrize("key", ["", "/a", "a//b", "a/../b", "a/./b", "a\\b", "a\x00b", "ä", "a" * 1025, "a/"])
    async def test_a_key_that_no_server_made_is_a_bug(self, store: Blobs, key: str) -> None:
        """Keys are made by us; one that walks elsewhere is a bug and says so."""
        with pytest.raises(ValueError):
            await store.put(key, b"x", PNG, width=1, height=1)

    async def test_a_blob_has_a_largest_size(self, store: Blobs) -> None:
        """Neither a put nor a ref can make us hold more than 64 MiB."""
        with pytest.raises(Poison):
            await store.put(a_key(), bytes(BLOB_MAX_BYTES + 1), PNG, width=1, height=1)
        ref = await store.put(a_key(), b"x", PNG, width=1, height=1)
        with pytest.raises(Poison):
            await store.get(ref.model_copy(update={"size_bytes": BLOB_MAX_BYTES + 1}))

    async def test_the_bucket_is_ready(self, store: Blobs) -> None:
        """The readiness check passes where puts and gets do."""
        await store.check()

    async def test_listing_pages_through_everything_below_a_prefix(self, store: Blobs) -> None:
        """Page after page by the last key seen gives every object below the prefix once, with size and age."""
        prefix = f"candidates/{uuid4()}/"
        keys = sorted(f"{prefix}{number}" for number in range(5))
        for key in keys:
            await store.put(key, b"four", PNG, width=1, height=1)
        found, after = [], ""
        while page := await store.listed(prefix, after, 2):
            found += page
            after = page[-1].key
        assert [one.key for one in found] == keys
        assert {one.size_bytes for one in found} == {4}
        assert all(abs(datetime.now(UTC) - one.modified_at) < timedelta(minutes=5) for one in found)

    async def test_what_was_deleted_is_gone_and_may_be_deleted_again(self, store: Blobs) -> None:
        """Deleting is idempotent, and touches one object only."""
        ref, other = [await store.put(a_key(), b"same", PNG, width=1, height=1) for _ in range(2)]
        await store.delete(ref.key)
        await store.delete(ref.key)
        with pytest.raises(Poison):
            await store.get(ref)
        assert await store.get(other) == b"same"
