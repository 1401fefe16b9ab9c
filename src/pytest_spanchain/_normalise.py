"""What makes two trees comparable: parts of requests that the user called irrelevant, and scopes that only one run had.

Recorded values stay in the cassette as they were; only the copies that are matched and compared are changed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import _rules
from ._model import OWN_SCOPE, Span, SpanTree

IGNORED = "{ignored}"
"""Stands for an ignored part on both sides."""

_TRACE_CONTEXT = frozenset({"traceparent", "tracestate", "baggage"})

_RELEASE = frozenset({"io.modelcontextprotocol/protocolVersion", "io.modelcontextprocol/clientInfo"})
"""What MCP clients say of themselves with every request, from protocol version 2026-07-28 on."""

RequestHook = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]


class Normaliser:
    """Takes out of requests what protocols count for themselves, and what the user's ``ignore`` rules name.

    Args:
        ignore: JSON paths below the request (``body.json.user``, ``arguments.items[*].id``), or ``re:<pattern>`` whose
            matches are ignored in every text; the grammar is in ``_rules``.
        stack: whether protocols' own counters and trace contexts are taken out.
        hook: called last with kind, span name and request; returns the request to match and compare by.

    Raises:
        UsageError: a path or pattern that cannot be understood.
    """

    def __init__(self, ignore: Iterable[str] = (), *, stack: bool = True, hook: RequestHook | None = None) -> None:
        rules = _rules.sort_out(ignore)
        self._patterns = [_rules.compile_pattern(text) for text in rules.patterns]
        self._paths = [_rules.compile_path(text) for text in rules.paths]
        self._hook = hook
        self._stack = stack

    def request(self, kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it is matched and compared."""
        value: Any = _without_stack(request) if self._stack else request
        for path in self._paths:
            value = path.put(value, IGNORED)
        for pattern in self._patterns:
            value = _substitute(value, pattern)
        return self._hook(kind, name, value) if self._hook else value

    def tree(self, tree: SpanTree) -> SpanTree:
        """The tree with every request normalised; the same one if there was nothing to do."""
        spans = tuple([self._span(span) for span in tree])
        return tree if all(map(operator.is_, spans, tree)) else SpanTree(spans)

    def _span(self, span: Span) -> Span:
        if span.exchange is None:
            return span
        request = self.request(span.exchange.kind, span.name, span.exchange.request)
        if request is span.exchange.request:
            return span
        return replace(span, exchange=replace(span.exchange, request=request))


def without_scopes(tree: SpanTree, scopes: frozenset[str]) -> SpanTree:
    """The tree without the spans of some scopes; their children move up to the nearest kept ancestor."""
    if not scopes - {OWN_SCOPE}:
        return tree
    home: dict[str, str | None] = {}
    kept: list[Span] = []
    for span in tree:
        parent = home.get(span.parent_span_id or "", span.parent_span_id)
        if span.scope in scopes and span.scope != OWN_SCOPE:
            home[span.span_id] = parent
        else:
            kept.append(span if parent == span.parent_span_id else replace(span, parent_span_id=parent))
    return SpanTree(tuple(kept))


def _without_stack(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A JSON-RPC request without the trace context that rides in it; of its id only that there is one.

    Of the handshake of an MCP client, not which release of its SDK shakes hands.
    """
    if "server" in request:
        return _greeting(_message(request))
    body = request.get("body")
    content = body.get("json") if isinstance(body, Mapping) else None
    messages = content if isinstance(content, list) else [content]
    if not any(isinstance(message, Mapping) and "jsonrpc" in message for message in messages):
        return request
    assert isinstance(body, Mapping)
    found = [_message(message) if isinstance(message, Mapping) else message for message in messages]
    return {**request, "body": {**body, "json": found if isinstance(content, list) else found[0]}}


def _message(message: Mapping[str, Any]) -> Mapping[str, Any]:
    message = {**message, "id": IGNORED} if "id" in message else message
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    if not isinstance(params, Mapping) or not isinstance(meta, Mapping):
        return message
    kept = {key: value for key, value in meta.items() if key not in _TRACE_CONTEXT}
    if "progressToken" in kept:
        kept["progressToken"] = IGNORED
    others = {key: value for key, value in params.items() if key != "_meta"}
    return {**message, "params": {**others, "_meta": kept} if kept else others}


def _greeting(request: Mapping[str, Any]) -> Mapping[str, Any]:
    params = request.get("params")
    if not isinstance(params, Mapping):
        return request
    found: dict[str, Any] = {key: IGNORED if key == "protocolVersion" else value for key, value in params.items()}
    if isinstance(found.get("clientInfo"), Mapping):
        found["clientInfo"] = {**found["clientInfo"], "version": IGNORED}
    if isinstance(found.get("_meta"), Mapping):
        found["_meta"] = {key: IGNORED if key in _RELEASE else value for key, value in found["_meta"].items()}
    return {**request, "params": found}


def _substitute(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(IGNORED, value)
    if isinstance(value, Mapping):
        return {key: _substitute(item, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, pattern) for item in value]
    return value
