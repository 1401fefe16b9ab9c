"""Which hosts are this machine."""

from __future__ import annotations

import functools

LOOPBACK_NAMES = frozenset({"localhost", "loopback"})
"""Names of this machine; ``loopback`` is what redaction writes for all of them."""


def is_address(host: str) -> bool:
    """Whether a host is an IP address and not a name."""
    import ipaddress

    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether a host name or address, in brackets or not, stays on this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name in LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    if not is_address(name):
        return False
    import ipaddress

    address = ipaddress.ip_address(name)
    return address.is_loopback or address.is_unspecified
