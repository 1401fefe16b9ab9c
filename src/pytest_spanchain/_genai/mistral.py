"""Mistral's own APIs; its chat and embeddings are OpenAI's in all that matters here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from . import attributes as words
from . import parts, tools
from .api import Api, Body, Event, ToolCall, first, mappings, text_or_none, tool_call
from .openai import chat

_AGENT: words.Fields = ((words.AGENT_ID, ("agent_id",), text_or_none),)

FIM = Api(
    name="mistral.fim",
    operation="text_completion",
    provider="mistral_ai",
    speaks=lambda path, body: path.endswith("/fim/completions") and isinstance(body.get("prompt"), str),
    asked=chat.asked,
    said=chat.said,
    assemble=chat.assemble,
)

AGENTS = Api(
    name="mistral.agents",
    operation="chat",
    provider="mistral_ai",
    speaks=lambda path, body: (
        path.endswith("/agents/completions") and "agent_id" in body and isinstance(body.get("messages"), list)
    ),
    asked=lambda path, body: {**chat.asked(path, body), **words.read(_AGENT, body)},
    tools=tools.declared,
    said=chat.said,
    calls=chat.calls,
    assemble=chat.assemble,
)

_CONVERSATION = re.compile(r"/conversations(?:/(?!history\Z|messages\Z)([^/]+)(?:/restart)?)?\Z")


def _continued(path: str) -> dict[str, Any]:
    found = _CONVERSATION.search(path)
    return {words.CONVERSATION_ID: found[1]} if found and found[1] else {}


def _asked(path: str, body: Body) -> dict[str, Any]:
    sampling = body.get("completion_args")
    return {
        **words.read(words.SAMPLING, sampling),
        **words.read(((words.REQUEST_STREAM, ("stream",), words.true), *_AGENT), body),
        **words.output_type(first(sampling, "response_format")),
        **_continued(path),
    }


def _said(message: Body) -> dict[str, Any]:
    found = chat.usage(message.get("usage"))
    words.put(found, words.CONVERSATION_ID, text_or_none(message.get("conversation_id")))
    models = [output.get("model") for output in mappings(message.get("outputs"))]
    words.put(found, words.RESPONSE_MODEL, next(filter(None, map(text_or_none, models)), None))
    return found


def _calls(message: Body) -> Iterator[ToolCall]:
    for output in mappings(message.get("outputs")):
        if output.get("type") == "function.call":
            yield tool_call(output.get("tool_call_id"), output.get("name"), output.get("arguments"))


# Delta events that extend an entry of the answer: type -> type of the entry, the text that is extended.
_DELTAS = {
    "message.output.delta": ("message.output", "content"),
    "function.call.delta": ("function.call", "arguments"),
    "tool.execution.delta": ("tool.execution", "arguments"),
    "tool.execution.started": ("tool.execution", "arguments"),
    "tool.execution.done": ("tool.execution", "arguments"),
}
_HANDOFF = "agent.handoff."


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One ``conversation.response``; ``None`` if nothing of one came."""
    whole: dict[str, Any] = {}
    outputs: dict[tuple[str, str], dict[str, Any]] = {}
    for event in (event.data for event in events):
        kind = event.get("type")
        if not isinstance(kind, str):
            continue
        if kind.startswith("conversation.response."):
            whole.update(
                {key: value for key, value in parts.present(event).items() if key not in ("type", "created_at")}
            )
        elif kind in _DELTAS or kind.startswith(_HANDOFF):
            entry, text = _DELTAS.get(kind, ("agent.handoff", ""))
            output = outputs.setdefault((entry, str(event.get("id"))), {"object": "entry", "type": entry})
            _extend(output, event, text)
    if not whole and not outputs:
        return None
    return {"object": "conversation.response", **whole, "outputs": list(outputs.values())}


def _extend(output: dict[str, Any], event: Body, text: str) -> None:
    left_out = ("type", "output_index", "content_index", text)
    output.update({key: value for key, value in parts.present(event).items() if key not in left_out})
    value, old = event.get(text), output.get(text)
    if isinstance(value, dict):  # a part of another kind than text
        value = [value]
    if isinstance(value, list) or isinstance(old, list):
        output[text] = chat.joined(old, value)
    elif value is not None:
        parts.extend(output, text, value)


CONVERSATIONS = Api(
    name="mistral.conversations",
    operation="chat",
    provider="mistral_ai",
    # OpenAI's conversations have "items" and no "inputs".
    speaks=lambda path, body: _CONVERSATION.search(path) is not None and body.get("inputs") is not None,
    asked=_asked,
    tools=tools.declared,
    said=_said,
    calls=_calls,
    assemble=_assemble,
    opens=lambda event: event.data.get("type") == "conversation.response.started",
)

APIS = (FIM, AGENTS, CONVERSATIONS)
