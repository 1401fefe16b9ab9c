"""Where a socket is about to go: the host and port behind what the interpreter says of it."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any

from .._hosts import is_address

UNIX = "unix:"
"""Begins what stands for the host of a Unix socket; its path follows."""


def destination(address: Any) -> tuple[str | None, int | None]:
    """Host and port of a socket address; ``None``: it names none."""
    if address is None:  # sendmsg on a connected socket
        return None, None
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return address[0], address[1] if isinstance(address[1], int) else None
    if isinstance(address, bytes):
        address = address.decode("utf-8", "replace")
    return f"{UNIX}{address}" if isinstance(address, str) else repr(address), None


def is_own(host: str) -> bool:
    """Whether a Unix socket is one by which Python's own processes talk: managers, queues and the fork server.

    They lie in a directory that ``multiprocessing`` makes for itself, or that a child of it has made.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return False
    folder, _, _ = host.removeprefix(UNIX).rpartition("/")
    try:
        made = os.lstat(folder)
    except (OSError, ValueError):
        return False
    # What ``tempfile.mkdtemp`` makes: nobody else could have put a socket there.
    private = stat.S_ISDIR(made.st_mode) and not made.st_mode & 0o077 and made.st_uid == os.getuid()
    return private and os.path.basename(folder).startswith("pymp-")


def lookup(args: tuple[Any, ...]) -> tuple[str | None, int | None]:
    """Host and port that are about to be looked up; ``None``: nobody is asked."""
    host = args[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    # An address needs no resolver; a lookup of nothing is a bind address. The connect, if any, is judged.
    if not isinstance(host, str) or is_address(host):
        return None, None
    port = args[1] if len(args) > 1 and isinstance(args[1], int) else None
    return host, port


def addresses_of(names: Iterable[str]) -> Iterable[str]:
    """The addresses of these names, as far as they can be resolved."""
    for name in names:
        try:
            yield from (str(info[4][0]) for info in socket.getaddrinfo(name, None))
        except OSError:
            continue
