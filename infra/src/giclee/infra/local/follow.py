"""Follows several logs at once, across the supervisor's cuts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

POLL_S = 0.2


def follow(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(name of the log, line) for every line written from now on; never ends by itself."""
    at = {path: path.stat().st_size for path in paths}
    rest = dict.fromkeys(paths, b"")
    while True:
        for path in paths:
            size = path.stat().st_size
            if size < at[path]:  # it was cut
                at[path], rest[path] = 0, b""
            if size > at[path]:
                with path.open("rb") as file:
                    file.seek(at[path])
                    *lines, rest[path] = (rest[path] + file.read(size - at[path])).split(b"\n")
                at[path] = size
                yield from ((path.stem, line.decode(errors="replace")) for line in lines)
        time.sleep(POLL_S)
