"""Which addresses an answer may lead to: those of the open internet, however they are written."""

from __future__ import annotations

import pytest

from giclee.gpu_worker.addresses import is_public


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_addresses_of_the_open_internet(address: str) -> None:
    """Wrapped in IPv6 too: mapped, through NAT64, and 6to4."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # the metadata service of most clouds
        "fd00:ec2::254",  # and over IPv6
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1:0:0:80ff:fffe",  # Teredo
        "metadata.google.internal",
        "",
    ],
)
def test_addresses_that_are_none_of_an_answers_business(address: str) -> None:
    """Loopback, private, link-local, shared, multicast, reserved; plain or wrapped; and what is no address."""
    assert not is_public(address)
