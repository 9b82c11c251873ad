"""Dead letters found, listed, counted, clustered and shown: on a real database."""

from __future__ import annotations

import csv
import io
import json
import uuid
from base64 import b64decode
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from giclee.bus.errors import Transient
from tests.kit.loops import header, request_record
from tests.kit.ops import (
    REQUESTED,
    WHO,
    Ops,
    is_problem,
    letter,
    moment,
    replayed,
    working,
)
from tests.kit.wait import until

pytestmark = pytest.mark.real


async def test_a_duplicate_of_a_dead_letter_is_listed_once(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A crash between the dead letter and its commit writes it again, under the same id."""
    one = letter()
    await indexed.bury(one, one, letter(offset=1))
    body = (await http.get("/v1/dead-letters")).json()

    assert len(body["items"]) == 2
    assert body["counts"] == [{"stage": "policy", "class": "poison", "state": "open", "count": 2}]


async def test_the_index_read_again_from_the_beginning_changes_nothing(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """What was replayed stays replayed."""
    ids = await indexed.die(3)
    await replayed(http, ids=ids[:1])
    await indexed.transport.rewind("giclee.replay")

    assert await indexed.states() == ["open", "open", "replayed"]


async def test_bytes_of_any_kind_come_back_as_they_were(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Headers with zero bytes, names and keys that are no UTF-8: what a database cannot hold is held all the same."""
    headers = (("trace\x00bin", b"\x00\x01\xff"), ("ü", "ü".encode()), ("h", b""), ("h", b"\x00"))
    failed = replace(request_record(), key=b"\x00\xff", value=b"\x00{")
    (dlq_id,) = await indexed.die(1, failed=failed, headers=headers, message="bad \x00 text")
    await until(indexed.count)
    shown = (await http.get(f"/v1/dead-letters/{dlq_id}")).json()
    await replayed(http, ids=[dlq_id])

    (back,) = indexed.back()
    assert (back.key, back.value, back.headers[:4]) == (failed.key, failed.value, headers)
    assert ["ü", "ü"] in shown["headers"]
    assert shown["value_base64"] == "AHs="


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("dlq-id", b"x"),),
        (("dlq-id", str(uuid.uuid4()).encode()),),
        (("dlq-attempts", b"many"),),
        (("dlq-attempts", b"9" * 30),),
        (("dlq-paid-usd", b"lots"),),
        (("dlq-replay-count", b"-"),),
        (("dlq-original-offset", b"\x00"),),
        (("dlq-last-failed-at", b"2026-11-21T09:00:00"),),
    ],
)
async def test_what_is_no_dead_letter_does_not_stop_the_index(ops: Ops, headers: Any) -> None:
    """Whoever can write the topic could otherwise hide every dead letter behind it."""
    good = letter(offset=9)
    bare = not headers or headers[0][0] == "dlq-id"
    odd = replace(good, headers=headers if bare else tuple({**dict(good.headers), **dict(headers)}.items()))
    async with working(ops.index.run) as (task,):
        await ops.put(odd, letter(offset=10))
        await until(lambda: ops.transport.lag("giclee.replay", [f"{REQUESTED}.dlq"]) == 0)
        assert not task.done()

    assert await ops.count("replay.dead_letters WHERE original_offset = 10") == 1


async def test_an_index_that_cannot_read_is_unready(ops: Ops) -> None:
    """While the broker is away new dead letters are not listed, and the probe says so."""
    index = ops.index
    with pytest.raises(Transient):
        await index.check()
    async with working(index.run):
        await ops.die()
        await until(ops.count)
        await index.check()
        ops.transport.away = True

        async def unready() -> bool:
            try:
                await index.check()
            except Transient:
                return True
            return False

        await until(unready)
        ops.transport.away = False
        await ops.die(1, offset=5)

        async def both() -> bool:
            return await ops.count() == 2

        await until(both)
        await index.check()


