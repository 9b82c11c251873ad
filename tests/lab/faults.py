"""What can go wrong on the way, for every call of every provider: TABLE, by the name that tests give.

A fault that a provider has its own words for (no credit, a revoked key, a refusal) is answered by that provider's file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from tests.lab.state import Fault, Lab

SLOW_BYTE_S = 1.0
CHUNK_BYTES = 64 * 1024

Good: TypeAlias = Callable[[], Awaitable[web.Response]]
Spoil: TypeAlias = Callable[[Lab, Fault, web.Request, Good], Awaitable[web.StreamResponse]]


async def _rate(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """429; with the header Retry-After where the test names seconds."""
    after = fault.params.get("retry_after")
    headers = {} if after is None else {"Retry-After": str(after)}
    return web.json_response({"detail": "too many requests"}, status=429, headers=headers)


async def _echo(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """A refusal that repeats the key it was sent, as careless services do."""
    said = f"Incorrect API key provided: {request.headers.get('Authorization')}"
    return web.json_response({"detail": said, "message": said, "error": {"message": said}}, status=401)


async def _error(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    return web.json_response({"detail": "internal error"}, status=500)


async def _unavailable(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    return web.Response(text="upstream connect error or disconnect/reset before headers", status=503)


async def _hang(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """Silence, and nothing is done."""
    await asyncio.Event().wait()
    raise AssertionError("only the caller's leaving ends this")


async def _late(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """The work is done and billed; the answer never comes."""
    await good()
    return await _hang(lab, fault, request, good)


async def _held(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """The work is done and billed; the answer comes when somebody lets go of what stands still."""
    whole = await good()
    await lab.let_go.wait()
    return whole


async def _gone(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """The work is done and billed; the connection breaks before the answer."""
    await good()
    _cut(request)
    return web.Response()


async def _slow(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """The answer, one byte a second."""
    whole = await good()
    body = bytes(whole.body)  # type: ignore[arg-type]  # every answer here is bytes
    answer = web.StreamResponse(status=whole.status, headers={"Content-Type": whole.content_type})
    answer.content_length = len(body)
    await answer.prepare(request)
    for at in range(len(body)):
        await answer.write(body[at : at + 1])
        await asyncio.sleep(SLOW_BYTE_S)
    return answer


async def _truncated(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """Half of the answer, then the connection breaks."""
    whole = await good()
    body = bytes(whole.body)  # type: ignore[arg-type]  # as above
    answer = web.StreamResponse(status=whole.status, headers={"Content-Type": whole.content_type})
    answer.content_length = len(body)
    await answer.prepare(request)
    await answer.write(body[: len(body) // 2])
    _cut(request)
    return answer


async def _html(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    await good()
    return web.Response(text="<!doctype html><title>Maintenance</title>", content_type="text/html")


async def _empty(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    await good()
    return web.json_response({})


async def _wrong(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """As many bytes as the answer has, none of them right, under its content type."""
    whole = await good()
    body = os.urandom(len(bytes(whole.body)))  # type: ignore[arg-type]  # as above
    return web.Response(body=body, status=whole.status, content_type=whole.content_type)


async def _redirect(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """To an address of the private network: the lab's own trap, or wherever the test says."""
    await good()
    return web.Response(status=302, headers={"Location": str(fault.params.get("to") or request.app["trap_url"])})


async def _endless(lab: Lab, fault: Fault, request: web.Request, good: Good) -> web.StreamResponse:
    """Bytes without end."""
    await good()
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await answer.prepare(request)
    while True:
        await answer.write(bytes(CHUNK_BYTES))
        lab.sent_bytes += CHUNK_BYTES


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


TABLE: dict[str, Spoil] = {
    "rate": _rate,
    "echo": _echo,
    "error": _error,
    "unavailable": _unavailable,
    "hang": _hang,
    "late": _late,
    "held": _held,
    "gone": _gone,
    "slow": _slow,
    "truncated": _truncated,
    "html": _html,
    "empty": _empty,
    "wrong": _wrong,
    "redirect": _redirect,
    "endless": _endless,
}
