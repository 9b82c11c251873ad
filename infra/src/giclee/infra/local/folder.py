"""The state folder of a stack: where its data, logs, secrets and record lie, and the lock that makes it one stack.

The supervisor writes it; `up`, `down`, `status` and every client that reads `.giclee/env` look here.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO


@dataclass(slots=True, kw_only=True)
class ProcessRecord:
    """One line of the record: a part or a replica of a service."""

    name: str
    pid: int | None = None
    ticks: int | None = None
    started_at: float | None = None
    restarts: int = 0
    last_exit: int | None = None
    health_port: int | None = None
    http_port: int | None = None
    missing: str | None = None
    """Why it was never started."""


@dataclass(slots=True, kw_only=True)
class Record:
    """What runs, as the supervisor last wrote it."""

    phase: str = "starting"
    """starting, running, stopping, stopped or failed."""
    doing: str = ""
    trouble: str | None = None
    pid: int = 0
    ticks: int | None = None
    started_at: float = 0.0
    base: int = 0
    processes: list[ProcessRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str) -> Record:
        raw: dict[str, Any] = json.loads(text)
        return cls(**{**raw, "processes": [ProcessRecord(**row) for row in raw["processes"]]})


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once per stack and kept, so that a client's copy of `.giclee/env` stays good."""

    api_key: str
    aws_access_key_id: str
    aws_secret_access_key: str
    postgres_password: str


@dataclass(frozen=True, slots=True)
class Folder:
    """`.giclee/` of one checkout."""

    root: Path

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def env_file(self) -> Path:
        return self.root / "env"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make it. Its data folders are closed to others; the folder itself is not, for Postgres's own user."""
        self.logs.mkdir(parents=True, exist_ok=True)

    def lock(self) -> TextIO | None:
        """The lock of the one supervisor, to be kept open; None when another one has it."""
        file = (self.root / "lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def is_locked(self) -> bool:
        """Whether a supervisor lives: the kernel drops its lock when it dies, however it dies."""
        if not (self.root / "lock").exists():
            return False
        file = self.lock()
        if file is None:
            return True
        file.close()
        return False

    def record(self) -> Record | None:
        """The record of the running or last stack; None when there was none."""
        path = self.root / "stack.json"
        return Record.from_json(path.read_text()) if path.exists() else None

    def write_record(self, record: Record) -> None:
        self._write("stack.json", json.dumps(asdict(record), indent=1) + "\n")

    def secrets(self) -> Secrets:
        """The stack's secrets, made on first use; readable by the owner only."""
        path = self.root / "secrets.json"
        if not path.exists():
            fresh = Secrets(
                api_key=f"gk_{secrets.token_urlsafe(24)}",
                aws_access_key_id=f"GICLEE{secrets.token_hex(7).upper()}",
                aws_secret_access_key=secrets.token_urlsafe(30),
                postgres_password=secrets.token_hex(16),
            )
            self._write("secrets.json", json.dumps(asdict(fresh)) + "\n")
        return Secrets(**json.loads(path.read_text()))

    def write_env(self, values: Mapping[str, str]) -> None:
        """The dotenv file for clients. No value of ours needs quoting."""
        self._write("env", "".join(f"{name}={value}\n" for name, value in values.items()))

    def _write(self, name: str, text: str) -> None:
        """All or nothing: a reader never sees half a file. The temporary file is 0600."""
        handle, partial = tempfile.mkstemp(dir=self.root, prefix=f".{name}.")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(partial).replace(self.root / name)


def folder_from_env() -> Folder:
    """GICLEE_STATE_DIR, else `.giclee` in the checkout around the current folder."""
    named = os.environ.get("GICLEE_STATE_DIR")
    return Folder(Path(named).resolve() if named else checkout() / ".giclee")


def checkout() -> Path:
    """The nearest folder upwards that holds `.giclee` or `.git`; the current one if none does."""
    here = Path.cwd().resolve()
    return next((up for up in (here, *here.parents) if (up / ".giclee").is_dir() or (up / ".git").exists()), here)
