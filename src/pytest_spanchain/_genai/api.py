"""What an API is, and what is found with it: an ``Api`` describes one dialect in one place, for all of this package.

Invariants: a description is plain functions of plain JSON, and none of them raises, whatever the JSON is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import _sse

Body = Mapping[str, Any]
"""A JSON object, of a request or an answer; nothing is known of what is inside."""


@dataclass(frozen=True)
class Operation:
    """One call of a model API.

    Args:
        api: name of its ``Api``, e.g. ``openai.chat``.
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


@dataclass(frozen=True)
class Event:
    """One event of a stream.

    Args:
        name: of the event, where the transport names it; else empty.
        data: its JSON object.
    """

    name: str
    data: dict[str, Any]


def model_of(path: str, body: Body) -> Any:
    """The model as most APIs name it."""
    return body.get("model")


@dataclass(frozen=True)
class Api:
    """One API, or one dialect that many servers speak.

    Args:
        name: of the API, e.g. ``openai.chat``.
        operation: ``gen_ai.operation.name``.
        provider: ``gen_ai.provider.name`` on a host that is nobody's.
        speaks: whether a request is one of this API, by its path (without a final slash) and body.
        model: the model that a path and body ask for; only a text with content counts.
        asked: request attributes.
        tools: the tools that a request offers.
        said: response attributes of a whole answer.
        calls: the tools that a whole answer asks for.
        assemble: the answer that the API would have given without streaming; ``None`` if the events hold nothing of it.
        opens: whether an event can only be of this API.
    """

    name: str
    operation: str
    provider: str
    speaks: Callable[[str, Body], bool]
    model: Callable[[str, Body], Any] = model_of
    asked: Callable[[str, Body], dict[str, Any]] = lambda path, body: {}
    tools: Callable[[Body], Iterable[ToolDeclaration]] = lambda body: ()
    said: Callable[[Body], dict[str, Any]] = lambda message: {}
    calls: Callable[[Body], Iterable[ToolCall]] = lambda message: ()
    assemble: Callable[[Sequence[Event]], Any | None] = lambda events: None
    opens: Callable[[Event], bool] = lambda event: False


def first(value: Any, *names: str) -> Any:
    """The first of these members that is there, if the value is a mapping."""
    if not isinstance(value, Mapping):
        return None
    return next((value[name] for name in names if value.get(name) is not None), None)


def mappings(values: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none if it is no list."""
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []


def text_or_none(value: Any) -> Any:
    """The value if it is a text with content."""
    return value if isinstance(value, str) and value else None


def tool_call(call_id: Any, name: Any, arguments: Any, *, json: bool = True) -> ToolCall:
    """A call as an answer words it; arguments that are JSON text are read, unless the tool takes any text."""
    parsed = _sse.parse(arguments) if json and isinstance(arguments, str) else None
    return ToolCall(text_or_none(call_id) or "", text_or_none(name) or "", arguments if parsed is None else parsed)
