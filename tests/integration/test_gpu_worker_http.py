"""Calls of providers lead where the operator said and nowhere else: real connections, names that lie."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from giclee.gpu_worker.attempt import Access, Failed
from giclee.gpu_worker.http import Caller
from tests.kit.lab import KEYS, Lab

PROMPT = {"prompt": "a small red circle on a blue background"}


def caller(base_url: str, **access: Any) -> Caller:
    return Caller(base_url, Access(**access), headers={"authorization": f"Key {KEYS['fal']}"})


async def refused(one: Caller, url: str) -> str:
    """Why a picture's address is not called."""
    with pytest.raises(Failed) as said:
        await one.image(url, left_s=lambda: 5.0)
    assert said.value.outcome == "unusable"
    await one.close()
    return str(said.value)


def told(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Let names resolve to these addresses, an answer a question; gives the names that were asked."""
    asked: list[str] = []
    left = list(answers)

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        if not left:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (left.pop(0), port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://203.0.113.7/a.png", "not https"),
        ("https://127.0.0.1/a.png", "not public"),
        ("https://localhost/a.png", "not public"),
        ("https://[::1]/a.png", "not public"),
        ("https://[::ffff:10.0.0.1]/a.png", "not public"),
        ("https://169.254.169.254/latest/meta-data/", "not public"),
        ("file:///etc/passwd", "address is none"),
        ("data:image/png;base64,AAAA", "address is none"),
        ("//127.0.0.1/a.png", "address is none"),
        ("", "address is none"),
    ],
)
async def test_a_pictures_address_must_be_public_and_https(lab: Lab, url: str, why: str) -> None:
    """Whatever an answer says; nothing is connected to."""
    assert why in await refused(caller(lab.url("fal")), url)


async def test_a_name_that_points_inwards_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what it resolves to."""
    told(monkeypatch, "10.0.0.8")
    assert "images.example is at 10.0.0.8, which is not public" in await refused(
        caller(lab.url("fal")), "https://images.example/a.png"
    )


async def test_the_address_that_was_judged_is_the_one_that_is_called(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is asked for once: what it says a moment later does not matter. It still is the Host that is asked."""
    asked = told(monkeypatch, "127.0.0.1")
    one = caller(f"http://lab.example:{lab.port}/fal")
    reply = await one.ask("POST", "fal-ai/flux/dev", body=PROMPT)
    await one.close()
    assert reply.good
    assert asked == ["lab.example"]
    assert reply.text("status_url") is not None
    assert str(reply.text("status_url")).startswith(f"http://lab.example:{lab.port}/fal/")


async def test_the_next_address_of_a_name_is_tried(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an address that nobody listens on is not away."""

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in ("127.0.0.99", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    one = caller(f"http://lab.example:{lab.port}/fal")
    assert (await one.ask("POST", "fal-ai/flux/dev", body=PROMPT)).good
    await one.close()


async def test_a_key_is_never_sent_in_the_clear_over_the_internet(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base address without TLS is for the user's own host."""
    told(monkeypatch, "8.8.8.8")
    one = caller("http://api.example/v1")
    with pytest.raises(Failed, match="tell the key") as said:
        await one.ask("POST", "predictions", body={}, paying=True)
    await one.close()
    assert said.value.billed is False


async def test_the_key_stays_at_home(lab: Lab) -> None:
    """A picture at another origin is fetched without it, where the operator lets it be fetched at all."""
    one = caller(f"http://127.0.0.1:{lab.port}/fal", allow_private=True)
    job = (await one.ask("POST", "fal-ai/flux/dev", body=PROMPT)).text("request_id")
    body = await one.image(f"http://localhost:{lab.port}/fal/files/{job}.png", left_s=lambda: 5.0)
    at_home = await one.image(f"http://127.0.0.1:{lab.port}/fal/files/{job}.png", left_s=lambda: 5.0)
    await one.close()
    assert body == at_home
    away, home = await lab.seen("fal", "image")
    assert "authorization" not in away["headers"]
    assert home["headers"]["authorization"] == f"Key {KEYS['fal']}"


async def test_an_api_call_is_not_led_elsewhere(lab: Lab) -> None:
    """Not by an address in an answer; and a redirect is an answer, not a way."""
    one = caller(lab.url("fal"))
    with pytest.raises(Failed, match="not where the API is"):
        await one.ask("GET", f"http://localhost:{lab.port}/fal/fal-ai/flux/requests/1/status")
    await lab.inject("fal", "submit", "redirect")
    assert (await one.ask("POST", "fal-ai/flux/dev", body=PROMPT)).status == 302
    await one.close()
    assert (await lab.told())["trapped"] == 0


async def test_redirects_of_a_picture_are_followed_a_few_times(lab: Lab) -> None:
    """Each judged anew."""
    one = caller(lab.url("fal"))
    job = (await one.ask("POST", "fal-ai/flux/dev", body=PROMPT)).text("request_id")
    there = f"{lab.url('fal')}/files/{job}.png"
    await lab.inject("fal", "image", "redirect", times=3, to=there)
    assert (await one.image(there, left_s=lambda: 5.0)).startswith(b"\x89PNG")
    await lab.inject("fal", "image", "redirect", to=there)
    with pytest.raises(Failed, match="more than 3 times"):
        await one.image(there, left_s=lambda: 5.0)
    await one.close()


async def test_what_never_left_is_not_billed(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    """A name that nobody knows, on the call that pays; on another call it says nothing of what was paid before."""
    told(monkeypatch)
    one = caller("https://api.example")
    for paying, billed in ((True, False), (False, None)):
        with pytest.raises(Failed) as said:
            await one.ask("POST", "predictions", body={}, paying=paying)
        assert (said.value.outcome, said.value.billed) == ("transient", billed)
    await one.close()
