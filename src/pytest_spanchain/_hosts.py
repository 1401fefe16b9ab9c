"""Which hosts are this machine."""

from __future__ import annotations

import ipaddress

LOOPBACK_NAMES = frozenset({"localhost", "loopback", "127.0.0.1", "::1"})


def is_address(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine."""
    name = host.strip("[]").lower()
    return name in LOOPBACK_NAMES or (is_address(name) and ipaddress.ip_address(name).is_loopback)
