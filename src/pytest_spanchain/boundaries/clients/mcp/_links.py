"""How an MCP client reaches its server: where a run replays, it does not.

The functions that open a transport are met by their code (see ``_patch``), so that a reference which was taken early is
met as well. While a run records, opening one is an exchange of kind ``mcp``, and whatever the transport starts (tasks
that post messages, a server in this process) is inside of that exchange for as long as it lives: nothing of it is
recorded a second time. In replay nothing is started and nobody is contacted: the client gets streams on which nothing
ever comes, and its messages are answered where it sends them.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from .... import _patch, _session
from ...._model import CONNECTION
from ...._run import Call, Run, current_run
from ..._seam import member, unrecognised
from . import _errlog
from ._errors import raised_again
from ._talk import Server, otel_context

CONNECT = "connect"
DIST = "mcp"

Open = Callable[..., AsyncGenerator[Any, None]]

_opening: ContextVar[Server | None] = ContextVar("spanchain_mcp_opening", default=None)
_servers: dict[int, Server] = {}
"""Who is at the other end of a stream or dispatcher, by its id, for as long as its connection lasts."""


_connections: WeakKeyDictionary[Run, Counter[str]] = WeakKeyDictionary()
"""How many connections a run has seen to each server."""
_counting = threading.Lock()


@dataclass(frozen=True)
class Way:
    """One way to reach a server.

    Args:
        server: made of the arguments of the function that opens it.
        params: what of these arguments is recorded.
        hollow: opens what stands for it in replay, from the same arguments.
        named: the objects by which the client is recognised later, of what was opened.
        errlog: the argument that says where the server's stderr goes, if it has one.
    """

    server: Callable[[Mapping[str, Any]], Server]
    params: Callable[[Mapping[str, Any], Run], Mapping[str, Any]]
    hollow: Callable[[Mapping[str, Any]], Any]
    named: Callable[[Any], tuple[Any, ...]]
    errlog: str | None = None


def server_of(*ends: Any) -> Server:
    """The server that is reached over a stream or a dispatcher; one without a name if we did not see it opened."""
    found = [_servers[id(end)] for end in ends if id(end) in _servers]
    return found[0] if found else _opening.get() or Server()


@contextmanager
def known(ends: Iterable[Any], server: Server) -> Iterator[None]:
    """Meanwhile, ``server`` is at the other end of these."""
    mine = [id(end) for end in ends]
    # A connection that goes by way of another one is named by who asked for it.
    _servers.update({end: _servers.get(end, server) for end in mine})
    try:
        yield
    finally:
        for end in mine:
            _servers.pop(end, None)


class Link:
    """One connection, from the moment it is asked for."""

    def __init__(self, run: Run, server: Server, params: Mapping[str, Any]) -> None:
        said = server.name(run)
        outer = otel_context()
        self._run = run
        self._server = server
        with _counting:
            number = _connections.setdefault(run, Counter())[said]
            _connections[run][said] += 1
        attributes: dict[str, Any] = {"network.transport": server.transport} if server.transport else {}
        self._call: Call = run.begin(
            "mcp",
            f"{CONNECT} {said}",
            {"server": said, "method": CONNECT, "params": {**params}},
            attributes={**attributes, **({CONNECTION: number} if number else {})},
            span_kind="client",
            # What is new must be able to reach the server.
            runs=run.records,
        )
        self._call.at_close = self.opened
        server.opened_by = (self._call.span, outer)
        graft = self._call.span.graft
        server.connection = number or None if graft is None else graft[1].attributes.get(CONNECTION)
        self._over = False
        self._outcome: dict[str, Any] = {"arrived": [], "end": "complete", "error": None, "result": None}
        self.served = self._call.recorded is not None

    @contextmanager
    def within(self) -> Iterator[None]:
        """What is started here is inside of this exchange for as long as it lives."""
        self._call.span.lasting = True
        token = _opening.set(self._server)
        try:
            with self._call.active():
                yield
        finally:
            _opening.reset(token)

    @contextmanager
    def listening(self, errlog: _errlog.Errlog | None) -> Iterator[_errlog.Errlog | None]:
        """Meanwhile, what the server writes to its stderr is part of this."""
        if errlog is None:
            yield None
            return

        def heard() -> None:
            if errlog.heard is not None:
                self._amend(stderr=errlog.heard)

        self._run.before_end.append(heard)
        try:
            yield errlog
        finally:
            errlog.over()
            heard()

    def opened(self) -> None:
        """The connection stands; or it was recorded so."""
        self._finish(None, "complete")

    def failed(self, error: BaseException) -> None:
        """It could not be opened."""
        known = isinstance(error, Exception)
        self._finish(_described(error) if known else None, "error" if known else "closed")

    @contextmanager
    def ending(self, body: BaseException | None) -> Iterator[None]:
        """It is closed; if it breaks instead, that is part of what is recorded.

        Args:
            body: what the client's own code raised, which is none of the connection's.
        """
        try:
            yield
        except BaseException as raised:
            own = set(map(id, _leaves(body)))
            errors = [one for one in _leaves(raised) if isinstance(one, Exception) and id(one) not in own]
            if errors:
                self._amend(error=_described(errors[0]), end="closed")
            raise

    def serve(self, errlog: Any = None) -> Exception | None:
        """Hand over the recorded outcome.

        Args:
            errlog: where the server's stderr goes.

        Returns:
            What the connection broke with while it was used.

        Raises:
            Exception: what opening it raised when this was recorded.
        """
        recorded = self._call.recorded
        assert recorded is not None
        if not self._over:
            self._over = True
            self._call.finish(recorded)
        if "stderr" in recorded:
            _errlog.play(recorded["stderr"], errlog)
        error = None if recorded["error"] is None else raised_again(recorded["error"])
        if error is not None and recorded["end"] == "error":
            raise error
        return error

    def _finish(self, error: Mapping[str, Any] | None, end: str) -> None:
        if self.served:
            return
        if not self._over and not self._run.closed:
            self._over = True
            self._outcome.update(error=error, end=end)
            self._call.finish(dict(self._outcome))

    def _amend(self, **what: Any) -> None:
        if self._over and not self._run.closed:
            self._outcome.update(what)
            self._call.amend(dict(self._outcome))


def _described(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The errors in a group, in groups of groups; an error that is no group is its own."""
    inner = getattr(error, "exceptions", None)
    if error is not None and inner is None:
        yield error
    for one in inner or ():
        yield from _leaves(one)


