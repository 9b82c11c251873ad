"""Real parts for tests: Kafka, Postgres and S3 on ports of their own under a temporary folder, stopped for sure.

Each part is a context manager and starts alone. Two test runs on one machine do not meet: a run holds a lock on its
block of ports, and what it starts dies with it, by the kernel's death signal, however it ends.
"""

from __future__ import annotations

import fcntl
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local.child import Child, tail
from giclee.infra.local.kafka import Kafka
from giclee.infra.local.part import Part
from giclee.infra.local.ports import OFFSETS, Ports
from giclee.infra.local.postgres import Postgres
from giclee.infra.local.registry import Registry
from giclee.infra.local.s3 import REGION, S3

_BASES = range(20_000, 32_000, 200)
"""Below the ports that the kernel hands out to clients (from 32,768), and away from the stacks of people (47,000)."""

READY_TIMEOUT_S = 60.0


class Running:
    """One part, running. Its data survives `stop`, `kill` and `start` and goes with the context that made it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Of the running process. Errors: RuntimeError when it is stopped."""
        if self._child is None:
            raise RuntimeError(f"{self.part.name} is stopped")
        return self._child.pid

    def start(self, *, wait: bool = True) -> None:
        """Start it if it is not running, and wait until it truly answers."""
        if self._child is None or self._child.exit_code() is not None:
            self._child = Child(self.part.launch())
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it answers; one that exits is started again a few times, as the supervisor would.

        Postgres exits while children of a killed predecessor still hold its memory.
        Errors: TimeoutError with what it says and the end of its log.
        """
        deadline, exits_left = time.monotonic() + timeout_s, 10
        while (trouble := self.part.trouble()) is not None:
            if self._child is not None and self._child.exit_code() is not None:
                trouble, exits_left = f"it exited with {self._child.exit_code()}", exits_left - 1
                self._child = Child(self.part.launch())
            if time.monotonic() > deadline or exits_left == 0:
                raise TimeoutError(f"{self.part.name}: {trouble}\n{tail(self.part.launch().log, 20)}")
            time.sleep(0.03)

    def stop(self) -> None:
        """Stop it as the supervisor does: cleanly."""
        if self._child is not None:
            self.part.stopped(self._child.stop())
            self._child = None

    def kill(self) -> None:
        """kill -9."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def restart(self) -> None:
        """A clean stop and a start that waits."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: a hung process, worse than a dead one. Undo with `resume`."""
        if self._child is not None:
            self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        if self._child is not None:
            self._child.send(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class KafkaRunning:
    """A broker for tests. `running` kills, stops, pauses and restarts it."""

    bootstrap_servers: str
    running: Running


@dataclass(frozen=True, slots=True)
class PostgresRunning:
    """A database server for tests, with one empty database."""

    database_url: str
    running: Running


@dataclass(frozen=True, slots=True)
class S3Running:
    """An object store for tests, with one empty bucket."""

    s3_endpoint: str
    aws_access_key_id: str
    aws_secret_access_key: str
    region: str
    bucket: str
    running: Running


@dataclass(frozen=True, slots=True)
class RegistryRunning:
    """A schema registry for tests; not part of the stack unless asked for."""

    schema_registry_url: str
    running: Running


@dataclass(frozen=True, slots=True)
class Stack:
    """All three parts, with the names that services read."""

    kafka: KafkaRunning
    postgres: PostgresRunning
    s3: S3Running

    @property
    def bootstrap_servers(self) -> str:
        return self.kafka.bootstrap_servers

    @property
    def database_url(self) -> str:
        return self.postgres.database_url

    @property
    def s3_endpoint(self) -> str:
        return self.s3.s3_endpoint

    @property
    def aws_access_key_id(self) -> str:
        return self.s3.aws_access_key_id

    @property
    def aws_secret_access_key(self) -> str:
        return self.s3.aws_secret_access_key

    @property
    def region(self) -> str:
        return self.s3.region

    @property
    def bucket(self) -> str:
        return self.s3.bucket

    @property
    def broker(self) -> Running:
        """To kill, stop, pause and restart the broker."""
        return self.kafka.running

    @property
    def database(self) -> Running:
        """To kill, stop, pause and restart Postgres."""
        return self.postgres.running

    def env(self) -> dict[str, str]:
        """The variables that services and the command line read."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "DATABASE_URL": self.database_url,
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.aws_secret_access_key,
            "AWS_REGION": self.region,
            "GICLEE_BUCKET": self.bucket,
            "GICLEE_TOPIC_REPLICATION": "1",
        }


@contextmanager
def stack(*, durable: bool = False) -> Iterator[Stack]:
    """All three parts, started side by side; `durable` as for Postgres."""
    with ExitStack() as all_of_them:
        kafka = all_of_them.enter_context(kafka_part(wait=False))
        postgres = all_of_them.enter_context(postgres_part(wait=False, durable=durable))
        s3 = all_of_them.enter_context(s3_part(wait=False))
        for running in (kafka.running, postgres.running, s3.running):
            running.wait_ready()
        yield Stack(kafka, postgres, s3)


@contextmanager
def kafka_part(*, wait: bool = True) -> Iterator[KafkaRunning]:
    """A broker; with `wait=False` the caller waits on `running.wait_ready()`."""
    with _folder() as folder, ports_of_our_own() as ports:
        part = Kafka(folder / "kafka", folder / "kafka.log", ports)
        with _running(part, wait=wait) as running:
            yield KafkaRunning(part.bootstrap_servers, running)


@contextmanager
def postgres_part(*, wait: bool = True, durable: bool = False) -> Iterator[PostgresRunning]:
    """A database server; with `wait=False` the caller waits on `running.wait_ready()`. `durable` has it call fsync,
    which tests can do without and benchmarks cannot."""
    with _folder() as folder, ports_of_our_own() as ports:
        part = Postgres(folder / "postgres", folder / "postgres.log", ports, secrets.token_hex(16), durable=durable)
        try:
            with _running(part, wait=wait) as running:
                yield PostgresRunning(part.url, running)
        finally:
            shutil.rmtree(part.data(), ignore_errors=True)


@contextmanager
def s3_part(*, wait: bool = True) -> Iterator[S3Running]:
    """An object store; with `wait=False` the caller waits on `running.wait_ready()`."""
    with _folder() as folder, ports_of_our_own() as ports:
        part = S3(folder / "s3", folder / "s3.log", ports, secrets.token_hex(8), secrets.token_hex(16))
        with _running(part, wait=wait) as running:
            keys = (part.access_key_id, part.secret_access_key)
            yield S3Running(part.endpoint, *keys, REGION, part.bucket, running)


@contextmanager
def registry_part(*, wait: bool = True) -> Iterator[RegistryRunning]:
    """A schema registry: 8 s and 270 MB, so only for tests of Avro."""
    with _folder() as folder, ports_of_our_own() as ports:
        part = Registry(folder / "registry", folder / "registry.log", ports)
        with _running(part, wait=wait) as running:
            yield RegistryRunning(part.url, running)


@contextmanager
def ports_of_our_own() -> Iterator[Ports]:
    """A block of ports that no other test run on this machine uses and that nothing listens on."""
    locks = Path(tempfile.gettempdir()) / "giclee-test-ports"
    locks.mkdir(exist_ok=True)
    for base in random.sample(_BASES, len(_BASES)):
        with (locks / str(base)).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            ports = Ports(base)
            if all(ports.is_free(base + offset) for offset in OFFSETS.values()):
                yield ports
                return
    raise RuntimeError(f"no free block of ports in {_BASES}")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="giclee-test-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def _running(part: Part, *, wait: bool) -> Iterator[Running]:
    part.prepare(lambda: None)
    running = Running(part)
    try:
        running.start(wait=wait)
        yield running
    finally:
        running.stop()
