"""What streamable HTTP has on the wire: messages in bodies and event streams, without what the protocol counts."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from .. import _sse
from ..boundaries.clients.mcp._asked import PROGRESS
from ._exchange import Answer, passed_on

SESSION = "mcp-session-id"
EVENTS = "text/event-stream"
STATUS_ERROR = "HTTPStatusError"
"""Stands for the type of an error that is only a status and a body."""

_META = frozenset({"traceparent", "tracestate", "baggage", "progressToken"})
_BLANK = re.compile(r"\r\n\r\n|\n\n|\r\r")


async def events(live: Any) -> AsyncIterator[tuple[bytes, list[dict[str, Any]]]]:
    """The chunks of an event stream, each with the messages that it completes."""
    text, left = "", b""
    async for chunk in live.aiter_bytes():
        left += chunk
        try:
            text, left = text + left.decode("utf-8"), b""
        except UnicodeDecodeError as cut:
            text, left = text + left[: cut.start].decode("utf-8"), left[cut.start :]
        *whole, text = _BLANK.split(text)
        found = [_sse.parse(event.data) for part in whole for event in _sse.events(f"{part}\n\n")]
        yield chunk, [message for message in found if isinstance(message, dict)]


def said(method: Any, params: Any) -> dict[str, Any] | None:
    """Parameters without what the protocol counts for itself."""
    if not isinstance(params, Mapping):
        return None
    found = dict(params)
    if method == PROGRESS:
        found.pop("progressToken", None)
    if method == "notifications/cancelled":
        found.pop("requestId", None)
    meta = found.get("_meta")
    if isinstance(meta, Mapping):
        del found["_meta"]
        if kept := {key: value for key, value in meta.items() if key not in _META}:
            found["_meta"] = kept
    return found


def traceparent_of(params: Any) -> str:
    """The trace context that rides in parameters."""
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    found = meta.get("traceparent") if isinstance(meta, Mapping) else None
    return found if isinstance(found, str) else ""


def status_error(status: int, text: bytes) -> Exception:
    """An error that is only a status and a body."""
    made = type(STATUS_ERROR, (Exception,), {})
    found: Exception = made(f"{status} {text.decode('utf-8', 'replace')}")
    return found


def is_unrelated(method: str) -> bool:
    """Whether a server sends this on its own account, and not while it answers: the protocol keeps the two apart."""
    return method.endswith("/list_changed") or method == "notifications/resources/updated"


def rpc(method: str, params: Any, **more: Any) -> dict[str, Any]:
    """A request or notification."""
    return {"jsonrpc": "2.0", **more, "method": method, **({} if params is None else {"params": params})}


def event(message: Mapping[str, Any]) -> bytes:
    """A message as an event."""
    return f"event: message\ndata: {json.dumps(message)}\n\n".encode()


def headers_of(live: Any) -> list[tuple[str, str]]:
    """Headers of an answer that concern the client."""
    decoded = live.headers.get("content-encoding", "identity") != "identity"
    return [pair for pair in passed_on(live.headers.items(), decoded=decoded) if pair[0] != "content-length"]


async def whole(answer: Answer, live: Any, data: bytes) -> None:
    """Answer as the server did, at once."""
    await answer.begin(live.status_code, headers_of(live))
    await answer.chunk(data)
    await answer.end()


async def accepted(answer: Answer, *, status: int = 202) -> None:
    """Answer with nothing."""
    await answer.begin(status, [("content-length", "0")])
    await answer.end()


async def answer_json(answer: Answer, message: Mapping[str, Any], *headers: tuple[str, str]) -> None:
    """Answer with one message."""
    body = json.dumps(message).encode()
    await answer.begin(200, [("content-type", "application/json"), ("content-length", str(len(body))), *headers])
    await answer.chunk(body)
    await answer.end()
