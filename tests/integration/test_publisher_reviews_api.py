"""The reviews API: the queue, leases, verdicts, undo and overrides, and problems that say what is wrong."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from giclee.schemas.parts import candidate_id
from tests.integration.test_publisher_api import is_problem
from tests.integration.test_publisher_reviews import doubted, undone_time
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import Desk, client, request

pytestmark = pytest.mark.real
MIRA, NOOR = {"X-Giclee-Actor": "mira"}, {"X-Giclee-Actor": "noor"}


@pytest.fixture
async def http(publisher: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(publisher) as made:
        yield made


def where(asked: Request, index: int = 0) -> str:
    return f"/v1/reviews/{candidate_id(asked.tenant, asked.id, index)}"


def fail(asked: Request, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"verdict": "fail", "sha256": asked.image(index).sha256, "reason_codes": ["hands"], **more}


async def test_a_reviewer_sees_what_was_asked_and_what_was_measured(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Prompt, scores, reasons, age and due time beside the image, whose link is fresh."""
    asked = await doubted(publisher)
    (one,) = (await http.get("/v1/reviews")).json()["items"]

    assert {**one, "age_s": 0} == {**(await http.get(where(asked))).json(), "age_s": 0}
    assert (one["kind"], one["state"], one["overdue"], one["reviewers_needed"]) == ("doubt", "pending", False, 1)
    assert (one["prompt"], one["scores"]["alignment"]["value"]) == ("a small red circle on blue", 0.6)
    assert [reason["code"] for reason in one["reasons"]] == ["review_doubt", "dimension_unsure"]
    image = await http.get(f"{where(asked)}/image")
    assert (image.status_code, asked.image(0).key in image.headers["location"]) == (307, True)


