"""Ollama's own API; streams are JSON lines, and are what it sends unless told not to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import attributes as words
from . import parts, tools
from .api import Api, Body, Event, ToolCall, first, text_or_none
from .openai import chat

_SAMPLING: words.Fields = (
    (words.REQUEST_TEMPERATURE, ("temperature",), words.number),
    (words.REQUEST_TOP_P, ("top_p",), words.number),
    (words.REQUEST_TOP_K, ("top_k",), words.number),
    (words.REQUEST_MAX_TOKENS, ("num_predict",), words.integer),
    (words.REQUEST_STOP_SEQUENCES, ("stop",), words.texts),
    (words.REQUEST_SEED, ("seed",), words.integer),
    (words.REQUEST_FREQUENCY_PENALTY, ("frequency_penalty",), words.number),
    (words.REQUEST_PRESENCE_PENALTY, ("presence_penalty",), words.number),
)


def _asked(path: str, body: Body) -> dict[str, Any]:
    found = words.read(_SAMPLING, body.get("options"))
    if body.get("stream") is not False:
        found[words.REQUEST_STREAM] = True
    if body.get("format") == "json" or isinstance(body.get("format"), Mapping):
        found[words.OUTPUT_TYPE] = "json"
    return found


def _said(message: Body) -> dict[str, Any]:
    return {
        **words.read(((words.RESPONSE_MODEL, ("model",), text_or_none),), message),
        **words.finish(message.get("done_reason")),
        **words.usage(inputs=message.get("prompt_eval_count"), outputs=message.get("eval_count")),
    }


def _calls(message: Body) -> Iterator[ToolCall]:
    return chat.calls_of(message.get("message"))


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """The last line, which has the counts, with the texts of all; ``None`` if no line is one."""
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for line in (event.data for event in events):
        if "done" not in line:
            continue
        for key, value in line.items():
            if key == "message" and isinstance(value, Mapping):
                _extend(message, value)
            elif key in ("response", "thinking"):
                parts.extend(whole, key, value)
            elif value is not None:
                whole[key] = value
    if not whole:
        return None
    return {**whole, **({"message": message} if message else {})}


def _extend(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for key, value in delta.items():
        if key in ("content", "thinking"):
            parts.extend(message, key, value)
        elif isinstance(value, list) and isinstance(message.get(key), list):
            message[key] = [*message[key], *parts.copy(value)]
        elif value is not None:
            message[key] = parts.copy(value)


CHAT = Api(
    name="ollama.chat",
    operation="chat",
    provider="ollama",
    speaks=lambda path, body: (
        path.endswith("/api/chat") and isinstance(body.get("messages"), list) and isinstance(body.get("model"), str)
    ),
    asked=_asked,
    tools=tools.declared,
    said=_said,
    calls=_calls,
    assemble=_assemble,
)

GENERATE = Api(
    name="ollama.generate",
    operation="text_completion",
    provider="ollama",
    speaks=lambda path, body: (
        path.endswith("/api/generate") and isinstance(body.get("model"), str) and isinstance(body.get("prompt"), str)
    ),
    asked=_asked,
    said=_said,
    assemble=_assemble,
)

EMBED = Api(
    name="ollama.embed",
    operation="embeddings",
    provider="ollama",
    speaks=lambda path, body: (
        path.endswith(("/api/embed", "/api/embeddings"))
        and isinstance(body.get("model"), str)
        and first(body, "input", "prompt") is not None
    ),
    asked=lambda path, body: words.read(((words.DIMENSION_COUNT, ("dimensions",), words.integer),), body),
    said=_said,
)

APIS = (CHAT, GENERATE, EMBED)
