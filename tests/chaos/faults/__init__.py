"""TABLE: the faults that a campaign draws from. To add one: a file here and a row below."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.fault import Build
from tests.chaos.faults.away import Away
from tests.chaos.faults.clock import Clock
from tests.chaos.faults.disk_full import DiskFull
from tests.chaos.faults.end_txn import EndTxnDelay
from tests.chaos.faults.kill import Kill
from tests.chaos.faults.offsets import OffsetsDeleted
from tests.chaos.faults.partition import Partition
from tests.chaos.faults.postgres_restart import PostgresRestart
from tests.chaos.faults.rebalance import Rebalance
from tests.chaos.faults.resend import Resend
from tests.chaos.faults.rolling import Rolling
from tests.chaos.faults.s3_wrong import S3Refuses, S3Slow, S3Truncated
from tests.chaos.faults.stop import Stop

BROKERS = ("kafka1", "kafka2", "kafka3")
PAIRS = ("kafka1+kafka2", "kafka2+kafka3", "kafka1+kafka3")
SERVICE, REPLICA = "service", "replica"
"""Targets that stand for every service with a stage, or for every one of its processes."""

Resource = str
BROKER = "broker"
"""What all faults of brokers take: only one of them at a time, unless its very point is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault. Of faults that take the same thing one at a time is drawn; `lasts_s` are the shortest and longest."""

    name: str
    build: Build
    targets: Sequence[str]
    lasts_s: tuple[float, float] = (0.0, 0.0)
    weight: float
    takes: str | None = None
    """None: the process that it hits, or with `whole` all replicas of the service."""
    whole: bool = False
    costs_s: float = 0.0
    """How long it keeps what it takes beyond `lasts_s`, as far as a plan can know."""


# fmt: off
TABLE: tuple[Row, ...] = (
    Row(name="kill", build=Kill, targets=(REPLICA,), weight=30, costs_s=6),
    Row(name="stop", build=Stop, targets=(REPLICA,), lasts_s=(1, 15), weight=14, costs_s=2),
    Row(name="partition", build=Partition, targets=(REPLICA,), lasts_s=(2, 20), weight=12, costs_s=5),
    Row(name="clock", build=Clock, targets=(REPLICA,), lasts_s=(10, 30), weight=4, costs_s=15),
    Row(name="kill-broker", build=Kill, targets=BROKERS, weight=8, takes=BROKER, costs_s=15),
    Row(name="stop-broker", build=Stop, targets=BROKERS, lasts_s=(2, 15), weight=5, takes=BROKER, costs_s=5),
    Row(name="rolling-restart", build=Rolling, targets=("",), weight=2, takes=BROKER, costs_s=75),
    Row(name="two-brokers-away", build=Away, targets=PAIRS, lasts_s=(5, 15), weight=2, takes=BROKER, costs_s=30),
    Row(name="disk-full", build=DiskFull, targets=BROKERS, lasts_s=(3, 10), weight=2, takes=BROKER, costs_s=30),
    Row(name="end-txn-delay", build=EndTxnDelay, targets=("",), lasts_s=(6, 25), weight=6, takes=BROKER, costs_s=5),
    Row(name="resend", build=Resend, targets=("",), weight=8, takes=BROKER, costs_s=8),
    Row(name="rebalance-storm", build=Rebalance, targets=(SERVICE,), lasts_s=(8, 16), weight=5, costs_s=5,
        whole=True),
    Row(name="offsets-deleted", build=OffsetsDeleted, targets=("policy", "router", "scorer"), lasts_s=(4, 6), weight=1,
        costs_s=40, whole=True),
    Row(name="postgres-restart", build=PostgresRestart, targets=("postgres",), weight=7, costs_s=5),
    Row(name="s3-away", build=Away, targets=("s3",), lasts_s=(3, 30), weight=4, costs_s=8),
    Row(name="s3-slow", build=S3Slow, targets=("s3",), lasts_s=(4, 15), weight=4),
    Row(name="s3-truncated", build=S3Truncated, targets=("s3",), lasts_s=(4, 10), weight=5),
    Row(name="s3-refuses", build=S3Refuses, targets=("s3",), lasts_s=(4, 15), weight=4),
)
# fmt: on

NEEDS: dict[str, Callable[[], bool]] = {"clock": lambda: shutil.which("faketime") is not None}
"""What a machine must have; a fault without it is not drawn, and the run says so."""


def possible(names: Sequence[str] | None = None) -> tuple[Row, ...]:
    """The rows that this machine can run, of those named."""
    rows = [row for row in TABLE if names is None or row.name in names]
    return tuple(row for row in rows if NEEDS.get(row.name, lambda: True)())
