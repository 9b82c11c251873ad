"""The blob store on a real object store: the suite, links that expire, and an outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aioboto3
import aiohttp
import pytest

from giclee.bus import blobs
from giclee.bus.blobs import Blobs
from giclee.bus.errors import Transient
from giclee.bus.settings import BlobSettings
from tests.contract.blob_suite import PNG, BlobSuite, Overwrite, a_key
from tests.kit.stack import S3Running, s3_part
from tests.kit.wait import until


def settings_of(s3: S3Running, endpoint: str | None = None) -> BlobSettings:
    return BlobSettings(
        endpoint_url=endpoint or s3.s3_endpoint,
        access_key_id=s3.aws_access_key_id,
        secret_access_key=s3.aws_secret_access_key,
        region=s3.region,
        bucket=s3.bucket,
    )


@pytest.fixture
async def store(s3: S3Running) -> AsyncIterator[Blobs]:
    async with blobs.connect(settings_of(s3)) as opened:
        yield opened


@pytest.fixture
def overwrite(s3: S3Running) -> Overwrite:
    async def change(key: str, body: bytes) -> None:
        keys = {"aws_access_key_id": s3.aws_access_key_id, "aws_secret_access_key": s3.aws_secret_access_key}
        async with aioboto3.Session().client(
            "s3", endpoint_url=s3.s3_endpoint, region_name=s3.region, **keys
        ) as client:
            await client.put_object(Bucket=s3.bucket, Key=key, Body=body)

    return change


class TestS3Blobs(BlobSuite):
    """All of the suite."""


async def test_two_puts_of_one_key_at_once_leave_one(store: Blobs) -> None:
    """Of twenty owners of one key exactly one wins; what is stored is what it put."""
    key = a_key()
    bodies = [str(number).encode() * 1000 for number in range(20)]
    ends = await asyncio.gather(
        *(store.put(key, body, PNG, width=1, height=1) for body in bodies), return_exceptions=True
    )
    won = [end for end in ends if not isinstance(end, BaseException)]
    assert len(won) == 1
    assert await store.get(won[0]) in bodies


async def test_a_link_gives_the_bytes_of_one_key_for_a_while(store: Blobs) -> None:
    """A presigned link serves its key with its file name and type; it serves no other key and no put."""
    ref = await store.put(a_key(), b"picture", "image/webp", width=1, height=1)
    other = await store.put(a_key(), b"secret", PNG, width=1, height=1)
    link = await store.presign(ref, 3600, filename="blue circle.webp")
    assert "X-Amz-Expires=300" in link
    async with aiohttp.ClientSession() as http:
        async with http.get(link) as answer:
            assert (answer.status, await answer.read()) == (200, b"picture")
            assert answer.headers["Content-Type"] == "image/webp"
            assert "blue_circle.webp" in answer.headers["Content-Disposition"]
        async with http.get(link.replace(ref.key, other.key)) as answer:
            assert answer.status == 403
        async with http.put(link, data=b"x") as answer:
            assert answer.status == 403


async def test_a_wrong_key_pair_is_an_outage(s3: S3Running) -> None:
    """Credentials that are refused are for an operator to mend; no record dies of them."""
    wrong = settings_of(s3).model_copy(update={"secret_access_key": settings_of(s3).access_key_id})
    async with blobs.connect(wrong) as store:
        with pytest.raises(Transient) as caught:
            await store.put(a_key(), b"x", PNG, width=1, height=1)
        assert caught.value.scope == "dependency"
        with pytest.raises(Transient):
            await store.check()


@pytest.fixture
def own_s3() -> Iterator[S3Running]:
    with s3_part() as running:
        yield running


async def test_an_outage_is_transient_and_ends(own_s3: S3Running) -> None:
    """While the store is away every operation says so soon; when it is back the same client works."""
    async with blobs.connect(settings_of(own_s3)) as store:
        ref = await store.put(a_key(), b"before", PNG, width=1, height=1)
        own_s3.running.stop()
        for attempt in (store.get(ref), store.put(a_key(), b"x", PNG, width=1, height=1), store.check()):
            with pytest.raises(Transient) as caught:
                await asyncio.wait_for(attempt, 5)
            assert caught.value.scope == "dependency"
        own_s3.running.start()

        async def is_back() -> bool:
            try:
                return await store.get(ref) == b"before"
            except Transient:  # it takes puts before it finds what it had
                return False

        await until(is_back)


@asynccontextmanager
async def cutting_proxy(endpoint: str, answer_max_bytes: int) -> AsyncIterator[str]:
    """A proxy that closes each connection after so many bytes of answer."""
    target = urlsplit(endpoint)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.hostname, target.port)

        async def forward() -> None:
            while piece := await reader.read(65536):
                back.write(piece)

        forwarding = asyncio.create_task(forward())
        left = answer_max_bytes
        while left > 0 and (piece := await there.read(min(left, 65536))):
            writer.write(piece)
            left -= len(piece)
        await writer.drain()
        forwarding.cancel()
        writer.close()
        back.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_an_answer_that_ends_early_is_no_image(s3: S3Running, store: Blobs) -> None:
    """A body cut off on the way is read again, never handed on."""
    ref = await store.put(a_key(), b"z" * 100_000, PNG, width=1, height=1)
    async with cutting_proxy(s3.s3_endpoint, 20_000) as endpoint, blobs.connect(settings_of(s3, endpoint)) as through:
        with pytest.raises(Transient) as caught:
            await through.get(ref)
        assert caught.value.scope == "record"


async def test_a_put_whose_answer_was_lost_is_done_by_the_next(s3: S3Running, store: Blobs) -> None:
    """The caller hears Transient, tries again, and the store holds one object with its bytes."""
    key = a_key()
    async with cutting_proxy(s3.s3_endpoint, 10) as endpoint, blobs.connect(settings_of(s3, endpoint)) as through:
        with pytest.raises(Transient) as caught:
            await through.put(key, b"picture", PNG, width=1, height=1)
        assert caught.value.scope == "dependency"
    ref = await store.put(key, b"picture", PNG, width=1, height=1)
    assert await store.get(ref) == b"picture"
