"""The stage `intake.status` and intake's clock on a real Postgres: any order, one answer; every request ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from giclee.bus import telemetry
from giclee.bus.errors import Transient
from giclee.router import choose
from giclee.schemas.events import CancelRequested, ImageRouted, SwitchSet
from giclee.schemas.parts import ModelUsed, Reason
from tests.kit.wait import until
from tests.unit.intake.builders import START, TTL, Line
from tests.unit.intake.desk import Desk, opened
from tests.unit.router.builders import DRAFT, FINAL, SDXL, request


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    async with opened(database) as desk:
        yield desk


def without_ids(shown: dict[str, Any], line: Line) -> dict[str, Any]:
    """What is shown, comparable between two requests with the same story."""
    text = json.dumps(shown)
    for at in range(4):
        names = (line.candidate(at), line.asset(at), line.sha(at), line.sha(at, 1))
        for number, name in enumerate(names):
            text = text.replace(str(name), f"<{at}.{number}>")
    found: dict[str, Any] = json.loads(text.replace(str(line.id), "<id>"))
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_of_events_shows_one_answer(desk: Desk, seed: int) -> None:
    """Events of a request shuffled, repeated, alone or in batches: GET says the same as for the plain story."""
    chance = random.Random(seed)
    plain, mixed = Line(), Line()
    for event in plain.whole_story():
        await desk.tell(event)
    story = mixed.whole_story()
    told = story + chance.choices(story, k=6)
    chance.shuffle(told)
    while told:
        size = chance.choice([1, 1, 3, 8])
        batch, told = told[:size], told[size:]
        await desk.tell(*batch)

    expected, found = await desk.shown(plain.id), await desk.shown(mixed.id)
    assert without_ids(found, mixed) == without_ids(expected, plain)
    assert (found["state"], found["outcome"], found["progress"]["approved"]) == ("approved", "approved", 2)


async def test_a_request_shows_what_became_of_each_candidate(desk: Desk) -> None:
    """GET has candidates with scores and costs, assets, the timeline, and the final sum of the money."""
    line = Line()
    await desk.tell(*line.whole_story())
    shown = await desk.shown(line.id)

    assert [row["state"] for row in shown["candidates"]] == ["approved", "rejected", "failed", "approved"]
    assert shown["candidates"][0]["scores"]["alignment"]["value"] == 0.9
    assert shown["candidates"][1]["cost_usd"] == "0.002"
    assert (shown["cost_usd"], shown["cost_final"]) == ("0.0037", True)
    assert [(asset["asset_id"], asset["status"]) for asset in shown["assets"]] == [
        (str(line.asset(0)), "approved"),
        (str(line.asset(3)), "revoked"),
    ]
    steps = {step["event"] for step in shown["timeline"]}
    assert steps >= {"accepted", "published", "cleared", "routed", "generated", "scored", "approved", "closed"}


async def test_the_routers_decision_is_shown_once_a_wave_with_every_loser(desk: Desk) -> None:
    """As the router made it: the chain with its expected costs, who lost and why, the hop taken; one row a wave."""
    line = Line()
    known = choose.choose(request(quality="draft"), Decimal("0.001"), [DRAFT, FINAL, SDXL])
    told = {"chain": known.chain, "weighed": known.weighed, "losers": known.losers}
    first = [line.routed(index).model_copy(update=told) for index in range(3)]
    later = line.routed(3, wave=1).model_copy(update=told | {"losers": ()})
    rate = Reason(code="provider", stage="gpu-worker.local", message="rate: slow down", provider="diffusion")
    second = line.routed(1, hop=1).model_copy(update={"chain": known.chain, "reasons": (rate,)})
    await desk.tell(second, *first, *first, later, line.requested(), line.cleared())
    shown = await desk.shown(line.id)

    assert [(one["wave"], len(one["chain"]), len(one["losers"])) for one in shown["routes"]] == [(0, 2, 1), (1, 2, 0)]
    route = shown["routes"][0]
    assert [(one["model"], one["per_approved_usd"], one["why"]) for one in route["chain"]] == [
        (one.model, str(one.per_approved_usd), one.why) for one in known.weighed
    ]
    assert route["losers"] == [
        {"provider": "own-gpu", "code": "limit", "message": known.losers[0].message},
    ]  # fmt: skip
    hops = shown["candidates"][1]["hops"]
    assert [(hop["model"], (hop["reason"] or {}).get("message")) for hop in hops] == [
        ("shapes-draft", None), ("shapes-final", "rate: slow down"),
    ]  # fmt: skip
    assert await desk.pool.fetchval("SELECT count(*) FROM intake.routes") == 2


def counted(route: dict[str, str]) -> dict[str, float]:
    """What the metrics of a route stand at."""
    names = ("candidates_total", "fallbacks_total", "judged_total", "passed_total", "approved_total", "usd_total")
    return {name: telemetry.value(f"giclee_route_{name}", **route) for name in (*names, "seconds")}


@pytest.mark.parametrize("seed", range(3))
async def test_what_came_of_a_route_is_counted_once(desk: Desk, seed: int) -> None:
    """A known story in any order and partly twice: candidates, fallbacks, verdicts, approvals and dollars come out."""
    chance, line = random.Random(seed), Line()
    first, second = (
        {"asset_type": "generic", "quality": "final", "provider": f"{name}{seed}", "model": name} for name in ("a", "b")
    )
    story = line.whole_story()  # 0 and 3 approved, 1 made by its second hop and rejected, 2 failed
    for at, event in enumerate(story):
        if isinstance(event, ImageRouted):
            hops = [hop.model_copy(update={"provider": named["provider"], "model": ModelUsed(name=named["model"],
                    revision="r")}) for hop, named in zip(event.chain, (first, second), strict=False)]  # fmt: skip
            story[at] = line.at(event.model_copy(update={"chain": tuple(hops)}))
    told = story + chance.choices(story, k=8)
    chance.shuffle(told)
    while told:
        size = chance.choice([1, 3, 8])
        batch, told = told[:size], told[size:]
        await desk.tell(*batch)

    # 0.0004 each for candidates 0 and 3, 0.0009 for the one that failed; 0.002 for the one that fell back
    assert counted(first) == pytest.approx({
        "candidates_total": 4, "fallbacks_total": 1, "judged_total": 2, "passed_total": 2, "approved_total": 2,
        "usd_total": 0.0017, "seconds": 2,
    })  # fmt: skip
    assert counted(second) == pytest.approx({
        "candidates_total": 1, "fallbacks_total": 0, "judged_total": 1, "passed_total": 0, "approved_total": 0,
        "usd_total": 0.002, "seconds": 1,
    })  # fmt: skip


async def test_the_closing_lists_assets_before_their_approvals_are_read(desk: Desk) -> None:
    """Two topics are read side by side; what the closing names is there at once."""
    line = Line()
    await desk.tell(line.requested(), line.closed("approved", 0))

    assert [asset["asset_id"] for asset in (await desk.shown(line.id))["assets"]] == [str(line.asset(0))]


async def test_a_request_published_by_kafka_is_known_here_too(desk: Desk) -> None:
    """Its acceptance is its record's time; nothing is sent for it, and posting it again is a replay."""
    line = Line(batch_id="b", labels={"a": "1"})
    requested = line.requested()
    await desk.tell(requested, line.cleared())
    shown = await desk.shown(line.id)
    again = await desk.post(line.request.model_dump(mode="json", exclude_none=True))

    assert datetime.fromisoformat(shown["accepted_at"]) == requested.envelope.recorded_at
    assert (shown["state"], shown["batch_id"], shown["labels"]) == ("routing", "b", {"a": "1"})
    assert again.headers["idempotent-replayed"] == "true"
    assert await desk.sent() == []


