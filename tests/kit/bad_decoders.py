"""A decoder child that misbehaves, `python -m tests.kit.bad_decoders`: it dies of its first picture, or hangs."""

from __future__ import annotations

import os
import signal
import struct
import sys


def main() -> None:
    """Say ready, read one picture, then die as decoders die, or hang when the picture says so."""
    sys.stdout.buffer.write(b"+")
    sys.stdout.buffer.flush()
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    if sys.stdin.buffer.read(size) == b"hang":
        signal.pause()
    os.kill(os.getpid(), signal.SIGSEGV)


if __name__ == "__main__":
    main()
