"""A service for tests of the supervisor, installed under a real one's name: probes, a clean stop, a child of its own.

STUB_FOLDER is where it says what happened to it.
"""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit


class _Probes(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _is_up(url: str) -> bool:
    where = urlsplit(url)
    try:
        socket.create_connection((where.hostname or "", where.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Serve until SIGTERM; then note whether the database still listens, and end."""
    folder = Path(os.environ["STUB_FOLDER"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["GICLEE_HEALTH_PORT"])), _Probes)
    # a child in a session of its own, as a decoder process may be: it hears neither our signals nor our group's
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

    def end(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    server.serve_forever()
    parts_are_up = _is_up(os.environ["DATABASE_URL"])
    (folder / f"stopped-{os.environ['GICLEE_HEALTH_PORT']}").write_text(str(parts_are_up))


if __name__ == "__main__":
    main()