async def test_a_clearance_may_overtake_its_request(desk: Desk) -> None:
    """Until the request itself is read there is nothing to show; then everything is."""
    line = Line()
    await desk.tell(line.cleared(), line.routed(0))
    unseen = await desk.http.get(f"/v1/requests/{line.id}")
    await desk.tell(line.requested())

    assert unseen.status_code == 404
    assert (await desk.shown(line.id))["state"] == "generating"
    assert datetime.fromisoformat((await desk.shown(line.id))["closes_by"]) == START + TTL


async def test_other_values_under_a_known_id_change_nothing(desk: Desk) -> None:
    """Policy makes the dead letter; here the first request stays."""
    line = Line()
    await desk.accepted(line)
    await desk.tell(line.requested(wanted=9))

    assert (await desk.shown(line.id))["progress"]["wanted"] == 2


async def test_an_approval_of_a_request_nobody_knows_is_kept(desk: Desk) -> None:
    """Facts wait for their request; an undecodable record's stall, which names none, is nobody's."""
    line = Line()
    nobody = line.stalled("policy").model_copy(update={"request_id": None})
    nobody.delivered(line.approved(0).envelope)
    await desk.tell(nobody, line.approved(0), line.requested())

    assert (await desk.shown(line.id))["progress"]["approved"] == 1


