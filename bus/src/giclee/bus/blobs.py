"""Bytes in the object store (claim check): put once, verified on every get. The only importer of aioboto3.

A put of a key that is there succeeds when the bytes are the same (a redelivery) and is Poison when they are
not: keys carry the candidate's fence, so that would be two owners of one candidate. Outages, throttling and
refused credentials are Transient(dependency). Bytes that do not match their ref, or end early, are
Transient(record): read again a few times, since the fault is mostly on the way; if it stays, the record
becomes a dead letter that a replay can bring back once the object is restored. A missing object is Poison.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from giclee.bus import failpoints, s3, telemetry
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import BlobSettings
from giclee.schemas.parts import BlobRef

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 10.0
OPERATION_TIMEOUT_S = 30.0
CHECK_TIMEOUT_S = 3.0
CONNECTIONS_MAX = 32
BLOB_MAX_BYTES = 64 * 1024 * 1024
KEY_MAX_BYTES = 1024
PRESIGN_MAX_S = 300
"""Longest life of a link to bytes: it cannot be taken back."""
HASH_INLINE_MAX_BYTES = 256 * 1024
"""Hashing this much takes about 0.3 ms; more goes to a thread."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modified_at: datetime


class Blobs(Protocol):
    """An object store with one bucket. Errors of all methods: as in the module's first lines."""

    async def put(self, key: str, body: bytes, content_type: str, *, width: int, height: int) -> BlobRef:
        """Store `body` once under `key`; `width` and `height` in pixels go into the ref."""
        ...

    async def get(self, ref: BlobRef) -> bytes:
        """The bytes of `ref`, their size and sha256 verified."""
        ...

    async def copy(self, ref: BlobRef, key: str) -> BlobRef:
        """The same bytes under another key, verified on the way."""
        ...

    async def presign(self, ref: BlobRef, expires_s: int, *, filename: str) -> str:
        """A link to the bytes, good for `expires_s` seconds (at most 300), that saves them as `filename`."""
        ...

    async def listed(self, prefix: str, after: str, limit: int) -> list[Stored]:
        """At most `limit` (up to 1,000) objects below `prefix`, by key, those behind the key `after`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object for good; one that is gone already is fine. For the reconciler only."""
        ...

    async def check(self) -> None:
        """For /readyz. Errors: Transient when the bucket cannot be reached."""
        ...


@asynccontextmanager
async def connect(settings: BlobSettings) -> AsyncIterator[Blobs]:
    """The store that the settings name. Nothing is contacted before the first call."""
    found = get_session()
    options = AioConfig(
        retries={"total_max_attempts": 1},  # the bus retries; two layers would multiply
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS_MAX,
        signature_version="s3v4",
        s3={"addressing_style": "path"} if settings.endpoint_url else {},
        request_checksum_calculation="when_required",  # puts carry the sha256 that was computed anyway
        response_checksum_validation="when_required",
    )
    key, secret = settings.access_key_id, settings.secret_access_key
    session = aioboto3.Session(
        aws_access_key_id=key.get_secret_value() if key else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        region_name=settings.region,
        botocore_session=found,
    )

    async def credentials() -> ReadOnlyCredentials:
        known = await found.get_credentials()
        if known is None:
            raise NoCredentialsError
        return await known.get_frozen_credentials()  # renewed in time where they expire

    async def where() -> str:
        link: str = await client.generate_presigned_url("get_object", Params={"Bucket": settings.bucket, "Key": "k"})
        return link.partition("?")[0].removesuffix("k")

    async with (
        session.client("s3", endpoint_url=settings.endpoint_url, config=options) as client,
        s3.session(
            connections_max=CONNECTIONS_MAX,
            connect_s=CONNECT_TIMEOUT_S,
            read_s=READ_TIMEOUT_S,
            ca_bundle=found.get_config_variable("ca_bundle"),
        ) as http,
    ):
        yield _S3Blobs(client, s3.Calls(http, where, credentials, client.meta.region_name), settings.bucket)


