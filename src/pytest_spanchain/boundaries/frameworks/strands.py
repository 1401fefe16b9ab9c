"""Strands: the function of a tool, met where the tool's stream calls it.

Validation, injected parameters, formats, events, hooks, interrupts and retries are the framework's, in replay too. What
a tool that takes a context or the agent writes into the agent's state or the invocation state is done again. Tools of
the user's own classes are met where the executor reads their stream.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "strands-agents"
_STREAM = ("tool_use", "invocation_state")
_SCOPE = "v1:tool_call:"
"""How the ids of interrupts begin that a tool's call asks; the id of the call follows."""


def install(module: ModuleType) -> None:
    """Patch one of the modules of ``strands.tools`` that run tools.

    Raises:
        BoundaryError: it looks different.
    """
    if module.__name__.endswith("decorator"):
        tool = _seam.member(module, "DecoratedFunctionTool", dist=_DIST)
        halts = _halts(_seam.member(module, "InterruptException", dist=_DIST))
        _check_context(module)
        reads = ("_tool_func", "_metadata")
        _seam.patch(tool, "stream", _around_function(halts), dist=_DIST, takes=_STREAM, reads=reads)
    elif module.__name__.endswith("_executor"):
        _seam.patch(
            module, "_run_tool", _around_own_tools(module), dist=_DIST, takes=("ctx",), reads=("tool", "stream")
        )
        _seam.takes_up(getattr(module, "ToolExecutor", None), "_stream", _asked)
    else:
        tool = _seam.member(module, "PythonAgentTool", dist=_DIST)
        _seam.patch(tool, "stream", _around_function(), dist=_DIST, takes=_STREAM, reads=("_tool_func",))


def _check_context(module: ModuleType) -> None:
    """That what tools get beside the model's arguments, and what people answered, is where we look for it."""
    _seam.uses(_seam.member(module, "FunctionToolMetadata", dist=_DIST), "_context_param", "signature", dist=_DIST)
    context = _seam.member(module, "ToolContext", dist=_DIST)
    asks = _seam.member(context, "interrupt", dist=_DIST)
    _seam.uses(asks, "_interrupt_state", "interrupts", "response", dist=_DIST)
    _seam.uses(_seam.member(context, "_interrupt_id", dist=_DIST), _SCOPE, "toolUseId", dist=_DIST)


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    use = given["tool_use"]
    yield _seam.ToolCall(use["toolUseId"], use["name"], use.get("input"))


def _around_function(halts: tuple[type, ...] = ()) -> Callable[..., Any]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def stream(self: Any, tool_use: Any, invocation_state: Any, **kwargs: Any) -> Any:
            context = kwargs.get("_tool_context")
            function = self._tool_func
            body = _seam.recorded(
                function,
                name=self.tool_name,
                arguments=_arguments(tool_use, invocation_state, context),
                trust=_seam.body_types(function, *halts),
                effects=_effects(self, invocation_state, context),
            )
            return original(_seam.in_place_of(self, _tool_func=body), tool_use, invocation_state, **kwargs)

        return stream

    return around


def _around_own_tools(module: ModuleType) -> Callable[..., Any]:
    names = ("ToolInterruptEvent", "ToolResultEvent", "ToolStreamEvent")
    events = [_seam.member(module, name, dist=_DIST) for name in names]
    halts = _halts(_seam.member(module, "InterruptException", dist=_DIST))

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def run_tool(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            tool = ctx.tool
            if tool is not None and not type(tool).__module__.startswith("strands."):
                body = _seam.recorded(
                    tool.stream,
                    name=ctx.tool_use["name"],
                    arguments=_arguments(ctx.tool_use, ctx.invocation_state, None),
                    trust=_seam.body_types(tool.stream, *events, *halts),
                )
                ctx = _seam.in_place_of(ctx, tool=_seam.in_place_of(tool, stream=body))
            return original(ctx, *args, **kwargs)

        return run_tool

    return around


def _halts(interrupt: type) -> tuple[type, ...]:
    """The exception that halts an agent, and what it carries."""
    return _seam.classes(interrupt.__module__, own=True)


def _arguments(tool_use: Any, invocation_state: Any, context: Any) -> Mapping[str, Any]:
    """What the model gave, and what people answered to interrupts of this call: the body sees both."""
    given = tool_use.get("input") or {}
    agent = context.agent if context is not None else invocation_state.get("agent")
    interrupts = getattr(getattr(agent, "_interrupt_state", None), "interrupts", {})
    scope = f"{_SCOPE}{tool_use.get('toolUseId')}:"
    answered = {
        one.name: one.response for key, one in interrupts.items() if key.startswith(scope) and one.response is not None
    }
    return {**given, "(interrupts)": answered} if answered else given


def _effects(tool: Any, invocation_state: Any, context: Any) -> Any:
    metadata = getattr(tool, "_metadata", None)
    if metadata is None or not (getattr(metadata, "_context_param", None) or "agent" in metadata.signature.parameters):
        return None
    agent = context.agent if context is not None else invocation_state.get("agent")
    state = getattr(agent, "state", None)
    shared = context.invocation_state if context is not None else invocation_state
    if state is None:
        return None

    def before() -> Any:
        return state.get(), dict(shared)

    def changes(old: Any) -> Any:
        found = {
            "state": _changed(old[0], state.get(), operator.ne),
            # It holds live objects, which nobody should ask whether they are equal.
            "invocation_state": _changed(old[1], shared, operator.is_not),
        }
        return {name: change for name, change in found.items() if change}

    def again(found: Any) -> None:
        for key, value in found.get("state", {}).get("set", {}).items():
            state.set(key, value)
        for key in found.get("state", {}).get("gone", ()):
            state.delete(key)
        shared.update(found.get("invocation_state", {}).get("set", {}))
        for key in found.get("invocation_state", {}).get("gone", ()):
            shared.pop(key, None)

    return _seam.Effects(before, changes, again)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any], other: Callable[[Any, Any], Any]) -> dict[str, Any]:
    found = {"set": _seam.newly_set(old, new, other=other), "gone": [key for key in old if key not in new]}
    return {name: change for name, change in found.items() if change}
