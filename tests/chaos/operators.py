"""Three operators put one range of dead letters back at once, while originals flow.

    python -m tests.chaos.operators 5000

The same requests go through two lines. In each, half of the letters are a worker's whose image is paid for and stored,
half a scorer's; a bad release wrote them. In one line a single operator brings them back, in the other three do, each
at a replica of the replay service, with the command that operators type. What both lines come to must be the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.chaos.matrix_world import API_KEY, World, running
from tests.kit.stack import Stack, stack
from tests.kit.wait import until

COMMAND = 'giclee dlq replay --class bug --since 12h --canary {canary} --rate {rate}/s --reason "1.5.0 is rolled back"'
RATE_MIN = 3
CANARY_MAX = 20
SHARE_PER_S = 0.1
"""Of the letters: slow enough that all operators work at the same time, however few letters there are."""
WARM_UP_SEED = "0"
NOTHING_LEFT = "nothing is selected"
"""What an operator is told who comes when the others have everything."""
GAP_S = 0.1
"""Between two originals, while operators work."""
PATIENCE_S = 60.0
PER_REQUEST_S = 1.0
"""What anything may take: a line of single processes on a busy machine handles several requests a second."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What one line came to. `paid` counts the sales of the provider by image, `charged` what the closings say."""

    closings: dict[str, tuple[str, int]]
    """By request: outcome and number of approved images."""
    paid: Counter[str]
    charged: Decimal
    sent: int
    """Letters that all runs together put back."""
    seconds: float
    """From the first command to the last request's closing."""
    states: Counter[str]
    """Dead letters by state."""
    twice: int
    """Closings and approvals that a `read_committed` subscriber saw again."""
    said: tuple[str, ...]


async def line(parts: Stack, folder: Path, letters: int, *, operators: int) -> Ending:
    """What a line comes to whose letters so many operators put back at once."""
    name = f"operators{operators}"
    async with running(parts, name, folder / name) as world:
        within_s = PATIENCE_S + PER_REQUEST_S * letters
        half = letters // 2
        await _die(world, "gpu-worker", range(half), within_s)
        await _die(world, "scorer", range(half, letters), within_s)
        for replica in range(2, operators + 1):
            world.processes[f"replay.{replica}"] = world.launch("replay", replica=replica)
            await world.ready(world.processes[f"replay.{replica}"])
        began = time.monotonic()
        stop = asyncio.Event()
        originals = asyncio.create_task(_originals(world, stop))
        said = await asyncio.gather(*(_type(world, one, letters) for one in range(1, operators + 1)))
        stop.set()
        asked = {_id(number) for number in range(letters)} | set(await originals)

        def closed() -> bool:
            """every request has its closing"""
            return asked <= {one["value"]["request_id"] for one in world.seen["image.closed.v1"]}

        await until(closed, within_s)
        return await _ending(world, time.monotonic() - began, tuple(said))


async def _die(world: World, service: str, numbers: range, within_s: float) -> None:
    """Requests go out, a bad release buries an image of each, and the good one comes back."""
    good = world.processes[service].module
    await world.ready(await world.renew(service, None, module=("tests.chaos.bad_release", service)))
    before = await _count(world)
    for number in numbers:
        await world.send("image.requested.v1", _request(number))

    async def buried() -> bool:
        return await _count(world) >= before + len(numbers)

    await until(buried, within_s)
    await world.ready(await world.renew(service, None, module=good))


async def _count(world: World) -> int:
    """Dead letters that the index has."""
    (row,) = await world.rows("SELECT count(*) AS letters FROM replay.dead_letters")
    return int(row["letters"])


async def _originals(world: World, stop: asyncio.Event) -> list[str]:
    """New requests until told to stop; their ids."""
    asked: list[str] = []
    while not stop.is_set():
        asked.append(str(uuid.uuid4()))
        await world.send("image.requested.v1", json.dumps({**_WISH, "request_id": asked[-1]}).encode())
        await asyncio.sleep(GAP_S)
    return asked


