"""The assets API: evidence, pages, downloads, and problems that say what is wrong."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from giclee.schemas.events import ImageApproved, ImageRevoked
from tests.unit.publisher.builders import Request
from tests.unit.publisher.desk import KEY, Desk, client, request

pytestmark = pytest.mark.real


@pytest.fixture
async def http(publisher: Desk) -> AsyncIterator[httpx2.AsyncClient]:
    async with client(publisher) as made:
        yield made


async def approved(publisher: Desk, *, tenant: str = "default", label: str = "winter") -> ImageApproved:
    asked = request(wanted=1) if tenant == "default" else Request(closes_by=request().closes_by, tenant=tenant)
    asked.echo["labels"] = {"campaign": label}
    await publisher.tell(asked.cleared(), asked.generated(0), asked.scored(0))
    (approval,) = await publisher.approvals(asked)
    return approval


def is_problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert uuid.UUID(body["request_id"])
    assert isinstance(body["errors"], list)
    return body


async def test_an_asset_is_its_approval_with_all_evidence(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """What the API shows parses as the event that was published."""
    approval = await approved(publisher)
    body = (await http.get(f"/v1/assets/{approval.asset_id}")).json()

    assert ImageApproved.model_validate(body) == approval
    assert body["updated_at"]


async def test_a_download_redirects_to_fresh_bytes(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """The original by default, a derivative by role; the link is not to be cached."""
    approval = await approved(publisher)
    where = f"/v1/assets/{approval.asset_id}/download"
    original, thumbnail = await http.get(where), await http.get(where, params={"role": "thumbnail"})

    assert (original.status_code, original.headers["cache-control"]) == (307, "no-store")
    assert approval.image.key in original.headers["location"]
    assert approval.derivatives[0].key in thumbnail.headers["location"]
    is_problem(await http.get(where, params={"role": "poster"}), 404, "not_found")


async def test_pages_go_on_where_they_ended(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Every asset once, in the order of change; a poller goes on after the last time it saw."""
    assets = [str((await approved(publisher)).asset_id) for _ in range(5)]
    seen, cursor, last = [], None, ""
    while True:
        page = (await http.get("/v1/assets", params={"limit": "2"} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [one["asset_id"] for one in page["items"]]
        last = page["items"][-1]["updated_at"] if page["items"] else last
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == assets
    assert (await http.get("/v1/assets", params={"updated_after": last})).json()["items"] == []
    more = str((await approved(publisher)).asset_id)
    later = (await http.get("/v1/assets", params={"updated_after": last})).json()["items"]
    assert [one["asset_id"] for one in later] == [more]
    of_one = (await http.get("/v1/assets", params={"request_id": later[0]["request_id"]})).json()["items"]
    assert [one["asset_id"] for one in of_one] == [more]


async def test_labels_and_status_filter(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """`label=key:value` narrows; nothing is revoked here."""
    await approved(publisher, label="winter")
    summer = await approved(publisher, label="summer")
    found = (await http.get("/v1/assets", params={"label": "campaign:summer", "status": "approved"})).json()["items"]

    assert [one["asset_id"] for one in found] == [str(summer.asset_id)]
    assert (await http.get("/v1/assets", params={"status": "revoked"})).json()["items"] == []


async def test_a_revoked_asset_keeps_its_evidence_and_gives_no_bytes(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """Version 2 on the topic, 200 with `status: revoked`, a download that is gone; once, whoever asks again."""
    approval = await approved(publisher)
    where = f"/v1/assets/{approval.asset_id}"
    body = {"reason_code": "rights", "reason": "the licence ended", "take_down_by": "2027-01-01T00:00:00Z"}
    first = await http.post(f"{where}/revoke", json=body, headers={"X-Giclee-Actor": "mira"})
    again = await http.post(f"{where}/revoke", json={**body, "reason_code": "brand"})

    assert (first.status_code, first.json()["version"], first.json()["revoked_by"]) == (200, 2, "mira")
    assert again.json() == first.json()
    shown = (await http.get(where)).json()
    assert (shown["status"], shown["reason_code"], shown["reason"]) == ("revoked", "rights", "the licence ended")
    assert shown["scores"]["alignment"]["verdict"] == "pass"
    is_problem(await http.get(f"{where}/download"), 410, "asset_revoked")
    listed = (await http.get("/v1/assets", params={"status": "revoked"})).json()["items"]
    assert [one["asset_id"] for one in listed] == [str(approval.asset_id)]
    (event,) = [one for one in await publisher.emitted() if isinstance(one, ImageRevoked)]
    assert (event.version, event.labels, str(event.take_down_by)) == (2, approval.labels, "2027-01-01 00:00:00+00:00")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"reason": "x"}, "/reason_code"),
        ({"reason_code": "because", "reason": "x"}, "/reason_code"),
        ({"reason_code": "legal", "reason": ""}, "/reason"),
        ({"reason_code": "legal", "reason": "x", "who": "me"}, "/who"),
    ],
)
async def test_a_revocation_says_why(http: httpx2.AsyncClient, body: dict[str, str], pointer: str) -> None:
    """A reason code of the contract and a sentence; what is wrong is named."""
    problem = is_problem(await http.post(f"/v1/assets/{uuid.uuid4()}/revoke", json=body), 422, "invalid_field")

    assert [one["pointer"] for one in problem["errors"]] == [pointer]


async def test_other_tenants_assets_do_not_exist(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """The key says whose assets are seen."""
    foreign = await approved(publisher, tenant="acme")

    assert (await http.get("/v1/assets")).json()["items"] == []
    is_problem(await http.get(f"/v1/assets/{foreign.asset_id}"), 404, "not_found")
    is_problem(await http.get(f"/v1/assets/{foreign.asset_id}/download"), 404, "not_found")


@pytest.mark.parametrize(
    "query",
    [
        "limti=2",
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=%C2%B2",
        "status=open",
        "status=approved&status=revoked",
        "updated_after=yesterday",
        "request_id=4711",
        "updated_after=2026-11-21T10:00:00",
        "cursor=zzz",
        "cursor=MjAyNg==",
        "label=winter",
        "label=:x",
        "label=a:%00",
        "label=a:1&label=a:2",
    ],
)
async def test_a_query_that_cannot_be_meant_is_a_400(http: httpx2.AsyncClient, query: str) -> None:
    """An unknown or malformed parameter is never ignored."""
    is_problem(await http.get(f"/v1/assets?{query}"), 400, "unsupported_query")


async def test_problems_have_their_codes(http: httpx2.AsyncClient) -> None:
    """Unknown ids, paths and methods."""
    is_problem(await http.get("/v1/assets/nonsense"), 404, "not_found")
    is_problem(await http.get(f"/v1/assets/{uuid.uuid4()}?verbose=1"), 400, "unsupported_query")
    is_problem(await http.get("/v2/assets"), 404, "not_found")
    is_problem(await http.delete("/v1/assets"), 405, "method_not_allowed")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
async def test_without_the_key_nothing_is_told(http: httpx2.AsyncClient, header: str | None) -> None:
    """Every route asks for the bearer key, also those that are refused anyway."""
    http.headers.pop("Authorization")
    headers = {} if header is None else {"Authorization": header}
    for path in ("/v1/assets", f"/v1/assets/{uuid.uuid4()}", "/v1/reviews"):
        answer = await http.get(path, headers=headers)
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_an_outage_is_a_503_that_says_when_to_come_back(publisher: Desk, http: httpx2.AsyncClient) -> None:
    """A database that is away is not the caller's fault."""
    await publisher.pool.close()
    answer = await http.get("/v1/assets")

    is_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"]
