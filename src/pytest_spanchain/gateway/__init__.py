"""The gateway: a loopback endpoint that records and replays for a child process in any language.

The child is the agent under test, and runs in the recording and in every replay. Its SDKs are pointed here by their
base URLs, its tracer by ``OTEL_EXPORTER_OTLP_ENDPOINT``; what passes, and what it tells of itself, are spans of the run
that opened the gateway.

Invariants:

* In replay nothing is contacted.
* starlette, uvicorn and the rest of the extra ``gateway`` are imported when a gateway is opened, and not before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType

from .._run import Run
from ..boundaries.clients import _variables
from ..errors import UsageError
from . import _places
from ._app import App
from ._family import Family
from ._server import Server, missing

PATIENCE = 5.0
"""How long a request that is in flight may still take when the gateway closes, in seconds."""


class Gateway:
    """What ``cassette.gateway`` gives: a context manager, also for async tests.

    Args:
        run: the run that it belongs to.
        upstreams: base URLs by name, where they are not those of the environment or the public ones.

    Raises:
        UsageError: an upstream's name or URL cannot be one.
    """

    def __init__(self, run: Run, *, upstreams: Mapping[str, str] | None = None) -> None:
        self._run = run
        self._upstreams = _places.upstreams(upstreams or {}, environ=os.environ)
        self._server: Server | None = None
        self._settled = False

    def __enter__(self) -> Gateway:
        """Start to listen.

        Raises:
            UsageError: the extra is not installed, or the gateway is open already.
            BoundaryError: the server does not come up.
        """
        if self._server is not None:
            raise UsageError("a gateway is opened once: ask cassette.gateway() for another one")
        try:
            import starlette.requests  # noqa: F401
        except ImportError as error:
            raise UsageError(missing("starlette")) from error
        if self._run.records:  # not when a request fails for it: that would be the upstream's failure to the child
            try:
                import httpx  # noqa: F401
            except ImportError as error:
                raise UsageError(missing("httpx")) from error
        self._family = Family(self._run.capture, parent=self._run.capture.nearest())
        self._app = App(self._run, family=self._family, upstreams=self._upstreams)
        self._server = self._app.server = Server(self._app, at_end=self._app.close)
        self._server.start()
        # A fixture closes it after the verdict, which is about all that the child did.
        self._run.before_end.append(lambda: self._settle(PATIENCE))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        server = self._opened()
        self._settle(PATIENCE if error is None else 0.0, fails=error is None)
        _variables.take_back(server.url)
        server.call(self._app.give_up)
        server.stop()

    def _settle(self, patience: float, *, fails: bool = True) -> None:
        """Wait for what is in flight, and put what the children did in its places. Once: the run may end first."""
        if self._settled:
            return
        self._settled = True
        server = self._opened()
        left = self._app.wait(patience)
        if left and fails:
            self._run.note_error(
                f"the gateway was closed while {', '.join(sorted(left))} had yet to be answered, {PATIENCE:g} s after"
                " the block's end: wait for the child before it ends"
            )
        # Where the cassette stands for what starts the child, there is none.
        if fails and not self._app.reached and not self._run.capture.spared(("process", "tool", "agent")):
            self._run.note_error(
                "the gateway was opened and nothing came through it: was the child given env=gateway.env, or did it"
                " end before its first request?"
            )
        assert server.strand is not None
        self._family.join(server.strand)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._opened().url

    @property
    def variables(self) -> dict[str, str]:
        """What a child's environment needs besides the parent's."""
        found = self._variables(records=self._run.records)
        # A key that stands for nothing in replay is the parent's own while recording: no more its author's choice.
        own = {name: os.environ[name] for name in self._variables(records=False) if name in os.environ}
        _variables.supply(self.url, {**own, **found})
        return found

    def _variables(self, *, records: bool) -> dict[str, str]:
        return _places.variables(
            url=self.url,
            traceparent=self._family.traceparent,
            records=records,
            environ=os.environ,
            names=[one.name for one in self._upstreams.values() if not one.mcp],
        )

    @property
    def env(self) -> dict[str, str]:
        """A child's whole environment: the parent's, and ``variables``."""
        return {**os.environ, **self.variables}

    def base_url(self, name: str) -> str:
        """The base URL that stands for an upstream.

        Args:
            name: ``openai``, ``anthropic``, ``gemini``, or one of ``upstreams``.

        Raises:
            UsageError: there is none of that name.
        """
        found = self._upstreams.get(name)
        if found is None:
            known = sorted(one.name for one in self._upstreams.values() if not one.mcp)
            raise UsageError(f"the gateway has no upstream {name!r}: it has {', '.join(known)}")
        return f"{self.url}{found.prefix}"

    def mcp(self, name: str, url: str) -> str:
        """The URL that stands for an MCP server over streamable HTTP.

        Args:
            name: what tells it from others.
            url: of the real one; a replay contacts nothing there.

        Raises:
            UsageError: the name or the URL cannot be one, or the name stands for another server.
        """
        made = _places.upstream(name, url, mcp=True)
        if self._upstreams.setdefault(made.prefix, made) != made:
            raise UsageError(f"gateway: the MCP server {name!r} is {self._upstreams[made.prefix].url} already")
        return f"{self.url}{made.prefix}"

    def _opened(self) -> Server:
        if self._server is None:
            raise UsageError("the gateway is not open: with cassette.gateway() as gateway")
        return self._server
