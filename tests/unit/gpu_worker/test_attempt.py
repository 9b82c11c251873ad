"""One paid call: a table decides what a service's words mean, and a deadline ends whatever goes on."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from giclee.gpu_worker import providers
from giclee.gpu_worker.attempt import Access, Attempt, Attempts, Failed, Ruling, Rulings, ruled
from giclee.gpu_worker.bill import bill_of
from giclee.gpu_worker.http import Reply
from giclee.gpu_worker.provider import Made, ModelUnusable
from giclee.gpu_worker.providers import bedrock, comfyui, fal, openai_images, replicate
from giclee.gpu_worker.received import Picture
from tests.contract.provider_suite import ask, not_made
from tests.kit.candidates import model

RULINGS: Rulings = {
    "out": Ruling("budget", billed=False),
    403: Ruling("auth"),
    400: Ruling("invalid"),
    500: Ruling("transient"),
}
ROW = model(price_usd="0.03")


@pytest.mark.parametrize(
    ("status", "codes", "outcome"),
    [
        (403, ["out"], "budget"),
        (403, [None, "unheard of"], "auth"),
        (418, [], "invalid"),
        (502, [], "transient"),
        (302, [], "transient"),
    ],
)
def test_a_code_decides_before_a_status_and_a_status_before_its_hundred(
    status: int, codes: list[str | None], outcome: str
) -> None:
    """Out of credit is told apart from a revoked key by the code alone."""
    assert ruled(RULINGS, status, codes, "said").outcome == outcome


@pytest.mark.parametrize("table", [fal, replicate, openai_images, bedrock, comfyui])
def test_every_table_has_an_answer_for_every_status(table: object) -> None:
    """No status of a service is a bug of ours, and none of those that nobody documents is free of charge as a server's
    error, but where the provider says so."""
    rulings = table.RULINGS  # type: ignore[attr-defined]
    found = {status: ruled(rulings, status, [], "") for status in range(300, 600)}
    assert found[401].outcome == found[403].outcome == "auth"
    assert (found[402].outcome, found[429].outcome) == ("budget", "rate")
    assert {found[status].outcome for status in (500, 502, 503)} == {"transient"}
    assert found[302].billed is None
    assert found[503].billed is (False if table is fal else None)


@pytest.mark.parametrize(
    ("text", "wait"), [("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("99999999", 86400.0), ("soon", None), ("nan", None)]
)
def test_retry_after_is_a_bounded_number_of_seconds(text: str, wait: float | None) -> None:
    """Nothing that a header says can hold a provider for longer than a day."""
    assert Reply(429, {"retry-after": text}, b"").retry_after_s == wait


def test_retry_after_may_be_a_date() -> None:
    """RFC 9110; one that has passed is no wait."""
    assert Reply(429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"").retry_after_s == 0.0


def test_what_a_reply_tells_is_looked_for_and_never_guessed() -> None:
    """Nothing at a path, or something else than a text, is None."""
    reply = Reply(200, {}, b"", {"images": [{"url": 5}], "detail": "no"})
    assert reply.told("images", 0, "url") == 5
    assert reply.text("images", 0, "url") is None
    assert reply.told("images", 1) is reply.told("detail", "msg") is reply.told("detail", 0) is None


async def test_a_deadline_is_a_time_out_and_what_may_be_owed_is_counted() -> None:
    """Before anything was sent nothing is owed; after, the price of the row."""

    async def silent(attempt: Attempt) -> Made:
        attempt.owed = attempt.ask.seed == 1
        await asyncio.Event().wait()
        raise AssertionError("only the deadline ends this")

    attempts = Attempts(Access(deadline_s=0.1))
    answers = [not_made(one) for one in await attempts.make(ROW, [ask(ROW, seed=0), ask(ROW, seed=1)], silent)]
    assert [(one.outcome, one.paid_usd) for one in answers] == [("timeout", Decimal(0)), ("timeout", Decimal("0.03"))]


@pytest.mark.parametrize(("told", "paid"), [(None, "0.03"), (Decimal("0.05"), "0.05")])
async def test_a_strict_ask_that_came_in_another_size_is_no_image_and_paid(told: Decimal | None, paid: str) -> None:
    """As its provider says, else by the row's price; where nobody asked for a size it is one."""
    picture = Picture(b"x", "image/png", 80, 64, "0" * 64)

    async def wide(attempt: Attempt) -> Made:
        attempt.pays()
        attempt.cost_usd = told
        return attempt.made(picture, how="it")

    strict, open_ = ask(ROW, strict=True), ask(ROW, strict=True, asked=frozenset({"prompt"}))
    found, fine = await Attempts(Access()).make(ROW, [strict, open_], wide)
    answer = not_made(found)
    assert (answer.outcome, answer.code) == ("invalid", "param_unsupported")
    assert bill_of(answer, ROW.price_usd).paid_usd == Decimal(paid)
    assert "size (64x64 asked, 80x64" in answer.message
    assert isinstance(fine, Made)


@pytest.mark.parametrize(("answer", "owed"), [(True, "0.03"), (False, "0"), (None, "0.03")])
async def test_giving_up_says_what_is_still_owed(answer: bool | None, owed: str) -> None:
    """A provider that took the job out of its queue is owed nothing; one that does not answer may be."""

    async def silent(attempt: Attempt) -> Made:
        await attempt.note("job-1")
        await asyncio.Event().wait()
        raise AssertionError("only the deadline ends this")

    async def give_up(attempt: Attempt) -> bool:
        if answer is None:
            raise Failed("transient", "away")
        return answer

    (found,) = await Attempts(Access(deadline_s=0.1)).make(ROW, [ask(ROW)], silent, give_up=give_up)
    assert not_made(found).paid_usd == Decimal(owed)
    assert not_made(found).job == "job-1"


async def test_a_file_that_vanished_is_an_answer_and_no_bug() -> None:
    """The chain goes on to another provider."""

    async def unusable(attempt: Attempt) -> Made:
        raise ModelUnusable("model x: sheet.json cannot be read")

    (found,) = await Attempts(Access()).make(ROW, [ask(ROW)], unusable)
    assert (not_made(found).outcome, not_made(found).paid_usd) == ("invalid", Decimal(0))


async def test_a_short_key_is_hidden_as_well() -> None:
    """Redaction passes over what is shorter than ten characters; what a provider was sent is known exactly."""

    async def refused(attempt: Attempt) -> Made:
        raise Failed("auth", "no such key: k3y!")

    access = Access(key="k3y!")
    (found,) = await Attempts(access).make(ROW, [ask(ROW)], refused)
    assert not_made(found).message == "no such key: ***"
    assert "k3y!" not in repr(access)


async def test_a_bug_is_a_bug() -> None:
    """Nothing broad is caught; the other asks end first."""
    ended = []

    async def one(attempt: Attempt) -> Made:
        if attempt.ask.seed:
            raise ZeroDivisionError
        await asyncio.sleep(0)
        ended.append(attempt)
        raise Failed("rate", "slow down")

    with pytest.raises(ZeroDivisionError):
        await Attempts(Access()).make(ROW, [ask(ROW, seed=1), ask(ROW, seed=0)], one)
    assert ended


def test_the_table_and_the_set_of_hosted_ones_agree() -> None:
    """What is hosted is in both, and built from a kit without a call."""
    assert providers.TABLE.keys() - {"diffusion", "stub"} == providers.HOSTED
    for name in providers.HOSTED:
        assert providers.TABLE[name](providers.Kit()).capabilities.data_terms
