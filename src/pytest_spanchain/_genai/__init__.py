"""What a model API's requests and answers mean, in the words of OpenTelemetry's GenAI semantic conventions.

Invariants:

* No I/O and no SDK: an API is recognised by the end of its path and the shape of its body, on any host, because
  most servers speak OpenAI's dialect.
* What is not understood is ``None`` or left out; nothing that a server sends raises.
* Values of attributes are plain (lists, not tuples), and of the type that the conventions give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from .. import _sse
from .._hosts import is_loopback
from . import anthropic, openai
from . import attributes as _attributes
from .attributes import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, first, mappings, text_or_none


@dataclass(frozen=True)
class Operation:
    """One call of a model API.

    Args:
        api: ``openai.chat``, ``openai.responses``, ``openai.embeddings`` or ``anthropic.messages``.
        name: span name, e.g. ``chat gpt-4o``.
        attributes: request attributes by name.
    """

    api: str
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model asks its caller to run.

    Args:
        id: the id that the caller answers with; empty if the API gives none.
        name: tool name.
        arguments: plain value, or the raw text if it is not JSON.
    """

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class ToolDeclaration:
    """A tool that a request offers to the model.

    Args:
        name: tool name; a provider's own tool without a name goes by its type.
        parameters: JSON schema of its arguments; ``None`` if the request gives none.
    """

    name: str
    parameters: Mapping[str, Any] | None = None


def recognise(*, method: str, url: str, body: Any) -> Operation | None:
    """The model operation that a request asks for.

    Args:
        method: HTTP method.
        url: whole URL, redacted or not.
        body: the parsed JSON of the request.

    Returns:
        ``None`` for everything that is not a known model API: a plain HTTP exchange.
    """
    if method.upper() != "POST" or not isinstance(body, Mapping):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    api = _api(parts.path.rstrip("/"), body)
    if api is None:
        return None
    operation = "embeddings" if api == EMBEDDINGS else "chat"
    model = body.get("model")
    if not isinstance(model, str) or not model:
        model = _attributes.deployment(parts.path)
    attributes: dict[str, Any] = {
        _attributes.OPERATION_NAME: operation,
        _attributes.PROVIDER_NAME: _attributes.provider(host, api),
    }
    if model:
        attributes[_attributes.REQUEST_MODEL] = model
    attributes.update(_attributes.request_attributes(api, body))
    if host and not is_loopback(host):
        attributes[_attributes.SERVER_ADDRESS] = host
        if port is not None and port != {"https": 443, "http": 80}.get(parts.scheme):
            attributes[_attributes.SERVER_PORT] = port
    return Operation(api, f"{operation} {model}" if model else operation, attributes)