async def test_one_bad_event_does_not_fail_its_neighbours(desk: Desk) -> None:
    """Events share a transaction; one that cannot be stored is refused alone."""
    line, bad = Line(), Line()
    whole = bad.failed(0)
    broken = whole.model_copy(update={"index": 10**12}).delivered(whole.envelope)
    answers = await asyncio.gather(desk.tell(line.requested()), desk.tell(broken), return_exceptions=True)

    assert answers[0] is None
    assert isinstance(answers[1], Exception)
    assert not isinstance(answers[1], Transient)
    assert (await desk.shown(line.id))["state"] == "clearing"


async def test_an_outage_is_everybodys_and_loses_nothing(desk: Desk, database: str) -> None:
    """With the database away every event fails as an outage; told again, it is there."""
    line = Line()
    async with opened(database) as other:
        other.pool.terminate()
        with pytest.raises(Transient):
            await other.tell(line.requested())
    await desk.tell(line.requested())

    assert (await desk.shown(line.id))["state"] == "clearing"


async def test_two_replicas_project_one_request(desk: Desk, database: str) -> None:
    """Partitions are spread over replicas, so the events of one request meet under its row lock."""
    line = Line()
    story = line.whole_story()
    async with opened(database) as other:
        await asyncio.gather(*(one.tell(event) for event in story for one in (desk, other)))

    assert [row["state"] for row in (await desk.shown(line.id))["candidates"]] == [
        "approved",
        "rejected",
        "failed",
        "approved",
    ]
    ids = [said.id for said in await desk.heard(line.id)]
    assert ids == list(range(1, len(ids) + 1))


# ---- cancels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_http", [True, False])
async def test_a_cancel_that_came_before_its_request_is_sent_again_with_its_fields(desk: Desk, by_http: bool) -> None:
    """Contract rule 15: whichever door the request comes by."""
    line = Line()
    await desk.tell(line.cancel())
    if by_http:
        await desk.accepted(line)
    await desk.tell(line.requested(), line.requested())

    [cancel] = [event for event in await desk.sent(line) if isinstance(event, CancelRequested)]
    assert cancel.request is not None
    assert cancel.request.values() == line.request.values()
    assert (await desk.shown(line.id))["state"] == "cancelling"


async def test_a_bare_cancel_of_a_known_request_is_sent_again_once(desk: Desk) -> None:
    """An upstream system's cancel lacks the fields; what comes back from the topic has them and is enough."""
    line = Line()
    await desk.accepted(line)
    for cancel in (line.cancel(), line.cancel(), line.cancel(complete=True)):
        await desk.tell(cancel)

    assert [type(event).__name__ for event in await desk.sent(line)] == ["ImageRequested", "CancelRequested"]