class _S3Blobs:
    """Blobs over an S3 API."""

    def __init__(self, client: Any, calls: s3.Calls, bucket: str) -> None:
        self._client = client
        self._calls = calls
        self._bucket = bucket

    async def put(self, key: str, body: bytes, content_type: str, *, width: int, height: int) -> BlobRef:
        ref = await _ref(self._bucket, key, body, content_type, width, height)
        await failpoints.reach("before-blob-put")
        try:
            async with _timed("put"):
                await self._calls.put_once(key, body, content_type, ref.sha256)
        except _AlreadyThere:
            await self._require_same(ref)
        await failpoints.reach("after-blob-put")
        return ref

    async def _require_same(self, ref: BlobRef) -> None:
        async with _timed("get"):
            found = await self._calls.get(ref.key, ref.size_bytes + 1)
        if await _sha256(found) != ref.sha256:
            raise Poison(f"other bytes are stored under {ref.key} already")

    async def get(self, ref: BlobRef) -> bytes:
        _require_ours(ref, self._bucket)
        async with _timed("get"):
            found = await self._calls.get(ref.key, ref.size_bytes + 1)  # a swapped object cannot fill the memory
        await _verify(ref, found)
        await failpoints.reach("after-blob-get")
        return found

    async def copy(self, ref: BlobRef, key: str) -> BlobRef:
        body = await self.get(ref)
        return await self.put(key, body, ref.content_type, width=ref.width, height=ref.height)

    async def presign(self, ref: BlobRef, expires_s: int, *, filename: str) -> str:
        _require_ours(ref, self._bucket)
        wanted = {
            "Bucket": self._bucket,
            "Key": ref.key,
            "ResponseContentType": ref.content_type,
            "ResponseContentDisposition": disposition(filename),
        }
        async with _timed("presign"):
            link = await self._client.generate_presigned_url(
                "get_object", Params=wanted, ExpiresIn=min(max(expires_s, 1), PRESIGN_MAX_S)
            )
        return str(link)

    async def listed(self, prefix: str, after: str, limit: int) -> list[Stored]:
        async with _timed("list"):
            answer = await self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=prefix, StartAfter=after, MaxKeys=limit
            )
        rows = answer.get("Contents", ())
        return [Stored(row["Key"], int(row["Size"]), row["LastModified"]) for row in rows]

    async def delete(self, key: str) -> None:
        async with _timed("delete"):
            await self._client.delete_object(Bucket=self._bucket, Key=key)

    async def check(self) -> None:
        async with _timed("check", CHECK_TIMEOUT_S):
            await self._client.head_bucket(Bucket=self._bucket)


class MemoryBlobs:
    """Blobs in a dict, for tests: `stored` maps keys to bytes and may be changed to tell what a store could do."""

    def __init__(self, bucket: str = "memory") -> None:
        self.bucket = bucket
        self.stored: dict[str, bytes] = {}
        self.modified_at: dict[str, datetime] = {}

    async def put(self, key: str, body: bytes, content_type: str, *, width: int, height: int) -> BlobRef:
        ref = await _ref(self.bucket, key, body, content_type, width, height)
        if self.stored.setdefault(key, body) != body:
            raise Poison(f"other bytes are stored under {key} already")
        self.modified_at.setdefault(key, datetime.now(UTC))
        return ref

    async def get(self, ref: BlobRef) -> bytes:
        _require_ours(ref, self.bucket)
        if ref.key not in self.stored:
            raise Poison(f"no object {ref.key}")
        found = self.stored[ref.key]
        await _verify(ref, found)
        return found

    async def copy(self, ref: BlobRef, key: str) -> BlobRef:
        body = await self.get(ref)
        return await self.put(key, body, ref.content_type, width=ref.width, height=ref.height)

    async def presign(self, ref: BlobRef, expires_s: int, *, filename: str) -> str:
        _require_ours(ref, self.bucket)
        expires_s = min(max(expires_s, 1), PRESIGN_MAX_S)
        return f"memory://{self.bucket}/{ref.key}?expires={expires_s}&disposition={quote(disposition(filename))}"

    async def listed(self, prefix: str, after: str, limit: int) -> list[Stored]:
        keys = sorted(key for key in self.stored if key.startswith(prefix) and key > after)[:limit]
        return [Stored(key, len(self.stored[key]), self.modified_at.get(key, datetime.now(UTC))) for key in keys]

    async def delete(self, key: str) -> None:
        self.stored.pop(key, None)

    async def check(self) -> None:
        return None