def describe_response(operation: Operation, response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Response attributes of an exchange's ``response`` (shape: see ``_model``), streamed or not."""
    message = _message(operation, response)
    found = {} if message is None else _attributes.response_attributes(operation.api, message)
    error = _attributes.error_type(response, message)
    if error:
        found[_attributes.ERROR_TYPE] = error
    return found


def assemble(operation: Operation | None, text: str) -> Any | None:
    """Event-stream text as the answer that the API would have given without streaming.

    A stream that was cut gives what arrived. Without an operation the API is told from the events themselves.

    Returns:
        Plain JSON, or ``None`` if the API is unknown or nothing of it is in the text. Never raises.
    """
    stream = [value for _, value in _sse.objects(text)]
    api = operation.api if operation else next(filter(None, map(_api_of_event, stream)), None)
    put_together: Callable[[list[dict[str, Any]]], Any] | None = {
        CHAT: openai.chat,
        RESPONSES: openai.responses,
        MESSAGES: anthropic.messages,
    }.get(api or "")
    if put_together is None:
        return None
    try:
        return _whole_characters(put_together(stream))
    except RecursionError:
        return None


def tool_calls(operation: Operation, response: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tools that the answer asks the caller to run, in order; tools that the provider ran itself are not."""
    message = _message(operation, response) or {}
    if operation.api == CHAT:
        return tuple(call for choice in mappings(message.get("choices")) for call in _chat_calls(choice))
    if operation.api == RESPONSES:
        return tuple(
            _call(item.get("call_id"), item.get("name"), item.get("arguments"))
            if item.get("type") == "function_call"
            else ToolCall(
                text_or_none(item.get("call_id")) or "", text_or_none(item.get("name")) or "", item.get("input")
            )
            for item in mappings(message.get("output"))
            if item.get("type") in ("function_call", "custom_tool_call")
        )
    if operation.api == MESSAGES:
        return tuple(
            _call(block.get("id"), block.get("name"), block.get("input"))
            for block in mappings(message.get("content"))
            if block.get("type") == "tool_use"
        )
    return ()


def declared_tools(operation: Operation, body: Any) -> tuple[ToolDeclaration, ...]:
    """The tools that a request offers, in order."""
    if operation.api == EMBEDDINGS or not isinstance(body, Mapping):
        return ()
    return tuple(_declarations([*mappings(body.get("tools")), *mappings(body.get("functions"))]))


def _declarations(tools: list[Mapping[str, Any]]) -> Iterator[ToolDeclaration]:
    for tool in tools:
        kind = tool.get("type")
        nested = tool.get(kind) if isinstance(kind, str) else None
        if kind == "namespace":
            yield from _declarations(mappings(tool.get("tools")))
            continue
        said = tool if tool.get("name") or not isinstance(nested, Mapping) else nested
        name = said.get("name") or kind
        if isinstance(name, str):
            schema = first(said, "parameters", "input_schema")
            yield ToolDeclaration(name, schema if isinstance(schema, Mapping) else None)


def _api(path: str, body: Mapping[str, Any]) -> str | None:
    if path.endswith("/chat/completions") and isinstance(body.get("messages"), list):
        return CHAT
    if path.endswith("/responses") and any(body.get(key) is not None for key in _RESPONSES_START):
        return RESPONSES
    if (
        path.endswith("/embeddings")
        and body.get("input") is not None
        and (body.get("model") or _attributes.deployment(path))
    ):
        return EMBEDDINGS
    if path.endswith("/messages") and isinstance(body.get("messages"), list) and "max_tokens" in body:
        return MESSAGES
    return None


_RESPONSES_START = ("input", "previous_response_id", "prompt", "conversation")


def _api_of_event(event: Mapping[str, Any]) -> str | None:
    kind = event.get("type")
    if event.get("object") == "chat.completion.chunk":
        return CHAT
    if isinstance(kind, str) and kind.startswith("response."):
        return RESPONSES
    return MESSAGES if kind == "message_start" else None


def _message(operation: Operation, response: Mapping[str, Any]) -> Mapping[str, Any] | None:
    body = response.get("body")
    if not isinstance(body, Mapping):
        return None
    message = body.get("json")
    if message is None:
        message = body.get("message")
    if message is None and isinstance(body.get("text"), str):
        message = assemble(operation, body["text"])
    return message if isinstance(message, Mapping) else None


def _chat_calls(choice: Mapping[str, Any]) -> list[ToolCall]:
    message = choice.get("message")
    calls = []
    for call in mappings(first(message, "tool_calls")):
        function, custom = call.get("function"), call.get("custom")
        if isinstance(function, Mapping):
            calls.append(_call(call.get("id"), function.get("name"), function.get("arguments")))
        elif isinstance(custom, Mapping):
            calls.append(
                ToolCall(
                    text_or_none(call.get("id")) or "", text_or_none(custom.get("name")) or "", custom.get("input")
                )
            )
    legacy = first(message, "function_call")
    if isinstance(legacy, Mapping):
        calls.append(_call(None, legacy.get("name"), legacy.get("arguments")))
    return calls


def _call(call_id: Any, name: Any, arguments: Any) -> ToolCall:
    parsed = _sse.parse(arguments) if isinstance(arguments, str) else None
    return ToolCall(text_or_none(call_id) or "", text_or_none(name) or "", arguments if parsed is None else parsed)


def _whole_characters(value: Any) -> Any:
    """Join surrogates that arrived in two deltas; a half that stays alone has no UTF-8 form and becomes U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value
