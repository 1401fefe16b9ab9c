"""One connection of an MCP client with its server: while a run records, opening it is an exchange of kind ``mcp``.

Whatever the transport starts (tasks that post messages, a server in this process) is inside of that exchange for as
long as it lives: nothing of it is recorded a second time. How the connection breaks is part of it, too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from .... import _session
from ...._model import CONNECTION
from ...._run import Call, Crossing, Run, current_run
from .._raised import raised_again
from .._trace_context import otel_context
from . import _errlog
from ._server import Server, opening

CONNECT = "connect"

_connections: WeakKeyDictionary[Run, Counter[str]] = WeakKeyDictionary()
"""How many connections a run has seen to each server."""
_counting = threading.Lock()


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
            Crossing(
                "mcp",
                f"{CONNECT} {said}",
                {"server": said, "method": CONNECT, "params": {**params}},
                attributes={**attributes, **({CONNECTION: number} if number else {})},
                # What is new must be able to reach the server.
                runs=run.records,
            )
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
        token = opening.set(self._server)
        try:
            with self._call.active():
                yield
        finally:
            opening.reset(token)

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


def _described(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The errors in a group, in groups of groups; an error that is no group is its own."""
    inner = getattr(error, "exceptions", None)
    if error is not None and inner is None:
        yield error
    for one in inner or ():
        yield from _leaves(one)
