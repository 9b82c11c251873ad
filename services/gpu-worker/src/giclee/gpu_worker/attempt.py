"""One paid call: how far it came, and what is said of it when it ends early. Hosted providers share it.

A provider's file says what a service's words mean (its table of rulings) and how to make, find and give up a job; the
deadline, the job that is noted the moment it is known, and what may be owed are kept here, once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeAlias

from giclee.bus.redaction import hidden, redact
from giclee.gpu_worker import adjusting
from giclee.gpu_worker.provider import TRANSIENT, Answer, Ask, Made, ModelUnusable, NotMade
from giclee.gpu_worker.received import IMAGE_MAX_BYTES, Album, Picture, Unusable
from giclee.schemas.models import Model
from giclee.schemas.parts import Adjustment, OutcomeClass
from giclee.schemas.reproduction import Reproduction

POLL_FIRST_S, POLL_MAX_S, POLL_GROWTH = 0.25, 2.0, 1.5
GIVE_UP_MAX_S = 3.0
"""Of the deadline, kept for telling the provider that nobody waits any more."""
UNNOTED_MAX = 1000
HIDDEN = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How one provider is reached. `base_url` None: where its documentation says. `deadline_s` is for one ask as a
    whole; `allow_private`: pictures and redirects may lie in our own network; `stock` as an Album takes it."""

    key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    deadline_s: float = 120.0
    allow_private: bool = False
    image_max_bytes: int = IMAGE_MAX_BYTES
    stock: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a service's error means. `billed`: whether it charges for it; None where its documentation does not say."""

    outcome: OutcomeClass
    billed: bool | None = None


Rulings: TypeAlias = Mapping[str | int, Ruling]
"""By documented error code, then by HTTP status; 400 and 500 also stand for every other status of their hundred."""


BY_STATUS: Rulings = {
    401: Ruling("auth", billed=False),
    402: Ruling("budget", billed=False),
    403: Ruling("auth", billed=False),
    429: Ruling("rate", billed=False),
    400: Ruling("invalid", billed=False),
    500: Ruling("transient"),
}
"""What statuses mean wherever a service's documentation says nothing else; each table begins with it."""


