"""A small language for span trees: what is written side by side runs in sequence, ``together`` runs at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_spanchain._model import Exchange, Span, SpanTree

MS = 1_000_000


@dataclass(frozen=True)
class Spec:
    """A span to be."""

    name: str
    below: tuple[Spec | Together, ...] = ()
    exchange: Exchange | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    status: str = "unset"
    status_message: str = ""
    span_kind: str = "internal"
    ms: int = 10

    def but(self, **changes: Any) -> Spec:
        return replace(self, **changes)


@dataclass(frozen=True)
class Together:
    """Spans that overlap in time."""

    specs: tuple[Spec, ...]


def together(*specs: Spec) -> Together:
    return Together(specs)


def agent(name: str, *below: Spec | Together, **more: Any) -> Spec:
    return Spec(name, below, **more)


def tool(name: str, arguments: Mapping[str, Any] | None = None, result: Any = "ok", **more: Any) -> Spec:
    exchange = Exchange("tool", {"arguments": dict(arguments or {})}, {"result": result})
    return Spec(f"execute_tool {name}", exchange=exchange, **more)


def chat(prompt: Any, answer: str = "fine", *, model: str = "gpt-4o", **more: Any) -> Spec:
    messages = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    request = {
        "method": "POST",
        "url": "https://api.openai.com/v1/chat/completions",
        "headers": {"content-type": "application/json"},
        "body": {"json": {"model": model, "messages": messages}, "layout": ""},
    }
    response = {
        "status": 200,
        "headers": {},
        "body": {"json": {"choices": [{"message": {"content": answer}}]}, "layout": ""},
        "end": "complete",
        "error": None,
    }
    return Spec(f"chat {model}", exchange=Exchange("model", request, response), span_kind="client", **more)


def build(root: Spec, *, ids: int = 1, start_ns: int = 1_000 * MS) -> SpanTree:
    """Give ids from ``ids`` on and times from ``start_ns`` on; children follow each other and fill their parent."""
    spans: list[Span] = []
    _lay(root, None, start_ns, spans, itertools.count(ids))
    ordered = [spans[0], *sorted(spans[1:], key=lambda span: span.start_ns)]
    return SpanTree(tuple(ordered))


def _lay(spec: Spec, parent: str | None, start_ns: int, spans: list[Span], ids: Iterator[int]) -> int:
    span_id, place = f"{next(ids):016x}", len(spans)
    span = Span(
        span_id,
        parent,
        spec.name,
        span_kind=spec.span_kind,
        attributes=spec.attributes,
        events=spec.events,
        status=spec.status,
        status_message=spec.status_message,
        start_ns=start_ns,
        exchange=spec.exchange,
    )
    spans.append(span)
    now = start_ns + 1
    for item in spec.below:
        if isinstance(item, Together):
            now = max(_lay(one, span_id, now + at, spans, ids) for at, one in enumerate(item.specs))
        else:
            now = _lay(item, span_id, now, spans, ids)
    end = max(now, start_ns + spec.ms * MS)
    spans[place] = replace(span, duration_ns=end - start_ns)
    return end + 1
