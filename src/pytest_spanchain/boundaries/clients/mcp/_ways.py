"""The way to an MCP server: who is asked for, and what of the way is its author's, recorded, and compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...._run import Run
from .._variables import chosen
from ..subprocess._command import command_of
from ._server import Server

_CLIENTS_OWN = frozenset({"accept", "accept-encoding", "connection", "user-agent", "traceparent", "tracestate"})
"""Headers that HTTP clients and tracers set by themselves."""


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


def stdio_server(given: Mapping[str, Any]) -> Server:
    """The server of ``stdio_client``."""
    return Server(argv=_argv(given["server"]), transport="pipe")


def stdio_params(given: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """What of ``StdioServerParameters`` is the author's: not what the environment holds anyway."""
    asked = given["server"]
    command, *args = run.redactor.arguments(_argv(asked))
    return {
        "transport": "stdio",
        "command": command,
        "args": args,
        "env": run.redactor.environment(chosen(asked.env or {}, ())),
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
        said: dict[str, Any] = {"transport": transport, "url": run.redactor.url(str(given["url"]))}
        return {**said, "headers": run.redactor.chosen_headers(pairs)} if pairs else said

    return params


def memory_server(name: str) -> Server:
    """A server in this process."""
    return Server(name, "inproc")


def memory_params(run: Run) -> Mapping[str, Any]:
    """What is recorded of the way to a server in this process."""
    return {"transport": "memory"}


def _argv(asked: Any) -> tuple[str, ...]:
    """The command line, as that of any child: where its program lies is this machine's affair."""
    words = [asked.command, *asked.args]
    command = command_of({"args": words, "executable": None, "cwd": None, "shell": False})
    return tuple(words) if command is None else command.argv
