"""`python -m tests.chaos --seed 7 --minutes 10`: one campaign. `make chaos SEED= MINUTES=` calls it."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
from pathlib import Path

from giclee.infra.local.folder import checkout
from tests.chaos.campaign import Wish, run
from tests.chaos.faults import TABLE
from tests.chaos.plan import GAP_S
from tests.chaos.stack import FULL, SMALL

RATE_PER_S = 1.5


def main() -> int:
    """Read the wish, run it; the exit code is the checker's."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="repeats a plan; absent, one is drawn and printed")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="requests per second")
    parser.add_argument("--faults-min", type=int, default=0, help="fewer that happened make the run invalid")
    parser.add_argument("--requests-min", type=int, default=1, help="fewer that were accepted make it invalid")
    parser.add_argument("--small", action="store_true", help="one replica of most services")
    parser.add_argument(
        "--only", nargs="*", choices=[row.name for row in TABLE], help="these faults; none without a word"
    )
    parser.add_argument("--folder", type=Path, help="where the run is kept; absent, .giclee/chaos/<seed>")
    parser.add_argument("--lasts", type=float, metavar="SECONDS", help="of every fault, instead of its row's")
    parser.add_argument(
        "--gap", type=float, nargs=2, default=GAP_S, metavar=("LEAST", "MOST"), help="seconds between two faults"
    )
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job has it ignored
        signal.signal(number, signal.default_int_handler)
    seed = secrets.randbelow(10**6) if given.seed is None else given.seed
    print(f"seed {seed}: make chaos SEED={seed} MINUTES={given.minutes:g}", flush=True)
    scale = SMALL if given.small else FULL
    wish = Wish(
        seed=seed,
        minutes=given.minutes,
        rate_per_s=given.rate,
        scale=scale,
        kinds=given.only,
        lasts_s=given.lasts,
        gap_s=tuple(given.gap),
        faults_min=given.faults_min,
        requests_min=given.requests_min,
    )
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that are away are no news here
    try:
        return run(wish, given.folder or checkout() / ".giclee" / "chaos" / str(seed))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
