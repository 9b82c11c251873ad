"""What every goal shares: cores, CPU seconds of process trees, rounds in turn, and figures with their spread."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Wrong(Exception):
    """A record was lost, came twice, or is not what it should be: the figure beside it is worth nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the report: the same thing measured on both sides, once per round.

    `aim` is what this release wants of `ratio` or of our own median, in words; `met` says whether it is so,
    None where a line only informs.
    """

    goal: str
    says: str
    unit: str
    ours: Sequence[float]
    bare: Sequence[float]
    ratio: float
    aim: str = ""
    met: bool | None = None


@dataclass(slots=True, kw_only=True)
class Result:
    """What one goal came to. `sides` says what each side does, `costs` what costs most."""

    goal: str
    title: str
    sides: str
    rows: list[Row] = field(default_factory=list)
    costs: str = ""
    load: str = ""


def cores() -> list[int]:
    """The two cores that everything is pinned to; one core is used twice where there is no second."""
    mine = sorted(os.sched_getaffinity(0))
    return [mine[0], mine[1] if len(mine) > 1 else mine[0]]


def pin(numbers: Iterable[int]) -> None:
    """Keep this process, and all that it starts from now on, on these cores."""
    os.sched_setaffinity(0, set(numbers))


def load() -> str:
    """The load averages of the machine now."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def machine() -> str:
    """The facts that figures depend on; no names, no paths."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{os.cpu_count()} cores ({model}), {memory_kib / 1024 / 1024:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that these processes and all below them have used so far."""
    children: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        words = text[text.rindex(")") + 2 :].split()
        pid = int(entry.name)
        children.setdefault(int(words[1]), []).append(pid)
        used[pid] = (int(words[11]) + int(words[12])) / _TICKS_PER_S
    total, left = 0.0, list(pids)
    while left:
        pid = left.pop()
        total += used.get(pid, 0.0)
        left += children.get(pid, [])
    return total


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all values do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, round(share * (len(ranked) - 1)))]


def spread(values: Sequence[float]) -> str:
    """Median and extremes: `35.1 (34.8 to 36.0)`; a figure that was taken once stands alone."""
    if len(values) == 1:
        return shown(values[0])
    return f"{shown(median(values))} ({shown(min(values))} to {shown(max(values))})"


def shown(value: float) -> str:
    """Three significant digits or so."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3
    return f"{value:.{digits}f}"