@asynccontextmanager
async def breaking(server: Server, error: Exception | None) -> AsyncIterator[None]:
    """The connection breaks when the server is asked what broke it, or at its end: by a task, as transports do.

    Args:
        server: the one that is not there.
        error: what it breaks with; if it does not, this does nothing.
    """
    if error is None:
        yield
        return
    import anyio

    asked = anyio.Event()
    server.breaks = asked.set

    async def breaks() -> None:
        await asked.wait()
        raise error

    async with anyio.create_task_group() as group:
        group.start_soon(breaks)
        yield
        asked.set()


def link(server: Server, params: Callable[[Run], Mapping[str, Any]]) -> Link | None:
    """The connection that is asked for here; ``None`` if nobody watches.

    Raises:
        MissError: replay has no such connection.
    """
    run = current_run()
    if run is None and server.argv and (session := _session.current()) is not None:
        session.met(server.argv[0])  # a fixture that outlives tests starts a process; what it sends is counted itself
    if run is None or run.inside("mcp"):
        return None
    return Link(run, server, params(run))


def meet(owner: Any, attribute: str, way: Way, *, takes: tuple[str, ...], dist: str = DIST) -> None:
    """Meet a function of the library that opens a transport: an async context manager made of a generator.

    Raises:
        BoundaryError: it is something else.
    """
    found = member(owner, attribute, dist=dist)
    function = getattr(found, "__wrapped__", None)
    if function is None or _patch.kind_of(function) != "async_generator":
        raise unrecognised(dist, f"{owner.__name__}.{attribute} has changed")
    signature = inspect.signature(function)
    if missing := {*takes, *([way.errlog] if way.errlog else [])} - set(signature.parameters):
        raise unrecognised(dist, f"{owner.__name__}.{attribute} does not take {', '.join(sorted(missing))}")

    def make(site: _patch.Site) -> _patch.Invoke:
        def invoke(args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncGenerator[Any, None]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)

            def go(**changed: Any) -> AsyncGenerator[Any, None]:
                bound.arguments.update(changed)
                opened: AsyncGenerator[Any, None] = site.twin(*bound.args, **bound.kwargs)
                return opened

            return _opened(way, given, go)

        return invoke

    _patch.acquire(function, make)


async def _opened(way: Way, given: Mapping[str, Any], go: Open) -> AsyncGenerator[Any, None]:
    server = way.server(given)
    connection = link(server, lambda run: way.params(given, run))
    if connection is None:
        async with asynccontextmanager(go)() as opened:
            with known(way.named(opened), server):  # a client that a fixture connected may speak in a test
                yield opened
        return
    if connection.served:
        error = connection.serve(given[way.errlog] if way.errlog else None)
        async with breaking(server, error), way.hollow(given) as opened:
            with known(way.named(opened), server):
                yield opened
        return
    with connection.listening(_errlog.listen(given[way.errlog]) if way.errlog else None) as errlog:
        manager = asynccontextmanager(go)(**({way.errlog: errlog.end} if way.errlog and errlog else {}))
        try:
            with connection.within():
                opened = await manager.__aenter__()
        except BaseException as error:
            connection.failed(error)
            raise
        finally:
            if errlog is not None:
                errlog.given()
        connection.opened()
        try:
            with known(way.named(opened), server):
                yield opened
        except BaseException as error:
            with connection.within(), connection.ending(error):
                if not await manager.__aexit__(type(error), error, error.__traceback__):
                    raise
        else:
            with connection.within(), connection.ending(None):
                await manager.__aexit__(None, None, None)


@asynccontextmanager
async def hollow_streams() -> AsyncIterator[tuple[Any, Any]]:
    """A pair of streams on which nothing ever comes; what is sent is not read."""
    import anyio

    feed, read = anyio.create_memory_object_stream[Any](math.inf)
    write, drain = anyio.create_memory_object_stream[Any](math.inf)
    try:
        yield read, write
    finally:
        for end in (feed, read, write, drain):
            end.close()


def note_session(module: Any, attribute: str) -> None:
    """Let a transport that is opened tell its session id later.

    Raises:
        BoundaryError: there is no such transport.
    """
    kind = member(module, attribute, dist=DIST)
    original = kind.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        server = _opening.get()
        if server is not None:
            server.session_id = lambda: getattr(self, "session_id", None)

    kind.__init__ = init
