"""`python -m tests.lab.line --requests 2000 --seed 6`: one run on parts of its own. Exit 1 when something is wrong."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from giclee.infra import migrate
from giclee.infra import topics as infra
from tests.kit.stack import stack
from tests.lab.line import report, world
from tests.lab.line.books import Books
from tests.lab.line.drive import Drive
from tests.lab.line.plan import Wish

FOREIGN = ("GICLEE_", "KAFKA_", "AWS_", "DATABASE_", "OTEL_", "SCHEMA_REGISTRY_")


async def line(wish: Wish, env: Mapping[str, str], folder: Path) -> Books:
    """One run on the parts, topics and tables of `env`; `folder` takes files and logs."""
    async with world.running(wish, env, folder) as running:
        return Books(await Drive(running, wish).to_the_end())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault is injected; 0: each kind once")
    parser.add_argument("--open", type=int, default=60, help="requests open at once: the line sets the pace")
    parser.add_argument(
        "--stubs", action="store_true", help="no models: a scorer that draws, a local worker that paints"
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="after the last request, until all must be closed")
    parser.add_argument("--folder", type=Path, help="where files and logs are kept; absent, nowhere")
    given = parser.parse_args()
    wish = Wish(
        requests=given.requests, seed=given.seed, rounds=given.rounds, open_max=given.open, real=not given.stubs,
        closed_within_s=60 * given.minutes,
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="giclee-lab-line-") as scratch, stack() as parts:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        infra.apply(infra.Target(parts.bootstrap_servers, "", replication=1))
        asyncio.run(migrate.migrate(parts.database_url))
        books = asyncio.run(line(wish, parts.env(), folder))
    print(report.told(books))
    return 1 if books.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
