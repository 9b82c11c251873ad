"""Intake's HTTP API on a real Postgres: every route, and every bad input a 4xx problem that names the pointer."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote as escaped

import pytest

from giclee.schemas import reasons
from giclee.schemas.events import CancelRequested, ImageRequested
from tests.unit.intake.builders import Line
from tests.unit.intake.desk import URL, Answer, Desk, opened

GOOD = {"prompt": "a small red circle on a blue background"}


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    async with opened(database) as desk:
        yield desk


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The problem in an answer, checked as RFC 9457 and the contract have it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "errors", "request_id"} <= body.keys()
    assert (body["status"], body["code"]) == (status, code)
    assert body["code"] in reasons.TABLE
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


# ---- accepting ----------------------------------------------------------------------------------


async def test_an_accepted_request_is_answered_stored_and_sent(desk: Desk) -> None:
    """202 with Location and links; the row and the record of the topic came with it."""
    answer = await desk.post(GOOD | {"labels": {"campaign": "winter"}, "client_ref": "r-1"})
    body = answer.json()
    own = f"{URL}/v1/requests/{body['request_id']}"

    assert (answer.status_code, body["state"], answer.headers["location"]) == (202, "pending", own)
    assert body["links"] == {
        "self": own,
        "events": f"{own}/events",
        "cancel": f"{own}/cancel",
        "assets": f"https://assets.example/v1/assets?request_id={body['request_id']}",
    }
    [sent] = await desk.sent()
    assert isinstance(sent, ImageRequested)
    assert (str(sent.request_id), sent.tenant, sent.client_ref) == (body["request_id"], "default", "r-1")
    shown = await desk.shown(body["request_id"])
    assert shown["request"]["prompt"] == GOOD["prompt"]
    assert (shown["state"], shown["progress"]["wanted"], shown["cost_usd"]) == ("pending", 1, "0")


async def test_extensions_come_back_as_they_were_sent(desk: Desk) -> None:
    """`extensions` is carried and never read; an integer that not every reader can hold is refused."""
    wide = await desk.post(GOOD | {"extensions": {"n": 2**63}})
    assert (wide.status_code, wide.json()["errors"][0]["pointer"]) == (422, "/extensions/n")

    extensions = {"n": 2**63 - 1, "x": 1.5, "deep": {"a": [None]}}
    body = GOOD | {"request_id": str(uuid.uuid4()), "extensions": extensions}
    first, again = await desk.post(body), await desk.post(body)

    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (202, 202, "true")
    assert (await desk.shown(body["request_id"]))["request"]["extensions"] == body["extensions"]


async def test_the_same_id_with_the_same_values_is_one_request(desk: Desk) -> None:
    """Defaults written out are the same values; other values are refused and change nothing."""
    body = GOOD | {"request_id": str(uuid.uuid4())}
    first, again = await desk.post(body), await desk.post(body | {"wanted": 1, "max_candidates": 8})
    other = await desk.post(body | {"wanted": 2})

    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    problem(other, 409, "request_id_conflict")
    assert len(await desk.sent()) == 1


async def test_fifty_posts_of_one_key_make_one_request(desk: Desk) -> None:
    """Whoever comes while the first is answered gets 409 with Retry-After or the same answer, no second request."""
    answers = await asyncio.gather(*(desk.post(GOOD, Idempotency_Key="order-7") for _ in range(50)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    waiting = [answer for answer in answers if answer.status_code == 409]

    assert len(accepted) + len(waiting) == 50
    assert Counter("idempotent-replayed" in answer.headers for answer in accepted)[False] == 1
    assert len({answer.text for answer in accepted}) == 1
    for answer in waiting:
        problem(answer, 409, "idempotency_in_flight")
        assert answer.headers["retry-after"]
    assert len(await desk.sent()) == 1
    assert len(await desk.listed()) == 1


async def test_fifty_posts_of_one_id_make_one_request(desk: Desk) -> None:
    """Without a key the id itself is the guard."""
    body = GOOD | {"request_id": str(uuid.uuid4())}
    answers = await asyncio.gather(*(desk.post(body) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {202}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert len(await desk.sent()) == 1


async def test_a_key_answers_the_same_body_only(desk: Desk) -> None:
    """Another body under a key is 422; an answer older than 24 hours is forgotten."""
    first = await desk.post(GOOD, Idempotency_Key="k")
    again = await desk.post(GOOD, Idempotency_Key="k")
    other = await desk.post(GOOD | {"wanted": 2}, Idempotency_Key="k")
    await desk.pool.execute("UPDATE intake.idempotency SET answered_at = answered_at - interval '25 hours'")
    later = await desk.post(GOOD | {"wanted": 2}, Idempotency_Key="k")

    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    problem(other, 422, "idempotency_mismatch")
    assert later.json()["request_id"] != first.json()["request_id"]


async def test_a_refused_body_does_not_use_up_its_key(desk: Desk) -> None:
    """After a 422 the corrected body may come under the same key."""
    problem(await desk.post({"wanted": 0, **GOOD}, Idempotency_Key="k"), 422, "invalid_field")

    assert (await desk.post(GOOD, Idempotency_Key="k")).status_code == 202


# ---- bad input ----------------------------------------------------------------------------------

DEEP = "/extensions/a/a/a"
BAD_BODIES: dict[str, tuple[bytes, int, str, str]] = {
    "broken JSON": (b'{"prompt": "x"', 400, "not_json", ""),
    "nothing": (b"", 400, "not_json", ""),
    "a list": (b"[]", 422, "invalid_field", ""),
    "null": (b"null", 422, "invalid_field", ""),
    "a number": (b"7", 422, "invalid_field", ""),
    "no prompt": (b"{}", 422, "invalid_field", ""),
    "not UTF-8": (b'{"prompt": "\xff"}', 400, "not_utf8", ""),
    "wrong type": (b'{"prompt": 7}', 422, "invalid_field", "/prompt"),
    "wrong type in a label": (b'{"prompt": "x", "labels": {"a": 1}}', 422, "invalid_field", "/labels/a"),
    "a bad id": (b'{"prompt": "x", "request_id": "7"}', 422, "invalid_field", "/request_id"),
    "an empty id": (b'{"prompt": "x", "request_id": ""}', 422, "invalid_field", "/request_id"),
    "unknown field": (b'{"prompt": "x", "budget": 1}', 422, "unknown_field", "/budget"),
    "wanted 0": (b'{"prompt": "x", "wanted": 0}', 422, "invalid_field", "/wanted"),
    "wanted 1e9": (b'{"prompt": "x", "wanted": 1000000000}', 422, "invalid_field", "/wanted"),
    "wanted 1.5": (b'{"prompt": "x", "wanted": 1.5}', 422, "invalid_field", "/wanted"),
    "huge size": (b'{"prompt": "x", "size": {"width": 1, "height": 99999}}', 422, "invalid_field", "/size/width"),
    "NaN": (b'{"prompt": "x", "budget_usd": NaN}', 422, "not_finite", "/budget_usd"),
    "infinite": (b'{"prompt": "x", "params": {"guidance_scale": 1e999}}', 422, "not_finite", "/params/guidance_scale"),
    "NUL": (b'{"prompt": "a\\u0000b"}', 422, "invalid_text", "/prompt"),
    "lone surrogate": (b'{"prompt": "\\ud800"}', 422, "invalid_text", "/prompt"),
    "surrogate in a key": (b'{"prompt": "x", "extensions": {"\\udfff": 1}}', 422, "invalid_text", "/extensions"),
    "twice": (b'{"prompt": "x", "prompt": "y"}', 422, "duplicate_key", "/prompt"),
    "deep": (b'{"prompt": "x", "extensions": ' + b'{"a":' * 60 + b"1" + b"}" * 61, 422, "too_deep", DEEP),
    "very deep": (b"[" * 200_000, 422, "too_deep", ""),
    "many digits": (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, "not_json", ""),
    "2 MB prompt": (b'{"prompt": "' + b"x" * 2_000_000 + b'"}', 413, "too_large", ""),
    "long prompt": (b'{"prompt": "' + b"x" * 4001 + b'"}', 422, "invalid_field", "/prompt"),
    "big extensions": (
        b'{"prompt": "x", "extensions": {"a": "' + b"x" * 9000 + b'"}}', 422, "too_large", "/extensions"
    ),
    "another tenant": (b'{"prompt": "x", "tenant": "other"}', 422, "invalid_field", "/tenant"),
    "a tenant of a wrong type": (b'{"prompt": "x", "tenant": {}}', 422, "invalid_field", "/tenant"),
    "far deadline": (b'{"prompt": "x", "deadline": "2999-01-01T00:00:00Z"}', 422, "invalid_field", "/deadline"),
    "deadline without zone": (b'{"prompt": "x", "deadline": "2026-11-22"}', 422, "invalid_field", "/deadline"),
    "formats": (b'{"prompt": "x", "formats": []}', 422, "formats_unsupported", "/formats"),
    "inputs": (b'{"prompt": "x", "inputs": []}', 422, "inputs_unsupported", "/inputs"),
    "webhook": (b'{"prompt": "x", "webhook": {"url": "u"}}', 422, "webhook_unsupported", "/webhook"),
    "parent": (b'{"prompt": "x", "parent": {}}', 422, "parent_unsupported", "/parent"),
    "strict of a wrong type": (b'{"prompt": "x", "strict": 1}', 422, "invalid_field", "/strict"),
}  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/requests?dry_run=true"])
async def test_bad_bodies_are_problems_that_name_the_pointer(desk: Desk, path: str) -> None:
    """Whatever is sent is answered by a 4xx with every reason, and nothing is stored or sent."""
    for name, (raw, status, code, pointer) in BAD_BODIES.items():
        answer = await desk.http.post(path, content=raw, headers={"Content-Type": "application/json"})
        body = problem(answer, status, code)
        named = {error["pointer"] for error in body["errors"]}
        assert pointer in named or (status == 413 and not named), (name, body)
    assert await desk.sent() == []
    assert await desk.listed() == []


async def test_every_error_of_a_body_is_named_at_once(desk: Desk) -> None:
    """One answer is enough to mend a body."""
    body = problem(await desk.post({"prompt": "", "wanted": 0, "nope": 1, "formats": []}), 422, "invalid_field")

    assert {error["pointer"] for error in body["errors"]} == {"/prompt", "/wanted", "/nope", "/formats"}


async def test_a_body_is_not_read_further_than_allowed(desk: Desk) -> None:
    """A body without a length is refused as soon as it is too long."""
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < 100:
            given += 1
            yield b" " * 65_536

    answer = await desk.http.post("/v1/requests", content=endless(), headers={"Content-Type": "application/json"})

    problem(answer, 413, "too_large")
    assert given < 20


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"]
)
async def test_other_media_types_are_refused(desk: Desk, kind: str) -> None:
    """Bodies are JSON in UTF-8."""
    problem(await desk.post(GOOD, Content_Type=kind), 415, "unsupported_media_type")


async def test_json_with_a_charset_is_json(desk: Desk) -> None:
    """`charset=utf-8` says what is so anyway."""
    assert (await desk.post(GOOD, Content_Type='Application/JSON; charset="UTF-8"')).status_code == 202


async def test_malformed_headers_are_refused(desk: Desk) -> None:
    """An Idempotency-Key or Last-Event-ID that cannot be one is an error, not ignored."""
    problem(await desk.post(GOOD, Idempotency_Key="a b"), 400, "invalid_header")
    problem(await desk.post(GOOD, Idempotency_Key="x" * 300), 400, "invalid_header")
    events = f"/v1/requests/{uuid.uuid4()}/events"
    problem(await desk.http.get(events, headers={"Last-Event-ID": "abc"}), 400, "invalid_header")


ROUTES = [
    ("POST", "/v1/requests"),
    ("GET", "/v1/requests"),
    ("GET", "/v1/requests/{id}"),
    ("GET", "/v1/requests/{id}/events"),
    ("POST", "/v1/requests/{id}/cancel"),
    ("POST", "/v1/requests/{id}/retry"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_asks_for_the_key(desk: Desk, method: str, path: str) -> None:
    """No key, a wrong one, another scheme or garbage: 401, whatever the rest is."""
    at = path.format(id=uuid.uuid4())
    for header in (b"", b"Bearer wrong", b"Basic YTpi", b"Bearer", b"Bearer \xff\xfe"):
        answer = await desk.http.request(method, at, headers=[(b"Authorization", header)], content=b"{")
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_unknown_query_parameters_are_refused_by_name(desk: Desk, method: str, path: str) -> None:
    """A misspelt parameter must not mean no filter."""
    answer = await desk.http.request(method, path.format(id=uuid.uuid4()), params={"stat": "x"}, content=b"{}")
    body = problem(answer, 400, "unsupported_query")

    assert [error["pointer"] for error in body["errors"]] == ["/stat"]
    assert "stat" in body["detail"]


async def test_unknown_paths_methods_and_ids_are_problems(desk: Desk) -> None:
    """404 and 405 look like every other problem."""
    problem(await desk.http.get("/v2/requests"), 404, "not_found")
    answer = await desk.http.delete("/v1/requests")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]
    for at in (uuid.uuid4(), "nonsense", "%00", "é", "7" * 5000):
        for route in ("", "/events"):
            problem(await desk.http.get(f"/v1/requests/{at}{route}"), 404, "not_found")
        problem(await desk.http.post(f"/v1/requests/{at}/cancel"), 404, "not_found")


async def test_retrying_is_refused_by_name(desk: Desk) -> None:
    """Retry comes with a later release."""
    problem(await desk.http.post(f"/v1/requests/{uuid.uuid4()}/retry"), 422, "retry_unsupported")


async def test_the_callers_request_id_is_echoed(desk: Desk) -> None:
    """X-Request-Id comes back on every answer; one that cannot be echoed is replaced."""
    answer = await desk.post(GOOD, X_Request_Id="mine-7")
    refused = await desk.post(b"{", X_Request_Id="mine-8")
    made = await desk.http.get("/v1/requests", headers={"X-Request-Id": "x" * 500})

    assert (answer.headers["x-request-id"], refused.json()["request_id"]) == ("mine-7", "mine-8")
    assert uuid.UUID(made.headers["x-request-id"])


async def test_a_bug_shows_nothing_of_our_insides(desk: Desk) -> None:
    """500 carries the id of the log line and nothing else."""
    await desk.pool.execute("ALTER TABLE intake.requests RENAME COLUMN labels TO secret_column")
    body = problem(await desk.http.get("/v1/requests"), 500, "internal")

    assert "secret_column" not in json.dumps(body)
    assert "labels" not in json.dumps(body)


async def test_a_database_that_is_away_is_503(desk: Desk) -> None:
    """Callers are told to come again."""
    desk.pool.terminate()
    for answer in (await desk.post(GOOD), await desk.http.get("/v1/requests")):
        problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"]


async def test_openapi_declares_bodies_and_problems(desk: Desk) -> None:
    """A generated client knows what to send and what may come back."""
    answer = await desk.http.get("/openapi.json")
    found = answer.json()
    post = found["paths"]["/v1/requests"]["post"]

    assert {"202", "200", "400", "401", "409", "413", "415", "422", "500", "503"} <= post["responses"].keys()
    for status in ("401", "422", "500"):
        assert "application/problem+json" in post["responses"][status]["content"]
    names = set(found["components"]["schemas"])
    wanted = {text.split('"')[0] for text in json.dumps(found).split("#/components/schemas/")[1:]}
    assert wanted <= names
    assert {"ImageRequested", "Problem", "Shown"} <= wanted | names
    query = {one["name"] for one in found["paths"]["/v1/requests"]["get"]["parameters"]}
    filters = {"state", "outcome", "batch_id", "client_ref", "asset_type", "label", "created_after", "closed_after"}
    assert query == filters | {"limit", "cursor"}


# ---- cancelling ---------------------------------------------------------------------------------


async def test_a_cancel_is_stored_and_sent_with_the_requests_own_fields(desk: Desk) -> None:
    """One CancelRequested that closes the request even if nobody else ever heard of it; again is no second one."""
    line = Line(batch_id="b-1")
    await desk.accepted(line)
    path = f"/v1/requests/{line.id}/cancel"
    first = await desk.http.post(path, json={"note": "wrong colour"})
    again = await desk.http.post(path)

    assert (first.status_code, first.json()["state"], again.status_code) == (202, "cancelling", 202)
    [_, cancel] = await desk.sent(line)
    assert isinstance(cancel, CancelRequested)
    assert cancel.request is not None
    assert cancel.request.values() == line.request.values()
    assert (cancel.reason, cancel.note, cancel.batch_id) == ("user", "wrong colour", "b-1")
    assert cancel.accepted_at == datetime.fromisoformat((await desk.shown(line.id))["accepted_at"])
    assert (await desk.shown(line.id))["state"] == "cancelling"


async def test_what_has_ended_cannot_be_cancelled(desk: Desk) -> None:
    """409, and nothing is sent."""
    line = Line()
    await desk.accepted(line)
    await desk.tell(line.closed("failed"))

    problem(await desk.http.post(f"/v1/requests/{line.id}/cancel"), 409, "request_ended")
    assert len(await desk.sent(line)) == 1


async def test_a_bad_body_of_a_cancel_is_named(desk: Desk) -> None:
    """The optional body is strict too."""
    line = Line()
    await desk.accepted(line)
    answer = await desk.http.post(f"/v1/requests/{line.id}/cancel", json={"reason": "because"})

    assert [error["pointer"] for error in problem(answer, 422, "unknown_field")["errors"]] == ["/reason"]


async def test_requests_of_other_tenants_do_not_exist(desk: Desk) -> None:
    """The key's tenant sees, cancels and lists its own requests only."""
    line = Line(tenant="acme")
    await desk.tell(line.requested())

    problem(await desk.http.get(f"/v1/requests/{line.id}"), 404, "not_found")
    problem(await desk.http.post(f"/v1/requests/{line.id}/cancel"), 404, "not_found")
    assert await desk.listed() == []