async def test_our_own_cancel_read_back_sends_nothing(desk: Desk) -> None:
    """Or a cancel would go round for ever."""
    line = Line()
    await desk.accepted(line)
    await desk.http.post(f"/v1/requests/{line.id}/cancel")
    await desk.tell(line.requested(), line.cancel(complete=True), line.cancel(complete=True))

    assert len(await desk.sent(line)) == 2


async def test_a_cancel_names_tenant_and_id(desk: Desk) -> None:
    """The same id of another tenant is another request."""
    line = Line()
    other = Line(tenant="acme", request_id=line.id)
    await desk.accepted(line)
    await desk.tell(other.cancel())

    assert (await desk.shown(line.id))["state"] == "pending"


async def test_a_closing_wins_over_a_cancel(desk: Desk) -> None:
    """Whatever else is known, the outcome is the state."""
    line = Line()
    await desk.tell(line.requested(), line.closed("partial", 0), line.cancel(), line.routed(7))

    assert (await desk.shown(line.id))["state"] == "partial"
    assert [event for event in await desk.sent(line) if isinstance(event, CancelRequested)] == []


# ---- the clock ----------------------------------------------------------------------------------


async def test_a_request_past_its_closing_time_is_expired_hourly_until_it_closes(desk: Desk) -> None:
    """Rule 5: with its own fields, once an hour, not before its time and not after its closing."""
    line, later = Line(), Line()
    for one in (line, later):
        await desk.accepted(one)
    await desk.clock.tick()
    assert len(await desk.sent()) == 2

    await desk.overdue(line)
    await desk.clock.tick()
    await desk.clock.tick()
    cancels = [event for event in await desk.sent() if isinstance(event, CancelRequested)]
    assert [(cancel.request_id, cancel.reason) for cancel in cancels] == [(line.id, "expired")]
    assert cancels[0].request is not None
    assert cancels[0].request.values() == line.request.values()
    assert (await desk.shown(line.id))["state"] == "pending"

    await desk.overdue(line)
    await desk.clock.tick()
    assert len(await desk.sent(line)) == 3

    await desk.tell(line.closed("expired"))
    await desk.overdue(line)
    await desk.clock.tick()
    assert len(await desk.sent(line)) == 3


async def test_the_publisher_gets_the_first_turn(desk: Desk) -> None:
    """An order with a verdict is closed by its own sweeper; for ten seconds intake says nothing."""
    line = Line()
    await desk.accepted(line)
    await desk.overdue(line, by=timedelta(seconds=2))
    await desk.clock.tick()

    assert len(await desk.sent(line)) == 1


async def test_many_overdue_requests_are_all_expired_once_by_two_replicas(desk: Desk, database: str) -> None:
    """More than one statement takes, and two clocks at once."""
    await desk.tell(*(Line().requested() for _ in range(230)))
    await desk.pool.execute("UPDATE intake.requests SET closes_by = clock_timestamp() - interval '1 minute'")
    async with opened(database) as other:
        await asyncio.gather(desk.clock.tick(), other.clock.tick())

    sent = await desk.sent()
    assert len(sent) == 230
    assert len({event.request_id for event in sent}) == 230


async def test_what_a_switch_holds_is_flagged_and_flows_on(desk: Desk) -> None:
    """`held` is a flag of open requests; a cancel and the closing are said first."""
    held, free, ended = Line(batch_id="b"), Line(), Line(batch_id="b")
    await desk.tell(held.requested(), free.requested(), ended.requested(), ended.closed("failed"))
    switch = SwitchSet(scope="batch:b", mode="hold", reason="r", actor="a", set_at=START)
    desk.switches[switch.scope] = switch
    await desk.clock.tick()
    states = [(await desk.shown(line.id))["state"] for line in (held, free, ended)]
    assert await desk.listed("state=held") == [str(held.id)]
    del desk.switches[switch.scope]
    await desk.clock.tick()

    assert states == ["held", "clearing", "failed"]
    assert (await desk.shown(held.id))["state"] == "clearing"


