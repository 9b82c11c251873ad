"""An evaluator over HTTP, against real servers: a number in time counts, anything else never passes and says why."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from giclee.schemas.gates import GateRow
from giclee.scorer.dimension import Measured, Picture
from giclee.scorer.gate import Gate
from giclee.scorer.remote import ANSWER_MAX_BYTES, LATE_MAX, Endpoint, Remote, key_of, signature
from tests.kit.wait import until

ROOT = Path(__file__).parents[3]
SECRET = "a-secret-of-the-operator"
DEADLINE_S = 0.4
GATE = Gate((GateRow(dimension="brand", pass_at=0.5, doubt_at=0.1),))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def picture(side: int = 32, prompt: str = "a red circle") -> Picture:
    pixels: np.ndarray = np.zeros((side, side, 3), np.uint8)
    pixels[:, side // 2 :] = (250, 10, 20)
    return Picture(pixels=pixels, prompt=prompt, asset_type="paid-social")


async def asked(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """One request: its headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    headers = {name.lower(): value for name, value in re.findall(r"^([\w-]+): (.*?)\r$", head, re.MULTILINE)}
    return headers, await reader.readexactly(int(headers["content-length"]))


def http(body: bytes, status: str = "200 OK", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(body: bytes, status: str = "200 OK", *more: str) -> Serve:
    """A server that answers every request of a connection alike."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await asked(reader)
            writer.write(http(body, status, *more))
            await writer.drain()

    return serve


@asynccontextmanager
async def remote(serve: Serve, **parameters: Any) -> AsyncIterator[Remote]:
    """An evaluator whose service is `serve`, on a free port."""
    connections: set[asyncio.Task[Any]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    told = {"url": f"http://127.0.0.1:{port}/score", "secret_env": "BRAND_SECRET", "deadline_s": DEADLINE_S}
    one = Remote("brand", Endpoint.model_validate({**told, **parameters}), secret=key_of(SECRET))
    running = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        running.cancel()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(running, *connections, return_exceptions=True)


def verdict(found: Measured) -> str:
    return GATE.scores({"brand": found}, {}, asset_type="paid-social", long_side_px=32)["brand"].verdict


async def test_a_number_is_the_value_with_its_reason_and_the_answer_s_version() -> None:
    """And the gate decides by it like by any other."""
    body = json.dumps({"value": 0.8, "reason": "two\nlines\u0000", "version": "m-7", "more": [1]}).encode()
    async with remote(says(body)) as by:
        found = await by.measure(picture())
    assert (found.value, found.certain, found.reason) == (0.8, True, "two lines ")
    assert found.version == f"{by.evaluator.version}+m-7"
    score = GATE.scores({"brand": found}, {"brand": by.evaluator}, asset_type="x", long_side_px=1)["brand"]
    assert (score.verdict, score.evaluator, score.evaluator_version) == ("pass", "http brand", found.version)


async def test_what_is_sent_is_the_pixels_the_prompt_and_a_signature_that_holds() -> None:
    """As docs/evaluators.md shows to verify it; the picture comes back pixel by pixel, a large one scaled."""
    seen: list[tuple[dict[str, str], bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await asked(reader))
            writer.write(http(b'{"value": 1}'))

    async with remote(serve, long_side_max_px=64, deadline_s=5) as by:
        await by.measure(picture())
        await by.measure(picture())
        await by.measure(picture(200))
    checks: dict[str, Any] = {}
    exec(blocks()[1], checks)
    for headers, body in seen:
        assert checks["is_ours"](headers, body, SECRET.encode())
        assert not checks["is_ours"](headers, body + b" ", SECRET.encode())
        assert not checks["is_ours"](headers, body, b"another secret")
        assert not checks["is_ours"]({**headers, "webhook-timestamp": "1700000000"}, body, SECRET.encode())
    told = json.loads(seen[0][1])
    assert (told["evaluator"], told["asset_type"], told["prompt"]) == ("brand", "paid-social", "a red circle")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(told["image"]["base64"])))),
                          picture().pixels)  # fmt: skip
    assert seen[0][0]["webhook-id"] == seen[1][0]["webhook-id"] != seen[2][0]["webhook-id"]
    assert json.loads(seen[2][1])["image"]["width"] == 64


def test_a_signature_is_the_one_that_standard_webhooks_publishes() -> None:
    """The vector of its specification."""
    secret = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', secret)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


# ---- hostile ------------------------------------------------------------------------------------


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    await asyncio.Event().wait()


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte at a time, each well within any time-out for reading."""
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(DEADLINE_S / 8)


async def drips_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x: y\r\n")
        await writer.drain()
        await asyncio.sleep(DEADLINE_S / 8)


async def drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)


