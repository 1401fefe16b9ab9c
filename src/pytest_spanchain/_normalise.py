"""What makes two trees comparable: parts of requests that the user called irrelevant, and scopes that only one run had.

Recorded values stay in the cassette as they were; only the copies that are matched and compared are changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ._model import OWN_SCOPE, Span, SpanTree
from .errors import UsageError

IGNORED = "{ignored}"
"""Stands for an ignored part on both sides."""

PATTERN_PREFIX = "re:"

RequestHook = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\*)\]")


class Normaliser:
    """Applies the user's ``ignore`` rules to requests.

    Args:
        ignore: JSON paths below the request (``body.json.user``, ``arguments.items[*].id``, ``*`` for any key), or
            ``re:<pattern>`` whose matches are ignored in every text.
        hook: called last with kind, span name and request; returns the request to match and compare by.

    Raises:
        UsageError: a path or pattern that cannot be understood.
    """

    def __init__(self, ignore: Iterable[str] = (), *, hook: RequestHook | None = None) -> None:
        rules = tuple(ignore)
        self._patterns = [_pattern(rule) for rule in rules if rule.startswith(PATTERN_PREFIX)]
        self._paths = [parse_path(rule) for rule in rules if not rule.startswith(PATTERN_PREFIX)]
        self._hook = hook

    def request(self, kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request as it is matched and compared."""
        value: Any = request
        for path in self._paths:
            value = put(value, path, IGNORED)
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


def parse_path(text: str) -> tuple[str | int, ...]:
    """Steps of a JSON path: names, indices, ``*`` for any.

    Raises:
        UsageError: the text is no such path.
    """
    body = text.removeprefix("$").removeprefix(".")
    steps: list[str | int] = []
    position = 0
    while position < len(body):
        match = _STEP.match(body, position)
        if match is None:
            break
        name, index = match.groups()
        steps.append(name if name is not None else ("*" if index == "*" else int(index)))
        position = match.end()
    if not steps or position < len(body):
        raise UsageError(f"not a JSON path: {text!r} (write e.g. 'body.json.messages[0].content' or 're:<pattern>')")
    return tuple(steps)


def put(value: Any, path: tuple[str | int, ...], placeholder: str) -> Any:
    """A copy of ``value`` with everything at ``path`` replaced; the same object where the path leads nowhere."""
    if not path:
        return placeholder
    step, rest = path[0], path[1:]
    if isinstance(value, Mapping):
        keys = list(value) if step == "*" else [step] if step in value else []
        changed = {key: put(value[key], rest, placeholder) for key in keys}
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        indices = range(len(value)) if step == "*" else [step] if isinstance(step, int) and step < len(value) else []
        copy = list(value)
        for index in indices:
            copy[index] = put(copy[index], rest, placeholder)
        return copy if indices else value
    return value


def _pattern(rule: str) -> re.Pattern[str]:
    try:
        return re.compile(rule.removeprefix(PATTERN_PREFIX))
    except re.error as error:
        raise UsageError(f"not a regular expression: {rule!r} ({error})") from None


def _substitute(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(IGNORED, value)
    if isinstance(value, Mapping):
        return {key: _substitute(item, pattern) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, pattern) for item in value]
    return value
