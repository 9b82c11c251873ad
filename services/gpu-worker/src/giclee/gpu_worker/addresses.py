"""Which addresses a hosted provider may lead us to: none of our own network, unless the operator named it.

What an answer names (a picture's address, a redirect) is a stranger's word. Its host is resolved here and every address
of it judged; `http.py` then connects to the address that was judged, so a name that resolves otherwise a moment later
(DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: IPv6 addresses that a gateway turns into the IPv4 address of their last four bytes."""


class Forbidden(Exception):
    """An address that must not be called; the message says which and why."""


def is_public(text: str) -> bool:
    """Whether an address is one of the open internet: not private, loopback, link-local (there live the metadata
    services of clouds), shared, multicast or reserved, not even wrapped in IPv6. False for what is no address."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _wrapped(address) if isinstance(address, IPv6Address) else None
    if inner is not None and not is_public(str(inner)):
        return False
    return (address.is_global or inner is not None) and not address.is_multicast


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address within: mapped, 6to4, Teredo or NAT64."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None


async def resolved(host: str, port: int) -> list[str]:
    """Every address of a host, each once, in the resolver's order. Errors: OSError for none."""
    rows = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))