# ---- listing ------------------------------------------------------------------------------------


async def test_every_filter_narrows_the_list(desk: Desk) -> None:
    """state, outcome, batch, reference, asset type, labels and times, alone and together."""
    plain = Line()
    named = Line(batch_id="b:1", client_ref="r", asset_type="paid-social", labels={"a": "1", "b": "x:y"})
    ended = Line(labels={"a": "1"})
    for line in (plain, named, ended):
        await desk.accepted(line)
    await desk.tell(ended.closed("partial"))
    accepted_at = (await desk.shown(named.id))["accepted_at"]
    all_of_them = [str(line.id) for line in (ended, named, plain)]

    async def narrowed(query: str) -> list[int]:
        return [all_of_them.index(found) for found in await desk.listed(query)]

    assert await narrowed("") == [0, 1, 2]
    assert await narrowed("state=pending") == [1, 2]
    assert await narrowed("state=partial") == [0]
    assert await narrowed("outcome=partial") == [0]
    assert await narrowed("outcome=approved") == []
    assert await narrowed("batch_id=b:1&client_ref=r&asset_type=paid-social") == [1]
    assert await narrowed("label=a:1") == [0, 1]
    assert await narrowed("label=a:1&label=b:x:y") == [1]
    assert await narrowed("label=a:2") == []
    assert await narrowed(f"created_after={escaped(accepted_at)}") == [0]
    assert await narrowed("created_after=2026-01-01T00:00:00+00:00") == [0, 1, 2]
    assert await narrowed("closed_after=2020-01-01T00:00:00Z") == [0]


