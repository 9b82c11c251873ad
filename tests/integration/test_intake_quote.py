"""The dry run: policy's verdict and the router's quote over real HTTP, or an honest 503; nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from giclee.bus import probes
from giclee.bus.errors import Transient
from giclee.bus.settings import ProcessSettings
from giclee.intake.quote import Quoter
from giclee.policy.dry_run import DryRun
from giclee.policy.verdict import Judge
from giclee.router.quote import Quote
from tests.kit.wait import until
from tests.unit.intake.desk import Answer, opened
from tests.unit.router.builders import DEMO

Endpoint = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
GOOD = {"prompt": "a small red circle on a blue background", "wanted": 2}

verdict = DryRun(Judge([offer.model for offer in DEMO.offers]), 72).verdict
quote = Quote(DEMO.offers, dict).quote


@asynccontextmanager
async def asked(policy: Endpoint, router: Endpoint, deadline_s: float = 5.0) -> AsyncIterator[Quoter]:
    """A quoter and the health ports of policy and router."""
    settings = ProcessSettings(health_port=0, bind_host="127.0.0.1", log_level="info")
    internal = {"/internal/verdict": policy, "/internal/quote": router}
    async with probes.serving(settings, checks={}, alive={}, internal=internal) as port:
        url = f"http://127.0.0.1:{port}"
        yield Quoter(url, url, deadline_s)


async def dry_run(database: str, quoter: Quoter, body: dict[str, Any]) -> Answer:
    """POST with dry_run, which stores and sends nothing."""
    async with opened(database, quoter) as desk:
        answer = await desk.http.post("/v1/requests?dry_run=true", json=body)
        assert await desk.sent() == []
        assert await desk.listed() == []
    return answer


async def test_a_dry_run_says_verdict_cost_and_time(database: str) -> None:
    """With the real endpoints of policy and router."""
    async with asked(verdict, quote) as quoter:
        answer = await dry_run(database, quoter, GOOD)
    body = answer.json()

    assert (answer.status_code, body["verdict"], body["routable"], body["reasons"]) == (200, "cleared", True, [])
    assert body["policy_version"]
    expected = body["expected"]
    assert float(expected["cost_per_approved_usd"]) > 0
    assert expected["seconds_per_approved"] > 0
    assert expected["chain"][0]["model"] == "shapes-final"


async def test_a_dry_run_says_why_a_request_would_be_refused(database: str) -> None:
    """Policy's refusal, and what no provider can make, are answers, not errors."""
    async with asked(verdict, quote) as quoter:
        refused = (await dry_run(database, quoter, GOOD | {"asset_type": "no-such-type"})).json()
        unroutable = (await dry_run(database, quoter, GOOD | {"size": {"width": 4096, "height": 4096}})).json()

    assert (refused["verdict"], refused["routable"], refused["expected"]) == ("refused", None, None)
    assert refused["reasons"][0]["code"] == "asset_type_unknown"
    assert (unroutable["verdict"], unroutable["routable"], unroutable["expected"]) == ("cleared", False, None)
    assert unroutable["reasons"]


async def test_a_dry_run_keeps_a_strict_request_to_its_word(database: str) -> None:
    """Where only a final model is offered a draft is quoted with it, and a strict draft has no route, by that field."""
    final = [offer for offer in DEMO.offers if "final" in offer.model.qualities]
    async with asked(verdict, Quote(final, dict).quote) as quoter:
        lax = (await dry_run(database, quoter, GOOD | {"quality": "draft"})).json()
        strict = (await dry_run(database, quoter, GOOD | {"quality": "draft", "strict": True})).json()

    assert (lax["routable"], strict["verdict"], strict["routable"]) == (True, "cleared", False)
    assert ("param_unsupported", True) in {(one["code"], "quality" in one["message"]) for one in strict["reasons"]}


async def test_a_bad_body_is_refused_before_anybody_is_asked(database: str) -> None:
    """The strict door stands before the dry run too."""
    answer = await dry_run(database, Quoter(None, None, 1), GOOD | {"wanted": 0})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/wanted")


async def _away(body: dict[str, Any]) -> dict[str, Any]:
    raise Transient("away")


async def _hanging(body: dict[str, Any]) -> dict[str, Any]:
    await until(lambda: False, within_s=9)
    return {}


async def _senseless(body: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": "cleared"}


@pytest.mark.parametrize(
    ("policy", "router"),
    [(_away, quote), (verdict, _away), (_hanging, quote), (verdict, _hanging), (_senseless, quote)],
)
async def test_who_is_away_slow_or_senseless_makes_it_503(database: str, policy: Endpoint, router: Endpoint) -> None:
    """An estimate is never guessed."""
    async with asked(policy, router, deadline_s=0.5) as quoter:
        answer = await dry_run(database, quoter, GOOD)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9"])
async def test_nobody_to_ask_is_503(database: str, url: str | None) -> None:
    """Without addresses, or with nobody there, dry runs are unavailable; everything else works."""
    answer = await dry_run(database, Quoter(url, url, 2), GOOD)

    assert answer.status_code == 503
