"""A process from its first probe to its last sign: what it says while it starts, and what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from giclee.bus import run
from giclee.bus.memory import MemoryTransport
from giclee.bus.settings import KafkaSettings, ProcessSettings
from giclee.bus.stage import Stage
from giclee.bus.transport import Record
from giclee.schemas.events import Event, ImageRefused, ImageRequested
from giclee.schemas.parts import Position
from tests.kit.loops import request_record
from tests.kit.service_process import free_port
from tests.kit.wait import until


async def nothing(event: ImageRequested) -> list[Event]:
    return []


STAGE = Stage(name="policy", reads=(ImageRequested,), emits=(ImageRefused,), handle=nothing)


class Watched:
    """A transport whose parts can be withheld, and that knows which of its writers are open."""

    def __init__(self) -> None:
        self.inner = MemoryTransport()
        self.there = asyncio.Event()
        self.there.set()
        self.open: set[str] = set()
        self.table_fails: Exception | None = None

    async def cluster_id(self) -> str:
        await self.there.wait()
        return "watched"

    def numbered(self, name: str, topics: Sequence[str]) -> Any:
        return self.inner.numbered(name, topics)

    def lookup(self) -> Any:
        return self.inner.lookup()

    def reader(self, group: str, topics: Sequence[str]) -> Any:
        found = self.inner.reader(group, topics)
        if not group and self.table_fails is not None:

            async def ends() -> Any:
                raise self.table_fails or AssertionError

            found.ends = ends  # type: ignore[method-assign]
        return found

    def writer(self, name: str) -> Any:
        return _Writer(self, name)


class _Writer:
    def __init__(self, watched: Watched, name: str) -> None:
        self._watched, self._name = watched, name
        self._inner = watched.inner.writer(name)

    async def start(self) -> None:
        self._watched.open.add(self._name)

    async def stop(self) -> None:
        self._watched.open.discard(self._name)

    async def send(self, records: Sequence[Record]) -> Sequence[Position]:
        return await self._inner.send(records)


@pytest.fixture
def port() -> int:
    return free_port()


def service(port: int, **parts: Any) -> run.Service:
    settings = SimpleNamespace(
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"), process=ProcessSettings(health_port=port)
    )
    return run.Service(name="test", settings=settings, **{"stages": (STAGE,), **parts})


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return 0, {}


async def probed(port: int, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    return await asyncio.to_thread(ask, port, path)


async def answers(port: int) -> None:
    async def up() -> bool:
        return (await probed(port, "/livez"))[0] == 200

    await until(up)


async def test_a_process_is_unready_until_its_stages_run(port: int) -> None:
    """While the broker is waited for, nothing is handled: whoever routes work here must know."""
    watched = Watched()
    watched.there.clear()
    task = asyncio.create_task(run.serve(service(port), watched))
    await answers(port)
    status, body = await probed(port)
    watched.there.set()

    async def ready() -> bool:
        return (await probed(port))[0] == 200

    await until(ready)
    terminate()
    await asyncio.wait_for(task, 20)

    assert status == 503
    assert "start" in body["failing"]
    assert watched.open == set()


async def test_a_start_that_is_broken_off_leaves_nothing_open(port: int) -> None:
    """Stopped while it waits for the switches: the writer that was already there is closed."""
    watched = Watched()
    watched.inner.away = True
    task = asyncio.create_task(run.serve(service(port), watched))
    await answers(port)
    await until(lambda: watched.open)
    terminate()
    await asyncio.wait_for(task, 20)

    assert watched.open == set()


async def test_a_table_that_breaks_while_starting_ends_the_process(port: int) -> None:
    """It would wait for its switches for ever."""
    watched = Watched()
    watched.table_fails = KeyError("a bug")
    with pytest.raises(SystemExit) as ended:
        async with asyncio.timeout(20):
            await run.serve(service(port), watched)

    assert ended.value.code == 1
    assert watched.open == set()


async def returns() -> None:
    return None


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def breaks() -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize("work", [returns, cancels_itself, breaks])
@pytest.mark.parametrize("stages", [(), (STAGE,)])
async def test_background_work_that_ends_ends_the_process_with_an_error(port: int, work: Any, stages: Any) -> None:
    """However it ended: a supervisor that sees exit code 0 would not start it again."""
    watched = Watched()
    with pytest.raises(SystemExit) as ended:
        async with asyncio.timeout(20):
            await run.serve(service(port, background=(work,), stages=stages), watched)

    assert ended.value.code == 1
    assert watched.open == set()


async def test_a_signal_drains_the_stages_and_cancels_the_background(port: int) -> None:
    """What runs is finished and committed; what waits for ever is told to go; the exit is a good one."""
    watched, cancelled, begun, release = Watched(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def slow(event: ImageRequested) -> list[Event]:
        begun.set()
        await release.wait()
        return []

    stage = Stage(name="policy", reads=(ImageRequested,), emits=(ImageRefused,), handle=slow)
    task = asyncio.create_task(run.serve(service(port, stages=(stage,), background=(waits,)), watched))
    await watched.inner.writer("test").send([request_record()])
    await asyncio.wait_for(begun.wait(), 10)
    terminate()
    await asyncio.sleep(0)
    release.set()
    await asyncio.wait_for(task, 20)

    assert cancelled.is_set()
    assert watched.inner.lag("giclee.policy", ["image.requested.v1"]) == 0


async def test_work_that_no_poll_brought_finds_its_stage(port: int) -> None:
    """`submit` leads there under its name, also for a sweeper that has work before the stage runs."""
    handled = asyncio.Event()

    async def handle(event: ImageRequested) -> list[Event]:
        handled.set()
        return []

    async def sweeps() -> None:
        await one.submit["policy"](request_record())
        assert handled.is_set()
        await asyncio.Event().wait()

    stage = Stage(name="policy", reads=(ImageRequested,), emits=(ImageRefused,), handle=handle)
    one = service(port, stages=(stage,), background=(sweeps,))
    task = asyncio.create_task(run.serve(one, Watched()))
    await asyncio.wait_for(handled.wait(), 10)
    terminate()
    await asyncio.wait_for(task, 20)