# ---- refs ---------------------------------------------------------------------------------------


async def _ref(bucket: str, key: str, body: bytes, content_type: str, width: int, height: int) -> BlobRef:
    """What will name these bytes. Errors: ValueError for a key that no server made, Poison for too many bytes."""
    if not key or len(key.encode()) > KEY_MAX_BYTES or not key.isascii() or not key.isprintable():
        raise ValueError(f"not a key: {key[:80]!r}")
    if any(part in ("", ".", "..") for part in key.split("/")) or "\\" in key:
        raise ValueError(f"not a key: {key[:80]!r}")
    if len(body) > BLOB_MAX_BYTES:
        raise Poison(f"{len(body)} bytes are more than a blob may have ({BLOB_MAX_BYTES})")
    return BlobRef(
        bucket=bucket,
        key=key,
        sha256=await _sha256(body),
        size_bytes=len(body),
        content_type=content_type,
        width=width,
        height=height,
    )


async def _sha256(body: bytes) -> str:
    if len(body) <= HASH_INLINE_MAX_BYTES:
        return hashlib.sha256(body).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())


def _require_ours(ref: BlobRef, bucket: str) -> None:
    if ref.bucket != bucket:
        raise Poison(f"the ref points at the bucket {ref.bucket}, ours is {bucket}")
    if ref.size_bytes > BLOB_MAX_BYTES:
        raise Poison(f"the ref speaks of {ref.size_bytes} bytes, more than a blob may have ({BLOB_MAX_BYTES})")


async def _verify(ref: BlobRef, found: bytes) -> None:
    if len(found) != ref.size_bytes or await _sha256(found) != ref.sha256:
        telemetry.count("giclee_blob_failures_total", operation="get", why="damaged")
        raise Transient(f"{ref.key} does not have the bytes that its ref names", scope="record")


def disposition(filename: str) -> str:
    """The Content-Disposition that saves as `filename`, safe for any text (RFC 6266)."""
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in filename)[:100]
    return f"attachment; filename=\"{plain or 'image'}\"; filename*=UTF-8''{quote(filename[:100], safe='')}"


# ---- errors -------------------------------------------------------------------------------------


class _AlreadyThere(Exception):
    """412: the key has an object."""


_GONE = frozenset({"NoSuchKey", "404"})
_DAMAGED = frozenset({"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"})
_OUTAGE = frozenset(
    {"NoSuchBucket", "RequestTimeout", "RequestTimeTooSkewed", "ExpiredToken", "AuthorizationHeaderMalformed"}
)
"""The last one, and a redirect, name another region than the settings: an operator's to mend."""
_CUT_OFF = (aiohttp.ClientPayloadError,)


@asynccontextmanager
async def _timed(operation: str, timeout_s: float = OPERATION_TIMEOUT_S) -> AsyncIterator[None]:
    """One operation: bounded, measured, its errors in the bus' words."""
    started = time.perf_counter()
    with _translated(operation):
        async with asyncio.timeout(timeout_s):
            yield
    telemetry.observe("giclee_blob_seconds", time.perf_counter() - started, operation=operation)


@contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except s3.Refused as error:
        raise _in_our_words(operation, error.status, error.code) from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise _in_our_words(operation, status, code) from error
    except _CUT_OFF as error:
        telemetry.count("giclee_blob_failures_total", operation=operation, why="cut off")
        raise Transient(f"{operation}: the answer ended early: {error}", scope="record") from error
    except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
        telemetry.count("giclee_blob_failures_total", operation=operation, why="away")
        raise Transient(f"{operation}: the object store is away: {type(error).__name__}: {error}") from error


def _in_our_words(operation: str, status: int, code: str) -> Exception:
    if status == 412:
        return _AlreadyThere()
    telemetry.count("giclee_blob_failures_total", operation=operation, why=str(status))
    said = f"{operation}: the object store answers {status} {code}"
    if status == 409 or code in _DAMAGED:  # another put of this key is under way, or bytes changed on the way
        return Transient(said, scope="record")
    if not 400 <= status < 500 or status in (401, 403, 429) or code in _OUTAGE or operation == "check":
        return Transient(said)  # a key pair that is refused is mended by an operator, not by dropping records
    return Poison(f"{said}: no such object" if code in _GONE else said)