async def test_old_things_are_forgotten(desk: Desk) -> None:
    """Keys after a day, facts without a request after a week, ended requests after 400 days; nothing sooner."""
    unseen, ended, fresh = Line(), Line(), Line()
    await desk.tell(unseen.cancel(), ended.requested(), ended.closed("failed"), fresh.requested(), Line().cancel())
    await desk.post(fresh.request.model_dump(mode="json", exclude_none=True), Idempotency_Key="k")
    week = "UPDATE intake.requests SET first_heard_at = first_heard_at - interval '8 days' WHERE request_id = $1"
    await desk.pool.execute(week, unseen.id)
    year = "UPDATE intake.requests SET closed_at = closed_at - interval '401 days' WHERE request_id = $1"
    await desk.pool.execute(year, ended.id)
    await desk.pool.execute("UPDATE intake.idempotency SET answered_at = answered_at - interval '25 hours'")
    await desk.clock.tick()

    assert await desk.pool.fetchval("SELECT count(*) FROM intake.requests") == 2
    assert await desk.pool.fetchval("SELECT count(*) FROM intake.idempotency") == 0
    assert await desk.listed() == [str(fresh.id)]


# ---- streams ------------------------------------------------------------------------------------


async def test_a_stream_tells_the_whole_story_once_and_ends(desk: Desk) -> None:
    """progress whenever something changed, events named as webhooks name them, request.closed last."""
    line = Line()
    story = line.whole_story()
    for event in story + story:
        await desk.tell(event)
    said = await desk.heard(line.id)
    names = [one.event for one in said]

    assert [one.id for one in said] == list(range(1, len(said) + 1))
    assert names[-1] == "request.closed"
    counted = ("request.closed", "request.stalled", "asset.approved", "asset.revoked")
    assert [names.count(name) for name in counted] == [1, 1, 2, 1]
    states = [one.body["state"] for one in said if one.event == "progress"]
    assert states[:4] == ["clearing", "routing", "generating", "generating"]
    assert states[-1] == "approved"
    assert said[-1].body["outcome"] == "approved"


async def test_a_stream_goes_on_after_its_last_event_id(desk: Desk) -> None:
    """A caller that lost its connection hears the rest, and nothing twice."""
    line = Line()
    await desk.tell(line.requested())
    await desk.tell(line.cleared())
    await desk.tell(line.closed("failed"))
    whole = list(await desk.heard(line.id))

    for at in range(len(whole) + 1):
        assert list(await desk.heard(line.id, after=at)) == whole[at:]
    assert list(await desk.heard(line.id, after=10**30)) == []


async def test_an_open_stream_hears_what_happens(desk: Desk) -> None:
    """A stream opened early gets everything as it comes and ends with the closing."""
    line = Line()
    await desk.accepted(line)
    listening = asyncio.create_task(desk.heard(line.id))
    number = await desk.pool.fetchval("SELECT number FROM intake.requests")
    await until(lambda: desk.bell.listeners(number))
    for event in (line.requested(), line.cleared(), line.approved(0), line.closed("approved", 0)):
        await desk.tell(event)

    names = [one.event for one in await listening]
    assert names[-2:] == ["progress", "request.closed"]
    assert "asset.approved" in names
    assert desk.bell.listeners(number) == 0


async def test_approvals_are_told_before_the_closing_even_if_read_after(desk: Desk) -> None:
    """The last word waits a moment for the approvals that it lists, but not for ever."""
    line, lost = Line(), Line()
    await desk.tell(line.requested(), line.closed("approved", 0))
    await desk.tell(line.approved(0))
    await desk.tell(lost.requested(), lost.closed("approved", 0))
    await desk.clock.tick()
    assert await desk.pool.fetchval("SELECT count(*) FROM intake.requests WHERE NOT closing_told") == 1
    await desk.pool.execute("UPDATE intake.requests SET closing_read_at = closing_read_at - interval '6 seconds'")
    await desk.clock.tick()

    names = [one.event for one in await desk.heard(line.id)]
    assert names.index("asset.approved") < names.index("request.closed") == len(names) - 1
    assert [one.event for one in await desk.heard(lost.id)][-1] == "request.closed"
