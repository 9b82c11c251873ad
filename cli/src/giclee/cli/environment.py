"""Where the command line gets its variables: the process, then `--env-file`, then `.giclee/env` of the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from giclee.infra.local.folder import folder_from_env
from giclee.infra.trouble import Trouble


def load(env_file: Path | None) -> None:
    """Fill what is not set. Errors: Trouble for a named file that cannot be read or understood."""
    if env_file is not None:
        _fill(env_file)
    local = folder_from_env().env_file
    # a cluster that was named is not mixed with the local one
    if local.exists() and "KAFKA_BOOTSTRAP_SERVERS" not in os.environ and "DATABASE_URL" not in os.environ:
        _fill(local)
        os.environ.setdefault("GICLEE_TOPIC_REPLICATION", "1")  # the local stack has one broker


def needed(name: str) -> str:
    """A variable that must be there. Errors: Trouble that says how to get it."""
    value = os.environ.get(name)
    if not value:
        raise Trouble(f"{name} is not set; start the local stack with `make up`, or pass --env-file.")
    return value


def _fill(path: Path) -> None:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise Trouble(f"{path} cannot be read: {error.strerror}.") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals:
            raise Trouble(f"{path}:{number}: expected NAME=value.")
        os.environ.setdefault(name.strip(), value.strip().strip("\"'"))
