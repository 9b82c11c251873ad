"""Downloads, kept outside the checkout so that the next stack starts without them. Maven is the only client."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from giclee.infra.local.child import Launch, finish
from giclee.infra.local.part import KeepOn
from giclee.infra.trouble import Trouble

DOWNLOAD_TIMEOUT_S = 900.0


def cache_dir() -> Path:
    """GICLEE_CACHE_DIR, else ~/.cache/giclee."""
    return Path(os.environ.get("GICLEE_CACHE_DIR") or Path.home() / ".cache" / "giclee")


def fetched(folder: Path, goal: tuple[str, ...], *, log: Path, what: str, keep_on: KeepOn) -> Path:
    """The folder that a Maven goal filled, `{out}` in the goal being where. Two stacks at once download once.

    Errors: Trouble when Maven is missing or fails.
    """
    done = folder / ".complete"
    if done.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f"{folder.name}.lock", keep_on):
        if done.exists():
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            raise Trouble(f"Maven (mvn) is needed once to download {what}; install it, or put {folder} there yourself.")
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        argv = (maven, "-q", "-B", *(word.format(out=partial) for word in goal))
        finish(
            Launch(argv=argv, log=log), what=f"The download of {what}", timeout_s=DOWNLOAD_TIMEOUT_S, keep_on=keep_on
        )
        (partial / ".complete").touch()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return folder


@contextmanager
def _locked(path: Path, keep_on: KeepOn) -> Iterator[None]:
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                keep_on()
                time.sleep(0.1)
        yield