BAD_QUERIES = [
    "limit=0",
    "limit=201",
    "limit=x",
    "state=open",
    "outcome=pending",
    "label=a",
    "label=a:1&label=B:1",
    "label=a:%00",
    "batch_id=",
    "batch_id=%00",
    "client_ref=" + "x" * 129,
    "asset_type=%C3%9C",
    "created_after=yesterday",
    "created_after=2026-01-01T00:00:00",
    "closed_after=",
    "cursor=",
    "cursor=bm9wZQ==",
    "cursor=bjk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk=",
    "cursor=%FF",
    "order=asc",
]


@pytest.mark.parametrize("query", BAD_QUERIES)
async def test_bad_queries_are_refused_by_name(desk: Desk, query: str) -> None:
    """A filter that cannot be used is a 400 that names it."""
    body = problem(await desk.http.get(f"/v1/requests?{query}"), 400, "unsupported_query")

    assert body["errors"][0]["pointer"].startswith("/" + query.partition("=")[0])


async def test_paging_is_complete_while_requests_come_in(desk: Desk) -> None:
    """Every request that was there at the start is listed exactly once, newest first."""
    before = [Line() for _ in range(23)]
    for line in before:
        await desk.accepted(line)
    found, cursor = [], ""
    while True:
        page = (await desk.http.get(f"/v1/requests?limit=5{cursor}")).json()
        found += [row["request_id"] for row in page["items"]]
        assert len(page["items"]) <= 5
        await asyncio.gather(*(desk.accepted(Line()) for _ in range(3)))
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert found == [str(line.id) for line in reversed(before)]


async def test_a_deadline_is_the_closing_time(desk: Desk) -> None:
    """Else it is 72 hours after acceptance."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    line, plain = Line(deadline=at.isoformat()), Line()
    await desk.accepted(line)
    await desk.accepted(plain)
    shown = await desk.shown(plain.id)

    assert datetime.fromisoformat((await desk.shown(line.id))["closes_by"]) == at
    lasts = datetime.fromisoformat(shown["closes_by"]) - datetime.fromisoformat(shown["accepted_at"])
    assert lasts == timedelta(hours=72)
