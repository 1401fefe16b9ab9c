"""Chat Completions and the legacy Completions, as OpenAI and nearly every other server speak them.

Invariant: any JSON that arrives is accepted: parts of an unexpected type are passed over, never raised about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .. import attributes as words
from .. import parts, tools
from ..api import Api, Body, Event, ToolCall, first, mappings, text_or_none, tool_call

# Servers repeat these in every chunk; joining them, as plain text is joined, would give "assistantassistant".
_IDENTITIES = frozenset({"id", "index", "type", "role", "object", "expires_at"})

_CHUNK_ONLY = frozenset({"choices", "object", "obfuscation"})

_JOINED_PARTS = frozenset({"text", "thinking"})


def model(path: str, body: Body) -> Any:
    """The model; Azure puts it into the path: ``/openai/deployments/NAME/chat/completions``."""
    steps = path.split("/")
    named = text_or_none(body.get("model"))
    return named or (steps[steps.index("deployments") + 1] if "deployments" in steps[:-1] else "")


def asked(path: str, body: Body) -> dict[str, Any]:
    """Request attributes of everything that samples as OpenAI's chat does."""
    found = {**words.read(words.SAMPLING, body), **words.output_type(body.get("response_format"))}
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        found[words.OUTPUT_TYPE] = "speech"
    return found


def said(message: Body) -> dict[str, Any]:
    """Response attributes of everything with ``choices`` and ``usage``."""
    reasons = [choice.get("finish_reason") for choice in mappings(message.get("choices"))]
    return {**words.read(words.IDENTITY, message), **words.finish(*reasons), **usage(message.get("usage"))}


def usage(counts: Any) -> dict[str, Any]:
    """Token counts in OpenAI's words, the old or the new ones."""
    inputs = first(counts, "input_tokens_details", "prompt_tokens_details")
    outputs = first(counts, "output_tokens_details", "completion_tokens_details")
    return words.usage(
        inputs=first(counts, "input_tokens", "prompt_tokens"),
        outputs=first(counts, "output_tokens", "completion_tokens"),
        read=first(inputs, "cached_tokens"),
        written=first(inputs, "cache_write_tokens"),
        reasoning=first(outputs, "reasoning_tokens", "thinking_tokens"),
    )


def tier_asked(body: Body) -> dict[str, Any]:
    """The service tier that is asked for; OpenAI's own default is none."""
    tier = text_or_none(body.get("service_tier"))
    return {words.OPENAI_REQUEST_SERVICE_TIER: tier} if tier not in (None, "auto") else {}


OWN_ANSWER: words.Fields = (
    (words.OPENAI_RESPONSE_SERVICE_TIER, ("service_tier",), text_or_none),
    (words.OPENAI_SYSTEM_FINGERPRINT, ("system_fingerprint",), text_or_none),
)


def calls(message: Body) -> Iterator[ToolCall]:
    """Tool calls of all choices."""
    for choice in mappings(message.get("choices")):
        yield from calls_of(choice.get("message"))


def calls_of(message: Any) -> Iterator[ToolCall]:
    """Tool calls of one message."""
    for call in mappings(first(message, "tool_calls")):
        function, custom = call.get("function"), call.get("custom")
        if isinstance(function, Mapping):
            yield tool_call(call.get("id"), function.get("name"), function.get("arguments"))
        elif isinstance(custom, Mapping):
            yield tool_call(call.get("id"), custom.get("name"), custom.get("input"), json=False)
    legacy = first(message, "function_call")
    if isinstance(legacy, Mapping):
        yield tool_call(None, legacy.get("name"), legacy.get("arguments"))


def assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One ``chat.completion`` from ``chat.completion.chunk`` objects; ``None`` if there is no chunk."""
    return _assemble(events, "chat.completion")


CHAT = Api(
    name="openai.chat",
    operation="chat",
    provider="openai",
    speaks=lambda path, body: path.endswith("/chat/completions") and isinstance(body.get("messages"), list),
    model=model,
    asked=lambda path, body: {
        **asked(path, body),
        **tier_asked(body),
        words.OPENAI_API_TYPE: "chat_completions",
    },
    tools=tools.declared,
    said=lambda message: {**said(message), **words.read(OWN_ANSWER, message)},
    calls=calls,
    assemble=assemble,
    opens=lambda event: event.data.get("object") == "chat.completion.chunk",
)

COMPLETIONS = Api(
    name="openai.completions",
    operation="text_completion",
    provider="openai",
    speaks=lambda path, body: (
        path.endswith("/completions")
        and not path.endswith("/chat/completions")
        and isinstance(body.get("prompt"), (str, list))
    ),
    model=model,
    asked=asked,
    said=lambda message: {**said(message), **words.read(OWN_ANSWER, message)},
    assemble=lambda events: _assemble(events, "text_completion"),
)


def _assemble(events: Iterable[Event], kind: str) -> dict[str, Any] | None:
    whole: dict[str, Any] = {}
    choices: dict[Any, dict[str, Any]] = {}
    for chunk in (event.data for event in events):
        if not isinstance(chunk.get("choices"), list):
            continue
        whole.setdefault("object", kind)
        # Azure opens with a chunk of empty id and model, and usage comes in the last one only.
        whole.update({key: value for key, value in chunk.items() if key not in _CHUNK_ONLY and value not in (None, "")})
        for choice in parts.dicts(chunk["choices"]):
            _add_choice(choices, choice, kind)
    if not whole:
        return None
    return {**whole, "choices": [_finish_choice(choice) for choice in parts.in_order(choices)]}


def _add_choice(choices: dict[Any, dict[str, Any]], choice: Mapping[str, Any], kind: str) -> None:
    index = parts.position(choice.get("index"))
    opened: dict[str, Any] = {"message": {}} if kind == "chat.completion" else {"text": ""}
    kept = choices.setdefault(index, {"index": index, **opened, "finish_reason": None})
    for key, value in choice.items():
        if key == "delta" and "message" in kept:
            if isinstance(value, dict):
                _merge(kept["message"], value)
        elif key == "text" and "text" in kept:
            parts.extend(kept, "text", value)
        elif key == "logprobs":
            if isinstance(value, dict):
                kept["logprobs"] = _merge(kept.get("logprobs") or {}, value)
        elif key not in ("index", "message", "delta") and value is not None:
            kept[key] = value


def _finish_choice(choice: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = _plain(choice)
    if "message" not in whole:
        return whole
    message = {"role": "assistant", "content": None, **whole["message"]}
    if isinstance(message.get("audio"), dict):
        message["audio"] = {**message["audio"], "data": parts.short(message["audio"].get("data"))}
    return {**whole, "message": message}


class _Indexed:
    """A list whose entries arrive in parts, each part naming the entry by ``index``."""

    def __init__(self) -> None:
        self._entries: dict[Any, dict[str, Any]] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        index = parts.position(part.get("index"), default=None)
        if index is None:
            # Some compatible servers leave the index out: a part with an id opens an entry, another one continues it.
            index = len(self._entries) if part.get("id") or not self._entries else list(self._entries)[-1]
        _merge(self._entries.setdefault(index, {}), {key: value for key, value in part.items() if key != "index"})

    def plain(self) -> list[dict[str, Any]]:
        return parts.in_order(self._entries)


def _merge(whole: dict[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """Add a delta: texts are joined, lists appended, mappings merged, everything else replaced."""
    for key, value in part.items():
        old = whole.get(key)
        if key == "tool_calls":
            if isinstance(value, list):
                if not isinstance(old, _Indexed):
                    old = whole[key] = _Indexed()
                for entry in parts.dicts(value):
                    old.add(entry)
        elif key in ("content", "thinking") and (isinstance(old, list) or isinstance(value, list)):
            whole[key] = joined(old, value)
        elif old is None or key in _IDENTITIES:
            whole[key] = old if value in (None, "") and old is not None else parts.copy(value)
        elif isinstance(old, str) and isinstance(value, str):
            # A function name comes whole; the servers that repeat it mean the same one.
            whole[key] = old if key == "name" and old == value else old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            old.extend(parts.copy(value))
        elif value is not None:
            whole[key] = parts.copy(value)
    return whole


def _as_parts(content: Any) -> list[Any]:
    """Content as a list of parts: Mistral's reasoning models change from parts to plain text in the same answer."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return content if isinstance(content, list) else []


def joined(content: Any, more: Any) -> list[Any]:
    """Content with more after it, as parts; a text that goes on is one part."""
    found = list(_as_parts(content))
    for part in _as_parts(more):
        last = found[-1] if found else None
        kind = first(part, "type")
        if isinstance(kind, str) and kind in _JOINED_PARTS and isinstance(last, dict) and last.get("type") == kind:
            _merge(last, part)
        else:
            found.append(parts.copy(part))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, _Indexed):
        return _plain(value.plain())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
