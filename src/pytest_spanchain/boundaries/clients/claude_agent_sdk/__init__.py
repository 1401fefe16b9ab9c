"""The Claude Agent SDK: its transport to the command line, and what the command line asks of this process.

``SubprocessCLITransport`` stays what it is, between pipes that a run listens to, or plays; transports of the user's own
are met from outside. ``_talk`` says what of it is recorded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from ..._seam import acall, in_place_of, member, unrecognised, uses
from .._variables import chosen
from ._links import NAME, Link, link
from ._pipes import Played, Process
from ._talk import Talk
from ._transport import error_of, met
from ._words import TOOLS_CALL

DIST = "claude-agent-sdk"

_CLI = "claude_agent_sdk._internal.transport.subprocess_cli"
_TALK = "spanchain_talk"
_opening: ContextVar[Link | None] = ContextVar("spanchain_claude_opening", default=None)


def install(module: ModuleType) -> None:
    """Patch one of the SDK's modules.

    Raises:
        BoundaryError: it looks different.
    """
    _INSTALL[module.__name__](module)


def _install_cli(module: Any) -> None:
    kind = member(module, "SubprocessCLITransport", dist=DIST)
    connect, close = member(kind, "connect", dist=DIST), member(kind, "close", dist=DIST)
    member(kind, "_build_command", dist=DIST)
    uses(connect, "open_process", "_cli_path", "_process", "_build_command", dist=DIST)
    uses(kind, "_options", "_cwd", "_process", "stdin", "stdout", "stderr", "wait", "returncode", dist=DIST)
    module.anyio = in_place_of(module.anyio, open_process=_open_process(module.anyio))

    @functools.wraps(connect)
    async def connect_met(self: Any) -> None:
        __tracebackhide__ = True
        if self._process:
            return await connect(self)  # type: ignore[no-any-return]
        opened = link(_argv(self), cwd=self._cwd, env=_env(self._options))
        setattr(self, _TALK, opened and opened.talk)
        token = _opening.set(opened)
        try:
            if opened is None:
                await connect(self)
            elif not opened.served:
                with opened.opening():
                    await connect(self)
            elif opened.failure is not None:
                raise error_of(opened.failure)
            else:
                self._cli_path = self._cli_path or NAME
                await connect(self)
        finally:
            _opening.reset(token)

    @functools.wraps(close)
    async def close_met(self: Any) -> None:
        talk: Talk | None = getattr(self, _TALK, None)
        if isinstance(self._process, Process):
            self._process.closing()
        if talk is not None:
            talk.close()
        await close(self)

    kind.connect, kind.close = connect_met, close_met


def _open_process(library: Any) -> Callable[..., Awaitable[Any]]:
    async def open_process(*args: Any, **kwargs: Any) -> Any:
        opened = _opening.get()
        if opened is not None and opened.served:
            return Played(opened.talk, complains=kwargs.get("stderr") is not None)
        process = await library.open_process(*args, **kwargs)
        return Process(process, None if opened is None else opened.talk)

    return open_process


def _argv(transport: Any) -> list[str]:
    """What the command line is asked, wherever it lies, and before it is looked for."""
    path = transport._cli_path
    transport._cli_path = NAME
    try:
        return list(map(str, transport._build_command()))
    finally:
        transport._cli_path = path


def _env(options: Any) -> dict[str, str]:
    """The variables that the author chose, not those that the environment holds anyway."""
    found = chosen({str(name): str(value) for name, value in options.env.items()}, ())
    if getattr(options, "client_app", None) is not None:
        found["CLAUDE_AGENT_SDK_CLIENT_APP"] = str(options.client_app)
    if getattr(options, "enable_file_checkpointing", False):
        found["CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING"] = "true"
    return found


def _install_query(module: Any) -> None:
    kind = member(module, "Query", dist=DIST)
    begin = kind.__init__
    handle = member(kind, "_handle_control_request", dist=DIST)
    handle_mcp = member(kind, "_handle_sdk_mcp_request", dist=DIST)
    uses(kind, "transport", "_message_receive", "pending_control_responses", "request_id", "read_messages", dist=DIST)
    uses(handle, "_handle_sdk_mcp_request", dist=DIST)

    @functools.wraps(begin)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        if (talk := _talk(self)) is not None:
            talk.listens(lambda: _waits(self))

    @functools.wraps(handle)
    async def handle_control_request(self: Any, request: Any) -> None:
        talk = _talk(self)
        request_id = str(request.get("request_id"))
        ask = talk.ask(request_id) if talk is not None else None
        if talk is None or ask is None:
            return await handle(self, request)  # type: ignore[no-any-return]
        with ask.within():
            try:
                await handle(self, request)
            except BaseException as error:
                ask.answered(None, type(error).__name__, str(error))
                raise
            finally:
                talk.let_go(request_id)

    @functools.wraps(handle_mcp)
    async def handle_sdk_mcp_request(self: Any, server_name: str, message: Mapping[str, Any]) -> Any:
        params = message.get("params") if isinstance(message, Mapping) else None
        if _talk(self) is None or not isinstance(params, Mapping) or message.get("method") != TOOLS_CALL:
            return await handle_mcp(self, server_name, message)

        async def go() -> Any:
            answer = await handle_mcp(self, server_name, message)
            return {key: value for key, value in answer.items() if key != "id"}

        given = params.get("arguments")
        answer = await acall(str(params.get("name")), given if isinstance(given, Mapping) else {}, go)
        return {**answer, "id": message.get("id")}

    kind.__init__ = init
    kind._handle_control_request = handle_control_request
    kind._handle_sdk_mcp_request = handle_sdk_mcp_request


def _talk(query: Any) -> Talk | None:
    talk: Talk | None = getattr(query.transport, _TALK, None)
    return talk


def _waits(query: Any) -> bool:
    """Whether the agent waits for a message, or for a response."""
    return bool(query.pending_control_responses) or query._message_receive.statistics().tasks_waiting_receive > 0


def _install_one_shot(module: Any) -> None:
    kind = member(module, "InternalClient", dist=DIST)
    process = member(kind, "process_query", dist=DIST)
    around = met(member(module, "Transport", dist=DIST))
    own = member(module, "SubprocessCLITransport", dist=DIST)

    @functools.wraps(process)
    def process_query(self: Any, prompt: Any, options: Any, transport: Any = None) -> Any:
        return process(self, prompt, options, _wrapped(transport, around, own))

    kind.process_query = process_query


def _install_client(module: Any) -> None:
    kind = member(module, "ClaudeSDKClient", dist=DIST)
    begin = kind.__init__
    if "_custom_transport" not in begin.__code__.co_names:
        raise unrecognised(DIST, "ClaudeSDKClient.__init__ has changed")
    member(sys.modules.get(_CLI), "SubprocessCLITransport", dist=DIST)
    around = met(member(module, "Transport", dist=DIST))

    @functools.wraps(begin)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self._custom_transport = _wrapped(self._custom_transport, around, sys.modules[_CLI].SubprocessCLITransport)

    kind.__init__ = init


def _wrapped(transport: Any, around: Callable[[Any], Any], own: type) -> Any:
    # The SDK's own, and what is derived of it, is met inside.
    return transport if transport is None or isinstance(transport, own) else around(transport)


_INSTALL = {
    _CLI: _install_cli,
    "claude_agent_sdk._internal.query": _install_query,
    "claude_agent_sdk._internal.client": _install_one_shot,
    "claude_agent_sdk.client": _install_client,
}
