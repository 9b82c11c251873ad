"""What /proc knows of a process: is it still the same one, its memory and processor time, who left it behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local.child import MARK

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses now."""

    rss_mb: float
    cpu_s: float


def start_ticks(pid: int) -> int | None:
    """When it started, in clock ticks since boot; with the pid this names a process for ever. None if it is gone."""
    fields = _stat(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def is_running(pid: int, ticks: int | None) -> bool:
    """Whether this very process still runs, not another one with its number."""
    return ticks is not None and start_ticks(pid) == ticks


def usage(pid: int) -> Usage | None:
    """Resident memory and processor time; None if it is gone."""
    fields = _stat(pid)
    if fields is None:
        return None
    cpu_ticks = int(fields[11]) + int(fields[12])
    return Usage(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / _MIB, cpu_ticks / _TICKS_PER_S)


def marked(mark: str) -> list[int]:
    """Processes with this mark in their environment, ourselves excepted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue  # gone, or somebody else's
            if wanted in environment.split(b"\0"):
                found.append(int(folder.name))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
