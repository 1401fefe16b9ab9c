"""Who is at the other end, as an MCP client names it; by the streams or the dispatcher over which it is spoken to."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ...._capture import OpenSpan
from ...._run import Run

opening: ContextVar[Server | None] = ContextVar("spanchain_mcp_opening", default=None)
"""The server whose transport is being opened, and all that belongs to the transport."""

_servers: dict[int, Server] = {}
"""Who is at the other end of a stream or dispatcher, by its id, for as long as its connection lasts."""


@dataclass(eq=False)
class Server:
    """A server, as its client names it.

    Args:
        text: its URL or its name.
        transport: OpenTelemetry's ``network.transport``.
        is_url: whether ``text`` is a URL.
        argv: its command line, if it is a child process.
        session_id: tells the id of the session, if the transport has one.
        opened_by: the span of the connection, and the context in which it was asked for.
        connection: the number of the connection, if it is not the first to this server.
        breaks: breaks the connection as it broke when this was recorded; ``None`` where it did not.
    """

    text: str = "(unnamed)"
    transport: str = ""
    is_url: bool = False
    argv: tuple[str, ...] = ()
    session_id: Callable[[], str | None] = lambda: None
    opened_by: tuple[OpenSpan, Any] | None = None
    breaks: Callable[[], None] | None = None
    connection: int | None = None

    def name(self, run: Run) -> str:
        """As it is recorded: without credentials, and without what only this machine knows."""
        if self.argv:
            return shlex.join(run.redactor.arguments(self.argv))
        return run.redactor.url(self.text) if self.is_url else self.text


def server_of(*ends: Any) -> Server:
    """The server that is reached over a stream or a dispatcher; one without a name if we did not see it opened."""
    found = [_servers[id(end)] for end in ends if id(end) in _servers]
    return found[0] if found else opening.get() or Server()


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
