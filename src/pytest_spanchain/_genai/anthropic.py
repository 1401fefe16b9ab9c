"""Anthropic's Messages stream, put together into what the API answers without ``stream``.

Invariant: any JSON that arrives is accepted; parts of an unexpected type are passed over, never raised about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .. import _sse

# Deltas that extend a text of their block: delta type -> field, the same in delta and block.
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "compaction_delta": "content"}


def messages(stream: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One ``message``; ``None`` if the stream did not get as far as ``message_start``."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    inputs: dict[int, str] = {}
    for event in stream:
        kind = event.get("type")
        if kind == "message_start" and isinstance(event.get("message"), dict):
            message = dict(event["message"])
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[_index(event)] = dict(event["content_block"])
        elif kind == "content_block_delta" and isinstance(event.get("delta"), dict):
            _add_delta(blocks, inputs, _index(event), event["delta"])
        elif kind == "message_delta" and message is not None:
            _finish_message(message, event)
    if message is None:
        return None
    for index, text in inputs.items():
        # A stream that was cut leaves half an object: the reader sees the text as far as it came.
        value = _sse.parse(text)
        blocks[index]["input"] = text if value is None else value
    return {**message, "content": [blocks[index] for index in sorted(blocks)]}


def _add_delta(blocks: dict[int, dict[str, Any]], inputs: dict[int, str], index: int, delta: Mapping[str, Any]) -> None:
    block, kind = blocks.get(index), delta.get("type")
    if block is None:
        return
    if kind in _TEXTS:
        field = _TEXTS[kind]
        if isinstance(delta.get(field), str):
            old = block.get(field)
            block[field] = (old if isinstance(old, str) else "") + delta[field]
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
        message.update({key: value for key, value in delta.items() if value is not None})
    if isinstance(usage, dict):
        old = message.get("usage")
        message["usage"] = {
            **(old if isinstance(old, dict) else {}),
            **{key: value for key, value in usage.items() if value is not None},
        }


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if type(index) is int else 0
