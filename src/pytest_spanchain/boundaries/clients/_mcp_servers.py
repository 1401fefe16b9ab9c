"""Who an MCP client asks for, and what of the way there is its author's: that is recorded, and compared."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..._run import Run
from ._mcp_talk import Server

_CLIENTS_OWN = frozenset({"accept", "accept-encoding", "connection", "user-agent", "traceparent", "tracestate"})
"""Headers that HTTP clients and tracers set by themselves."""


def stdio_server(given: Mapping[str, Any]) -> Server:
    """The server of ``stdio_client``."""
    asked = given["server"]
    return Server(argv=(_program(asked.command), *asked.args), transport="pipe")


def stdio_params(given: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """What of ``StdioServerParameters`` is the author's: not what the environment holds anyway."""
    asked = given["server"]
    env = {key: value for key, value in (asked.env or {}).items() if os.environ.get(key) != value}
    command, *args = run.shown_arguments([_program(asked.command), *asked.args])
    return {
        "transport": "stdio",
        "command": command,
        "args": args,
        "env": run.shown_environment(env),
        "cwd": None if asked.cwd is None else str(asked.cwd),
    }


def url_server(given: Mapping[str, Any]) -> Server:
    """The server of a transport that is opened by URL."""
    return Server(str(given["url"]), "tcp", is_url=True)


def url_params(transport: str) -> Callable[[Mapping[str, Any], Run], Mapping[str, Any]]:
    """What of the arguments of such a transport is recorded."""

    def params(given: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
        chosen = given.get("headers")
        if chosen is None:
            chosen = getattr(given.get("http_client"), "headers", None) or {}
        pairs = [(str(name), str(value)) for name, value in chosen.items() if name.lower() not in _CLIENTS_OWN]
        said: dict[str, Any] = {"transport": transport, "url": run.shown_url(str(given["url"]))}
        return {**said, "headers": run.shown_headers(pairs)} if pairs else said

    return params


def memory_server(name: str) -> Server:
    """A server in this process."""
    return Server(name, "inproc")


def memory_params(run: Run) -> Mapping[str, Any]:
    """What is recorded of the way to a server in this process."""
    return {"transport": "memory"}


def _program(command: str) -> str:
    """A program by its name: where it lies is this machine's affair."""
    try:
        own = os.path.samefile(command, sys.executable)
    except OSError:
        own = False
    return "python" if own else Path(command).name
