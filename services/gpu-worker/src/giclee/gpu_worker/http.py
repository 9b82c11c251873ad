"""HTTP to a provider, over httpx2: bounded in time and bytes, and led nowhere by what an answer says.

A key goes to the origin of the provider's base address and nowhere else. What an answer names is fetched from public
addresses over https only, unless `allow_private`. Nothing is tried a second time here: a call may have been billed.
No proxy and no .netrc: what is sent is what is written here, to the address that was judged.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx2

from giclee.gpu_worker.addresses import Forbidden, is_public, resolved
from giclee.gpu_worker.attempt import Access, Failed, Pace
from giclee.schemas.parts import OutcomeClass

CONNECT_S = 5.0
READ_S = 15.0
"""Longest silence within an answer that is not awaited itself."""
CALL_S = 20.0
"""One call as a whole, where it does not wait for the image itself."""
ANSWER_MAX_BYTES = 1024 * 1024
SAID_MAX_CHARS = 300
REDIRECTS_MAX = 3
DOWNLOADS_MAX = 3
"""An image that is paid for is worth asking for again."""
CONNECTIONS_MAX = 32
RETRY_AFTER_MAX_S = 24 * 3600.0

Origin: TypeAlias = tuple[str, str, int]


def origin_of(url: httpx2.URL) -> Origin:
    """Scheme, host and port."""
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


class Guarded(httpx2.AsyncBaseTransport):
    """Connects to addresses that were judged. `home` is the operator's word and may be anywhere."""

    def __init__(self, home: Origin, *, allow_private: bool = False) -> None:
        self._home, self._allow_private = home, allow_private
        self._at_home = httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=8)
        )
        # by address, so never kept: one name's connection must not serve another name at the same address
        self._elsewhere = httpx2.AsyncHTTPTransport(
            trust_env=False, limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Errors: Forbidden, those of httpx2, OSError for a name nobody knows."""
        scheme, host, port = origin_of(request.url)
        at_home = (scheme, host, port) == self._home
        addresses = await resolved(host, port)
        self._judge(request, at_home, addresses)
        transport = self._at_home if at_home else self._elsewhere
        for address in addresses:
            there = httpx2.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,  # Host is the name's, and so is what the certificate must be for
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return await transport.handle_async_request(there)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise OSError(f"{host} has no address")

    async def aclose(self) -> None:
        await self._at_home.aclose()
        await self._elsewhere.aclose()

    def _judge(self, request: httpx2.Request, at_home: bool, addresses: list[str]) -> None:
        """Errors: Forbidden."""
        url = request.url
        private = [address for address in addresses if not is_public(address)]
        if not at_home and not self._allow_private:
            if url.scheme != "https":
                raise Forbidden(f"{url.scheme}://{url.host} is not https")
            if private:
                raise Forbidden(f"{url.host} is at {private[0]}, which is not public")
        if url.scheme != "https" and len(private) < len(addresses) and "authorization" in request.headers:
            raise Forbidden(f"plain http to {url.host} would tell the key to everybody on the way")


class Unsent(Failed):
    """Nothing left this process, so nothing can have been billed for this call."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole and within its bound of bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    data: Any = field(default=None)
    """The body as JSON; None where it is none."""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    def told(self, *path: str | int) -> Any:
        """What stands at a path of names and indices in the JSON; None where there is nothing."""
        found = self.data
        for step in path:
            if isinstance(found, dict) and isinstance(step, str):
                found = found.get(step)
            elif isinstance(found, list) and isinstance(step, int) and step < len(found):
                found = found[step]
            else:
                return None
        return found

    def text(self, *path: str | int) -> str | None:
        """The text at a path; None for nothing and for anything else."""
        found = self.told(*path)
        return found if isinstance(found, str) else None

    @property
    def said(self) -> str:
        """The start of the body, in one line, for people."""
        line = " ".join(self.body[: SAID_MAX_CHARS * 4].decode(errors="replace").split())
        return "".join(char if char.isprintable() else "?" for char in line)[:SAID_MAX_CHARS]

    @property
    def retry_after_s(self) -> float | None:
        """How long the header Retry-After asks to wait, as seconds or a date (RFC 9110); None where it says neither."""
        text = self.headers.get("retry-after", "").strip()
        try:
            wait = float(text)
        except ValueError:
            try:
                wait = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except ValueError:
                return None
        return min(max(wait, 0.0), RETRY_AFTER_MAX_S) if wait == wait else None


class Caller:
    """Calls of one provider, at `base_url` unless its access says otherwise. `headers` carry its key."""

    def __init__(self, base_url: str, access: Access, *, headers: Mapping[str, str]) -> None:
        self.base_url = (access.base_url or base_url).rstrip("/")
        self._home = origin_of(httpx2.URL(self.base_url))
        self._headers = dict(headers)
        self._image_max_bytes = access.image_max_bytes
        self._client = httpx2.AsyncClient(
            transport=Guarded(self._home, allow_private=access.allow_private),
            trust_env=False,
            follow_redirects=False,
            # what is read is counted as it comes: nothing may unfold
            headers={"accept-encoding": "identity", "user-agent": "giclee"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        answer_max_bytes: int = ANSWER_MAX_BYTES,
        within_s: float = CALL_S,
        paying: bool = False,
    ) -> Reply:
        """One call of the API: a path below the base address, or an address at its origin. Any status is an answer.
        `body` is sent as JSON, bytes as they are.

        `paying`: the call that is billed; nothing is owed where it never left. Errors: Failed when there is no whole
        answer in time.
        """
        there = self._url(url if "://" in url else f"{self.base_url}/{url.lstrip('/')}")
        if origin_of(there) != self._home:
            raise Failed("unusable", f"the answer leads to {there.host}, which is not where the API is")
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"accept": "application/json", **self._headers, **(headers or {})}
        if content is not None:
            sent["content-type"] = "application/json"
        request = self._request(method, there, content=content, headers=sent, read_s=within_s)
        try:
            reply = await self._whole(request, answer_max_bytes, within_s)
        except Unsent as error:
            error.billed = False if paying else None
            raise
        try:
            return Reply(reply.status, reply.headers, reply.body, json.loads(reply.body))
        except (ValueError, RecursionError):
            return reply

    async def image(self, url: str, *, left_s: Callable[[], float]) -> bytes:
        """The bytes of a picture that an answer names, asked for up to three times: it is paid for.

        Errors: Failed.
        """
        pace = Pace()
        for tries_left in reversed(range(DOWNLOADS_MAX)):
            try:
                return await self._image(url, left_s())
            except Failed as error:
                if not tries_left or not error.passing:
                    raise
                await pace.wait(error.retry_after_s)
        raise AssertionError("the last try returns or raises")

    async def _image(self, url: str, within_s: float) -> bytes:
        there = self._url(url)
        for _ in range(REDIRECTS_MAX + 1):
            at_home = origin_of(there) == self._home
            headers = {"accept": "image/*", **(self._headers if at_home else {})}
            request = self._request("GET", there, content=None, headers=headers, read_s=READ_S)
            reply = await self._whole(request, self._image_max_bytes, within_s)
            if reply.good:
                return reply.body
            if not 300 <= reply.status < 400 or "location" not in reply.headers:
                outcome: OutcomeClass = "transient" if reply.status >= 500 or reply.status == 429 else "unusable"
                said = f"the picture's address answers {reply.status}: {reply.said}"
                raise Failed(outcome, said, retry_after_s=reply.retry_after_s)
            there = there.join(self._url(reply.headers["location"], relative=True))
        raise Failed("unusable", f"the picture's address redirects more than {REDIRECTS_MAX} times")

    def _url(self, text: str, *, relative: bool = False) -> httpx2.URL:
        """Errors: Failed."""
        try:
            url = httpx2.URL(text)
        except httpx2.InvalidURL as error:
            raise Failed("unusable", f"the picture's address is none: {error}") from error
        if not relative and (url.scheme not in {"http", "https"} or not url.host):
            raise Failed("unusable", f"the picture's address is none: {text[:SAID_MAX_CHARS]}")
        return url

    def _request(
        self, method: str, url: httpx2.URL, *, content: bytes | None, headers: Mapping[str, str], read_s: float
    ) -> httpx2.Request:
        timeout = httpx2.Timeout(connect=CONNECT_S, read=read_s, write=READ_S, pool=CALL_S)
        return self._client.build_request(method, url, content=content, headers=dict(headers), timeout=timeout)

    async def _whole(self, request: httpx2.Request, bytes_max: int, within_s: float) -> Reply:
        """An answer read to its end. Errors: Failed."""
        host = request.url.host
        try:
            async with asyncio.timeout(within_s):
                return await self._read(request, bytes_max)
        except Forbidden as error:
            raise Unsent("unusable", f"not called: {error}") from error
        except TimeoutError:
            raise Failed("timeout", f"no whole answer of {host} within {within_s:.1f} s") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, OSError) as error:
            raise Unsent("transient", f"{host} cannot be reached: {type(error).__name__}") from error
        except httpx2.TimeoutException as error:
            raise Failed("timeout", f"{host} is silent: {type(error).__name__}") from error
        except httpx2.HTTPError as error:
            raise Failed("transient", f"the connection to {host} failed: {type(error).__name__}") from error

    async def _read(self, request: httpx2.Request, bytes_max: int) -> Reply:
        response = await self._client.send(request, stream=True)
        try:
            headers = {name.lower(): text for name, text in response.headers.items()}
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise Failed("unusable", "the answer is compressed; identity was asked for")
            found = bytearray()
            async for part in response.aiter_raw():
                found += part
                if len(found) > bytes_max:
                    raise Failed("unusable", f"the answer has over {bytes_max} bytes")
            return Reply(response.status_code, headers, bytes(found))
        finally:
            await response.aclose()
