"""How an MCP client reaches its server: where a run replays, it does not.

The functions that open a transport are met by their code (see ``_patch``), so that a reference which was taken early is
met as well. In replay nothing is started and nobody is contacted: the client gets streams on which nothing ever comes,
and its messages are answered where it sends them.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .... import _patch
from ..._seam import member, unrecognised
from . import _errlog
from ._connection import breaking, link
from ._server import known, opening
from ._ways import Way

DIST = "mcp"

Open = Callable[..., AsyncGenerator[Any, None]]


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
        server = opening.get()
        if server is not None:
            server.session_id = lambda: getattr(self, "session_id", None)

    kind.__init__ = init
