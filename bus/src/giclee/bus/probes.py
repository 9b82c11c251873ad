"""What a process says about itself over HTTP: /livez, /readyz, /metrics, and small internal POST endpoints.

Alive means that the event loop answers and every registered loop still turns; ready means that every check
passes now, the databases, buckets and stages of this process included: a stage paused by an outage is unready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from giclee.bus import telemetry
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import ProcessSettings
from giclee.schemas.strict import InvalidInput

BODY_MAX_BYTES = 1024 * 1024
CHECK_TIMEOUT_S = 3.0
"""A check that hangs fails; below the usual time-outs of whoever probes."""
INTERNAL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0

Alive = Callable[[], None]
Check = Callable[[], Awaitable[None]]
Internal = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

log = telemetry.logger(__name__)


@asynccontextmanager
async def serving(
    settings: ProcessSettings,
    *,
    checks: Mapping[str, Check],
    alive: Mapping[str, Alive],
    internal: Mapping[str, Internal],
) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port. `checks` and `alive` may be filled later.

    `alive`: name -> function that raises Transient when its loop hangs. `checks`: name -> async function that
    raises while not ready. `internal`: path -> async (dict) -> dict. Errors: OSError when the port is taken.
    """
    application = web.Application(client_max_size=BODY_MAX_BYTES)
    application.router.add_get("/livez", partial(_livez, alive))
    application.router.add_get("/readyz", partial(_readyz, checks, alive))
    application.router.add_get("/metrics", _metrics)
    for path, handle in internal.items():
        application.router.add_post(path, _posted(handle))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.bind_host, settings.health_port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _livez(alive: Mapping[str, Alive], _: web.Request) -> web.Response:
    late = _late(alive)
    return _json({"alive": not late, "late": late}, 503 if late else 200)


def _late(alive: Mapping[str, Alive]) -> dict[str, str]:
    late: dict[str, str] = {}
    for name, ask in tuple(alive.items()):
        try:
            ask()
        except Transient as error:
            late[name] = str(error)
    return late


async def _readyz(checks: Mapping[str, Check], alive: Mapping[str, Alive], _: web.Request) -> web.Response:
    """All checks at once; the names of those that fail, with what they say."""
    named = tuple(checks.items())
    answers = await asyncio.gather(*(_bounded(check) for _, check in named), return_exceptions=True)
    failing = _late(alive) | {
        name: f"{type(answer).__name__}: {answer}"
        for (name, _), answer in zip(named, answers, strict=True)
        if isinstance(answer, BaseException)
    }
    body = {"ready": not failing, "failing": failing, "checks": sorted(checks)}
    return _json(body, 503 if failing else 200)


async def _bounded(check: Check) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except TimeoutError:
        raise Transient(f"no answer in {CHECK_TIMEOUT_S:.0f} s") from None


async def _metrics(_: web.Request) -> web.Response:
    return web.Response(body=telemetry.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _posted(handle: Internal) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A POST endpoint: a JSON object in, a JSON object out, whatever goes wrong as problem+json."""

    async def endpoint(request: web.Request) -> web.Response:
        try:
            body = orjson.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "too_large", f"at most {BODY_MAX_BYTES} bytes")
        except orjson.JSONDecodeError as error:
            return _problem(400, "not_json", str(error))
        if not isinstance(body, dict):
            return _problem(400, "invalid_field", "must be a JSON object")
        try:
            async with asyncio.timeout(INTERNAL_TIMEOUT_S):
                return _json(await handle(body))
        except (Transient, TimeoutError) as error:
            return _problem(503, "unavailable", str(error) or "took too long")
        except InvalidInput as error:
            errors = [{"pointer": one.pointer, "detail": one.detail} for one in error.errors]
            return _problem(422, "invalid_field", str(error), errors)
        except (Poison, ValueError) as error:
            return _problem(422, "invalid_field", str(error))

    return endpoint


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body, default=str), status=status, content_type="application/json")


def _problem(status: int, code: str, detail: str, errors: Sequence[dict[str, str]] = ()) -> web.Response:
    body = orjson.dumps({"type": "about:blank", "status": status, "code": code, "detail": detail, "errors": [*errors]})
    return web.Response(body=body, status=status, content_type="application/problem+json")
