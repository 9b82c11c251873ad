"""Every port of the stack, derived from one base, and who uses it.

A stack stays within 200 ports of its base, so checkouts whose bases are 200 apart run side by side.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from giclee.infra.trouble import Trouble

DEFAULT_BASE = 47000

OFFSETS = {
    "postgres": 32,
    "s3": 33,
    "s3.grpc": 40,
    "s3.master": 41,
    "s3.master.grpc": 42,
    "s3.volume": 43,
    "s3.volume.grpc": 44,
    "s3.filer": 45,
    "s3.filer.grpc": 46,
    "s3.admin": 47,
    "s3.admin.grpc": 48,
    "intake": 80,
    "registry": 81,
    "publisher": 82,
    "replay": 84,
    "console": 90,
    "kafka": 92,
    "kafka.controller": 93,
}
"""What listens where, above the base."""

HEALTH_OFFSET = 100
HEALTH_WIDTH = 10
MAX_REPLICAS = HEALTH_WIDTH
"""Health ports lie at +100: ten per service, one per replica."""

HTTP_REPLICAS_OFFSET = 180
HTTP_REPLICAS_WIDTH = 6
MAX_HTTP_REPLICAS = 1 + HTTP_REPLICAS_WIDTH
"""The first replica of a service has its public HTTP port; the others lie at +180: six per service with an API."""

WITH_API = ("intake", "publisher", "replay")


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one stack on one host."""

    base: int = DEFAULT_BASE
    host: str = "127.0.0.1"

    def of(self, name: str) -> int:
        """The port of a part or of a service's first replica. Errors: KeyError for a name without one."""
        return self.base + OFFSETS[name]

    def health(self, row: int, replica: int) -> int:
        """Where replica 1..10 of the service in this row of the table serves /livez, /readyz and /metrics."""
        return self.base + HEALTH_OFFSET + HEALTH_WIDTH * row + replica - 1

    def http(self, service: str, replica: int) -> int:
        """Where a replica of a service with an API listens: the first at its public port, others at +180 and up."""
        if replica == 1:
            return self.of(service)
        return self.base + HTTP_REPLICAS_OFFSET + HTTP_REPLICAS_WIDTH * WITH_API.index(service) + replica - 2

    @property
    def last(self) -> int:
        """The highest port of the stack."""
        return self.base + HTTP_REPLICAS_OFFSET + HTTP_REPLICAS_WIDTH * len(WITH_API) - 1

    @property
    def client_host(self) -> str:
        """What a client on this machine connects to."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host

    def is_free(self, port: int) -> bool:
        """Whether a server could listen there now. Lingering connections of a stopped one do not count."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host or "0.0.0.0", port))
            except OSError:
                return False
        return True


def ports_from_env() -> Ports:
    """The ports by GICLEE_PORT_BASE and GICLEE_BIND_HOST. Errors: Trouble for a base that is no usable number."""
    text = os.environ.get("GICLEE_PORT_BASE") or str(DEFAULT_BASE)
    if not text.isdecimal() or not 1024 <= int(text) <= 65535 - HEALTH_OFFSET - 100:
        raise Trouble(f"GICLEE_PORT_BASE={text!r} is not a port between 1024 and 65335.")
    return Ports(int(text), os.environ.get("GICLEE_BIND_HOST") or "127.0.0.1")
