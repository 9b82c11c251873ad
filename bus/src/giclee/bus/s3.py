"""Puts and gets of one bucket over aiohttp, signed by botocore's own signer. Only `blobs.py` calls this.

botocore names the endpoint, finds the credentials and signs. What it does around each call besides costs four
times as much as the call itself, for every image five times (docs/adr/0009).
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

import aiohttp
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.utils import get_environ_proxies
from yarl import URL

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
REFUSAL_MAX_BYTES = 4096
"""An error document is a few hundred bytes."""

_CODE = re.compile(rb"<Code>([^<]{1,100})</Code>")

Credentials = Callable[[], Awaitable[ReadOnlyCredentials]]
Where = Callable[[], Awaitable[str]]


class Refused(Exception):
    """The store answered with an error: `status` and S3's `code`, empty where it names none."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """Signs the hash of the body that is known already, instead of hashing it again."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["sha256"])


class Calls:
    """Signed calls. `where` says what addresses start with, `credentials` who asks; both when the first call is made.

    Errors of every method: Refused, aiohttp.ClientError, OSError, and what `where` and `credentials` raise.
    """

    def __init__(self, http: aiohttp.ClientSession, where: Where, credentials: Credentials, region: str) -> None:
        self._http = http
        self._where = where
        self._credentials = credentials
        self._region = region
        self._proxies: Mapping[str, str] = {}
        self._start = ""

    async def put_once(self, key: str, body: bytes, content_type: str, sha256: str) -> None:
        """Store `body`, whose hex digest is `sha256`, under a `key` that has no object; the store checks both."""
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        headers = {"Content-Type": content_type, "If-None-Match": "*", "x-amz-checksum-sha256": digest}
        async with self._answer("PUT", key, body, headers, sha256) as answer:
            await answer.read()

    async def get(self, key: str, bytes_max: int) -> bytes:
        """At most `bytes_max` bytes of an object."""
        async with self._answer("GET", key, None, {}, EMPTY_SHA256) as answer:
            pieces: list[bytes] = []
            left = bytes_max
            while left > 0 and (piece := await answer.content.read(left)):
                pieces.append(piece)
                left -= len(piece)
        return b"".join(pieces)

    @asynccontextmanager
    async def _answer(
        self, method: str, key: str, body: bytes | None, headers: Mapping[str, str], sha256: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if not self._start:
            start = await self._where()
            self._start, self._proxies = start, get_environ_proxies(start)
        url = self._start + quote(key, safe="/~")
        request = AWSRequest(method=method, url=url, headers=dict(headers))
        request.context["sha256"] = sha256
        _Signer(await self._credentials(), "s3", self._region).add_auth(request)
        async with self._http.request(
            method,
            URL(url, encoded=True),
            data=body,
            headers=dict(request.headers.items()),
            allow_redirects=False,  # a signature names its host
            proxy=self._proxies.get(url.partition(":")[0]),
        ) as answer:
            if answer.status >= 300:
                found = _CODE.search(await answer.content.read(REFUSAL_MAX_BYTES))
                raise Refused(answer.status, found[1].decode(errors="replace") if found else "")
            yield answer


def session(*, connections_max: int, connect_s: float, read_s: float, ca_bundle: str | None) -> aiohttp.ClientSession:
    """A bounded session for Calls. `ca_bundle` is a file of certificates to trust instead of the system's."""
    trusted = ssl.create_default_context(cafile=ca_bundle) if ca_bundle else True
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, ssl=trusted),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=read_s),
        headers={"Accept-Encoding": "identity", "User-Agent": "giclee"},
        skip_auto_headers=("Content-Type",),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
