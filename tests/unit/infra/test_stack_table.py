"""Ports, services and what may be asked of a stack: plain tables without surprises."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from giclee.infra.local import services
from giclee.infra.local.folder import Folder
from giclee.infra.local.ports import MAX_HTTP_REPLICAS, MAX_REPLICAS, OFFSETS, Ports, ports_from_env
from giclee.infra.local.preflight import ports_needed
from giclee.infra.local.services import TABLE, Wanted
from giclee.infra.trouble import Trouble

PUBLIC = {
    "kafka": 92,
    "registry": 81,
    "postgres": 32,
    "s3": 33,
    "intake": 80,
    "publisher": 82,
    "replay": 84,
    "console": 90,
}


def most(name: str) -> int:
    return MAX_HTTP_REPLICAS if name in ("intake", "publisher", "replay") else MAX_REPLICAS


def test_public_ports_are_the_contract_s() -> None:
    """The offsets that clients know never move."""
    assert PUBLIC.items() <= OFFSETS.items()


def test_no_two_listeners_share_a_port() -> None:
    """With every service at its most replicas each listener has a port of its own, within 200 of the base."""
    wanted = Wanted(scale={row.name: most(row.name) for row in TABLE}, registry=True)
    needed = ports_needed(wanted, Ports(47000))
    listeners = len([name for name in OFFSETS if name.partition(".")[0] in (*services.PARTS, "registry")])
    for row in TABLE:
        listeners += most(row.name) * (2 if row.has_http else 1)
    assert len(needed) == listeners
    assert all(47000 <= port < 47200 for port in needed)


def test_stacks_200_apart_do_not_meet() -> None:
    """Two checkouts whose bases are 200 apart share no port."""
    wanted = Wanted(scale={row.name: most(row.name) for row in TABLE}, registry=True)
    bases = (46800, 47000, 47200)
    for one, other in itertools.combinations(bases, 2):
        assert not ports_needed(wanted, Ports(one)).keys() & ports_needed(wanted, Ports(other)).keys()


@pytest.mark.parametrize("text", ["x", "80", "-1", "65500", "47000.5"])
def test_a_useless_base_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the variable."""
    monkeypatch.setenv("GICLEE_PORT_BASE", text)
    with pytest.raises(Trouble, match="GICLEE_PORT_BASE"):
        ports_from_env()


def test_a_process_gets_its_own_ports_only(tmp_path: Path) -> None:
    """The first replica has the public HTTP port, the second another, and a worker none."""
    ports, folder = Ports(47000), Folder(tmp_path)
    intake, worker = TABLE[0], next(row for row in TABLE if row.name == "gpu_worker")
    first = services.launch(intake, 1, ports=ports, folder=folder, env={}).env
    second = services.launch(intake, 2, ports=ports, folder=folder, env={}).env
    assert first["GICLEE_INTAKE_PORT"] == "47080"
    assert len({first["GICLEE_INTAKE_PORT"], second["GICLEE_INTAKE_PORT"]}) == 2
    assert len({first["GICLEE_HEALTH_PORT"], second["GICLEE_HEALTH_PORT"]}) == 2
    env = services.launch(worker, 1, ports=ports, folder=folder, env={}).env
    assert env["GICLEE_GPU_WORKER_POOL"] == "local" and "GICLEE_GPU_WORKER_PORT" not in env


def test_every_intake_asks_the_first_replicas(tmp_path: Path) -> None:
    """Internal calls go to health ports: policy's and the router's for dry runs, the scorer's for evaluations."""
    ports, folder = Ports(47000), Folder(tmp_path)
    asked = {"GICLEE_INTAKE_POLICY_URL": 47110, "GICLEE_INTAKE_ROUTER_URL": 47120, "GICLEE_INTAKE_SCORER_URL": 47150}
    for replica in (1, 2):
        env = services.launch(TABLE[0], replica, ports=ports, folder=folder, env={}).env
        assert {name: env[name] for name in asked} == {name: f"http://127.0.0.1:{at}" for name, at in asked.items()}


def test_heavy_services_run_in_the_other_environment(tmp_path: Path) -> None:
    """scorer and gpu_worker are started by the Python that has torch."""
    argv = {row.name: services.launch(row, 1, ports=Ports(), folder=Folder(tmp_path), env={}).argv for row in TABLE}
    heavy = {name for name, words in argv.items() if ".venv-gpu" in words[0]}
    assert heavy == {"scorer", "gpu_worker"}
    assert argv["router.health"][1:] == ("-m", "giclee.router.health")


def test_only_and_scale_choose() -> None:
    """`--only` leaves the rest out; `--scale` counts; nothing asked is everything once."""
    assert {row.name: Wanted().replicas(row) for row in TABLE} == {row.name: 1 for row in TABLE}
    some = Wanted(("kafka", "scorer"), {"scorer": 3})
    assert [row.name for row in some.services()] == ["scorer"]
    assert some.has("kafka") and not some.has("s3")


@pytest.mark.parametrize(
    ("only", "scale", "named"),
    [
        (("kafak",), {}, "kafak"),
        ((), {"scorer": 11}, "scorer=11"),
        ((), {"intake": 8}, "intake=8"),
        ((), {"s3": 2}, "s3 runs once"),
    ],
)
def test_what_a_stack_cannot_do_is_named(only: tuple[str, ...], scale: dict[str, int], named: str) -> None:
    """Unknown names and counts without ports are refused in a sentence."""
    with pytest.raises(Trouble, match=named):
        Wanted(only, scale)
