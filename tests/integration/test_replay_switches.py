"""Switches set, and what they held let go: on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from giclee.bus.errors import Transient
from giclee.bus.transport import Partition, Record
from giclee.replay.switches import Switches
from giclee.schemas import topics
from tests.kit.loops import header
from tests.kit.ops import (
    POOLS,
    REQUESTED,
    WHO,
    Ops,
    held,
    switch,
    working,
)
from tests.kit.wait import until

pytestmark = pytest.mark.real


async def test_a_switch_is_set_listed_and_cleared(ops: Ops, http: httpx2.AsyncClient) -> None:
    """With who, why and how many records wait; a cleared one is listed no more."""
    async with working(ops.table.follow, ops.index.run):
        answer = await http.put("/v1/switches/tenant:acme", json={**WHO, "mode": "hold"})
        assert answer.status_code == 200
        await ops.put(held("tenant:acme"), held("tenant:acme", offset=1))

        async def listed() -> Any:
            return (await http.get("/v1/switches")).json()["items"]

        async def both_wait() -> bool:
            return [one["held"] for one in await listed()] == [2]

        await until(both_wait)
        (one,) = await listed()
        await http.put("/v1/switches/tenant:acme", json={**WHO, "mode": "clear"})
        await until(lambda: ops.table.rows["tenant:acme"].mode == "clear")
        after = await listed()

    assert (one["scope"], one["mode"], one["in_force"], one["actor"]) == ("tenant:acme", "hold", True, "ada")
    assert after == []
    assert await ops.count("replay.audit") == 2


async def waiting(ops: Ops, number: int, scope: str = "tenant:acme") -> None:
    """`number` records wait under a hold that the table knows."""
    await ops.switches.set(switch(scope))
    await until(lambda: scope in ops.table.rows)
    await ops.put(*(held(scope, offset=place) for place in range(number)))

    async def all_wait() -> bool:
        return await ops.count("replay.held") == number

    await until(all_wait)


async def test_held_records_flow_on_when_their_switch_is_cleared(indexed: Ops) -> None:
    """All of them, in order, for the stage that held them, without a trace of having been held."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 250)
        assert indexed.back() == []
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) >= 250)

        async def none_left() -> bool:
            return await indexed.count("replay.held") == 0

        await until(none_left)

    back = indexed.back()
    assert len(back) == 250
    assert {header(one, "giclee-replay-for") for one in back} == {"policy"}
    assert not any(name.startswith("held-") for one in back for name, _ in one.headers)
    assert all(header(one, "ce_subject") == json.loads(one.value or b"")["request_id"] for one in back)


async def test_held_records_flow_on_when_their_switch_expires(indexed: Ops) -> None:
    """By the database's clock; nobody has to clear it."""
    async with working(indexed.table.follow, indexed.switches.release):
        soon = datetime.now(UTC) + timedelta(seconds=1.5)
        await indexed.switches.set(switch("tenant:acme", expires_at=soon))
        await until(lambda: "tenant:acme" in indexed.table.rows)
        await indexed.put(held("tenant:acme"))
        await until(lambda: indexed.count("replay.held"))
        early = len(indexed.back())
        await until(lambda: len(indexed.back()) == 1)

    assert early == 0


async def test_a_switch_that_turns_to_refuse_lets_go_what_it_held(indexed: Ops) -> None:
    """The stage looks at it again and refuses it; it would wait for ever otherwise, and its caller hear nothing."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 3)
        await indexed.switches.set(switch("tenant:acme", "refuse"))
        await until(lambda: len(indexed.back()) == 3)


async def test_what_other_switches_hold_goes_on_waiting(indexed: Ops) -> None:
    """Clearing one scope says nothing about another."""
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 2, "tenant:acme")
        await indexed.switches.set(switch("model:painter"))
        await until(lambda: "model:painter" in indexed.table.rows)
        await indexed.put(held("model:painter", offset=9))

        async def three() -> bool:
            return await indexed.count("replay.held") == 3

        await until(three)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) == 2)

        async def one_left() -> bool:
            return await indexed.count("replay.held") == 1

        await until(one_left)


async def test_two_replicas_let_go_every_record_once(indexed: Ops) -> None:
    """Whoever takes a row sends and deletes it in one transaction; others pass it by."""
    others = [Switches(indexed.table, indexed.store, indexed.send) for _ in range(3)]
    async with working(indexed.table.follow, indexed.switches.release, *(one.release for one in others)):
        await waiting(indexed, 60)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: len(indexed.back()) >= 60)

        async def none_left() -> bool:
            return await indexed.count("replay.held") == 0

        await until(none_left)

    assert len(indexed.back()) == 60


async def test_a_release_that_cannot_be_sent_stays_held(indexed: Ops) -> None:
    """Deleted only when the broker has it."""
    failing = True

    def gate(records: Sequence[Record]) -> None:
        if failing and any(record.topic == REQUESTED for record in records):
            raise Transient("no broker")

    indexed.gate = gate
    async with working(indexed.table.follow, indexed.switches.release):
        await waiting(indexed, 2)
        await indexed.switches.set(switch("tenant:acme", "clear"))
        await until(lambda: indexed.table.rows["tenant:acme"].mode == "clear")
        await asyncio.sleep(0)
        assert await indexed.count("replay.held") == 2
        failing = False
        await until(lambda: len(indexed.back()) == 2)


def test_the_group_reads_every_dead_letter_and_held_topic() -> None:
    """What nobody indexes nobody could put back."""
    wanted = set(topics.groups(POOLS)["giclee.replay"])
    assert {row.name for row in topics.all_topics(POOLS) if row.name.endswith((".dlq", ".held"))} == wanted
    assert Partition("image.routed.hosted.v1.dlq", 0).topic in wanted
