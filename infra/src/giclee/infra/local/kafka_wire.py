"""Two questions to a broker in its own protocol, by hand: who leads what, and may I produce.

The supervisor asks them. A client library would bring threads into a process that forks, and 25 MB.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_METADATA, _INIT_PRODUCER_ID = 3, 22


@dataclass(slots=True)
class _Reader:
    """Reads the old, non-compact encoding of Kafka's protocol."""

    body: bytes
    at: int = 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from(f">{code}", self.body, self.at)
        self.at += struct.calcsize(code)
        return int(value)

    def skip_text(self) -> None:
        size = self.number("h")
        self.at += max(0, size)

    def skip_numbers(self) -> None:
        count = self.number("i")
        self.at += 4 * max(0, count)


def broker_trouble(host: str, port: int, timeout_s: float = 1.0) -> str | None:
    """Why a broker cannot serve producers and consumers yet; None when it can."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            # version 1 of Metadata: a null array asks for all topics
            trouble = _metadata_trouble(_ask(connection, _METADATA, 1, struct.pack(">i", -1)))
            if trouble:
                return trouble
            # version 0 of InitProducerId: no transactional id, any timeout
            return _producer_trouble(_ask(connection, _INIT_PRODUCER_ID, 0, struct.pack(">hi", -1, 60_000)))
    except (OSError, struct.error) as error:
        return f"no answer on {host}:{port} ({error})"


def _ask(connection: socket.socket, key: int, version: int, body: bytes) -> _Reader:
    client = b"giclee-stack"
    request = struct.pack(">hhih", key, version, 1, len(client)) + client + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    (size,) = struct.unpack(">i", _read(connection, 4))
    return _Reader(_read(connection, size), at=4)  # after the correlation id


def _read(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = connection.recv(size - len(got))
        if not piece:
            raise ConnectionError("the broker closed the connection")
        got += piece
    return got


def _metadata_trouble(answer: _Reader) -> str | None:
    brokers = answer.number("i")
    for _ in range(brokers):
        answer.number("i")
        answer.skip_text()
        answer.number("i")
        answer.skip_text()
    controller = answer.number("i")
    if brokers < 1 or controller < 0:
        return "no broker is registered yet"
    leaderless = 0
    for _ in range(answer.number("i")):
        answer.number("h")
        answer.skip_text()
        answer.number("b")
        for _ in range(answer.number("i")):
            answer.number("h")
            answer.number("i")
            leaderless += answer.number("i") < 0
            answer.skip_numbers()
            answer.skip_numbers()
    return f"{leaderless} partitions have no leader yet" if leaderless else None


def _producer_trouble(answer: _Reader) -> str | None:
    answer.number("i")
    error = answer.number("h")
    return f"producers are not served yet (error {error})" if error else None
