"""Every index of a wave gets exactly one answer, the same however often and wherever the wave comes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from giclee.router.choose import Known
from giclee.router.handle import Router
from giclee.router.routes import Catalogue
from giclee.router.waves import Asked, Wave, answers, seed_of
from giclee.schemas import topics
from giclee.schemas.events import CandidatesRequested, GenerationFailed, ImageRouted
from giclee.schemas.parts import Reason, candidate_id
from giclee.schemas.tenant_terms import Demand, Demands
from tests.unit.router.builders import AT_S, DEMO, DRAFT, FINAL, ID, SDXL, cleared, failing, wave


class Memory:
    """Choices in a dict; the first of a wave stays."""

    def __init__(self) -> None:
        self.rows: dict[Any, Wave] = {}

    async def first(self, asked: Asked) -> Wave:
        return self.rows.setdefault(asked.key, asked.wave)


def router(catalogue: Catalogue = DEMO, memory: Memory | None = None, known: Known | None = None) -> Router:
    return Router(catalogue, memory or Memory(), known, lambda: AT_S)


async def test_wave_zero_is_routed_index_by_index() -> None:
    """One ImageRouted per index, with derived id and seed, the request and what callers want to see again."""
    events = await router().handle(cleared(3))
    assert [event.index for event in events] == [0, 1, 2]
    for event in events:
        assert isinstance(event, ImageRouted)
        assert event.candidate_id == candidate_id("default", ID, event.index)
        assert (event.wave, event.hop, event.spent_usd, event.limit_usd) == (0, 0, Decimal(0), Decimal("0.001"))
        assert (event.labels, event.client_ref) == ({"team": "shoes"}, "order 7")
        assert topics.topic_for(event) == "image.routed.local.v1"
        assert ImageRouted.model_validate_json(event.model_dump_json()) == event
    assert len({event.seed for event in events if isinstance(event, ImageRouted)}) == 3


async def test_indices_are_contiguous_over_waves() -> None:
    """A later wave goes on where it says, under its own limit."""
    events = await router().handle(wave(1, 3, 2, limit_usd="0.0007"))
    assert [(event.index, event.wave, event.limit_usd) for event in events if isinstance(event, ImageRouted)] == [
        (3, 1, Decimal("0.0007")),
        (4, 1, Decimal("0.0007")),
    ]


async def test_a_repeated_wave_is_answered_with_the_same_events() -> None:
    """Also as CandidatesRequested for wave 0, also by a replica with other tables and other health."""
    memory = Memory()
    first = await router(memory=memory).handle(cleared(2, quality="draft"))
    elsewhere = router(Catalogue((FINAL, SDXL), "other"), memory, failing(FINAL, SDXL))
    again = await elsewhere.handle(cleared(2, quality="draft"))
    assert [event.model_dump_json() for event in again] == [event.model_dump_json() for event in first]
    repeated = await elsewhere.handle(wave(0, 0, 2, quality="draft"))
    assert [event.event_id() for event in repeated] == [event.event_id() for event in first]
    assert [event.chain for event in repeated if isinstance(event, ImageRouted)] == [
        event.chain for event in first if isinstance(event, ImageRouted)
    ]


async def test_a_wave_that_overtakes_its_clearance_is_answered_alike() -> None:
    """Order of clearance and repeat does not matter."""
    late, early = Memory(), Memory()
    one = await router(memory=late).handle(cleared(2))
    await router(memory=early).handle(wave(0, 0, 2))
    other = await router(memory=early).handle(cleared(2))
    assert [event.model_dump_json() for event in one] == [event.model_dump_json() for event in other]


async def test_no_route_fails_every_index_with_reasons() -> None:
    """GenerationFailed per index, nothing spent, each loser named; a stored failure stays one."""
    memory = Memory()
    events = await router(memory=memory).handle(cleared(2, size={"width": 512, "height": 512}))
    assert [(type(event), event.index) for event in events] == [(GenerationFailed, 0), (GenerationFailed, 1)]
    failed = events[0]
    assert isinstance(failed, GenerationFailed)
    assert (failed.spent_usd, failed.hop) == (Decimal(0), 0)
    assert {reason.code for reason in failed.reasons} == {"no_route", "size_unsupported"}
    assert "shapes-draft" in failed.reasons[0].message and "shapes-final" in failed.reasons[0].message
    mended = router(Catalogue((DRAFT, FINAL, SDXL), "with sdxl"), memory)
    again = await mended.handle(cleared(2, size={"width": 512, "height": 512}))
    assert [event.model_dump_json() for event in again] == [event.model_dump_json() for event in events]


async def test_a_switch_fails_a_wave_that_has_no_choice_yet() -> None:
    """Every index with the switch's reason, for good; a wave with a choice is answered as before."""
    reason = Reason(code="switch_refused", stage="router", message="all: because")
    memory = Memory()
    events = await router(memory=memory).refuse(cleared(2), reason)
    assert [(type(event), event.index, event.reasons) for event in events] == [
        (GenerationFailed, index, (reason,)) for index in (0, 1)
    ]
    assert await router(memory=memory).handle(cleared(2)) == events
    routed = await router(memory=memory).handle(wave(1, 2, 1))
    assert await router(memory=memory).refuse(wave(1, 2, 1), reason) == routed


