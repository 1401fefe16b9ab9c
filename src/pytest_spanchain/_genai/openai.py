"""OpenAI's Chat Completions and Responses streams, put together into what the API answers without ``stream``.

Invariants:

* Any JSON that arrives is accepted: parts of an unexpected type are passed over, never raised about.
* Positions sent by the server are keys, never list indexes, so a wild ``index`` costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Servers repeat these in every chunk; joining them, as plain text is joined, would give "assistantassistant".
_IDENTITIES = frozenset({"id", "index", "type", "role", "object", "expires_at"})

_CHUNK_ONLY = frozenset({"choices", "object", "obfuscation"})


def chat(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One ``chat.completion`` from ``chat.completion.chunk`` objects; ``None`` if there is no chunk."""
    whole: dict[str, Any] = {}
    choices: dict[Any, dict[str, Any]] = {}
    for chunk in chunks:
        if not isinstance(chunk.get("choices"), list):
            continue
        whole.setdefault("object", "chat.completion")
        # Azure opens with a chunk of empty id and model, and usage comes in the last one only.
        whole.update({key: value for key, value in chunk.items() if key not in _CHUNK_ONLY and value not in (None, "")})
        for choice in _mappings(chunk["choices"]):
            _add_choice(choices, choice)
    if not whole:
        return None
    return {**whole, "choices": [_finish_choice(choices[key]) for key in sorted(choices, key=_order)]}


def _add_choice(choices: dict[Any, dict[str, Any]], choice: Mapping[str, Any]) -> None:
    index = _position(choice.get("index"), default=0)
    kept = choices.setdefault(index, {"index": index, "message": {}, "finish_reason": None})
    for key, value in choice.items():
        if key == "delta":
            if isinstance(value, dict):
                _merge(kept["message"], value)
        elif key == "logprobs":
            if isinstance(value, dict):
                kept["logprobs"] = _merge(kept.get("logprobs") or {}, value)
        elif key not in ("index", "message") and value is not None:
            kept[key] = value


def _finish_choice(choice: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = _copy(choice)
    return {**whole, "message": {"role": "assistant", "content": None, **whole["message"]}}


class _Indexed:
    """A list whose entries arrive in parts, each part naming the entry by ``index``."""

    def __init__(self) -> None:
        self._entries: dict[Any, dict[str, Any]] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        index = _position(part.get("index"), default=None)
        if index is None:
            # Some compatible servers leave the index out: a part with an id opens an entry, another one continues it.
            index = len(self._entries) if part.get("id") or not self._entries else list(self._entries)[-1]
        _merge(self._entries.setdefault(index, {}), {key: value for key, value in part.items() if key != "index"})

    def plain(self) -> list[dict[str, Any]]:
        return [self._entries[key] for key in sorted(self._entries, key=_order)]


def _merge(whole: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Add a delta: texts are joined, lists appended, mappings merged, everything else replaced."""
    for key, value in part.items():
        old = whole.get(key)
        if key == "tool_calls":
            if isinstance(value, list):
                if not isinstance(old, _Indexed):
                    old = whole[key] = _Indexed()
                for entry in _mappings(value):
                    old.add(entry)
        elif old is None or key in _IDENTITIES:
            whole[key] = old if value in (None, "") and old is not None else _copy(value)
        elif isinstance(old, str) and isinstance(value, str):
            # A function name comes whole; the servers that repeat it mean the same one.
            whole[key] = old if key == "name" and old == value else old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            old.extend(_copy(value))
        elif value is not None:
            whole[key] = _copy(value)
    return whole


_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})
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


def responses(stream: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The final ``response`` object, or as much of it as arrived; ``None`` if no response was announced."""
    snapshot: dict[str, Any] | None = None
    items: dict[Any, dict[str, Any]] = {}
    for event in stream:
        kind, response = event.get("type"), event.get("response")
        if not isinstance(kind, str):
            continue
        if kind in _FINAL and isinstance(response, dict):
            return response if response.get("output") or not items else {**response, "output": _output(items)}
        if kind in _SNAPSHOT and isinstance(response, dict):
            snapshot = response
        else:
            _add_to_item(items, kind, event)
    if snapshot is None and not items:
        return None
    return {"object": "response", **(snapshot or {}), "output": _output(items)}


def _add_to_item(items: dict[Any, dict[str, Any]], kind: str, event: Mapping[str, Any]) -> None:
    index = _position(event.get("output_index"), default=0)
    subject, _, verb = kind.rpartition(".")
    if subject == "response.output_item":
        if isinstance(event.get("item"), dict):
            items[index] = _copy(event["item"])
        return
    item = items.get(index)
    if item is None or verb not in ("added", "delta", "done"):
        return
    if subject in _PARTS:
        field, place = _PARTS[subject]
        if isinstance(event.get("part"), dict):
            _parts(item, field)[_position(event.get(place), default=0)] = _copy(event["part"])
    elif subject in _PART_TEXT:
        field, place, name, part_type = _PART_TEXT[subject]
        parts = _parts(item, field)
        _extend(parts.setdefault(_position(event.get(place), default=0), {"type": part_type}), name, event)
    elif subject in _ITEM_TEXT:
        _extend(item, _ITEM_TEXT[subject], event)
    elif subject == "response.output_text.annotation":
        part = _parts(item, "content").setdefault(_position(event.get("content_index"), default=0), {})
        if not isinstance(part.get("annotations"), list):
            part["annotations"] = []
        part["annotations"].append(_copy(event.get("annotation")))


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
        {
            key: [value[place] for place in sorted(value, key=_order)] if isinstance(value, _Parts) else value
            for key, value in items[index].items()
        }
        for index in sorted(items, key=_order)
    ]


def _position(value: Any, *, default: int | None) -> int | None:
    return value if type(value) is int else default


def _order(key: Any) -> int:
    return key if type(key) is int else -1


def _mappings(values: Iterable[Any]) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)]


def _copy(value: Any) -> Any:
    if isinstance(value, _Indexed):
        return _copy(value.plain())
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
