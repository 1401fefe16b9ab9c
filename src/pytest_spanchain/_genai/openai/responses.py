"""OpenAI's Responses API.

Invariants:

* Any JSON that arrives is accepted: parts of an unexpected type are passed over, never raised about.
* Positions sent by the server are keys, never list indexes, so a wild ``index`` costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import attributes as words
from .. import parts, tools
from ..api import Api, Body, Event, ToolCall, first, mappings, text_or_none, tool_call
from . import chat

_START = ("input", "previous_response_id", "prompt", "conversation")


def _asked(path: str, body: Body) -> dict[str, Any]:
    found = {**words.read(words.SAMPLING, body), **words.output_type(first(body.get("text"), "format"))}
    conversation = body.get("conversation")
    words.put(found, words.CONVERSATION_ID, text_or_none(first(conversation, "id") or conversation))
    return {**found, **chat.tier_asked(body), words.OPENAI_API_TYPE: "responses"}


def _said(message: Body) -> dict[str, Any]:
    reason = first(message.get("incomplete_details"), "reason") or message.get("status")
    return {
        **words.read(words.IDENTITY, message),
        **words.finish(reason),
        **chat.usage(message.get("usage")),
        **words.read(chat.OWN_ANSWER, message),
    }


def _calls(message: Body) -> Iterator[ToolCall]:
    for item in mappings(message.get("output")):
        if item.get("type") == "function_call":
            yield tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))
        elif item.get("type") == "custom_tool_call":
            yield tool_call(item.get("call_id"), item.get("name"), item.get("input"), json=False)


_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
_IMAGE = "image_generation_call"
_SNAPSHOT = frozenset({"response.created", "response.queued", "response.in_progress"})

# Delta events that extend a text of the output item itself: event -> field.
_ITEM_TEXT = {
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.code_interpreter_call_code": "code",
}
# Delta events that extend a text of a part of the item: event -> list of parts, index field, text field, part type.
_PART_TEXT = {
    "response.output_text": ("content", "content_index", "text", "output_text"),
    "response.refusal": ("content", "content_index", "refusal", "refusal"),
    "response.reasoning_text": ("content", "content_index", "text", "reasoning_text"),
    "response.reasoning_summary_text": ("summary", "summary_index", "text", "summary_text"),
}
_PARTS = {
    "response.content_part": ("content", "content_index"),
    "response.reasoning_summary_part": ("summary", "summary_index"),
}


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """The final ``response`` object, or as much of it as arrived; ``None`` if no response was announced."""
    snapshot: dict[str, Any] | None = None
    items: dict[Any, dict[str, Any]] = {}
    for event in (event.data for event in events):
        kind, response = event.get("type"), event.get("response")
        if not isinstance(kind, str):
            continue
        if kind in _FINAL and isinstance(response, dict):
            return _shown(response if response.get("output") or not items else {**response, "output": _output(items)})
        if kind in _SNAPSHOT and isinstance(response, dict):
            snapshot = response
        else:
            _add_to_item(items, kind, event)
    if snapshot is None and not items:
        return None
    return _shown({"object": "response", **(snapshot or {}), "output": _output(items)})


def _shown(response: dict[str, Any]) -> dict[str, Any]:
    """A response without the bytes of the images in it."""
    output = response.get("output")
    if not isinstance(output, list) or not any(first(item, "type") == _IMAGE for item in output):
        return response
    shown = [
        {**item, "result": parts.short(item.get("result"))} if first(item, "type") == _IMAGE else item
        for item in output
    ]
    return {**response, "output": shown}


def _add_to_item(items: dict[Any, dict[str, Any]], kind: str, event: Mapping[str, Any]) -> None:
    index = parts.position(event.get("output_index"))
    subject, _, verb = kind.rpartition(".")
    if subject == "response.output_item":
        if isinstance(event.get("item"), dict):
            items[index] = parts.copy(event["item"])
        return
    item = items.get(index)
    if item is None or verb not in ("added", "delta", "done"):
        return
    if subject in _PARTS:
        field, place = _PARTS[subject]
        if isinstance(event.get("part"), dict):
            _parts(item, field)[parts.position(event.get(place))] = parts.copy(event["part"])
    elif subject in _PART_TEXT:
        field, place, name, part_type = _PART_TEXT[subject]
        listed = _parts(item, field)
        _extend(listed.setdefault(parts.position(event.get(place)), {"type": part_type}), name, event)
    elif subject in _ITEM_TEXT:
        _extend(item, _ITEM_TEXT[subject], event)
    elif subject == "response.output_text.annotation":
        part = _parts(item, "content").setdefault(parts.position(event.get("content_index")), {})
        if not isinstance(part.get("annotations"), list):
            part["annotations"] = []
        part["annotations"].append(parts.copy(event.get("annotation")))


class _Parts(dict[Any, dict[str, Any]]):
    """Parts of an item by the index that the server gave them."""


def _parts(item: dict[str, Any], field: str) -> _Parts:
    value = item.get(field)
    if not isinstance(value, _Parts):
        listed = value if isinstance(value, list) else []
        value = item[field] = _Parts({i: part for i, part in enumerate(listed) if isinstance(part, dict)})
    return value


def _extend(target: dict[str, Any], name: str, event: Mapping[str, Any]) -> None:
    delta, whole, old = event.get("delta"), event.get(name), target.get(name)
    if isinstance(delta, str):
        target[name] = (old if isinstance(old, str) else "") + delta
    elif isinstance(whole, str):  # the "done" event repeats the finished text
        target[name] = whole


def _output(items: Mapping[Any, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: parts.in_order(value) if isinstance(value, _Parts) else value for key, value in item.items()}
        for item in parts.in_order(items)
    ]


RESPONSES = Api(
    name="openai.responses",
    operation="chat",
    provider="openai",
    # Without a model it takes a stored prompt: other APIs have answers to forms under this path.
    speaks=lambda path, body: (
        path.endswith("/responses")
        and any(body.get(key) is not None for key in _START)
        and (bool(chat.model(path, body)) or isinstance(body.get("prompt"), Mapping))
    ),
    model=chat.model,
    asked=_asked,
    tools=tools.declared,
    said=_said,
    calls=_calls,
    assemble=_assemble,
    opens=lambda event: isinstance(event.data.get("type"), str) and event.data["type"].startswith("response."),
)
