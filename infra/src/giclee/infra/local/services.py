"""The service processes of the stack: one literal table, and how a row becomes processes.

Each is `python -m giclee.<module>` in the environment that has what it needs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from giclee.infra.local.child import Launch
from giclee.infra.local.folder import Folder, checkout
from giclee.infra.local.ports import MAX_HTTP_REPLICAS, MAX_REPLICAS, WITH_API, Ports
from giclee.infra.trouble import Trouble

Venv = Literal["light", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One row: a process of ours."""

    name: str
    module: str
    venv: Venv = "light"
    count: int = 1
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_http(self) -> bool:
        """Whether it serves HTTP beside its health port."""
        return self.name in WITH_API


# fmt: off
TABLE: tuple[Service, ...] = (
    Service(name="intake",        module="giclee.intake"),
    Service(name="policy",        module="giclee.policy"),
    Service(name="router",        module="giclee.router"),
    Service(name="router.health", module="giclee.router.health"),
    Service(name="gpu_worker",    module="giclee.gpu_worker", venv="gpu", env={"GICLEE_GPU_WORKER_POOL": "local"}),
    Service(name="scorer",        module="giclee.scorer", venv="gpu"),
    Service(name="publisher",     module="giclee.publisher"),
    Service(name="replay",        module="giclee.replay"),
)
# fmt: on

PARTS = ("kafka", "postgres", "s3")
NAMES = (*PARTS, *(row.name for row in TABLE))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a stack is asked to run."""

    only: tuple[str, ...] = ()
    """Names of parts and services; empty means all."""
    scale: Mapping[str, int] = field(default_factory=dict)
    registry: bool = False

    def __post_init__(self) -> None:
        """Errors: Trouble that names every word it does not know."""
        unknown = sorted({*self.only, *self.scale} - set(NAMES))
        if unknown:
            raise Trouble(f"The stack has no {', '.join(unknown)}; it has {', '.join(NAMES)}.")
        for name, count in self.scale.items():
            if name in PARTS:
                raise Trouble(f"{name} runs once; only services can be scaled.")
            most = MAX_HTTP_REPLICAS if name in WITH_API else MAX_REPLICAS
            if not 0 <= count <= most:
                raise Trouble(f"{name}={count} is out of range: 0 to {most} replicas have ports.")

    def has(self, name: str) -> bool:
        return not self.only or name in self.only

    def replicas(self, service: Service) -> int:
        return self.scale.get(service.name, service.count) if self.has(service.name) else 0

    def services(self) -> list[Service]:
        """The rows of which at least one replica is wanted, in the order of the table."""
        return [row for row in TABLE if self.replicas(row) > 0]


def replica_name(service: Service, replica: int) -> str:
    """`scorer`, `scorer.2`, …: the name in logs and in the status."""
    return service.name if replica == 1 else f"{service.name}.{replica}"


def health_port(service: Service, replica: int, ports: Ports) -> int:
    return ports.health(TABLE.index(service), replica)


def launch(service: Service, replica: int, *, ports: Ports, folder: Folder, env: Mapping[str, str]) -> Launch:
    """How to start one replica; `env` is what all of them share."""
    own = {
        **env,
        **service.env,
        "GICLEE_HEALTH_PORT": str(health_port(service, replica, ports)),
        "PYTHONUNBUFFERED": "1",
    }
    if service.has_http:
        own[f"GICLEE_{service.name.upper()}_PORT"] = str(ports.http(service.name, replica))
        own["GICLEE_PUBLIC_URL"] = f"http://{ports.client_host}:{ports.of(service.name)}"
    if service.name == "intake":
        own |= _asked_by_intake(ports)
    if service.name == "replay":
        own |= _asked_by_replay(ports)
    argv = (str(interpreter(service.venv)), "-m", service.module)
    return Launch(argv=argv, env=own, log=folder.log(replica_name(service, replica)), cwd=checkout())


def _asked_by_intake(ports: Ports) -> dict[str, str]:
    """Where policy and router answer dry runs and the scorer evaluations (internal paths on the health ports of the
    first replicas), and where assets are shown."""
    first = {row.name: f"http://{ports.client_host}:{health_port(row, 1, ports)}" for row in TABLE}
    return {
        "GICLEE_INTAKE_POLICY_URL": first["policy"],
        "GICLEE_INTAKE_ROUTER_URL": first["router"],
        "GICLEE_INTAKE_SCORER_URL": first["scorer"],
        "GICLEE_INTAKE_ASSETS_URL": f"http://{ports.client_host}:{ports.of('publisher')}",
    }


def _asked_by_replay(ports: Ports) -> dict[str, str]:
    """Who knows of orders and claims: internal paths on the health ports of the first replicas."""
    first = {row.name: f"http://{ports.client_host}:{health_port(row, 1, ports)}" for row in TABLE}
    return {
        "GICLEE_REPLAY_PUBLISHER_URL": first["publisher"],
        "GICLEE_REPLAY_WORKER_URLS": f"local={first['gpu_worker']}",
    }


def interpreter(venv: Venv) -> Path:
    """The Python of an environment: ours is the light one, the other lies beside it."""
    if venv == "light":
        return Path(sys.executable)
    return Path(sys.prefix).parent / ".venv-gpu" / "bin" / "python"


def missing_modules(services: list[Service]) -> dict[str, str]:
    """Service name -> why it cannot be started; asks each interpreter once, importing nothing heavy."""
    found: dict[str, str] = {}
    for venv in ("light", "gpu"):
        rows = [row for row in services if row.venv == venv]
        python = interpreter(venv)
        if rows and not python.exists():
            found |= {row.name: f"{python} is not there; run `make setup`." for row in rows}
        elif rows:
            absent = _absent(python, [row.module for row in rows])
            why = f"is not installed for {python}; run `make setup`."
            found |= {row.name: f"{row.module} {why}" for row in rows if row.module in absent}
    return found


_LOOK = """
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.submodule_search_locations and not importlib.util.find_spec(name + ".__main__"):
        print(name)
"""


def _absent(python: Path, modules: list[str]) -> set[str]:
    done = subprocess.run([python, "-c", _LOOK, *modules], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())
