"""`python -m tests.interleavings --seeds 1000 --first 0`: many histories, one a seed; `--trace` shows every turn.

`--without GUARD` takes a guard of the product out, to see that histories then break.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import ExitStack

import asyncpg
import structlog

from giclee.infra import migrate
from tests.interleavings import guards
from tests.interleavings.clockwork import seeded_time
from tests.interleavings.history import History, prepare
from tests.kit import stack as parts

TEMPLATE = "interleavings"


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _named(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def _template(url: str) -> None:
    """A migrated database that histories get copies of."""
    asyncio.run(_execute(url, f"CREATE DATABASE {TEMPLATE}"))
    asyncio.run(migrate.migrate(_named(url, TEMPLATE)))


def _fresh(url: str, seed: int) -> str:
    name = f"seed_{seed}"
    asyncio.run(_execute(url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"))
    asyncio.run(prepare(_named(url, name)))
    return _named(url, name)


def history_of(url: str, seed: int) -> History:
    """One history on a database of its own, which is gone afterwards. Errors: AssertionError that says what broke."""
    own = _fresh(url, seed)
    try:
        with seeded_time() as loop:
            history = History(seed, own, loop)
            try:
                loop.run_until_complete(history.run())
            except AssertionError as error:
                error.add_note(f"{history.happened} {history.profile}")
                error.add_note("\n".join(history.turnstile.trace[-30:]))
                raise
            return history
    finally:
        asyncio.run(_execute(url, f"DROP DATABASE seed_{seed} WITH (FORCE)"))


def main() -> int:
    """The exit code: 1 when a history broke."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--seeds", type=int, default=1000, help="how many")
    asked.add_argument("--first", type=int, default=0, help="the first seed; the others follow")
    asked.add_argument("--trace", action="store_true", help="print every turn of every history")
    asked.add_argument("--without", choices=sorted(guards.TABLE), help="take a guard out")
    asked.add_argument("--until-broken", action="store_true", help="stop at the first history that breaks")
    chosen = asked.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    broken, began, faults, hedges = 0, time.perf_counter(), 0, 0
    with ExitStack() as opened:
        url = opened.enter_context(parts.postgres_part()).database_url
        if chosen.without:
            opened.enter_context(guards.TABLE[chosen.without]())
        _template(url)
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            try:
                history = history_of(url, seed)
                faults += history.happened.faults()
                hedges += history.happened.hedges
                print("\n".join(history.turnstile.trace) if chosen.trace else f"{seed} {history.happened}", flush=True)
            except AssertionError as error:
                broken += 1
                print(f"seed {seed} BROKEN: {error}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
                if chosen.until_broken:
                    break
    took_s, count = time.perf_counter() - began, seed + 1 - chosen.first
    print(f"{count} histories, {faults} faults, {hedges} hedges, {broken} broken, {took_s:.0f} s")
    return int(broken > 0)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of text need one order for a seed to say everything
        again = [sys.executable, "-m", "tests.interleavings", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
