"""The gateway's server: uvicorn on a free port of this machine, in a thread of its own.

Invariants:

* It listens before ``start`` returns, and nothing of it is left when ``stop`` does; both waits are bounded.
* A connection can be dropped at any point, which is how a child is told of an upstream that hung up.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .. import _strands
from ..errors import BoundaryError, UsageError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

START_SECONDS = 10.0
STOP_SECONDS = 10.0


class Server:
    """Serves an ASGI application from ``start`` to ``stop``.

    Args:
        app: the application.
        at_end: awaited in the server's loop once it has stopped.
    """

    def __init__(self, app: App, *, at_end: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._at_end = at_end
        self._transports: dict[Any, asyncio.Transport] = {}
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self.strand: _strands.Strand | None = None

    def start(self) -> None:
        """Listen.

        Raises:
            UsageError: uvicorn is not installed.
            BoundaryError: it does not come up.
        """
        self._server = self._made()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(2048)  # before the thread starts: a child that is quicker waits in the queue
        self.url = "http://{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._run, name="spanchain gateway")
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._fault is not None:
            self.stop()
            raise BoundaryError(f"the gateway did not start within {START_SECONDS:g} s")

    def stop(self) -> None:
        """Close all connections and end the thread.

        Raises:
            BoundaryError: it does not end, or it broke.
        """
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        self._socket.close()
        if self._thread.is_alive():
            raise BoundaryError(f"the gateway's thread did not end within {STOP_SECONDS:g} s")
        if self._fault is not None:
            raise BoundaryError(f"the gateway's server broke: {self._fault!r}")

    def call(self, function: Callable[[], object]) -> None:
        """Call something in the server's loop, while there is one."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(function)

    def drop(self, scope: Scope) -> None:
        """Close the connection of a request once what was sent has left, and say no more."""
        transport = self._transports.get(scope["client"])
        if transport is not None:
            transport.close()

    def _run(self) -> None:
        self.strand = _strands.current()
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # a thread has nobody to raise it to: ``start`` tells
            self._fault = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            await self._at_end()

    def _made(self) -> Any:
        try:
            import uvicorn
            from uvicorn.protocols.http.h11_impl import H11Protocol
        except ImportError as error:
            raise UsageError(missing("uvicorn")) from error
        transports, ready = self._transports, self._ready

        class Protocol(H11Protocol):
            """Knows its transport by the address of the client, as the application is told it."""

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                transports.pop(self.client, None)
                super().connection_lost(exc)

        class Listening(uvicorn.Server):
            """Says when it is there."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets=sockets)
                ready.set()

        config = uvicorn.Config(
            self._app,
            http=Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
        return Listening(config)


def missing(library: str) -> str:
    """What to do about a library that is not there."""
    return f"cassette.gateway needs {library}: pip install 'pytest-spanchain[gateway]'"