async def drops_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"value": 1')


async def speaks_no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")


async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ten megabytes, unannounced."""
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"value": 1, "x": "')
    for _ in range(1000):
        writer.write(b"x" * 10_000)
        await writer.drain()


BOMB = gzip.compress(b'{"value": 1}' + b" " * 30_000_000)
HTML = b"<!doctype html><title>Sign in</title>"
HOSTILE: dict[str, tuple[Serve, str]] = {
    "hangs": (hangs, "no answer within"),
    "never reads": (never_reads, "no answer within"),
    "drips": (drips, "no answer within"),
    "drips headers": (drips_headers, "no answer within"),
    "drops the connection": (drops, "connection failed"),
    "drops it halfway": (drops_halfway, "connection failed"),
    "no HTTP": (speaks_no_http, "connection failed"),
    "500": (says(b'{"value": 1}', "500 Oops"), "status 500"),
    "204": (says(b"", "204 No Content"), "status 204"),
    "201": (says(b'{"value": 1}', "201 Created"), "status 201"),
    "redirect": (says(b'{"value": 1}', "307 Over there", "location: /elsewhere"), "status 307"),
    "HTML at 200": (says(HTML, "200 OK", "content-type: text/html"), "not JSON"),
    "nothing at 200": (says(b""), "not JSON"),
    "NaN": (says(b'{"value": NaN}'), "finite"),
    "Infinity": (says(b'{"value": Infinity}'), "finite"),
    "overflow": (says(b'{"value": 1e999}'), "finite"),
    "ten megabytes": (says(b'{"value": 1, "x": "' + b"x" * 10_000_000 + b'"}'), "over 65536 bytes"),
    "ten megabytes unannounced": (never_ends, "over 65536 bytes"),
    "a compressed bomb": (says(BOMB, "200 OK", "content-encoding: gzip"), "compressed"),
    "text for a number": (says(b'{"value": "0.9"}'), "value: "),
    "true for a number": (says(b'{"value": true}'), "value: "),
    "null": (says(b'{"value": null}'), "value: "),
    "no value": (says(b'{"score": 0.9}'), "value: Field required"),
    "a list": (says(b"[0.9]"), "the answer: "),
    "a bare number": (says(b"0.9"), "the answer: "),
    "deeply nested": (says(b"[" * 60_000), "not JSON"),
    "a reason that is no text": (says(b'{"value": 1, "reason": {"a": 1}}'), "reason: "),
    "a version with a line end": (says(b'{"value": 1, "version": "a\\nb"}'), "version: "),
    "bytes that are no text": (says(b'\xff\xfe{"value": 1}'), "not JSON"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_is_not_a_number_in_time_is_unsure_and_says_why(name: str) -> None:
    """Within the deadline, whatever the server does."""
    serve, why = HOSTILE[name]
    async with remote(serve) as by:
        began = time.monotonic()
        found = await by.measure(picture())
        assert time.monotonic() - began < DEADLINE_S + 0.5
    assert found.value is None and why in (found.reason or ""), found
    assert verdict(found) == "unsure"


async def test_nobody_there_is_unsure() -> None:
    """A port on which nothing listens."""
    async with remote(hangs) as by:
        free = by
    endpoint = Endpoint(url=free._endpoint.url, secret_env="X", deadline_s=DEADLINE_S)
    found = await Remote("brand", endpoint, secret=b"x").measure(picture())
    assert verdict(found) == "unsure" and "connection failed" in (found.reason or "")


async def test_a_kept_connection_that_was_closed_is_tried_once_more() -> None:
    """Servers close idle connections; the picture must not pay for it."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await asked(reader)
        served += 1
        writer.write(http(b'{"value": 1}'))
        await writer.drain()

    async with remote(serve, deadline_s=5) as by:
        found = [await by.measure(picture()) for _ in range(5)]
    assert [one.value for one in found] == [1.0] * 5
    assert served == 5


async def test_at_most_so_many_are_asked_at_once_and_waiting_counts() -> None:
    """Two turns, eight pictures: never three at once, and whoever has no turn in time is told so."""
    now = most = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        while True:
            await asked(reader)
            now += 1
            most = max(most, now)
            await asyncio.sleep(DEADLINE_S * 0.7)
            now -= 1
            writer.write(http(b'{"value": 1}'))

    async with remote(serve, at_once=2) as by:
        began = time.monotonic()
        found = await asyncio.gather(*(by.measure(picture()) for _ in range(8)))
        assert time.monotonic() - began < DEADLINE_S + 0.5
    assert most == 2
    assert [one.value for one in found].count(1.0) == 2
    assert {verdict(one) for one in found if one.value is None} == {"unsure"}


