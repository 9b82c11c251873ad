"""What a process says about itself over HTTP: /livez, /readyz, /metrics, and internal POST endpoints.

Alive means that the event loop answers and every registered loop still turns; ready means that every check
passes now, the databases, buckets and stages of this process included: a stage paused by an outage is unready.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import BodyPartReader, web

from giclee.bus import telemetry
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import ProcessSettings
from giclee.schemas.strict import FieldError, InvalidInput

BODY_MAX_BYTES = 1024 * 1024
CHECK_TIMEOUT_S = 3.0
"""A check that hangs fails; below the usual time-outs of whoever probes."""
INTERNAL_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
CHUNK_BYTES = 256 * 1024
BUSY_RETRY_AFTER_S = "2"

Alive = Callable[[], None]
Check = Callable[[], Awaitable[None]]
Posted = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An internal endpoint that takes a file: multipart/form-data, `values` (a JSON object), then perhaps `file`.

    At most `at_once` are served; the next one is 429 before anything of it is read. `within_s` bounds reading and
    handling together.
    """

    handle: Callable[[dict[str, Any], bytes | None], Awaitable[dict[str, Any]]]
    file_max_bytes: int
    at_once: int
    within_s: float


Internal = Posted | Upload

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
        application.router.add_post(path, _Uploaded(handle).endpoint if isinstance(handle, Upload) else _posted(handle))
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


def _posted(handle: Posted) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A POST endpoint: a JSON object in, a JSON object out, whatever goes wrong as problem+json."""

    async def endpoint(request: web.Request) -> web.Response:
        async def work() -> dict[str, Any]:
            return await handle(_object(await request.read()))

        return await _answered(work, INTERNAL_TIMEOUT_S)

    return endpoint


class _Uploaded:
    """The same with a file beside the object; knows how many are being served."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._busy = 0

    async def endpoint(self, request: web.Request) -> web.Response:
        if self._busy >= self._upload.at_once:
            answer = _problem(429, "busy", f"{self._busy} are served already")
            answer.headers["Retry-After"] = BUSY_RETRY_AFTER_S
            return answer
        self._busy += 1
        try:
            return await _answered(partial(self._work, request), self._upload.within_s)
        finally:
            self._busy -= 1

    async def _work(self, request: web.Request) -> dict[str, Any]:
        if request.content_type != "multipart/form-data":
            raise InvalidInput([FieldError("", "must be multipart/form-data", "not_json")])
        found: dict[str, bytes] = {}
        most = {"values": BODY_MAX_BYTES, "file": self._upload.file_max_bytes}
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name not in most or part.name in found:
                raise InvalidInput([FieldError("", "takes one part `values` and at most one `file`")])
            found[part.name] = await _part(part, most[part.name])
        return await self._upload.handle(_object(found.get("values", b"")), found.get("file"))


async def _part(part: BodyPartReader, bytes_max: int) -> bytes:
    """A part's bytes, read no further than allowed. Errors: HTTPRequestEntityTooLarge."""
    body = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        body += chunk
        if len(body) > bytes_max:
            raise web.HTTPRequestEntityTooLarge(max_size=bytes_max, actual_size=len(body))
    return bytes(body)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput([FieldError("", str(error), "not_json")]) from None
    if not isinstance(found, dict):
        raise InvalidInput([FieldError("", "must be a JSON object")])
    return found


async def _answered(work: Callable[[], Awaitable[dict[str, Any]]], within_s: float) -> web.Response:
    """What the work comes to within its time, or which problem."""
    try:
        async with asyncio.timeout(within_s):
            return _json(await work())
    except web.HTTPRequestEntityTooLarge as error:
        return _problem(413, "too_large", str(error.text))
    except (Transient, TimeoutError) as error:
        return _problem(503, "unavailable", str(error) or "took too long")
    except InvalidInput as error:
        errors = [{"pointer": one.pointer, "detail": one.detail, "code": one.code} for one in error.errors]
        whole = len(error.errors) == 1 and error.errors[0].pointer == ""
        code = error.errors[0].code
        return _problem(400 if whole else 422, code if whole else "invalid_field", str(error), errors)
    except (Poison, ValueError) as error:
        return _problem(422, "invalid_field", str(error))


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body, default=str), status=status, content_type="application/json")


def _problem(status: int, code: str, detail: str, errors: Sequence[dict[str, str]] = ()) -> web.Response:
    body = orjson.dumps({"type": "about:blank", "status": status, "code": code, "detail": detail, "errors": [*errors]})
    return web.Response(body=body, status=status, content_type="application/problem+json")
