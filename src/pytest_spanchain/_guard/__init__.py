"""The guard: in replay nothing leaves the process.

It listens to the interpreter's audit events (PEP 578), which every Python-level socket raises before it acts, whatever
library or thread it belongs to and however early it was imported; replaced socket classes do not hide from it.
Extensions that open sockets in C (gRPC, for one) raise no event: their boundaries must refuse them. What is sent on a
connection that was there before the run raises none either, so the methods of Python's sockets that send are watched.

While recording it takes note of what leaves without being recorded, which replay would refuse.

The hook cannot be removed once added, so it is added at the first run and does nothing while no guard is armed.
"""

from __future__ import annotations

import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import FunctionType
from typing import Any
from weakref import WeakSet

from .._forks import renewed
from .._hosts import is_address, is_loopback
from .._model import Attempt
from .places import UNIX, addresses_of, destination, is_own, lookup
from .site import call_site as call_site
from .telemetry import is_telemetry as is_telemetry

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})

# Windows has no pairs of sockets: one connects to the other instead, and every event loop has such a pair.
_PAIRS = frozenset(
    function.__code__
    for name in ("socketpair", "_fallback_socketpair")
    if isinstance(function := getattr(socket, name, None), FunctionType)
)

_WATCHED = "_spanchain_watched"


@dataclass(eq=False)
class Guard:
    """What one run refuses, or takes note of.

    Args:
        refuse: told of every attempt that is not allowed; it returns the error for the caller, ``None`` to let it go.
        concerns: whether a connection that the calling thread or task makes is this run's business.
        owns: whether the calling thread or task is the run's own: only then is what it sends.
        allow_hosts: host names or addresses that may be contacted, and globs of Unix sockets (``unix:/run/db/*``).
        expects: whether it need not be told of what goes to that host and port just now.
    """

    refuse: Callable[[Attempt], Exception | None]
    concerns: Callable[[], bool]
    owns: Callable[[], bool]
    allow_hosts: Iterable[str] = ()
    expects: Callable[[str, int | None], bool] | None = None
    _addresses: frozenset[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        hosts = tuple(self.allow_hosts)
        self._sockets = tuple(host for host in hosts if host.startswith(UNIX))
        self._names = frozenset(host.lower().strip("[]") for host in hosts if not host.startswith(UNIX))
        self._loopback = any(is_loopback(name) for name in self._names)

    def allows(self, host: str) -> bool:
        """Whether a host name or address, or a Unix socket, may be contacted."""
        if host.startswith(UNIX):
            return is_own(host) or any(fnmatchcase(host, glob) for glob in self._sockets)
        name = host.lower()
        if name in self._names or (self._loopback and is_loopback(name)):
            return True
        if not self._names or not is_address(name):
            return False
        if self._addresses is None:
            self._addresses = frozenset(addresses_of(self._names))
        return name in self._addresses


_armed: tuple[Guard, ...] = ()
_stray_guard: Callable[[], Guard | None] | None = None
_lock = renewed(threading.Lock())
_busy = threading.local()
_accepted: WeakSet[socket.socket] = WeakSet()
_hooked = False


def arm(guard: Guard, *, stray_guard: Callable[[], Guard | None] | None = None) -> None:
    """Start refusing.

    Args:
        guard: of a run that starts.
        stray_guard: for a calling thread or task that was left behind by a run that is over, that run's guard.
    """
    global _armed, _hooked, _stray_guard
    with _lock:
        _armed = (*_armed, guard)
        _stray_guard = stray_guard or _stray_guard
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True
        _watch_sends()


def disarm(guard: Guard) -> None:
    """Stop refusing; safe to call twice."""
    global _armed
    with _lock:
        _armed = tuple(other for other in _armed if other is not guard)


def forget() -> None:
    """None of the guards is this process's own; see ``Ownership.forget``."""
    global _armed
    _armed = ()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event[:7] != "socket.":
        return
    if event in _CONNECTS:
        if sys._getframe(1).f_code in _PAIRS:
            return
        host, port = destination(args[1])
    elif event in _LOOKUPS:
        host, port = lookup(args)
    else:
        return
    if host is None or getattr(_busy, "value", False):
        return
    _busy.value = True
    try:
        judge(host, port)
    except BaseException:
        if event == "socket.connect":
            # Who makes a connection closes the socket on an OSError, which ours is not: it would be left to the
            # collector, whose ResourceWarning fails tests where warnings are errors.
            args[0].close()
        raise
    finally:
        _busy.value = False


def judge(host: str, port: int | None) -> None:
    """Refuse, or take note of, what is about to leave without an audit event.

    Args:
        host: name or address.
        port: its port, if it has one.

    Raises:
        Exception: what a run whose business it is refuses it with.
    """
    stray = _stray_guard() if _stray_guard is not None else None
    guards = [stray] if stray is not None else []
    _tell([*guards, *(guard for guard in _armed if guard.concerns())], host, port)


def _tell(guards: list[Guard], host: str, port: int | None) -> None:
    guards = [guard for guard in guards if not (guard.allows(host) or (guard.expects and guard.expects(host, port)))]
    if not guards:
        return
    attempt = Attempt(host=host, port=port, site=call_site())
    # Every run that it concerns is told before anything is raised: none of them may stay green.
    errors = [error for guard in guards if (error := guard.refuse(attempt)) is not None]
    if errors:
        raise errors[0]


def _watch_sends() -> None:
    ssl = sys.modules.get("ssl")  # where it is not imported, there is no connection of it
    accept = socket.socket.accept
    if not hasattr(accept, _WATCHED):
        socket.socket.accept = _watched(accept, after=_accepted.add)  # type: ignore[method-assign]
    for kind in (socket.socket, *([ssl.SSLSocket] if ssl is not None else [])):
        for name in ("send", "sendall", "sendmsg", "sendfile", "write"):
            original = getattr(kind, name, None)
            if original is not None and not hasattr(original, _WATCHED):
                setattr(kind, name, _watched(original, before=_judge_send))


def _watched(
    original: Callable[..., Any],
    *,
    before: Callable[[socket.socket], None] | None = None,
    after: Callable[[socket.socket], None] | None = None,
) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
        if before is not None and _armed:
            before(self)
        answer = original(self, *args, **kwargs)
        if after is not None:
            after(answer[0])
        return answer

    setattr(method, _WATCHED, True)
    return method


def _judge_send(sending: socket.socket) -> None:
    guards = [guard for guard in _armed if guard.owns()]
    if not guards or sending in _accepted or sending.family not in (socket.AF_INET, socket.AF_INET6):
        return  # a server's answer goes where the question came from
    try:
        host, port = sending.getpeername()[:2]
    except OSError:
        return  # not connected: it fails by itself, or names its destination, which the audit hook hears
    _tell(guards, host, port)
