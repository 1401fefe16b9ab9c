"""The tools that the models of a run ask for: which calls, and what has become of each.

A call that was asked for is *wanted* until a recorded call is found to be it, and *undone* until then, or until a
framework says that it has taken it up. Whether a call is one that was asked for is decided here and nowhere else;
whether a function can be the tool at all is another question (``boundaries._fit``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import _sse
from ._genai import ToolCall, ToolDeclaration
from ._genai.attributes import TOOL_CALL_ID

if TYPE_CHECKING:
    from ._capture import OpenSpan


class ToolCalls:
    """What the models of one run ask for. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[ToolCall] = []
        self._met: dict[int, ToolCall] = {}
        self.on_offered: Callable[[tuple[ToolDeclaration, ...]], None] = lambda declared: None
        """Told of the tools that each model request offers, before it is answered."""
        self.on_asked: Callable[[tuple[ToolCall, ...]], None] = lambda calls: None
        """Told of the tools that each answer asks for, before the agent has read its end."""

    @property
    def undone(self) -> tuple[ToolCall, ...]:
        """What nobody is known to have taken up."""
        with self._lock:
            return tuple(call for call in self._asked if id(call) not in self._met)

    def wanted(self, name: str) -> tuple[ToolCall, ...]:
        """What has been asked of a tool, and nobody has done yet."""
        with self._lock:
            return tuple(call for call in self._asked if call.name == name)

    def waits_for(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether a model waits for exactly this call of a tool."""
        return any(is_asked(call.arguments, given) for call in self.wanted(name))

    def offer(self, declared: tuple[ToolDeclaration, ...]) -> None:
        """A model request offers tools."""
        if declared:
            self.on_offered(declared)

    def ask(self, calls: tuple[ToolCall, ...]) -> None:
        """An answer asks for tools."""
        with self._lock:
            self._asked.extend(calls)
        if calls:
            self.on_asked(calls)

    def met(self, call: ToolCall) -> None:
        """A framework whose tools are recorded has taken up what the model asked for, whether or not a body is to run.

        Args:
            call: as the framework has it; its id may be empty, or drawn by the framework if the API gives none.
        """
        with self._lock:
            for asked in self._asked:
                known = asked.id == call.id if asked.id and call.id else asked.arguments == call.arguments
                if asked.name == call.name and known and id(asked) not in self._met:
                    self._met[id(asked)] = asked
                    return

    def done(self, name: str, given: Mapping[str, Any]) -> str:
        """A tool is called, and the call is recorded: it is what was asked for, if anything was.

        Args:
            name: of the tool.
            given: the arguments by name.

        Returns:
            The id under which it was asked for; empty if it was not, or if it cannot be told which one it is.
        """
        with self._lock:
            found = _which([call for call in self._asked if call.name == name], given)
            if found is None:
                return ""
            self._take_off(found)
        return found.id

    def answered(self, call: ToolCall, *, by: OpenSpan) -> None:
        """It has turned out which of the recorded calls was what the model had asked for.

        Args:
            call: one that was wanted.
            by: the span of the recorded call.
        """
        with self._lock:
            self._take_off(call)
        if call.id:
            by.attributes = {**by.attributes, TOOL_CALL_ID: call.id}

    def _take_off(self, call: ToolCall) -> None:
        # By identity: one that is equal may have been met, and this one not.
        self._asked = [one for one in self._asked if one is not call]
        self._met.pop(id(call), None)


def is_asked(asked: Any, given: Mapping[str, Any]) -> bool:
    """Whether a call is what the model asked for: every value is there, under whatever name, or all of them as one.

    As one they are a mapping, an object that is made of them, or the JSON text, with defaults beside them.

    Args:
        asked: the arguments that the model gave.
        given: those of the call, by name, as they are recorded.
    """
    values = [part for value in given.values() for part in _parts(value)]
    if asked in values or not isinstance(asked, Mapping):
        return asked in values
    return all(value in values for value in asked.values()) or any(
        isinstance(part, Mapping) and all(name in part and _holds(part[name], asked[name]) for name in asked)
        for part in values
    )


def _holds(given: Any, asked: Any) -> bool:
    return any(
        part == asked
        or (isinstance(part, Mapping) and isinstance(asked, Mapping) and is_asked(asked, part))
        or (isinstance(part, list) and isinstance(asked, list) and _hold(part, asked))
        for part in _parts(given)
    )


def _hold(given: list[Any], asked: list[Any]) -> bool:
    return len(given) == len(asked) and all(map(_holds, given, asked))


def _parts(value: Any) -> list[Any]:
    """A recorded argument, and what the model may have given to make it."""
    if isinstance(value, str) and value.startswith("{"):
        parsed = _sse.parse(value)
        return [value] if parsed is None else [value, parsed]
    if isinstance(value, list):
        return [value, *value]
    tag, inner = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", None)
    if tag == "$tuple" and isinstance(inner, list):
        return [value, inner, *inner]
    if tag in ("$object", "$enum") and isinstance(inner, Mapping):
        return [value, inner.get("fields", inner.get("value"))]
    return [value]


def _which(asked: list[ToolCall], given: Mapping[str, Any]) -> ToolCall | None:
    """Which of several calls of one tool it is; of those with the same values, the one whose names are the same."""
    named = [call for call in asked if _is_named(call.arguments, given)]
    if named or len(asked) == 1:
        return (named or asked)[0]
    alike = [call for call in asked if is_asked(call.arguments, given)]
    return alike[0] if alike and all(call.arguments == alike[0].arguments for call in alike) else None


def _is_named(asked: Any, given: Mapping[str, Any]) -> bool:
    """The same by name: the rest are defaults, and the receiver of a method."""
    return isinstance(asked, Mapping) and all(name in given and given[name] == asked[name] for name in asked)