async def test_what_a_tenant_demands_counts_for_its_own_requests_alone() -> None:
    """First waves and later ones; the reason says what is not known of a model."""
    eu = {"acme": Demand(regions=frozenset({"eu"}))}
    at = router(known=Known(demands=Demands(eu)))
    assert all(isinstance(event, ImageRouted) for event in await at.handle(cleared(1)))
    for asked in (cleared(1, tenant="acme"), wave(1, 1, 1).model_copy(update={"tenant": "acme"})):
        (failed,) = await at.handle(asked)
        assert isinstance(failed, GenerationFailed)
        assert "unknown region" in failed.reasons[0].message


async def test_a_limit_below_every_price_is_said() -> None:
    """A budget of less than one image ends as failed with the reason `limit`."""
    (event,) = await router().handle(cleared(limit_usd="0.0002"))
    assert isinstance(event, GenerationFailed) and event.reasons[0].code == "limit"


async def test_tenants_with_the_same_id_are_two_requests() -> None:
    """Candidates of one tenant are never those of another."""
    memory = Memory()
    (mine,) = await router(memory=memory).handle(cleared())
    (other,) = await router(memory=memory).handle(cleared(tenant="other"))
    assert mine.candidate_id != other.candidate_id and len(memory.rows) == 2


@given(first=some.integers(0, 300), count=some.integers(1, 100), number=some.integers(0, 50))
def test_answers_cover_every_index_once(first: int, count: int, number: int) -> None:
    """Whatever the wave: as many events as indices, ids all different, seeds within 32 bits."""
    event: CandidatesRequested = wave(number, first, count)
    from giclee.router.choose import choose

    stored = Wave(
        first_index=first, count=count, limit_usd=event.limit_usd,
        choice=choose(event.request, event.limit_usd, DEMO.offers),
    )  # fmt: skip
    made = answers(event, stored)
    assert [one.index for one in made] == list(event.indices())
    assert len({one.candidate_id for one in made}) == len({one.event_id() for one in made}) == count
    assert all(0 <= one.seed < 2**32 for one in made if isinstance(one, ImageRouted))


def test_a_seed_follows_from_request_and_index() -> None:
    """The same in every wave, different for every index and every request seed."""
    assert seed_of(cleared(), 4) == seed_of(wave(2, 4, 1), 4)
    assert seed_of(cleared(), 4) != seed_of(cleared(), 5)
    assert seed_of(cleared(seed=8), 4) != seed_of(cleared(seed=7), 4)
