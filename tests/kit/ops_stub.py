"""A service that gives canned answers by method and path, and tells what was asked of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass
class Asked:
    """One call: its query, headers (names in lower case) and body as they came, and who made it."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    actor: str | None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class OpsStub:
    """`answers` maps "METHOD path" to answers given in turn, the last one for ever: a body, (status, body), or (status,
    body, headers)."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def bodies(self, path: str) -> list[Any]:
        """What was posted to a path."""
        return [one.body for one in self.asked if one.path == path and one.method == "POST"]

    def answer(self, asked: Asked) -> tuple[int, Any, dict[str, str]]:
        self.asked.append(asked)
        script = self.answers.get(f"{asked.method} {asked.path}")
        if script is None:
            return 404, {"title": f"nobody said what {asked.method} {asked.path} answers"}, {}
        found = script.pop(0) if len(script) > 1 else script[0]
        status, body, *headers = found if isinstance(found, tuple) else (200, found)
        return status, body, headers[0] if headers else {}


@contextmanager
def running() -> Iterator[OpsStub]:
    """The stub on a free port."""
    stub = OpsStub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            split = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(raw) if raw else None
            actor = self.headers.get("X-Giclee-Actor")
            named = {name.lower(): text for name, text in self.headers.items()}
            query = dict(parse_qsl(split.query))
            status, found, more = stub.answer(Asked(self.command, split.path, query, body, actor, named))
            sent = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(sent)), **more}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = _any

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
