"""Reading a call: its body, no further than allowed and in bounded time, and its Idempotency-Key. Decides nothing."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from giclee.intake import accept
from giclee.intake.problems import Problem
from giclee.schemas.strict import VALUE_MAX_BYTES

READ_MAX_S = 60.0
"""20 MB at 2.8 Mbit/s; who is slower would keep others waiting."""


async def raw(request: Request, max_bytes: int) -> bytes:
    """The body as it was sent. Errors: Problem 413, 408."""
    too_large = Problem(413, "too_large", f"a body is at most {max_bytes} bytes")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and int(length[:20]) > max_bytes:
        raise too_large
    read = bytearray()
    try:
        async with asyncio.timeout(READ_MAX_S):
            async for chunk in request.stream():
                read += chunk
                if len(read) > max_bytes:
                    raise too_large
    except TimeoutError:
        raise Problem(408, "too_slow", f"the body did not arrive in {READ_MAX_S:.0f} s") from None
    return bytes(read)


async def body(request: Request) -> bytes:
    """A JSON body, or none. Errors: Problem 413, 408, 415."""
    found = await raw(request, VALUE_MAX_BYTES)
    if found and not is_json(request.headers.get("content-type", "application/json")):
        raise Problem(415, "unsupported_media_type")
    return found


def is_json(content_type: str) -> bool:
    """Whether a Content-Type says JSON in UTF-8."""
    kind, _, rest = content_type.lower().partition(";")
    charset = rest.partition("charset=")[2].partition(";")[0].strip(' "')
    return kind.strip() == "application/json" and charset in ("", "utf-8", "utf8")


def key(request: Request) -> str | None:
    """The Idempotency-Key. Errors: Problem 400."""
    found = request.headers.get("idempotency-key")
    if found is not None and not accept.is_key(found):
        raise Problem(400, "invalid_header", accept.KEY_RULE)
    return found
