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
import os
import re
import socket
import stat
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import FunctionType
from typing import Any
from weakref import WeakSet

from ._hosts import is_address, is_loopback
from ._model import Attempt

UNIX = "unix:"
"""Begins what stands for the host of a Unix socket; its path follows."""

_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})

TELEMETRY_HOSTS = (
    "api.smith.langchain.com",
    "eu.api.smith.langchain.com",
    "cloud.langfuse.com",
    "us.cloud.langfuse.com",
    "api.traceloop.com",
    "app.posthog.com",
    "us.i.posthog.com",
    "eu.i.posthog.com",
    "logfire-api.pydantic.dev",
    "logfire-us.pydantic.dev",
    "logfire-eu.pydantic.dev",
    "telemetry.crewai.com",
    "otlp.arize.com",
    # Not telemetry, and as little the agent's own: where clouds' SDKs look for credentials and regions.
    "169.254.169.254",
    "169.254.170.2",
    "metadata.google.internal",
)
"""Telemetry back ends, and the like: kept out of cassettes while recording, refused without a verdict in replay."""

# Windows has no pairs of sockets: one connects to the other instead, and every event loop has such a pair.
_PAIRS = frozenset(
    function.__code__
    for name in ("socketpair", "_fallback_socketpair")
    if isinstance(function := getattr(socket, name, None), FunctionType)
)

_WATCHED = "_spanchain_watched"

_TELEMETRY_PORTS = frozenset({4317, 4318})

# Paths of OTLP over HTTP, and its gRPC services.
_EXPORT = re.compile(r"/v1/(?:traces|metrics|logs)/?\Z|(?:\A|/)opentelemetry\.proto\.collector\.")
_exported_to: set[tuple[str, int | None]] = set()


@dataclass(eq=False)
class Guard:
    """What one run refuses, or takes note of.

    Args:
        refuse: told of every attempt that is not allowed; it returns the error for the caller, ``None`` to let it go.
        concerns: whether a connection that the calling thread or task makes is this run's business.
        owns: whether the calling thread or task is the run's own: only then is what it sends.
        allow_hosts: host names or addresses that may be contacted, and globs of Unix sockets (``unix:/run/db/*``).
    """

    refuse: Callable[[Attempt], Exception | None]
    concerns: Callable[[], bool]
    owns: Callable[[], bool]
    allow_hosts: Iterable[str] = ()
    _addresses: frozenset[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        hosts = tuple(self.allow_hosts)
        self._sockets = tuple(host for host in hosts if host.startswith(UNIX))
        self._names = frozenset(host.lower().strip("[]") for host in hosts if not host.startswith(UNIX))
        self._loopback = any(is_loopback(name) for name in self._names)

    def allows(self, host: str) -> bool:
        """Whether a host name or address, or a Unix socket, may be contacted."""
        if host.startswith(UNIX):
            return _is_own(host) or any(fnmatchcase(host, glob) for glob in self._sockets)
        name = host.lower()
        if name in self._names or (self._loopback and is_loopback(name)):
            return True
        if not self._names or not is_address(name):
            return False
        if self._addresses is None:
            self._addresses = frozenset(_resolve(self._names))
        return name in self._addresses


_armed: tuple[Guard, ...] = ()
_stray_guard: Callable[[], Guard | None] | None = None
_lock = threading.Lock()
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


def is_telemetry(host: str, port: int | None, *, path: str = "") -> bool:
    """Whether a destination is a telemetry back end: a known host, an OTLP collector on this machine, or what an
    exporter of OpenTelemetry's talks to.

    Args:
        host: name or address.
        port: its port, if it is given.
        path: of the request, or gRPC's method, where it is known.
    """
    if host.lower() in TELEMETRY_HOSTS or (port in _TELEMETRY_PORTS and is_loopback(host)):
        return True
    return _exports(host.lower(), port, path)


def _exports(host: str, port: int | None, path: str) -> bool:
    """Whether an exporter is at work.

    Exporters suppress instrumentation, but so do users around calls that are the agent's own: what is asked for must be
    OTLP's as well. Below a client there is no path, and a name may have become an address: there it is told by where
    the client was seen to go.
    """
    context = sys.modules.get("opentelemetry.context")
    key = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", None)
    if context is None or key is None or not context.get_value(key):
        return False
    if _EXPORT.search(path):
        _exported_to.add((host, port))
        return True
    return not path and any(
        (host == name or is_address(host)) and port in ((80, 443, None) if known is None else (known,))
        for name, known in _exported_to
    )


def call_site() -> str:
    """``file:line in function`` of the nearest frame of the user's own code.

    Own code is what lies neither in the standard library nor in site-packages; without such a frame (a library's own
    thread), the outermost frame is named.
    """
    frame: Any = sys._getframe(1)
    outermost = frame
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith("<"):
            outermost = frame
            if not _is_library(name):
                break
        frame = frame.f_back
    frame = frame or outermost
    return f"{_shown(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event[:7] != "socket.":
        return
    if event in _CONNECTS:
        if sys._getframe(1).f_code in _PAIRS:
            return
        host, port = _destination(args[1])
    elif event in _LOOKUPS:
        host, port = _lookup(args)
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
    guards = [guard for guard in guards if not guard.allows(host)]
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


def _destination(address: Any) -> tuple[str | None, int | None]:
    if address is None:  # sendmsg on a connected socket
        return None, None
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return address[0], address[1] if isinstance(address[1], int) else None
    if isinstance(address, bytes):
        address = address.decode("utf-8", "replace")
    return f"{UNIX}{address}" if isinstance(address, str) else repr(address), None


def _is_own(host: str) -> bool:
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


def _lookup(args: tuple[Any, ...]) -> tuple[str | None, int | None]:
    host = args[0]
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    # An address needs no resolver; a lookup of nothing is a bind address. The connect, if any, is judged.
    if not isinstance(host, str) or is_address(host):
        return None, None
    port = args[1] if len(args) > 1 and isinstance(args[1], int) else None
    return host, port


def _resolve(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield from (str(info[4][0]) for info in socket.getaddrinfo(name, None))
        except OSError:
            continue


_LIBRARIES = (
    *(path for key, path in sysconfig.get_paths().items() if key in ("stdlib", "platstdlib", "purelib", "platlib")),
    str(Path(__file__).parent),
)


def _is_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES)


def _shown(filename: str) -> str:
    try:
        return str(Path(filename).resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # not below the working directory, or that is gone
        return filename
