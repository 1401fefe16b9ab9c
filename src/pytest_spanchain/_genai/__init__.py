"""What a model API's requests and answers mean, in the words of OpenTelemetry's GenAI semantic conventions.

Each module describes the APIs of one provider or dialect as frozen ``Api`` values; here is what one does with them.

Invariants:

* No I/O and no SDK: an API is recognised by the end of its path and the shape of its body, on any host, because
  most servers speak OpenAI's dialect.
* What is not understood is ``None`` or left out; nothing that a server sends raises.
* Values of attributes are plain (lists, not tuples), and of the type that the conventions give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .. import _sse
from .._hosts import is_loopback
from . import anthropic, bedrock, cohere, google, mistral, ollama, openai, streams
from . import attributes as _attributes
from .api import Api, text_or_none
from .api import Operation as Operation
from .api import ToolCall as ToolCall
from .api import ToolDeclaration as ToolDeclaration
from .form import content as content

# The first that speaks a request's language counts: special paths before those that they end in.
_APIS: tuple[Api, ...] = (
    *mistral.APIS,
    *bedrock.APIS,
    *google.APIS,
    *ollama.APIS,
    *cohere.APIS,
    *anthropic.APIS,
    *openai.APIS,
)
_BY_NAME: Mapping[str, Api] = {api.name: api for api in _APIS}
_UNKNOWN = Api(name="", operation="", provider="", speaks=lambda path, body: False)


def recognise(*, method: str, url: str, body: Any) -> Operation | None:
    """The model operation that a request asks for.

    Args:
        method: HTTP method.
        url: whole URL, redacted or not.
        body: what the request says, see ``content``.

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
    path = parts.path.rstrip("/")
    api = next((api for api in _APIS if api.speaks(path, body)), None)
    if api is None:
        return None
    model = text_or_none(api.model(path, body))
    attributes = {
        _attributes.OPERATION_NAME: api.operation,
        _attributes.PROVIDER_NAME: api.provider,
        **({_attributes.REQUEST_MODEL: model} if model else {}),
        **api.asked(path, body),
    }
    _attributes.put(attributes, _attributes.PROVIDER_NAME, _attributes.provider(host))
    if host and not is_loopback(host):
        attributes[_attributes.SERVER_ADDRESS] = host
        if port is not None and port != {"https": 443, "http": 80}.get(parts.scheme):
            attributes[_attributes.SERVER_PORT] = port
    return Operation(api.name, f"{api.operation} {model}" if model else api.operation, attributes)


def describe_response(operation: Operation, response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Response attributes of an exchange's ``response`` (shape: see ``_model``), streamed or not."""
    message = _message(operation, response)
    found = {} if message is None else dict(_of(operation).said(message))
    error = _attributes.error_type(response, message, streams.failures(response.get("body")))
    _attributes.put(found, _attributes.ERROR_TYPE, error)
    return found


def assemble(operation: Operation | None, text: str) -> Any | None:
    """A stream's text as the answer that the API would have given without streaming.

    A stream that was cut gives what arrived. Without an operation the API is told from the events themselves. Bytes
    that are in it as base64 are told in a few words: the answer is for the reader.

    Args:
        operation: the call that it answers.
        text: server-sent events, JSON lines or a JSON array; of binary frames see ``_eventstream``.

    Returns:
        Plain JSON, or ``None`` if the API is unknown or nothing of it is in the text. Never raises.
    """
    events = streams.events(text)
    api = _of(operation) if operation else next((api for event in events for api in _APIS if api.opens(event)), None)
    try:
        return _whole_characters(api.assemble(events)) if api else None
    except RecursionError:
        return None


def tool_calls(operation: Operation, response: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The tools that the answer asks the caller to run, in order; tools that the provider ran itself are not."""
    return tuple(_of(operation).calls(_message(operation, response) or {}))


def declared_tools(operation: Operation, body: Any) -> tuple[ToolDeclaration, ...]:
    """The tools that a request offers, in order."""
    return tuple(_of(operation).tools(body)) if isinstance(body, Mapping) else ()


def _of(operation: Operation) -> Api:
    return _BY_NAME.get(operation.api, _UNKNOWN)


def _message(operation: Operation, response: Mapping[str, Any]) -> Mapping[str, Any] | None:
    body = response.get("body")
    if not isinstance(body, Mapping):
        return None
    message = body.get("json")
    if message is None:
        message = body.get("message")
    if message is None and "chunks" not in body and isinstance(body.get("text"), str):
        message = _sse.parse(body["text"])  # JSON whose layout could not be told from its value
    if not isinstance(message, Mapping) and (events := streams.events_of(body)):
        try:
            message = _whole_characters(_of(operation).assemble(events))
        except RecursionError:
            return None
    return message if isinstance(message, Mapping) else None


def _whole_characters(value: Any) -> Any:
    """Join surrogates that arrived in two deltas; a half that stays alone has no UTF-8 form and becomes U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value
