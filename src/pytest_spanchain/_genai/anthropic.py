"""Anthropic's Messages, at home, on Vertex and inside Bedrock.

Invariant: any JSON that arrives is accepted; parts of an unexpected type are passed over, never raised about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import _sse
from . import attributes as words
from . import parts, tools
from .api import Api, Body, Event, ToolCall, first, mappings, text_or_none, tool_call

# Deltas that extend a text of their block: delta type -> field, the same in delta and block.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "compaction_delta": "content"}

_VERTEX = (":rawPredict", ":streamRawPredict")


def asked(path: str, body: Body) -> dict[str, Any]:
    """Request attributes."""
    found = words.read(words.SAMPLING, body)
    found.update(words.output_type(first(body.get("output_config"), "format"), body.get("output_format")))
    if path.endswith(_VERTEX):
        found[words.PROVIDER_NAME] = "gcp.vertex_ai"
    return found


def said(message: Body) -> dict[str, Any]:
    """Response attributes; Anthropic counts cached tokens beside its input tokens."""
    counts = message.get("usage")
    read, written = first(counts, "cache_read_input_tokens"), first(counts, "cache_creation_input_tokens")
    return {
        **words.read(words.IDENTITY, message),
        **words.finish(message.get("stop_reason")),
        **words.usage(
            inputs=words.total(first(counts, "input_tokens"), read, written),
            outputs=first(counts, "output_tokens"),
            read=read,
            written=written,
            reasoning=first(first(counts, "output_tokens_details"), "reasoning_tokens", "thinking_tokens"),
        ),
    }


def calls(message: Body) -> Iterator[ToolCall]:
    """Tool calls; what the provider ran itself (``server_tool_use``) is none."""
    for block in mappings(message.get("content")):
        if block.get("type") == "tool_use":
            yield tool_call(block.get("id"), block.get("name"), block.get("input"))


def assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One ``message``; ``None`` if the stream did not get as far as ``message_start``."""
    message: dict[str, Any] | None = None
    blocks: dict[Any, dict[str, Any]] = {}
    inputs: dict[Any, str] = {}
    for event in (event.data for event in events):
        kind, index = event.get("type"), parts.position(event.get("index"))
        if kind == "message_start" and isinstance(event.get("message"), dict):
            message = dict(event["message"])
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[index] = dict(event["content_block"])
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            _add_delta(blocks, inputs, index, event["delta"])
        elif kind == "message_delta" and message is not None:
            _finish_message(message, event)
    if message is None:
        return None
    for index, text in inputs.items():
        # A stream that was cut leaves half an object: the reader sees the text as far as it came.
        value = _sse.parse(text)
        blocks[index]["input"] = text if value is None else value
    return {**message, "content": parts.in_order(blocks)}


def _add_delta(blocks: dict[Any, dict[str, Any]], inputs: dict[Any, str], index: Any, delta: Mapping[str, Any]) -> None:
    block, kind = blocks.get(index), delta.get("type")
    if block is None:
        return
    if isinstance(kind, str) and kind in _TEXTS:
        parts.extend(block, _TEXTS[kind], delta.get(_TEXTS[kind]))
    elif kind == "input_json_delta":
        if isinstance(delta.get("partial_json"), str) and delta["partial_json"]:
            inputs[index] = inputs.get(index, "") + delta["partial_json"]
    elif kind == "signature_delta":
        block["signature"] = delta.get("signature")
    elif kind == "citations_delta":
        old = block.get("citations")
        block["citations"] = [*(old if isinstance(old, list) else []), delta.get("citation")]


def _finish_message(message: dict[str, Any], event: Mapping[str, Any]) -> None:
    """Usage counts of a ``message_delta`` are totals so far; what it leaves out keeps its value from the start."""
    delta, usage = event.get("delta"), event.get("usage")
    if isinstance(delta, dict):
        message.update(parts.present(delta))
    if isinstance(usage, dict):
        old = message.get("usage")
        message["usage"] = {**(old if isinstance(old, dict) else {}), **parts.present(usage)}


def _model(path: str, body: Body) -> Any:
    named = text_or_none(body.get("model"))
    return named or (path.rpartition("/")[2].partition(":")[0] if path.endswith(_VERTEX) else "")


MESSAGES = Api(
    name="anthropic.messages",
    operation="chat",
    provider="anthropic",
    speaks=lambda path, body: (
        path.endswith(("/messages", *_VERTEX)) and isinstance(body.get("messages"), list) and "max_tokens" in body
    ),
    model=_model,
    asked=asked,
    tools=tools.declared,
    said=said,
    calls=calls,
    assemble=assemble,
    opens=lambda event: event.data.get("type") == "message_start",
)

APIS = (MESSAGES,)
