"""Kafka from its jars: one broker that is its own controller, no Docker. For development and tests only."""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
import signal
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from giclee.infra.local.cache import cache_dir, fetched
from giclee.infra.local.child import Launch, finish
from giclee.infra.local.kafka_wire import broker_trouble
from giclee.infra.local.part import KeepOn
from giclee.infra.local.ports import Ports
from giclee.infra.trouble import Trouble

KAFKA_VERSION = "4.3.1"
_QUIET = ("-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_SMALL = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_EXIT_CODE_OF_SIGTERM = 143  # what a Java process returns after a clean stop by SIGTERM


@dataclass(frozen=True, slots=True)
class Kafka:
    """The broker of one stack, its data under `folder`."""

    folder: Path
    log: Path
    ports: Ports
    name: str = "kafka"
    cluster: str | None = None
    """Kafka's id of a cluster that has other brokers; absent, the broker is alone and makes one up."""
    properties: str | None = None
    """The text of server.properties where the one beside this file does not do; its data must lie in `data()`."""

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.ports.client_host}:{self.ports.of('kafka')}"

    def prepare(self, keep_on: KeepOn) -> None:
        """Download the jars once per machine, format the data once per stack."""
        with resources.as_file(resources.files(__package__) / "pom.xml") as pom:
            goal = ("-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory={out}")
            fetched(jars(), goal, log=self.log, what="Kafka", keep_on=keep_on)
        self._write_properties()
        if (self.data() / "meta.properties").exists():
            return
        shutil.rmtree(self.data(), ignore_errors=True)  # a format that was broken off
        argv = (*self._java(), "kafka.tools.StorageTool", "format", "-t", self.cluster or new_cluster())
        argv += ("-c", self._properties())
        finish(Launch(argv=argv, log=self.log), what="Formatting Kafka's storage", timeout_s=60, keep_on=keep_on)

    def launch(self) -> Launch:
        argv = (*self._java("-Xms96m", "-Xmx384m"), "kafka.Kafka", self._properties())
        return Launch(argv=argv, log=self.log, cwd=self.folder, death_signal=signal.SIGTERM, grace_s=20)

    def trouble(self) -> str | None:
        return broker_trouble(self.ports.client_host, self.ports.of("kafka"))

    def stopped(self, exit_code: int) -> None:
        """Keep the archive of loaded classes that a first clean stop leaves: later starts take half the time."""
        fresh = self._fresh_archive()
        if exit_code == _EXIT_CODE_OF_SIGTERM and fresh.exists():
            fresh.replace(self._archive())
        fresh.unlink(missing_ok=True)

    def _write_properties(self) -> None:
        template = Template((resources.files(__package__) / "server.properties").read_text())
        ports = self.ports
        text = template.substitute(
            host=ports.host,
            client_host=ports.client_host,
            port=ports.of("kafka"),
            controller_port=ports.of("kafka.controller"),
            data=self.data(),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        Path(self._properties()).write_text(self.properties or text)

    def _java(self, *options: str) -> tuple[str, ...]:
        class_path = ":".join(str(jar) for jar in sorted(jars().glob("*.jar")))
        if self._archive().exists():
            sharing = f"-XX:SharedArchiveFile={self._archive()}"
        else:
            self._fresh_archive().unlink(missing_ok=True)
            sharing = f"-XX:ArchiveClassesAtExit={self._fresh_archive()}"
        if not options:  # a short-lived tool must not write the archive
            sharing = sharing if "Shared" in sharing else "-Xshare:auto"
        return (java(), *options, *_SMALL, *_QUIET, sharing, "-cp", class_path)

    def _archive(self) -> Path:
        """Of one Java and one set of jars: another Java would refuse it."""
        build = hashlib.sha256(str(Path(java()).resolve()).encode()).hexdigest()[:8]
        return jars() / f"classes-{build}.jsa"

    def _fresh_archive(self) -> Path:
        stack = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        return self._archive().with_suffix(f".{stack}.part")

    def data(self) -> Path:
        """Where the log lies."""
        return self.folder / "data"

    def _properties(self) -> str:
        return str(self.folder / "server.properties")


def new_cluster() -> str:
    """A Kafka UUID: base64; one that starts with a dash would read as an option."""
    return base64.urlsafe_b64encode(b"\x40" + secrets.token_bytes(15)).rstrip(b"=").decode()


def jars() -> Path:
    """Where the downloaded broker lies, or will."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def java() -> str:
    """Where Java is. Errors: Trouble when it is not there."""
    found = shutil.which("java")
    if found is None:
        raise Trouble("Java 17 or newer is needed for Kafka; install a JRE and put `java` on the PATH.")
    return found