def command(letters: int) -> str:
    """What each operator types."""
    return COMMAND.format(canary=min(CANARY_MAX, letters // 10), rate=max(RATE_MIN, round(SHARE_PER_S * letters)))


async def _type(world: World, operator: int, letters: int) -> str:
    """The command at one replica; what it said."""
    port = world.ports_of("replay", operator)[1]
    env = {**os.environ, "GICLEE_OPS_URL": f"http://127.0.0.1:{port}", "GICLEE_API_KEY": API_KEY,
           "GICLEE_ACTOR": f"operator-{operator}"}  # fmt: skip
    process = await asyncio.create_subprocess_shell(
        command(letters).replace("giclee", f"{sys.executable} -m giclee.cli", 1), env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0 or NOTHING_LEFT in said, said
    return said


async def _ending(world: World, seconds: float, said: tuple[str, ...]) -> Ending:
    closings = [one["value"] for one in world.seen["image.closed.v1"]]
    approvals = [(one["value"]["asset_id"], one["value"]["version"]) for one in world.seen["image.approved.v1"]]
    seen = Counter([*(one["request_id"] for one in closings), *approvals])
    runs = await world.rows("SELECT coalesce(sum(sent), 0) AS sent FROM replay.runs")
    states = await world.rows("SELECT state, count(*) AS letters FROM replay.dead_letters GROUP BY state")
    return Ending(
        closings={one["request_id"]: (one["outcome"], len(one["assets"])) for one in closings},
        paid=Counter(seed for seed in world.paid_log.read_text().split() if seed != WARM_UP_SEED),
        charged=sum((Decimal(one["cost_usd"]) for one in closings), Decimal(0)),
        sent=int(runs[0]["sent"]),
        seconds=seconds,
        states=Counter({row["state"]: row["letters"] for row in states}),
        twice=sum(seen.values()) - len(seen),
        said=said,
    )


_WISH: dict[str, Any] = {"prompt": "a small red circle on a blue background", "quality": "final"}


def _id(number: int) -> str:
    """The same in both lines, and with it every candidate, seed and verdict."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"operators {number}"))


def _request(number: int) -> bytes:
    return json.dumps({**_WISH, "request_id": _id(number)}).encode()


def wrong(one: Ending, letters: int) -> list[str]:
    """What may not be of any line; empty when nothing."""
    resold = sum(count > 1 for count in one.paid.values())
    open_ = {_id(number) for number in range(letters)} - one.closings.keys()
    found = {
        f"{resold} images were paid for more than once": resold,
        f"{one.twice} closings or approvals seen twice": one.twice,
        f"{one.sent} letters put back, of {letters}": one.sent != letters,
        f"letters are {dict(one.states)}": one.states != Counter({"replayed": letters}),
        f"{len(open_)} requests are open": open_,
    }
    return [text for text, is_so in found.items() if is_so]


def differences(alone: Ending, together: Ending, letters: int) -> list[str]:
    """Requests of the letters that ended otherwise with three operators than with one."""
    mine = [_id(number) for number in range(letters)]
    other = [f"{rid}: {alone.closings.get(rid)}, {together.closings.get(rid)}" for rid in mine]
    return [
        text for rid, text in zip(mine, other, strict=True) if alone.closings.get(rid) != together.closings.get(rid)
    ]


def main() -> int:
    """Print both endings; 1 when they differ in more than time."""
    letters = int(sys.argv[1])
    folder = Path(tempfile.mkdtemp(prefix="giclee-operators-"))
    found, endings = [], []
    with stack() as parts:
        for operators in (1, 3):
            one = asyncio.run(line(parts, folder, letters, operators=operators))
            outcomes = Counter(outcome for outcome, _ in one.closings.values())
            print(
                f"{operators} at once: {one.sent} letters put back, {one.seconds:.0f} s to the last closing, "
                f"{dict(outcomes)}, {sum(one.paid.values())} images paid for, charged {one.charged} USD",
                flush=True,
            )
            for operator, text in enumerate(one.said, 1):
                print(f"operator-{operator} $ {command(letters)}\n{text}", flush=True)
            found += wrong(one, letters)
            endings.append(one)
    alone, together = endings
    found += differences(alone, together, letters)
    print("\n".join(found) or f"all {letters} requests ended alike; logs in {folder}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
