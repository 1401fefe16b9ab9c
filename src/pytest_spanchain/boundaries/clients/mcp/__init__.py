"""The Model Context Protocol's own SDK, 1.x and 2.x, whatever transport: stdio, streamable HTTP, SSE, in memory.

``_transports`` meets what opens a transport, ``_dispatch`` (2.x) and ``_session`` (1.x) the sessions; ``_connection``,
``_talk``, ``_asked`` and ``_callback`` say what of it is recorded.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from ..._seam import member
from . import _session
from . import _transports as transports
from . import _ways as ways
from ._connection import link
from ._dispatch import Dispatched
from ._server import known, server_of
from ._talk import Talk


def install(module: ModuleType) -> None:
    """Patch one of the SDK's modules.

    Raises:
        BoundaryError: it looks different.
    """
    _INSTALL[module.__name__](module)


def _streams(opened: Any) -> tuple[Any, ...]:
    return tuple(opened[:2])


def _hollow(given: Any) -> Any:
    return transports.hollow_streams()


@asynccontextmanager
async def _hollow_with_id(given: Any) -> AsyncIterator[Any]:
    async with transports.hollow_streams() as (read, write):
        yield read, write, lambda: None


@asynccontextmanager
async def _hollow_session(given: Any) -> AsyncIterator[Any]:
    from mcp import ClientSession  # whoever opens this has imported it

    wanted = inspect.signature(ClientSession.__init__).parameters
    options = {name: value for name, value in given.items() if name in wanted}
    async with transports.hollow_streams() as (read, write):
        with known([write], ways.memory_server(_name_of(given["server"]))):
            session = ClientSession(read, write, **options)
        async with session:
            await session.initialize()
            yield session


def _install_session(module: ModuleType) -> None:
    kind = member(module, "ClientSession", dist=transports.DIST)
    if "dispatcher" not in inspect.signature(kind.__init__).parameters:
        _install_session_1(module, kind)
        return
    error = member(module, "MCPError", dist=transports.DIST)
    original = kind.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        dispatcher(self)

    def dispatcher(self: Any) -> Dispatched:
        inner = vars(self)["_dispatcher"]
        if not isinstance(inner, Dispatched):
            ends = (inner, getattr(inner, "_read_stream", None), getattr(inner, "_write_stream", None))
            inner = vars(self)["_dispatcher"] = Dispatched(inner, Talk(server_of(*ends)), error)
        return inner

    # A session that was made before the first run is met as well, when it sends.
    kind._dispatcher = property(dispatcher, lambda self, inner: vars(self).update(_dispatcher=inner))
    kind.__init__ = init


def _install_session_1(module: ModuleType, kind: Any) -> None:
    exceptions, session = (sys.modules[f"mcp.shared.{name}"] for name in ("exceptions", "session"))  # it needs them
    for name in (
        "send_request",
        "send_notification",
        "_received_request",
        "_received_notification",
        "_handle_incoming",
    ):
        member(kind, name, dist=transports.DIST)
    _session.install(
        kind,
        error=member(exceptions, "McpError", dist=transports.DIST),
        responder=member(session, "RequestResponder", dist=transports.DIST),
    )


def _install_stdio(module: ModuleType) -> None:
    way = ways.Way(ways.stdio_server, ways.stdio_params, _hollow, _streams, errlog="errlog")
    transports.meet(module, "stdio_client", way, takes=("server",))


def _install_sse(module: ModuleType) -> None:
    way = ways.Way(ways.url_server, ways.url_params("sse"), _hollow, _streams)
    transports.meet(module, "sse_client", way, takes=("url",))


def _install_http(module: ModuleType) -> None:
    transports.note_session(module, "StreamableHTTPTransport")
    first = hasattr(module, "GetSessionIdCallback")  # 1.x tells the id of the session beside the streams
    way = ways.Way(ways.url_server, ways.url_params("http"), _hollow_with_id if first else _hollow, _streams)
    transports.meet(module, "streamable_http_client", way, takes=("url",))


def _install_websocket(module: ModuleType) -> None:
    way = ways.Way(ways.url_server, ways.url_params("websocket"), _hollow, _streams)
    transports.meet(module, "websocket_client", way, takes=("url",))


def _install_memory_1(module: ModuleType) -> None:
    if not hasattr(module, "create_connected_server_and_client_session"):
        return  # from 2.0 on, elsewhere
    way = ways.Way(
        lambda given: ways.memory_server(_name_of(given["server"])),
        lambda given, run: ways.memory_params(run),
        _hollow_session,
        lambda session: (),
    )
    transports.meet(module, "create_connected_server_and_client_session", way, takes=("server",))


def _install_memory(module: ModuleType) -> None:
    kind = member(module, "InMemoryTransport", dist=transports.DIST)
    way = ways.Way(
        lambda given: ways.memory_server(_name_of(given["self"]._server)),
        lambda given, run: ways.memory_params(run),
        _hollow,
        _streams,
    )
    transports.meet(kind, "_connect", way, takes=("self",))


def _install_client(module: ModuleType) -> None:
    """A server in this process that is called without streams."""
    original = member(module, "_connect_inproc", dist=transports.DIST)

    @functools.wraps(original)
    def connect_inproc(server: Any) -> Any:
        connect = original(server)

        async def connected(exit_stack: Any, *args: Any) -> Any:
            reached = ways.memory_server(_name_of(server))
            connection = link(reached, ways.memory_params)
            if connection is None:
                dispatcher = await connect(exit_stack, *args)
            elif connection.served:
                connection.serve()  # without a transport, nothing of it can break
                streams = await exit_stack.enter_async_context(transports.hollow_streams())
                dispatcher = module.JSONRPCDispatcher(*streams)
            else:
                with connection.within():
                    dispatcher = await connect(exit_stack, *args)
                connection.opened()
            exit_stack.enter_context(known([dispatcher], reached))
            return dispatcher

        return connected

    module._connect_inproc = connect_inproc  # type: ignore[attr-defined]


def _install_fastmcp(module: ModuleType) -> None:
    """A server in this process, which FastMCP's client starts by itself."""
    kind = member(module, "FastMCPTransport", dist="fastmcp")
    way = ways.Way(
        lambda given: ways.memory_server(_name_of(given["self"].server)),
        lambda given, run: ways.memory_params(run),
        _hollow_fastmcp,
        lambda session: (),
    )
    transports.meet(kind, "connect_session", way, takes=("self", "session_kwargs"), dist="fastmcp")


@asynccontextmanager
async def _hollow_fastmcp(given: Any) -> AsyncIterator[Any]:
    options = given.get("transport_options")
    kind = getattr(options, "session_class", None) or sys.modules["mcp"].ClientSession
    async with transports.hollow_streams() as (read, write):
        with known([write], ways.memory_server(_name_of(given["self"].server))):
            session = kind(read_stream=read, write_stream=write, **given["session_kwargs"])
        async with session:
            yield session


def _name_of(server: Any) -> str:
    return str(getattr(server, "name", None) or type(server).__name__)


_INSTALL = {
    "mcp.client.session": _install_session,
    "mcp.client.stdio": _install_stdio,
    "mcp.client.sse": _install_sse,
    "mcp.client.streamable_http": _install_http,
    "mcp.client._memory": _install_memory,
    "mcp.client.client": _install_client,
    "mcp.client.websocket": _install_websocket,
    "mcp.shared.memory": _install_memory_1,
    "fastmcp.client.transports.memory": _install_fastmcp,
}