async def test_a_list_has_pages_and_shows_no_bytes(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Newest first, every dead letter on one page only, counts of everything that is selected."""
    await indexed.die(7)
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = (
            await http.get("/v1/dead-letters", params={"limit": 3, **({"cursor": cursor} if cursor else {})})
        ).json()
        found += page["items"]
        assert page["counts"][0]["count"] == 7
        cursor = page["next_cursor"]
        if not cursor:
            break

    times = [one["died_at"] for one in found]
    assert len({one["dlq_id"] for one in found}) == 7
    assert times == sorted(times, reverse=True)
    assert not {"value", "value_base64", "headers"} & found[0].keys()


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({"topic": REQUESTED}, 2),
        ({"topic": "image.scored.v1"}, 0),
        ({"stage": "policy"}, 2),
        ({"class": "bug"}, 1),
        ({"error_type": "ZeroDivisionError"}, 1),
        ({"tenant": "acme"}, 1),
        ({"state": "open"}, 2),
        ({"state": "replayed"}, 0),
        ({"request": str(uuid.uuid4())}, 0),
        ({"since": moment(1)}, 1),
        ({"until": moment(1)}, 1),
        ({"stage": "policy", "class": "poison"}, 1),
        ({"service_version": "0.1.0"}, 2),
        ({"provider": "diffusion"}, 1),
        ({"model": "shapes-final"}, 1),
        ({"batch": "b7"}, 1),
        ({"key": "k7"}, 1),
        ({"partition": "1"}, 2),
        ({"partition": "2"}, 0),
        ({"offsets": "1-9"}, 1),
        ({"offsets": "0"}, 1),
        ({"run": str(uuid.uuid4())}, 0),
    ],
)
async def test_filters_narrow_items_and_counts_alike(
    indexed: Ops, http: httpx2.AsyncClient, params: dict[str, str], count: int
) -> None:
    """All that are given must hold."""
    await indexed.bury(
        letter(offset=0),
        letter(
            offset=1,
            dead_class="bug",
            error_type="ZeroDivisionError",
            tenant="acme",
            provider="diffusion",
            model="shapes-final",
            failed=replace(request_record(batch_id="b7"), key=b"k7"),
        ),
    )
    body = (await http.get("/v1/dead-letters", params=params)).json()

    assert len(body["items"]) == sum(one["count"] for one in body["counts"]) == count


async def test_problems_say_what_is_wrong(ops: Ops, http: httpx2.AsyncClient) -> None:
    """Every answer that is not 200 is a problem, whatever was sent."""
    unknown = str(uuid.uuid4())
    for params in ({"since": "yesterday"}, {"staeg": "x"}, {"limit": "-1"}, {"cursor": "x"}, {"state": "dead"}):
        is_problem(await http.get("/v1/dead-letters", params=params), 422)
    for cursor in ("WzEsMl0=", "eyJhIjoxLCJiIjoyfQ==", "é"):
        is_problem(await http.get("/v1/dead-letters", params={"cursor": cursor}), 422)
    is_problem(await http.get("/v1/dead-letters", params={"stage": "a\x00b"}), 422)
    is_problem(await http.get(f"/v1/dead-letters/{unknown}"), 404)
    is_problem(await http.get("/v1/dead-letters/x"), 422)
    is_problem(await http.get("/v1/nothing"), 404)
    bodies: list[Any] = [{}, {**WHO, "reason": ""}, {**WHO, "ids": ["x"]}, {**WHO, "selection": {"staeg": 1}}, [], WHO]
    for path in ("/v1/runs", "/v1/dead-letters/park", "/v1/dead-letters/release", "/v1/dead-letters/discard"):
        for body in bodies:
            is_problem(await http.post(path, json=body), 422)
    is_problem(await http.get(f"/v1/runs/{unknown}"), 404)
    is_problem(await http.post(f"/v1/runs/{unknown}/pause", json=WHO), 404)
    is_problem(await http.post("/v1/runs", json={**WHO, "all": True, "max_cost_usd": "-1"}), 422)
    is_problem(await http.get("/v1/dead-letters", params={"offsets": "9-x"}), 422)
    is_problem(await http.put("/v1/switches/nonsense", json={**WHO, "mode": "hold"}), 422)
    is_problem(await http.put("/v1/switches/all", json={**WHO, "mode": "other"}), 422)
    is_problem(await http.put("/v1/switches/all", json={**WHO, "mode": "hold", "reason": "a\x00b"}), 422)
    http.headers["Authorization"] = "Bearer wrong-key-of-16-characters"
    for path in ("/v1/dead-letters", "/v1/switches", f"/v1/dead-letters/{unknown}", "/v1/runs", "/v1/audit"):
        is_problem(await http.get(path), 401)


async def test_a_database_that_is_away_is_a_503(ops: Ops, http: httpx2.AsyncClient) -> None:
    """With a hint when to come back."""
    await ops.pool.close()
    answer = await http.get("/v1/dead-letters")

    is_problem(answer, 503)
    assert answer.headers["retry-after"]


async def test_letters_of_one_cause_are_one_cluster(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """With how many, since when, whose, of which releases, and what was paid for them."""
    await indexed.die(3, message="no route to 10.0.0.1", tenant="acme", paid_usd=Decimal("0.02"))
    await indexed.die(1, offset=7, message="no route to 10.0.0.9", tenant="zeta")
    await indexed.die(1, offset=9, message="quite another thing")
    await http.post("/v1/dead-letters/park", json={**WHO, "selection": {"tenant": "zeta"}})
    first, second = (await http.get("/v1/dead-letters/stats")).json()["items"]

    assert (first["count"], first["states"]["open"], first["states"]["parked"]) == (4, 3, 1)
    assert (first["tenants"], first["service_versions"], first["paid_usd"]) == (["acme", "zeta"], ["0.1.0"], "0.06")
    assert (first["first_seen"], first["last_seen"]) == (moment(0), moment(7))
    assert second["count"] == 1


async def test_a_letter_is_shown_with_what_its_schema_says(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Every error by its pointer, and nothing for a value that is well."""
    bad, good = await indexed.die(1, failed=request_record(wanted=0, budgett=1)) + await indexed.die(1, offset=1)
    errors = {one["pointer"] for one in (await http.get(f"/v1/dead-letters/{bad}")).json()["errors"]}
    shown = (await http.get(f"/v1/dead-letters/{good}")).json()

    assert errors == {"/wanted", "/budgett"}
    assert shown["errors"] == []
    assert shown["value"]["prompt"]
    assert ["dlq-stage", "policy"] in shown["headers"]


async def test_an_export_holds_what_is_selected_byte_for_byte(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """As lines of JSON, as records that any client can send back, and as a table."""
    odd = replace(request_record(), key=b"\x00\xff", value=b"\x00{")
    (dlq_id,) = await indexed.die(1, failed=odd, stage="router")
    await indexed.die(3, offset=5)
    raw = (await http.get("/v1/dead-letters/export", params={"form": "records", "stage": "router"})).text
    lines = (await http.get("/v1/dead-letters/export", params={"limit": 2})).text.splitlines()
    (record,) = [json.loads(line) for line in raw.splitlines()]
    (kept,) = [one for one in indexed.transport.records(f"{REQUESTED}.dlq") if header(one, "dlq-id") == dlq_id]

    assert (b64decode(record["key_base64"]), b64decode(record["value_base64"])) == (odd.key, odd.value)
    assert [(name, b64decode(text)) for name, text in record["headers"]] == list(kept.headers)
    assert [json.loads(line)["died_at"] for line in lines] == [moment(0), moment(5)]


async def test_a_table_computes_nothing_when_it_is_opened(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """Whoever sends a request chooses its texts; a spreadsheet must not run them."""
    await indexed.die(1, message='=HYPERLINK("http://evil")', failed=replace(request_record(), key=b"+1+cmd"))
    table = (await http.get("/v1/dead-letters/export", params={"form": "csv"})).text
    names, cells = csv.reader(io.StringIO(table))
    row = dict(zip(names, cells, strict=True))

    assert row["message"].startswith("'=")
    assert row["key"] == "'+1+cmd"
    assert row["stage"] == "policy"


async def test_what_retention_removed_is_listed_and_says_so(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """The index outlives the record: it is shown without a value, exported without one, and refused with the reason."""
    (dlq_id,) = await indexed.die()
    await indexed.pool.execute("UPDATE replay.dead_letters SET dlq_offset = 999")
    shown = (await http.get(f"/v1/dead-letters/{dlq_id}")).json()
    asked = (await http.post("/v1/dead-letters/preflight", json={"ids": [dlq_id]})).json()
    run = await replayed(http, ids=[dlq_id])

    assert "retention" in shown["missing"]
    assert (asked["totals"]["refuse"], "retention" in asked["items"][0]["why"][0]) == (1, True)
    assert (run["state"], run["sent"], run["refused"]) == ("done", 0, 1)
    assert await indexed.states() == ["open"]
    assert "retention" in (await http.get("/v1/audit", params={"dlq_id": dlq_id})).json()["items"][0]["details"]["why"]


async def test_park_and_release_end_nothing_and_are_told(indexed: Ops, http: httpx2.AsyncClient) -> None:
    """A parked letter is replayed by nobody until it is released; its history says who and why."""
    ids = await indexed.die(3)
    parked = (await http.post("/v1/dead-letters/park", json={"reason": "bad release", "ids": ids[:2]})).json()
    again = (await http.post("/v1/dead-letters/park", json={"reason": "bad release", "ids": ids[:2]})).json()
    run = await replayed(http, selection={"stage": "policy"})
    states = await indexed.states()
    released = (await http.post("/v1/dead-letters/release", json={"reason": "mended", "all": True})).json()
    history = (await http.get(f"/v1/dead-letters/{ids[0]}")).json()["history"]

    assert (parked["changed"], again["changed"], run["total"], released["changed"]) == (2, 0, 1, 2)
    assert states == ["parked", "parked", "replayed"]
    assert [(one["actor"], one["action"], one["reason"]) for one in history] == [
        ("ada", "release", "mended"),
        ("ada", "park", "bad release"),
    ]
    assert history[1]["details"]["before"] == "open"
