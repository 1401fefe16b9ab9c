"""What makes two trees comparable: parts of requests that the user called irrelevant, and scopes that only one run had.

Recorded values stay in the cassette as they were; only the copies that are matched and compared are changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from . import _rules
from ._model import OWN_SCOPE, Span, SpanTree

IGNORED = "{ignored}"
"""Stands for an ignored part on both sides."""

RequestHook = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]


class Normaliser:
    """Applies the user's ``ignore`` rules to requests.

    Args:
        ignore: JSON paths below the request (``body.json.user``, ``arguments.items[*].id``), or ``re:<pattern>`` whose
            matches are ignored in every text; the grammar is in ``_rules``.
        hook: called last with kind, span name and request; returns the request to match and compare by.

    Raises:
        UsageError: a path or pattern that cannot be understood.
    """

    def __init__(self, ignore: Iterable[str] = (), *, hook: RequestHook | None = None) -> None:
        rules = _rules.sort_out(ignore)
        self._patterns = [_rules.compile_pattern(text) for text in rules.patterns]
        self._paths = [_rules.compile_path(text) for text in rules.paths]
        self._hook = hook

    def request(self, kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it is matched and compared."""
        value: Any = request
        for path in self._paths:
            value = path.put(value, IGNORED)
        for pattern in self._patterns:
            value = _substitute(value, pattern)
        return self._hook(kind, name, value) if self._hook else value

    def tree(self, tree: SpanTree) -> SpanTree:
        """The tree with every request normalised; the same tree if there is nothing to do."""
        if not (self._paths or self._patterns or self._hook):
            return tree
        return SpanTree(tuple(self._span(span) for span in tree))

    def _span(self, span: Span) -> Span:
        if span.exchange is None:
            return span
        request = self.request(span.exchange.kind, span.name, span.exchange.request)
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


def _substitute(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(IGNORED, value)
    if isinstance(value, Mapping):
        return {key: _substitute(item, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, pattern) for item in value]
    return value