class Failed(Exception):
    """A call that came to no image, as one of the outcome classes. `billed` None: what the attempt owes decides;
    `code` is the reason's where it is not the outcome's own."""

    def __init__(
        self,
        outcome: OutcomeClass,
        message: str,
        *,
        billed: bool | None = None,
        retry_after_s: float | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.outcome, self.billed, self.retry_after_s, self.code = outcome, billed, retry_after_s, code

    @property
    def passing(self) -> bool:
        """Whether asking again may help."""
        return self.outcome in {"rate", "transient", "timeout"}


class NotAgain(Exception):
    """Another job would be a second payment that limit or cap have no room for; `answer` says which."""

    def __init__(self, answer: NotMade) -> None:
        super().__init__(answer.message)
        self.answer = answer


def ruled(
    rulings: Rulings, status: int, codes: Sequence[str | None], message: str, *, retry_after_s: float | None = None
) -> Failed:
    """The failure that an answer of a service is: the first code that the table knows decides, else its status."""
    known = [rulings[code] for code in codes if code is not None and code in rulings]
    # a redirect is not followed, so nobody knows what became of the call
    general = rulings[500] if status >= 500 else rulings[400] if status >= 400 else Ruling("transient")
    ruling = known[0] if known else rulings.get(status, general)
    return Failed(ruling.outcome, f"{status}: {message}", billed=ruling.billed, retry_after_s=retry_after_s)


@dataclass(slots=True, eq=False)
class Attempt:
    """How far one ask has come. `owed`: whether something was or may have been billed, `cost_usd`: how much, where the
    provider says so; `earlier`: the job that an earlier try left behind; `again`: that job could not be found, so this
    one is paid a second time; `seed`: the one that is sent, None where none is."""

    model: Model
    ask: Ask
    left_by: float
    earlier: str | None
    album: Album = field(default_factory=Album)
    job: str | None = None
    owed: bool = False
    cost_usd: Decimal | None = None
    again: bool = False
    seed: int | None = None
    adjustments: list[Adjustment] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    unnoted: OrderedDict[str, str] = field(default_factory=OrderedDict)

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; never less than none."""
        return max(0.0, self.left_by - time.monotonic())

    async def note(self, job: str) -> None:
        """Store the job's id before anything else is done. Errors: those of the call's note."""
        self.job, self.owed = job, True
        call = self.ask.call
        if call is None:
            return
        self.unnoted[call.key] = job
        while len(self.unnoted) > UNNOTED_MAX:
            self.unnoted.popitem(last=False)
        await call.note(job)
        self.unnoted.pop(call.key, None)

    def lost(self, *, billed: bool) -> None:
        """The earlier job has no image to take: a new one is made, and said to be a second payment if it is one.

        Errors: NotAgain where that would be one, and must not be.
        """
        why_not = self.ask.call.why_not_again() if billed and self.ask.call is not None else None
        if why_not is not None:
            raise NotAgain(why_not)
        self.job, self.again, self.owed = None, self.again or billed, False

    def pays(self) -> None:
        """Said right before the call that pays: from here on something may be owed.

        Errors: Failed, and nothing is owed, where a strict ask would be made differently.
        """
        if self.ask.strict and self.adjustments:
            raise self._refused(billed=False)
        self.owed = True

    def adjust(self, name: str, asked: str, used: str, reason: str) -> None:
        """Tell that a field was used in another way than it was asked, where somebody asked for it."""
        if name in self.ask.asked:
            others = [one for one in self.adjustments if one.field != name]
            self.adjustments = [*others, Adjustment(field=name, asked=asked, used=used, reason=reason)]

    def _refused(self, *, billed: bool | None = None) -> Failed:
        message = adjusting.message_of(self.adjustments)
        return Failed("invalid", message, billed=billed, code=adjusting.CODE)

    async def received(self, body: bytes) -> Picture:
        """The picture that came for this ask. Errors: Failed where it is none."""
        try:
            return await self.album.added(body, self.ask.prompt)
        except Unusable as error:
            raise Failed("unusable", str(error)) from error

    def made(self, picture: Picture, *, how: str, pinned: bool = False) -> Made:
        """The image, and every difference from what was asked. `how`: by what it was made; `pinned`: its revision is.

        Errors: Failed, and paid, where a strict ask came in another size.
        """
        shape = self.ask.shape
        asked, used = f"{shape.width}x{shape.height}", f"{picture.width}x{picture.height}"
        if asked != used:
            self.adjust("size", asked, used, "the provider makes no other near it")
        if self.ask.strict and self.adjustments:
            raise self._refused()
        return Made(
            body=picture.body,
            content_type=picture.content_type,
            width=picture.width,
            height=picture.height,
            seconds=time.monotonic() - self.began,
            adjustments=tuple(self.adjustments),
            reproducibility="perceptual" if pinned and self.seed is not None else "none",
            reproduction=Reproduction(backend=how, seed=self.seed, note="the provider promises nothing"),
            cost_usd=self.cost_usd,
            job=self.job,
            again=self.again,
        )

    def not_made(self, error: Failed, message: str) -> NotMade:
        """Why there is no image, and what is owed all the same."""
        billed = self.owed if error.billed is None else error.billed
        return NotMade(
            outcome=error.outcome,
            message=message,
            code=error.code or ("provider_transient" if error.outcome in TRANSIENT else "provider_failed"),
            seconds=time.monotonic() - self.began,
            paid_usd=self.model.price_usd if billed else Decimal(0),
            cost_usd=self.cost_usd if billed else None,
            retry_after_s=error.retry_after_s,
            job=self.job,
            again=self.again,
        )


class Pace:
    """The waits between two questions about a job: short at first, then bounded, and never shorter than asked for."""

    def __init__(self) -> None:
        self._next_s = POLL_FIRST_S

    async def wait(self, at_least_s: float | None = None) -> None:
        await asyncio.sleep(max(self._next_s, at_least_s or 0.0))
        self._next_s = min(self._next_s * POLL_GROWTH, POLL_MAX_S)


One: TypeAlias = Callable[[Attempt], Awaitable[Made]]
"""Makes one image, or finds it. Errors: Failed."""
GiveUp: TypeAlias = Callable[[Attempt], Awaitable[bool]]
"""Tells the provider that nobody waits for the job; whether something may still be owed for it."""


class Attempts:
    """All attempts of one provider, and the pictures that came of them. Its key is never told, nor a part of it."""

    def __init__(self, access: Access) -> None:
        self._album = Album(access.stock, bytes_max=access.image_max_bytes)
        self._deadline_s = access.deadline_s
        self._give_up_s = min(GIVE_UP_MAX_S, access.deadline_s / 4)
        self._secrets = _secrets_of(access.key)
        for secret in self._secrets:
            hidden(secret)
        # jobs whose note failed: the next try in this process finds them, though the database does not know them
        self._unnoted: OrderedDict[str, str] = OrderedDict()

    async def make(self, model: Model, asks: Sequence[Ask], one: One, *, give_up: GiveUp | None = None) -> list[Answer]:
        """One call per ask, concurrently; answers in the order of the asks. Errors: those of a call's note, once
        every ask has ended."""
        tried = (self._tried(model, ask, one, give_up) for ask in asks)
        found = await asyncio.gather(*tried, return_exceptions=True)
        answers = []
        for answer in found:
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers

    async def _tried(self, model: Model, ask: Ask, one: One, give_up: GiveUp | None) -> Answer:
        attempt = self._begun(model, ask)
        limit = asyncio.timeout(attempt.left_s)
        try:
            async with limit:
                if ask.call is not None and ask.call.job is None and attempt.earlier is not None:
                    await attempt.note(attempt.earlier)  # what an earlier try could not
                return await one(attempt)
        except Failed as error:
            return attempt.not_made(error, self._told(str(error)))
        except NotAgain as why:  # the earlier job stays counted, and known: another day there may be room
            return replace(why.answer, job=attempt.job, paid_usd=attempt.model.price_usd)
        except ModelUnusable as error:
            return attempt.not_made(Failed("invalid", str(error)), self._told(str(error)))
        except TimeoutError:
            if not limit.expired():
                raise
        billed = await self._given_up(attempt, give_up)
        late = Failed("timeout", f"no image within {self._deadline_s:g} s", billed=billed)
        return attempt.not_made(late, self._told(str(late)))

    def _begun(self, model: Model, ask: Ask) -> Attempt:
        call = ask.call
        earlier = (call.job or self._unnoted.get(call.key)) if call is not None else None
        left_by = time.monotonic() + self._deadline_s - self._give_up_s
        # what an earlier job cost is owed until it is known to be nothing
        return Attempt(
            model,
            ask,
            left_by,
            earlier,
            self._album,
            job=earlier,
            owed=earlier is not None,
            unnoted=self._unnoted,
        )

    async def _given_up(self, attempt: Attempt, give_up: GiveUp | None) -> bool:
        """Whether something may be owed for an attempt whose time is over."""
        if give_up is None or attempt.job is None:
            return attempt.owed
        try:
            async with asyncio.timeout(self._give_up_s):
                return await give_up(attempt)
        except (Failed, TimeoutError):
            return True

    def _told(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, HIDDEN)
        return redact(message)


def _secrets_of(key: str | None) -> tuple[str, ...]:
    """A key, and its parts where it is ID:SECRET; the whole first, as that is looked for first."""
    return tuple(dict.fromkeys(part for part in (key, *key.split(":")) if part)) if key else ()
