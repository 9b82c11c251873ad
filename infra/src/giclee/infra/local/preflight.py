"""What the machine must have before a stack starts; everything that is missing is said at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from giclee.infra.local.kafka import jars
from giclee.infra.local.ports import OFFSETS, Ports
from giclee.infra.local.services import PARTS, Wanted, health_port
from giclee.infra.trouble import Trouble

MIN_DISK_BYTES = 3 * 1024**3
"""Downloads take 0.2 GB; the rest is for Kafka's log, images and Postgres."""
MIN_JAVA = 17
_LISTEN = "0A"  # the state of a listening socket in /proc/net/tcp


def check(wanted: Wanted, ports: Ports, state: Path) -> None:
    """Errors: Trouble with one line for each thing that is missing."""
    found = [*_outside(), *_java(wanted), *_maven(wanted), *_disk(state), *_ports(wanted, ports)]
    if found:
        raise Trouble("\n".join(found))


def ports_needed(wanted: Wanted, ports: Ports) -> dict[int, str]:
    """Port -> who listens there."""
    needed = {}
    for name in OFFSETS:
        owner = name.partition(".")[0]
        if wanted.registry if owner == "registry" else owner in PARTS and wanted.has(owner):
            needed[ports.of(name)] = name
    for service in wanted.services():
        for replica in range(1, wanted.replicas(service) + 1):
            needed[health_port(service, replica, ports)] = f"{service.name} (health)"
            if service.has_http:
                needed[ports.http(service.name, replica)] = service.name
    return needed


def _outside() -> Iterable[str]:
    if os.environ.get("GICLEE_EXTERNAL"):
        yield "GICLEE_EXTERNAL is not supported by this release; unset it and the stack starts its own parts."


def _java(wanted: Wanted) -> Iterable[str]:
    if not (wanted.has("kafka") or wanted.registry):
        return
    java = shutil.which("java")
    if java is None:
        yield f"Java {MIN_JAVA} or newer is needed for Kafka; install a JRE and put `java` on the PATH."
        return
    said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < MIN_JAVA:
        yield f"Java {MIN_JAVA} or newer is needed for Kafka; {java} says {said.partition(chr(10))[0]!r}."


def _maven(wanted: Wanted) -> Iterable[str]:
    if wanted.has("kafka") and not (jars() / ".complete").exists() and shutil.which("mvn") is None:
        yield f"Maven (`mvn`) is needed once, to download Kafka into {jars()}; install it."


def _disk(state: Path) -> Iterable[str]:
    there = next(folder for folder in (state, *state.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < MIN_DISK_BYTES:
        yield f"{there} has {free / 1024**3:.1f} GiB free; the stack needs {MIN_DISK_BYTES // 1024**3} GiB."


def _ports(wanted: Wanted, ports: Ports) -> Iterable[str]:
    serving = _listening()
    taken = [f"{port} ({who})" for port, who in _not_free(wanted, ports).items() if port in serving]
    if taken:
        some = "Port" if len(taken) == 1 else "Ports"
        yield f"{some} {', '.join(taken)} in use by another program; GICLEE_PORT_BASE moves all of ours at once."


def held_ports(wanted: Wanted, ports: Ports) -> str:
    """Ports that no server has, but a client's connection: the kernel hands out ports of our range. Empty if none.

    They come free by themselves, within a minute of the connection's end.
    """
    serving = _listening()
    return ", ".join(f"{port} ({who})" for port, who in _not_free(wanted, ports).items() if port not in serving)


def _not_free(wanted: Wanted, ports: Ports) -> dict[int, str]:
    return {port: who for port, who in ports_needed(wanted, ports).items() if not ports.is_free(port)}


def _listening() -> set[int]:
    """Ports on which some server of this machine listens."""
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *_ = line.split()
            if state == _LISTEN:
                found.add(int(local.rpartition(":")[2], 16))
    return found