async def test_pages_of_the_queue_are_the_soonest_due_first(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Every review once over pages, whatever order it is due in; filters narrow."""
    late = await doubted(publisher, 3)
    soon = await doubted(publisher, 2, closes_in_s=600, asset_type="email-hero")
    seen, cursor = [], None
    while True:
        page = (await http.get("/v1/reviews", params={"limit": "2"} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [(one["request_id"], one["scores"]["alignment"]["value"]) for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    wanted = [(soon, 0.6), (soon, 0.59), (late, 0.6), (late, 0.59), (late, 0.58)]
    assert seen == [(str(asked.id), value) for asked, value in wanted]
    heroes = (await http.get("/v1/reviews", params={"asset_type": "email-hero", "kind": "doubt"})).json()["items"]
    assert {one["request_id"] for one in heroes} == {str(soon.id)}
    assert (await http.get("/v1/reviews", params={"state": "done"})).json()["items"] == []


async def test_a_leased_image_is_judged_by_its_reviewer(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Lease, refuse the other, judge, undo, judge again, and after its effect it is done."""
    asked = await doubted(publisher)
    (leased,) = (await http.post("/v1/reviews/lease", json={"count": 5}, headers=MIRA)).json()["items"]
    assert (leased["leased_by"], leased["leased_until"] > leased["asked_at"]) == ("mira", True)
    is_problem(await http.post(where(asked), json=fail(asked), headers=NOOR), 409, "review_leased")
    given = await http.post(where(asked), json=fail(asked, seconds=3, note="six fingers"), headers=MIRA)
    assert (given.json()["state"], given.json()["reviewer"], given.json()["seconds"]) == ("given", "mira", 3)
    undone = await http.post(f"{where(asked)}/undo", headers=MIRA)
    assert (undone.json()["state"], undone.json()["verdict"]) == ("pending", None)
    renewed = await http.post("/v1/reviews/lease", json={"renew": [leased["candidate_id"]]}, headers=MIRA)
    assert len(renewed.json()["items"]) == 1
    await http.post(where(asked), json=fail(asked), headers=MIRA)
    await undone_time(publisher)
    await publisher.sweeper.sweep()

    (done,) = (await http.get("/v1/reviews", params={"state": "done"})).json()["items"]
    assert (done["verdict"], done["reason_codes"], done["reviewer"]) == ("fail", ["hands"], "mira")
    is_problem(await http.post(f"{where(asked)}/undo", headers=MIRA), 409, "review_not_undoable")


async def test_what_the_gate_failed_can_be_put_to_two_people(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Only while the request is open, only a candidate of it, and a pass needs two."""
    asked = request(wanted=1, first_wave=3, max_candidates=3)
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0, 0.4, passes=False))
    body = {"request_id": str(asked.id), "candidate_id": str(candidate_id("default", asked.id, 0))}
    put = (await http.post("/v1/reviews", json=body, headers=MIRA)).json()
    assert (put["kind"], put["reviewers_needed"], put["state"]) == ("override", 2, "pending")
    verdict = {"verdict": "pass", "sha256": asked.image(0).sha256}
    first = (await http.post(where(asked), json=verdict, headers=MIRA)).json()
    assert (first["state"], first["passed_by"]) == ("pending", "mira")
    is_problem(await http.post(where(asked), json=verdict, headers=MIRA), 409, "review_second_reviewer")
    second = (await http.post(where(asked), json=verdict, headers=NOOR)).json()
    assert (second["state"], second["reviewer"], second["passed_by"]) == ("given", "noor", "mira")

    unscored = {**body, "candidate_id": str(candidate_id("default", asked.id, 1))}
    is_problem(await http.post("/v1/reviews", json=unscored), 409, "review_not_possible")
    is_problem(await http.post("/v1/reviews", json={**body, "candidate_id": str(uuid.uuid4())}), 404, "not_found")
    is_problem(await http.post("/v1/reviews", json={**body, "request_id": str(uuid.uuid4())}), 404, "not_found")
    await publisher.tell(asked.cancel())
    is_problem(await http.post("/v1/reviews", json=body), 409, "request_ended")
    is_problem(await http.post(f"{where(asked)}/undo", headers=NOOR), 409, "review_withdrawn")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"sha256": "0" * 64}, "verdict"),
        ({"verdict": "maybe", "sha256": "0" * 64}, "verdict"),
        ({"verdict": "pass"}, "sha256"),
        ({"verdict": "fail", "sha256": "0" * 64}, "a fail says why"),
        ({"verdict": "fail", "sha256": "0" * 64, "reason_codes": ["ugly"]}, "'ugly' is none"),
        ({"verdict": "pass", "sha256": "0" * 64, "seconds": -1}, "seconds"),
        ({"verdict": "pass", "sha256": "0" * 64, "note": "x" * 1001}, "note"),
        ({"verdict": "pass", "sha256": "0" * 64, "mood": "good"}, "mood"),
    ],
)
async def test_a_verdict_that_cannot_be_meant_is_a_422(
    http: httpx2.AsyncClient, body: dict[str, Any], says: str
) -> None:
    """Every field that is wrong is named; nothing is written."""
    problem = is_problem(await http.post(f"/v1/reviews/{uuid.uuid4()}", json=body), 422, "invalid_field")

    assert any(says in one["pointer"] + one["detail"] for one in problem["errors"])


@pytest.mark.parametrize(
    "query", ["state=open", "kind=x", "limit=0", "cursor=zzz", "stat=done", "asset_type=%00", "state=done&state=given"]
)
async def test_a_query_that_cannot_be_meant_is_a_400(http: httpx2.AsyncClient, query: str) -> None:
    """An unknown or malformed parameter is never ignored."""
    is_problem(await http.get(f"/v1/reviews?{query}"), 400, "unsupported_query")


async def test_reviews_that_are_not_there(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Unknown ids, and those of other tenants, are 404 for every verb."""
    foreign = await doubted(publisher, 1, tenant="acme")
    for path in (where(foreign), f"/v1/reviews/{uuid.uuid4()}", "/v1/reviews/nonsense"):
        is_problem(await http.get(path), 404, "not_found")
        is_problem(await http.get(f"{path}/image"), 404, "not_found")
        is_problem(await http.post(path, json=fail(foreign)), 404, "not_found")
        is_problem(await http.post(f"{path}/undo"), 404, "not_found")
    assert (await http.get("/v1/reviews")).json()["items"] == []
    assert (await http.post("/v1/reviews/lease", json={})).json()["items"] == []
