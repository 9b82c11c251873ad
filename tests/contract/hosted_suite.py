"""What every hosted provider must do besides: typed outcomes of whatever goes wrong, one payment, no word of a key.

It runs against the provider lab (tests/lab), a process that speaks the provider's documented contract and keeps a bill.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, ClassVar

import pytest

from giclee.bus.errors import Transient
from giclee.gpu_worker import providers
from giclee.gpu_worker.provider import Ask, NotMade, Provider
from giclee.schemas.models import Model
from giclee.schemas.reproduction import Grade
from tests.contract.provider_suite import PROMPTS, ProviderSuite, ask, call, made, not_made
from tests.kit.lab import KEYS, Lab
from tests.kit.wait import until

SHORT_S = 1.2
"""A deadline that a test waits for."""
GRACE_S = 1.5
"""How much later than its deadline an answer may come on a busy machine."""
CAP_BYTES = 300_000

AT_ONCE: tuple[tuple[str, dict[str, Any], set[str], bool | None], ...] = (
    # fault, its parameters, the outcomes that it may be, whether it may have been billed
    ("rate", {}, {"rate"}, False),
    ("rate", {"retry_after": 7}, {"rate"}, False),
    ("error", {}, {"transient"}, None),
    ("unavailable", {}, {"transient"}, None),
    ("html", {}, {"transient", "unusable"}, True),
    ("empty", {}, {"transient", "unusable"}, True),
    ("wrong", {}, {"transient", "unusable"}, True),
    ("truncated", {}, {"transient"}, True),
    ("gone", {}, {"transient"}, True),
    ("redirect", {}, {"invalid", "transient", "unusable"}, None),
    ("revoked", {}, {"auth"}, False),
    ("echo", {}, {"auth"}, False),
)
OF_AN_IMAGE = (
    ("html", {"unusable"}),
    ("empty", {"unusable"}),
    ("wrong", {"unusable"}),
    ("redirect", {"unusable"}),
    ("truncated", {"transient"}),
    ("error", {"transient"}),
    ("endless", {"unusable"}),
)


class HostedSuite(ProviderSuite):
    """Subclasses say the `name` in the table of providers, and give the fixture `row`."""

    name: ClassVar[str]
    grade: ClassVar[Grade] = "none"
    tells_cost: ClassVar[bool] = False
    refusal: ClassVar[tuple[str, str, dict[str, Any], str]] = ("submit", "refused", {}, "refused-content")
    """The call that is refused, as what, and the outcome that is."""

    @pytest.fixture
    async def provider(self, lab: Lab) -> AsyncIterator[Provider]:
        """The adapter as a worker builds it, with the lab as its base address."""
        built = self.built(lab)
        yield built
        await built.close()

    def built(self, lab: Lab, **fields: object) -> Provider:
        return providers.TABLE[self.name](lab.kit(**fields))

    async def tried(self, built: Provider, row: Model, one: Ask) -> object:
        """The answer to one ask, its provider closed afterwards."""
        try:
            return (await built.make(row, [one], 1))[0]
        finally:
            await built.close()

    # ---- what goes wrong ------------------------------------------------------------------------

    @pytest.mark.parametrize(("fault", "params", "outcomes", "billed"), AT_ONCE)
    async def test_a_call_that_fails_is_an_outcome(
        self,
        lab: Lab,
        provider: Provider,
        row: Model,
        fault: str,
        params: dict[str, Any],
        outcomes: set[str],
        billed: bool | None,
    ) -> None:
        """By its class, with the wait the provider asks for; nothing is owed only where surely nothing was billed."""
        await lab.inject(self.name, "submit", fault, **params)
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert answer.outcome in outcomes
        assert answer.retry_after_s == params.get("retry_after")
        if billed is not None:
            assert answer.paid_usd == (row.price_usd if billed else 0)
        if await lab.bill(self.name):
            assert answer.paid_usd > 0, "billed, and said to be free"
        assert (await lab.told())["trapped"] == 0

    async def test_a_refusal_is_one_and_costs_what_it_costs(self, lab: Lab, provider: Provider, row: Model) -> None:
        """Content that the provider does not make is final; the chain goes on to another provider."""
        where, fault, params, outcome = self.refusal
        await lab.inject(self.name, where, fault, **params)
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert answer.outcome == outcome
        assert not answer.transient

    async def test_out_of_credit_is_a_matter_of_budget(self, lab: Lab, provider: Provider, row: Model) -> None:
        """Never of rate or auth, whatever the status: it ends when somebody pays."""
        await lab.inject(self.name, "submit", "no-credit")
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert (answer.outcome, answer.paid_usd) == ("budget", Decimal(0))

    @pytest.mark.parametrize("fault", ["hang", "late", "slow"])
    async def test_the_deadline_holds(self, lab: Lab, row: Model, fault: str) -> None:
        """For silence, for work that is done and never answered, and for a byte a second: all may have been billed."""
        await lab.inject(self.name, "submit", fault)
        began = time.monotonic()
        built = self.built(lab, deadline_s=SHORT_S)
        answer = not_made(await self.tried(built, row, ask(row, call=call())))
        assert time.monotonic() - began < SHORT_S + GRACE_S
        assert answer.outcome == "timeout"
        # who can be asked by an id of ours knows that silence was no work
        if await lab.bill(self.name) or not built.capabilities.idempotency_key:
            assert answer.paid_usd == row.price_usd

    async def test_nobody_there_costs_nothing(self, row: Model, lab: Lab) -> None:
        """A connection that cannot be made is the provider's outage and no payment."""
        nowhere = self.built(lab, base_urls={self.name: "http://127.0.0.1:9"})
        answer = not_made(await self.tried(nowhere, row, ask(row, call=call())))
        assert (answer.outcome, answer.paid_usd) == ("transient", Decimal(0))

    async def test_an_answer_has_a_bound_of_bytes(self, lab: Lab, row: Model) -> None:
        """Bytes without end are cut off soon after the bound, not at the deadline."""
        await lab.inject(self.name, "submit", "endless")
        built = self.built(lab, image_max_bytes=CAP_BYTES)
        answer = not_made(await self.tried(built, row, ask(row, call=call())))
        assert answer.outcome == "unusable"
        assert (await lab.told())["sent_bytes"] < 64 * 2**20

    # ---- what comes is no image -----------------------------------------------------------------

    @pytest.mark.parametrize("look", ["nothing", "blank"])
    async def test_success_is_never_empty(self, lab: Lab, provider: Provider, row: Model, look: str) -> None:
        """200 without an image, or with one flat colour, is unusable, and paid."""
        await lab.inject(self.name, "make", look)
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert (answer.outcome, answer.paid_usd) == ("unusable", row.price_usd)

    async def test_a_stock_frame_is_no_image(self, lab: Lab, provider: Provider, row: Model) -> None:
        """Nobody makes the same pixels for two prompts."""
        await lab.inject(self.name, "make", "stock")
        await provider.make(row, [ask(row, PROMPTS[0], call=call("a"))], 1)
        answer = not_made((await provider.make(row, [ask(row, PROMPTS[1], call=call("b"))], 1))[0])
        assert answer.outcome == "unusable"

    # ---- strict ---------------------------------------------------------------------------------

    async def test_a_strict_ask_is_refused_before_anything_is_called(
        self, lab: Lab, provider: Provider, row: Model
    ) -> None:
        """By the field that would be changed; nothing is sent, so nothing is billed or owed."""
        plain = row.model_copy(update={"takes_negative_prompt": False})
        wish = ask(
            plain, negative_prompt="red", asked=frozenset({"prompt", "negative_prompt"}), strict=True, call=call()
        )
        answer = not_made((await provider.make(plain, [wish], 1))[0])
        assert (answer.outcome, answer.code, answer.paid_usd) == ("invalid", "param_unsupported", Decimal(0))
        assert "negative_prompt" in answer.message
        assert await lab.seen(self.name, "submit") == []

    # ---- never paid twice -----------------------------------------------------------------------

    async def test_a_job_that_nobody_knows_is_made_again_and_said_so(self, lab: Lab, row: Model) -> None:
        """Only then; and the second payment is counted."""
        first = made(await self.tried(self.built(lab), row, ask(row, call=call())))
        await lab.forget(self.name)
        second = made(await self.tried(self.built(lab), row, ask(row, call=call(job=first.job or "lost"))))
        assert second.again
        assert len(await lab.bill(self.name)) == 2

    async def test_a_job_that_nobody_knows_is_not_paid_again_where_there_is_no_room(self, lab: Lab, row: Model) -> None:
        """The caller's own answer comes instead, and what the first may have cost is owed."""
        first = made(await self.tried(self.built(lab), row, ask(row, call=call())))
        await lab.forget(self.name)
        no_room = NotMade(outcome="budget", message="over the limit", code="limit")
        lost = call(job=first.job or "lost", why_not_again=no_room)
        answer = not_made(await self.tried(self.built(lab), row, ask(row, call=lost)))
        assert (answer.code, answer.paid_usd) == ("limit", row.price_usd)
        assert len(await lab.bill(self.name)) == 1

    async def test_a_key_is_billed_once_where_the_provider_says_so(self, lab: Lab, row: Model) -> None:
        """Two tries with one key, the second not knowing of the first."""
        answers = [await self.tried(self.built(lab), row, ask(row, call=call("one"))) for _ in range(2)]
        assert all(made(answer) for answer in answers)
        once = self.built(lab).capabilities.idempotency_key
        assert len(await lab.bill(self.name)) == (1 if once else 2)

    async def test_the_cost_that_is_told_is_the_bill(self, lab: Lab, provider: Provider, row: Model) -> None:
        """To the last digit, also after the price has changed; who does not tell says nothing."""
        first = made((await provider.make(row, [ask(row, PROMPTS[0], call=call("a"))], 1))[0])
        await lab.price(self.name, "1.5")
        second = made((await provider.make(row, [ask(row, PROMPTS[1], call=call("b"))], 1))[0])
        if not self.tells_cost:
            assert first.cost_usd is second.cost_usd is None
            return
        assert first.cost_usd is not None and second.cost_usd is not None and second.cost_usd > first.cost_usd
        assert first.cost_usd + second.cost_usd == await lab.charged(self.name)

    async def test_what_came_to_no_image_costs_what_is_told(self, lab: Lab, provider: Provider, row: Model) -> None:
        """A flat colour is billed as any picture is; who does not say for how much is taken at its price."""
        await lab.price(self.name, "1.5")
        await lab.inject(self.name, "make", "blank")
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert (answer.outcome, answer.paid_usd) == ("unusable", row.price_usd)
        assert answer.cost_usd == (await lab.charged(self.name) if self.tells_cost else None)

    # ---- what is told ---------------------------------------------------------------------------

    @pytest.mark.parametrize("fault", ["echo", "error", "html", "revoked", "redirect"])
    async def test_keys_are_told_to_nobody(
        self, lab: Lab, provider: Provider, row: Model, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in messages, reprs or logs of any library, even where the service repeats them."""
        caplog.set_level(logging.DEBUG)
        await lab.inject(self.name, "submit", fault)
        answer = not_made((await provider.make(row, [ask(row, call=call())], 1))[0])
        told = [answer.message, repr(provider), repr(vars(provider)), repr(lab.kit()), caplog.text]
        for secret in KEYS[self.name].split(":")[-1:]:
            assert not [text for text in told if secret in text]

    async def test_a_missing_key_is_said_before_anything_is_called(self, lab: Lab, row: Model) -> None:
        """By name when the worker starts; a call without it is no payment."""
        built = self.built(lab, keys={})
        with pytest.raises(Exception, match=f"{row.name}.*{self.name} has no key"):
            await built.describe(row)
        answer = not_made(await self.tried(built, row, ask(row, call=call())))
        assert (answer.outcome, answer.paid_usd) == ("auth", Decimal(0))
        assert await lab.seen(self.name, "submit") == []

    async def test_many_at_once_are_as_many_calls(self, lab: Lab, provider: Provider, row: Model) -> None:
        """Each with its own answer, whatever becomes of the others."""
        await lab.inject(self.name, "submit", "error", times=1)
        asks = [ask(row, prompt, seed=seed, call=call(f"c{seed}")) for seed, prompt in enumerate(PROMPTS)]
        answers = await provider.make(row, asks, 4)
        assert sorted(type(answer).__name__ for answer in answers) == ["Made", "Made", "NotMade"]
        assert len(await lab.seen(self.name, "submit")) == 3


class JobSuite(HostedSuite):
    """For those whose jobs have an id and whose pictures an address."""

    @pytest.mark.parametrize(("fault", "outcomes"), OF_AN_IMAGE)
    async def test_a_picture_that_is_none_is_paid_and_unusable(
        self, lab: Lab, row: Model, fault: str, outcomes: set[str]
    ) -> None:
        """Whatever lies at the address it names; a private address is not even asked."""
        await lab.inject(self.name, "image", fault)
        built = self.built(lab, image_max_bytes=CAP_BYTES)
        answer = not_made(await self.tried(built, row, ask(row, call=call())))
        assert answer.outcome in outcomes
        assert answer.paid_usd == row.price_usd
        assert (await lab.told())["trapped"] == 0

    async def test_a_picture_is_asked_for_again(self, lab: Lab, provider: Provider, row: Model) -> None:
        """It is paid for; one bad moment of the place where it lies must not cost it."""
        await lab.inject(self.name, "image", "unavailable", times=1)
        await lab.inject(self.name, "image", "truncated", times=1)
        made((await provider.make(row, [ask(row, call=call())], 1))[0])
        assert len(await lab.bill(self.name)) == 1

    async def test_after_a_crash_the_paid_image_is_taken(self, lab: Lab, row: Model) -> None:
        """A worker dies the moment it noted the job; the next one, with that id, takes the result. One is billed."""
        noted: list[str] = []

        async def note(job: str) -> None:
            noted.append(job)
            await asyncio.Event().wait()

        dying = asyncio.ensure_future(self.tried(self.built(lab), row, ask(row, call=call(note=note))))
        await until(lambda: noted)
        dying.cancel()
        await asyncio.wait([dying])
        if not await lab.bill(self.name):  # the id is ours, and noted before anything is queued
            assert self.built(lab).capabilities.idempotency_key
            made(await self.tried(self.built(lab), row, ask(row, call=call())))
        answer = made(await self.tried(self.built(lab), row, ask(row, call=call(job=noted[0]))))
        assert (answer.again, answer.job) == (False, noted[0])
        assert [line["job"] for line in await lab.bill(self.name)] == [noted[0]]

    async def test_a_job_that_cannot_be_asked_for_now_is_not_made_again(self, lab: Lab, row: Model) -> None:
        """An outage is no answer: the earlier job may be done."""
        first = made(await self.tried(self.built(lab), row, ask(row, call=call())))
        await lab.inject(self.name, "status", "unavailable")
        late = ask(row, call=call(job=first.job))
        answer = not_made(await self.tried(self.built(lab, deadline_s=SHORT_S), row, late))
        assert (answer.outcome, answer.job, answer.again) == ("timeout", first.job, False)
        assert len(await lab.bill(self.name)) == 1

    async def test_trouble_with_asking_is_sat_out(self, lab: Lab, provider: Provider, row: Model) -> None:
        """A job that runs is paid: errors, silence that ends and rates while it is polled are waited through."""
        await lab.inject(self.name, "make", "slow-queue", times=1, asks=2)

        async def note(_: str) -> None:
            for fault in ("error", "unavailable", "rate", "truncated", "html"):
                await lab.inject(self.name, "status", fault, times=1)

        made((await provider.make(row, [ask(row, call=call(note=note))], 1))[0])
        assert len(await lab.bill(self.name)) == 1

    async def test_success_after_the_caller_gave_up_is_found_later(self, lab: Lab, row: Model) -> None:
        """A runner that goes on after the deadline is billed; a later try takes what it made, and pays nothing."""
        await lab.inject(self.name, "make", "running", times=1)
        late = not_made(await self.tried(self.built(lab, deadline_s=SHORT_S), row, ask(row, call=call())))
        assert (late.outcome, late.paid_usd) == ("timeout", row.price_usd)
        assert late.job is not None
        await lab.release(self.name)
        found = made(await self.tried(self.built(lab), row, ask(row, call=call(job=late.job))))
        assert (found.job, found.again) == (late.job, False)
        assert len(await lab.bill(self.name)) == 1

    async def test_a_queue_that_stands_still_is_left(self, lab: Lab, row: Model) -> None:
        """What never began is taken out of the queue, so nobody pays for it; where the provider says so, nothing is
        owed."""
        await lab.inject(self.name, "make", "waiting", times=1)
        late = not_made(await self.tried(self.built(lab, deadline_s=SHORT_S), row, ask(row, call=call())))
        await lab.release(self.name)
        assert (late.outcome, late.paid_usd) == ("timeout", Decimal(0))
        assert await lab.bill(self.name) == []

    async def test_a_job_that_could_not_be_noted_is_found_by_the_next_try(self, lab: Lab, row: Model) -> None:
        """The database was away when the id became known: that goes through, and the same process pays once."""
        built = self.built(lab)

        async def away(_: str) -> None:
            raise Transient("the database is away")

        with pytest.raises(Transient):
            await built.make(row, [ask(row, call=call(note=away))], 1)
        noted: list[str] = []

        async def note(job: str) -> None:
            noted.append(job)

        made(await self.tried(built, row, ask(row, call=call(note=note))))
        assert noted
        assert len(await lab.bill(self.name)) == 1
