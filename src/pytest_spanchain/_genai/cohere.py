"""Cohere's second API: chat, embed and rerank (the last two also in the paths of the first)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import attributes as words
from . import parts, tools
from .api import Api, Body, Event, first, text_or_none
from .openai import chat


def _asked(path: str, body: Body) -> dict[str, Any]:
    return {**words.read((*words.SAMPLING, *_OWN), body), **words.output_type(body.get("response_format"))}


_OWN: words.Fields = (
    (words.REQUEST_TOP_P, ("p",), words.number),
    (words.REQUEST_TOP_K, ("k",), words.number),
)


def _said(message: Body) -> dict[str, Any]:
    counts = first(message, "usage", "meta")
    tokens = first(counts, "tokens", "billed_units")
    return {
        **words.read(((words.RESPONSE_ID, ("id",), text_or_none),), message),
        **words.finish(message.get("finish_reason")),
        **words.usage(
            inputs=_count(first(tokens, "input_tokens")),
            outputs=_count(first(tokens, "output_tokens")),
            read=_count(first(counts, "cached_tokens")),
        ),
    }


def _count(value: Any) -> Any:
    """Cohere declares its counts as floats, and sends some so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One answer; ``None`` if the stream did not get as far as ``message-start``."""
    whole: dict[str, Any] | None = None
    message: dict[str, Any] = {}
    lists: dict[str, dict[Any, dict[str, Any]]] = {"content": {}, "tool_calls": {}, "citations": {}}
    for event in (event.data for event in events):
        kind, delta = event.get("type"), event.get("delta")
        said = first(delta, "message")
        if kind == "message-start":
            whole = {"id": event.get("id")}
            message = {key: value for key, value in said.items() if value} if isinstance(said, Mapping) else {}
        elif kind == "message-end" and isinstance(delta, Mapping):
            whole = {**(whole or {}), **parts.present(delta)}
        elif isinstance(said, Mapping):
            parts.extend(message, "tool_plan", said.get("tool_plan"))
            for name, entries in lists.items():
                if isinstance(said.get(name), Mapping):
                    _merge(entries.setdefault(parts.position(event.get("index")), {}), said[name])
    if whole is None:
        return None
    found = {name: parts.in_order(entries) for name, entries in lists.items() if entries}
    return {**whole, "message": {**message, **found}}


def _merge(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Texts of content and of arguments go on; everything else comes once."""
    for key, value in part.items():
        if key in ("text", "thinking", "arguments") and isinstance(value, str):
            parts.extend(whole, key, value)
        elif isinstance(value, Mapping) and isinstance(whole.get(key), dict):
            _merge(whole[key], value)
        elif value is not None:
            whole[key] = parts.copy(value)


CHAT = Api(
    name="cohere.chat",
    operation="chat",
    provider="cohere",
    speaks=lambda path, body: path.endswith("/v2/chat") and isinstance(body.get("messages"), list),
    asked=_asked,
    tools=tools.declared,
    said=_said,
    calls=lambda message: chat.calls_of(message.get("message")),
    assemble=_assemble,
    opens=lambda event: event.data.get("type") == "message-start",
)

_EMBEDDING: words.Fields = (
    (words.REQUEST_ENCODING_FORMATS, ("embedding_types",), words.texts),
    (words.DIMENSION_COUNT, ("output_dimension",), words.integer),
)

EMBED = Api(
    name="cohere.embed",
    operation="embeddings",
    provider="cohere",
    speaks=lambda path, body: (
        path.endswith(("/v1/embed", "/v2/embed")) and first(body, "texts", "images", "inputs") is not None
    ),
    asked=lambda path, body: words.read(_EMBEDDING, body),
    said=_said,
)

RERANK = Api(
    name="cohere.rerank",
    # The conventions know no word for it, and let a system have its own.
    operation="rerank",
    provider="cohere",
    speaks=lambda path, body: (
        path.endswith("/rerank") and isinstance(body.get("query"), str) and isinstance(body.get("documents"), list)
    ),
    said=_said,
)

APIS = (CHAT, EMBED, RERANK)