async def test_a_service_that_hangs_is_not_waited_for_by_every_picture_and_comes_back() -> None:
    """After some deadlines in a row pictures are not made to wait for one deadline; then it is asked again."""
    is_well = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        if not is_well:
            await asyncio.Event().wait()
        writer.write(http(b'{"value": 1}'))
        await writer.drain()

    async with remote(serve) as by:
        for _ in range(LATE_MAX):
            assert "no answer" in ((await by.measure(picture())).reason or "")
        began = time.monotonic()
        skipped = await by.measure(picture())
        assert time.monotonic() - began < DEADLINE_S / 4
        assert verdict(skipped) == "unsure" and "not asked" in (skipped.reason or "")
        is_well = True

        async def answered() -> bool:
            return (await by.measure(picture())).value == 1.0

        await until(answered)


async def test_the_loop_is_never_held_up_and_nothing_raises() -> None:
    """While a service hangs and another drips, others on the same loop get their answers."""
    async with remote(hangs, deadline_s=1.5) as stuck, remote(says(b'{"value": 1}'), deadline_s=5) as well:
        hung = [asyncio.create_task(stuck.measure(picture(1500))) for _ in range(6)]
        began = time.monotonic()
        found = [await well.measure(picture()) for _ in range(10)]
        assert time.monotonic() - began < 1.4
        assert [one.value for one in found] == [1.0] * 10
        assert {verdict(one) for one in await asyncio.gather(*hung)} == {"unsure"}


async def test_the_secret_is_in_no_log_line_and_no_reason(caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """Not in a warning about a failure, not at debug level."""
    caplog.set_level(logging.DEBUG)
    async with remote(says(b"", "500 Oops")) as by:
        found = await by.measure(picture())
    out, err = capfd.readouterr()
    for text in (caplog.text, out, err, str(found)):
        assert SECRET not in text and base64.b64encode(SECRET.encode()).decode() not in text


@pytest.mark.parametrize(
    ("secret", "says_why"),
    [("short", "at least 16"), ("whsec_not base64!!", "not Base64")],
)
def test_a_secret_that_cannot_sign_is_refused_without_saying_it(secret: str, says_why: str) -> None:
    """Too short, or not what its prefix promises."""
    with pytest.raises(ValueError, match=says_why) as caught:
        key_of(secret)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"url": "ftp://x/y"}, "url"), ({"url": "https://"}, "url"), ({"url": "https://u:p@x/"}, "url"),
        ({"url": "https://u@x/"}, "url"), ({"url": "x/y"}, "url"), ({"url": "http://a b/"}, "url"),
        ({"deadline_s": 0}, "deadline_s"), ({"deadline_s": 61}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"at_once": 0}, "at_once"), ({"secret_env": "GICLEE_X"}, "secret_env"),
        ({"secret_env": "a-b"}, "secret_env"),
        ({"retries": 3}, "retries"),
    ],
)  # fmt: skip
def test_an_endpoint_that_makes_no_sense_is_refused_by_its_field(values: dict[str, Any], field: str) -> None:
    """And a password in it is not repeated."""
    told = {"url": "https://example.test/score", "secret_env": "BRAND_SECRET"}
    Endpoint.model_validate(told)
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate({**told, **values})
    assert [error["loc"][0] for error in caught.value.errors()] == [field]


def test_the_largest_answer_is_small() -> None:
    """A reason, not a document."""
    assert ANSWER_MAX_BYTES <= 64 * 1024


# ---- as documented ------------------------------------------------------------------------------


def blocks() -> list[str]:
    """The Python of docs/evaluators.md."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "evaluators.md").read_text(), re.DOTALL)


async def test_the_documented_service_scores_a_picture() -> None:
    """As it stands on the page, in a process of its own."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", blocks()[0], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PORT": "0"},
    )  # fmt: skip
    try:
        assert running.stdout is not None
        port = int(await running.stdout.readline())
        endpoint = Endpoint(url=f"http://127.0.0.1:{port}/", secret_env="BRAND_SECRET")
        found = await Remote("contrast", endpoint, secret=key_of(SECRET)).measure(picture())
    finally:
        running.kill()
        await running.wait()
    assert found.reason == "levels 0 to 83" and found.value == pytest.approx(83 / 255)
    assert (found.version or "").endswith("+contrast-1")
