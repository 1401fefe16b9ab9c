"""Amazon Bedrock: Converse, and InvokeModel with the bodies of Anthropic and of Amazon's own models inside.

The model is in the path. Streams are binary frames (see ``_eventstream``), which name their events in a header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from .. import _sse
from . import anthropic, parts
from . import attributes as words
from .api import Api, Body, Event, ToolCall, ToolDeclaration, first, mappings, text_or_none, tool_call
from .tools import declaration

_PATH = re.compile(r"/model/([^/]+)/(converse|converse-stream|invoke|invoke-with-response-stream)\Z")


def _verb(path: str) -> str:
    found = _PATH.search(path)
    return found[2] if found else ""


def _model(path: str, body: Body) -> Any:
    found = _PATH.search(path)
    return unquote(found[1]) if found else ""


def _streamed(path: str) -> dict[str, Any]:
    return {words.REQUEST_STREAM: True} if _verb(path).endswith("-stream") else {}


_SAMPLING: words.Fields = (
    (words.REQUEST_TEMPERATURE, ("temperature",), words.number),
    (words.REQUEST_TOP_P, ("topP",), words.number),
    (words.REQUEST_TOP_K, ("topK", "top_k"), words.number),
    (words.REQUEST_MAX_TOKENS, ("maxTokens", "max_new_tokens"), words.integer),
    (words.REQUEST_STOP_SEQUENCES, ("stopSequences",), words.texts),
)


def _asked(path: str, body: Body) -> dict[str, Any]:
    return {
        **words.read(_SAMPLING, body.get("additionalModelRequestFields")),
        **words.read(_SAMPLING, body.get("inferenceConfig")),
        **_streamed(path),
    }


def _tools(body: Body) -> Iterator[ToolDeclaration]:
    for tool in mappings(first(body.get("toolConfig"), "tools")):
        spec = first(tool, "toolSpec", "systemTool")
        if name := text_or_none(first(spec, "name")):
            yield declaration(name, first(first(spec, "inputSchema"), "json"))


def _said(message: Body) -> dict[str, Any]:
    counts = message.get("usage")
    read = first(counts, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = first(counts, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return {
        **words.finish(message.get("stopReason")),
        **words.usage(
            # Bedrock counts cached tokens beside its input tokens.
            inputs=words.total(first(counts, "inputTokens"), read, written),
            outputs=first(counts, "outputTokens"),
            read=read,
            written=written,
        ),
    }


def _calls(message: Body) -> Iterator[ToolCall]:
    for block in mappings(first(first(message.get("output"), "message"), "content")):
        call = block.get("toolUse")
        # What Bedrock runs itself is marked with a type.
        if isinstance(call, Mapping) and call.get("type") is None:
            yield tool_call(call.get("toolUseId"), call.get("name"), call.get("input"), json=False)


def _named(events: Iterable[Event]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and data of events; Amazon's own models, when invoked, wrap each in a mapping of its name."""
    for event in events:
        inner = next(iter(event.data.items()), ("", None))
        if len(event.data) <= 2 and isinstance(inner[1], Mapping) and inner[0] in _EVENTS:
            yield inner[0], inner[1]
        else:
            yield event.name, event.data


_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata")


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One Converse answer; ``None`` if none was begun."""
    role: Any = None
    whole: dict[str, Any] = {}
    blocks: dict[Any, dict[str, Any]] = {}
    for name, data in _named(events):
        index = parts.position(data.get("contentBlockIndex"))
        if name == "messageStart":
            role = data.get("role") or "assistant"
        elif name == "contentBlockStart":
            start = data.get("start")
            blocks[index] = parts.copy(dict(start)) if isinstance(start, Mapping) else {}
        elif name == "contentBlockDelta" and isinstance(data.get("delta"), Mapping):
            _add_delta(blocks.setdefault(index, {}), data["delta"])
        elif name in ("messageStop", "metadata"):
            whole.update({key: value for key, value in parts.present(data).items() if key != "p"})
    if role is None:
        return None
    content = [_finished(block) for block in parts.in_order(blocks)]
    return {"output": {"message": {"role": role, "content": content}}, **whole}


def _add_delta(block: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for kind, value in delta.items():
        if kind == "text":
            parts.extend(block, "text", value)
        elif kind == "citation":
            old = block.get("citations")
            block["citations"] = [*(old if isinstance(old, list) else []), parts.copy(value)]
        elif isinstance(value, Mapping):
            # A tool's input, or a thought: texts that go on.
            inner = block.get(kind)
            block[kind] = inner = inner if isinstance(inner, dict) else {}
            for name, text in value.items():
                if name == "input" and isinstance(inner.get(name), dict) and not inner[name]:
                    del inner[name]
                if isinstance(text, str):
                    parts.extend(inner, name, text)
                else:
                    inner[name] = parts.copy(text)


def _finished(block: dict[str, Any]) -> dict[str, Any]:
    """A block as an answer in one piece has it."""
    call, thought = block.get("toolUse"), block.get("reasoningContent")
    if isinstance(call, dict):
        text = call.get("input")
        # A stream that was cut leaves half an object: the reader sees the text as far as it came.
        value = _sse.parse(text) if isinstance(text, str) else text
        return {**block, "toolUse": {**call, "input": {} if not text else text if value is None else value}}
    if isinstance(thought, dict) and ("text" in thought or "signature" in thought):
        inner = {key: thought[key] for key in ("text", "signature") if key in thought}
        rest = {key: value for key, value in thought.items() if key not in inner}
        return {**block, "reasoningContent": {"reasoningText": inner, **rest}}
    return block


CONVERSE = Api(
    name="bedrock.converse",
    operation="chat",
    provider="aws.bedrock",
    speaks=lambda path, body: _verb(path).startswith("converse") and isinstance(body.get("messages"), list),
    model=_model,
    asked=_asked,
    tools=_tools,
    said=_said,
    calls=_calls,
    assemble=_assemble,
    opens=lambda event: event.name == "messageStart",
)

INVOKE_ANTHROPIC = replace(
    anthropic.MESSAGES,
    name="bedrock.invoke_anthropic",
    provider="aws.bedrock",
    speaks=lambda path, body: (
        _verb(path).startswith("invoke") and "anthropic_version" in body and isinstance(body.get("messages"), list)
    ),
    model=_model,
    asked=lambda path, body: {**anthropic.asked(path, body), **_streamed(path)},
    opens=lambda event: False,
)

INVOKE_AMAZON = replace(
    CONVERSE,
    name="bedrock.invoke_amazon",
    speaks=lambda path, body: (
        _verb(path).startswith("invoke") and "inferenceConfig" in body and isinstance(body.get("messages"), list)
    ),
    opens=lambda event: False,
)

INVOKE = Api(
    # A body in the words of whoever made the model: only what the path says is known.
    name="bedrock.invoke",
    operation="generate_content",
    provider="aws.bedrock",
    speaks=lambda path, body: _verb(path).startswith("invoke"),
    model=_model,
    asked=lambda path, body: _streamed(path),
)

APIS = (CONVERSE, INVOKE_ANTHROPIC, INVOKE_AMAZON, INVOKE)
