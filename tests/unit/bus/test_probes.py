"""Probes tell the truth, answer while others hang, and take only small JSON objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from giclee.bus import probes
from giclee.bus.errors import Poison, Transient
from giclee.bus.settings import ProcessSettings
from giclee.schemas.strict import FieldError, InvalidInput
from tests.kit.wait import until

SETTINGS = ProcessSettings(health_port=0, bind_host="127.0.0.1", log_level="info")


@asynccontextmanager
async def served(**parts: Any) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    whole: dict[str, Any] = {"checks": {}, "alive": {}, "internal": {}} | parts
    async with probes.serving(SETTINGS, **whole) as port, aiohttp.ClientSession() as http:
        yield http, f"http://127.0.0.1:{port}"


async def asked(http: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    async with http.get(url) as answer:
        return answer.status, await answer.json()


async def fine() -> None:
    return None


async def away() -> None:
    raise Transient("the database is away")


async def test_every_failing_check_is_named() -> None:
    """Ready only when all checks pass; a stage that is paused or a loop that hangs makes the process unready."""

    def hangs() -> None:
        raise Transient("policy has not polled for 90 s")

    checks: dict[str, Any] = {"bucket": fine}
    alive: dict[str, Any] = {}
    async with served(checks=checks, alive=alive) as (http, url):
        assert await asked(http, f"{url}/readyz") == (200, {"ready": True, "failing": {}, "checks": ["bucket"]})
        checks["database"] = away
        alive["policy"] = hangs
        status, said = await asked(http, f"{url}/readyz")
        assert status == 503 and set(said["failing"]) == {"database", "policy"}
        status, said = await asked(http, f"{url}/livez")
        assert status == 503 and set(said["late"]) == {"policy"}


async def test_an_outage_does_not_end_the_process() -> None:
    """Not ready is not dead: only a loop that hangs fails the liveness probe."""
    async with served(checks={"database": away}) as (http, url):
        assert (await asked(http, f"{url}/livez"))[0] == 200


async def test_a_check_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check without an answer is a failing one, named like the others."""
    monkeypatch.setattr(probes, "CHECK_TIMEOUT_S", 0.05)
    async with served(checks={"slow": asyncio.Event().wait, "good": fine}) as (http, url):
        status, said = await asked(http, f"{url}/readyz")
        assert status == 503 and set(said["failing"]) == {"slow"}


async def test_metrics_are_served() -> None:
    """Prometheus' text format, the process' own memory included."""
    async with served() as (http, url), http.get(f"{url}/metrics") as answer:
        text = await answer.text()
        assert answer.status == 200 and "process_resident_memory_bytes" in text


async def echoed(body: dict[str, Any]) -> dict[str, Any]:
    failures = {
        "transient": Transient("later"),
        "poison": Poison("never"),
        "invalid": InvalidInput([FieldError("/prompt", "is needed")]),
    }
    if error := failures.get(body.get("raise", "")):
        raise error
    return body


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b'{"a": 1}', 200, None),
        (b"{", 400, "not_json"),
        (b"[]", 400, "invalid_field"),
        (b'"' + b"x" * (probes.BODY_MAX_BYTES + 1) + b'"', 413, "too_large"),
        (b'{"raise": "transient"}', 503, "unavailable"),
        (b'{"raise": "poison"}', 422, "invalid_field"),
        (b'{"raise": "invalid"}', 422, "invalid_field"),
    ],
)
async def test_an_internal_endpoint_answers_in_json(sent: bytes, status: int, code: str | None) -> None:
    """A small object in, an object out; everything else is a problem document with a code."""
    where = "/internal/echo"
    async with served(internal={where: echoed}) as (http, url), http.post(f"{url}{where}", data=sent) as answer:
        said = await answer.json(content_type=None)
        assert (answer.status, said.get("code")) == (status, code)
        assert (answer.content_type == "application/problem+json") == (code is not None)
        if b"invalid" in sent:
            assert said["errors"] == [{"pointer": "/prompt", "detail": "is needed", "code": "invalid_field"}]


# ---- endpoints that take a file ------------------------------------------------------------------

FILE_MAX = 1000


def upload(handle: Any = None, at_once: int = 2, within_s: float = 5.0) -> probes.Upload:
    async def measured(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        return {"values": values, "bytes": None if file is None else len(file)}

    return probes.Upload(handle=handle or measured, file_max_bytes=FILE_MAX, at_once=at_once, within_s=within_s)


def form(**parts: bytes) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, body in parts.items():
        data.add_field(name, body, filename=name)
    return data


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (form(values=b'{"a": 1}', file=b"xy"), 200, {"values": {"a": 1}, "bytes": 2}),
        (form(values=b"{}", file=b""), 200, {"values": {}, "bytes": 0}),
        (form(values=b"{}", file=b"x" * FILE_MAX), 200, {"values": {}, "bytes": FILE_MAX}),
        (form(values=b"{}", file=b"x" * (FILE_MAX + 1)), 413, {"code": "too_large"}),
        (form(file=b"x"), 400, {"code": "not_json"}),
        (form(values=b"{}", other=b"x"), 400, {"code": "invalid_field"}),
        (b"{}", 400, {"code": "not_json"}),
    ],
)
async def test_a_file_comes_with_values_and_no_larger_than_allowed(
    data: Any, status: int, said: dict[str, Any]
) -> None:
    """Values and bytes arrive as they were sent; everything else is a problem."""
    where = "/internal/x"
    async with served(internal={where: upload()}) as (http, url), http.post(f"{url}{where}", data=data) as answer:
        found = await answer.json(content_type=None)
        assert answer.status == status, found
        assert said.items() <= found.items()


async def test_no_more_files_are_taken_than_may_be_at_once() -> None:
    """The next one is 429 with Retry-After while those before it are served, and welcome afterwards."""
    go = asyncio.Event()

    async def waits(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        taken.append(values)
        await go.wait()
        return {}

    taken: list[dict[str, Any]] = []
    async with served(internal={"/internal/x": upload(waits)}) as (http, url):

        async def post() -> tuple[int, str | None]:
            async with http.post(f"{url}/internal/x", data=form(values=b"{}", file=b"x")) as answer:
                return answer.status, answer.headers.get("Retry-After")

        first = [asyncio.create_task(post()) for _ in range(2)]
        await until(lambda: len(taken) == 2)
        assert await post() == (429, probes.BUSY_RETRY_AFTER_S)
        go.set()
        assert [await one for one in first] == [(200, None)] * 2
        assert await post() == (200, None)


async def test_a_file_that_takes_too_long_is_given_up_and_its_place_is_free() -> None:
    """503, and the next one is served."""

    async def hangs(values: dict[str, Any], file: bytes | None) -> dict[str, Any]:
        if values:
            return {}
        await asyncio.Event().wait()
        return {}

    async with served(internal={"/internal/x": upload(hangs, at_once=1, within_s=0.05)}) as (http, url):
        for values, status in ((b"{}", 503), (b'{"a": 1}', 200)):
            async with http.post(f"{url}/internal/x", data=form(values=values)) as answer:
                assert answer.status == status
