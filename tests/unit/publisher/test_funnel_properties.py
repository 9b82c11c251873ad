"""What holds for every order, whatever happens to it: random histories against the pure funnel."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giclee.publisher.order import Order
from giclee.schemas.events import Event
from giclee.schemas.parts import ReviewTerms
from tests.unit.publisher.builders import START, Book, Request

HISTORY_S = 72 * 3600


class History:
    """A request and a world around it that answers waves, loses, repeats and delays events, by a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        wanted = dice.choice([1, 1, 2, 3, 7])
        cap = dice.choice([max(8, 4 * wanted), wanted + 1, wanted, 2])
        budget = dice.choice([None, None, "0.01", "0.025", "0.06"])
        first = min(cap, dice.choice([wanted, wanted, 2, 4]))
        if budget:
            first = max(1, min(first, int(Decimal(budget) // Decimal("0.01"))))
        self.request = Request(
            wanted=wanted,
            max_candidates=cap,
            budget_usd=budget,
            first_wave=first,
            selection=dice.choice(["best", "first"]),
            review=ReviewTerms(
                rule=dice.choice(["doubts", "doubts", "all", "never"]),
                share=dice.choice([0.0, 0.3]),
                share_blocks=dice.random() < 0.3,
            ),
            limit_usd="0.01",
            priority=dice.choice(["interactive", "standard"]),
            closes_by=START + timedelta(seconds=HISTORY_S),
        )
        self.book = Book(self.request)
        self.pass_share = dice.choice([0.2, 0.5, 0.9])
        self.lossy = dice.random() < 0.4
        self.asked: set[int] = set()
        self.sent: list[Event] = []
        self.waiting: list[Event] = [self.request.cleared()]
        if dice.random() < 0.15:
            self.waiting.append(self.request.cancel(dice.choice(["user", "discarded", "expired"])))
        self._answer(range(self.request.first_wave))

    def _answer(self, indices: range) -> None:
        """What the line makes of candidates that were asked for; a repeat asks those again that were lost."""
        for index in indices:
            if index in self.asked:
                continue
            if self.request.cleared_request.priority == "interactive" and self.dice.random() < 0.8:
                self.waiting.append(self.request.routed(index, hedge_after_s=self.dice.choice([2.0, 40.0, None])))
            if self.lossy and self.dice.random() < 0.3:
                continue
            self.asked.add(index)
            fate = self.dice.random()
            if fate < 0.1:
                self.waiting.append(self.request.failed(index, spent_usd=self.dice.choice(["0", "0.004", "0.01"])))
                continue
            spent = self.dice.choice(["0.004", "0.01"])
            made = self.request.generated(index, spent_usd=spent)
            passes = self.dice.random() < self.pass_share
            value = round(self.dice.random(), 2)
            scored = self.request.scored(index, value, passes=passes)
            doubted = self.request.doubted(index, value)
            self.waiting += [made, doubted if self.dice.random() < 0.2 else scored]
            if fate < 0.2:
                self.waiting.append(self.request.stalled(index, offset=index, paid_usd="0.003"))
            elif fate < 0.25:
                self.waiting.append(self.request.failed(index, code="discarded", spent_usd=spent))

    def step(self) -> None:
        """Deliver something, perhaps again, or let time pass; then decide."""
        book, dice = self.book, self.dice
        if self.waiting and dice.random() < 0.8:
            event = self.waiting.pop(dice.randrange(len(self.waiting)))
            self.sent.append(event)
            book.tell(event)
        elif self.sent and dice.random() < 0.5:
            book.tell(dice.choice(self.sent))
        else:
            book.later(dice.choice([1, 30, 310, 4000]))
        if dice.random() < 0.7:
            book.seal()
        for index, _ in book.put_to_people:
            if dice.random() < 0.2:
                book.look(index, passes=dice.random() < 0.5)
        waves = len(book.waves)
        decision = book.decide()
        for _, first, count in book.waves[waves:]:
            self._answer(range(first, first + count))
        for number in decision.repeat:
            self._answer(next(wave.indices() for wave in book.order.waves if wave.number == number))
        self.check()

    def check(self) -> None:
        book, asked = self.book, self.request.cleared_request
        order = book.order
        assert book.endings <= 1
        assert len(book.approved) == len(set(book.approved)) <= asked.wanted
        assert all(index in order.seals for index in book.approved)
        named = [index for index, _ in book.put_to_people]
        assert len(named) == len(set(named))
        assert all(self._was_let_through(index) for index in book.approved)
        images = sum(outcome.image is not None for outcome in order.outcomes.values())
        assert images <= asked.max_candidates
        assert _reserved(order) <= (asked.budget_usd or Decimal("1e9"))
        indices = [index for wave in order.waves for index in wave.indices()]
        assert indices == list(range(len(indices)))

    def _was_let_through(self, index: int) -> bool:
        """By a person who looked before the approval, else by the gate where nobody else had to look."""
        order = self.book.order
        looked, score = order.looked_at(index), order.score_of(index)
        if looked is not None and (index, "sample") not in self.book.put_to_people:
            return looked.passes
        return score is not None and score.passes and not order.needs_person(index)

    def run(self) -> None:
        for _ in range(self.dice.choice([20, 80])):
            self.step()
        for event in self.waiting:
            self.book.tell(event)
        for _ in range(4):
            self.book.later(HISTORY_S).seal().decide()
            self.check()


def _reserved(order: Order) -> Decimal:
    spent = order.spent
    return sum(
        (
            spent.get(index, Decimal(0)) if index in order.outcomes else wave.limit_usd
            for index, wave in order.candidates().items()
        ),
        Decimal(0),
    )


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_an_order_keeps_its_bounds_and_ends_once(seed: int) -> None:
    """Never over wanted, over cap or over budget; nothing unsealed approved; contiguous indices; exactly one end."""
    history = History(seed)
    history.run()
    book = history.book

    assert book.endings == 1
    wanted = history.request.cleared_request.wanted
    assert (book.ending == "approved") == (len(book.approved) == wanted) or book.ending == "cancelled"
    if book.ending not in ("cancelled", "approved"):
        assert len(book.approved) == min(wanted, len(book.order.sealed()))
        assert (book.ending == "partial") == bool(book.approved)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_silence_alone_never_ends_an_order(seed: int) -> None:
    """While a candidate is only silent and time is left, an order ends by enough passers or a cancel alone."""
    history = History(seed)
    for _ in range(60):
        before, was_open = history.book.order, history.book.ending is None
        history.step()
        book = history.book
        silent = any(i not in before.outcomes and i not in book.order.outcomes for i in book.order.candidates())
        if was_open and silent and book.now < history.request.closes_by:
            assert book.ending in (None, "approved", "cancelled")


def _closing(request: Request, events: tuple[Event, ...]) -> tuple[object, ...]:
    book = Book(request)
    for event in events:
        book.tell(event).seal().decide()
        book.tell(event).seal().decide()
    return book.ending, sorted(book.approved), sorted(book.order.spent.items()), book.waves


CASES = {
    "two of three pass": lambda r: [r.cleared(), r.generated(0), r.scored(0, 0.8), r.generated(1), r.scored(1, 0.9)],
    "one fails, one is rejected": lambda r: [
        r.cleared(),
        r.failed(0, spent_usd="0.002"),
        r.generated(1),
        r.scored(1, passes=False),
    ],
    "refused after all": lambda r: [r.refused(), r.cancel("expired", complete=False), r.stalled(0)],
    "two hops": lambda r: [r.cleared(), r.generated(0, hop=1), r.scored(0, hop=1), r.failed(1, code="no_route", hop=2)],
    "stalled and enough": lambda r: [r.cleared(), r.generated(0), r.scored(0), r.stalled(1)],
}


@pytest.mark.parametrize("case", CASES)
def test_every_order_of_facts_gives_the_same_end(case: str) -> None:
    """Whatever order events come in, and each of them twice: the same approvals, cost and outcome."""
    request = Request(wanted=1, first_wave=2, max_candidates=2, budget_usd="0.02", limit_usd="0.01")
    events = CASES[case](request)

    endings = {str(_closing(request, order)) for order in permutations(events)}
    assert len(endings) == 1


@pytest.mark.parametrize("missing", range(5))
def test_an_event_that_never_comes_ends_by_the_clock(missing: int) -> None:
    """Each event of a history may be lost for ever: the order still ends, with what there is."""
    request = Request(wanted=1, first_wave=2, max_candidates=2, closes_by=START + timedelta(hours=1))
    events = CASES["two of three pass"](request)
    lost = events.pop(missing)
    ends = set()
    for order in permutations(events):
        book = Book(request)
        for event in order:
            book.tell(event).seal().decide()
        book.later(7200).seal().decide()
        if missing == 0:
            book.tell(request.cancel("expired", complete=True)).decide()
        ends.add((book.ending, tuple(book.approved)))

    expected = {0: ("expired", ()), 1: ("approved", (1,)), 2: ("approved", (1,)), 3: ("approved", (0,))}
    assert ends == {expected.get(missing, ("approved", (0,)))}, lost
