"""google-adk: the function of a tool; tools of other classes where the flow runs them.

Preprocessing, confirmations, generators as nodes, callbacks, plugins and events are the framework's, in replay too.
What a tool does to its context (state, actions) is done again. Tools of the framework that touch nothing but the
session (transfer, memory, artifacts, agents as tools) just run: what they call is recorded by itself.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "google-adk"
_TOOLS = "google.adk.tools"
_INNER = (
    "google.adk.agents.",
    f"{_TOOLS}._node_tool",
    f"{_TOOLS}._request_input_tool",
    f"{_TOOLS}.agent_tool",
    f"{_TOOLS}.example_tool",
    f"{_TOOLS}.exit_loop_tool",
    f"{_TOOLS}.get_user_choice_tool",
    f"{_TOOLS}.google_search_agent_tool",
    f"{_TOOLS}.load_artifacts_tool",
    f"{_TOOLS}.load_memory_tool",
    f"{_TOOLS}.preload_memory_tool",
    f"{_TOOLS}.set_model_response_tool",
    f"{_TOOLS}.transfer_to_agent_tool",
)
"""Modules of tools that are not recorded."""

_THIS_CALL = "(this call)"
"""What stands for the id of a function call as a key of actions: the framework may draw it at random."""


def install(module: ModuleType) -> None:
    """Patch ``google.adk.tools.function_tool`` or ``google.adk.flows.llm_flows.tools._caller``.

    Raises:
        BoundaryError: it looks different.
    """
    if module.__name__.endswith("_batch_executor"):
        _seam.takes_up(module, "_prepare_function_calls", _asked)
    elif module.__name__.endswith("function_tool"):
        tool = _seam.member(module, "FunctionTool", dist=_DIST)
        prepare = _seam.member(tool, "_prepare_invocation_args", dist=_DIST)
        _seam.uses(prepare, "_spec", "has_signature", "signature", "_context_param_name", dist=_DIST)
        _seam.patch(tool, "run_async", _around_function, dist=_DIST, takes=("args", "tool_context"), reads=("func",))
    else:
        takes = ("tool", "args", "tool_context")
        _seam.patch(module, "_call_tool_async", _around_tool, dist=_DIST, takes=takes, reads=("run_async",))


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    for call in given["function_calls"]:
        # The framework draws an id where the API gave none.
        known = call.id and not call.id.startswith("adk-")
        yield _seam.ToolCall(call.id if known else "", call.name, call.args or {})


def _around_function(original: Callable[..., Any]) -> Callable[..., Any]:
    def run_async(self: Any, *, args: Any, tool_context: Any) -> Any:
        if _is_inner(self) or _is_inner(self, of=self.func):
            return original(self, args=args, tool_context=tool_context)
        body = _recorded(self.func, self.name, args, tool_context, lends=_takes_context(self))
        stand_in = _seam.in_place_of(self, throughout=True, func=body)
        return original(stand_in, args=args, tool_context=tool_context)

    return run_async


def _around_tool(original: Callable[..., Any]) -> Callable[..., Any]:
    def call_tool(tool: Any, args: Any, tool_context: Any) -> Any:
        if not hasattr(tool, "_prepare_invocation_args") and not _is_inner(tool):
            tool = _seam.in_place_of(tool, run_async=_recorded(tool.run_async, tool.name, args, tool_context))
        return original(tool, args=args, tool_context=tool_context)

    return call_tool


def _is_inner(tool: Any, *, of: Any = None) -> bool:
    home = getattr(type(tool) if of is None else of, "__module__", None) or ""
    return home.startswith(_INNER)


def _recorded(
    body: Callable[..., Any], name: str, args: Any, tool_context: Any, *, lends: bool = True
) -> Callable[..., Any]:
    # What it names may come back, actions, and the events that a generator may yield.
    events = _seam.classes("google.adk.events.event", names=("Event",))
    return _seam.recorded(
        body,
        name=name,
        arguments=_arguments(args, tool_context),
        trust=_seam.body_types(body, type(tool_context.actions), *events),
        effects=_effects(tool_context) if lends else None,
    )


def _takes_context(tool: Any) -> bool:
    spec = tool._spec
    return not spec.has_signature or tool._context_param_name in spec.signature.parameters


def _arguments(args: Mapping[str, Any], tool_context: Any) -> Mapping[str, Any]:
    """What the model gave, and what people answered to a request for confirmation: the body may see both."""
    answer = tool_context.tool_confirmation
    if answer is None:
        return args
    return {**args, "(confirmation)": {"confirmed": answer.confirmed, "payload": answer.payload}}


def _effects(tool_context: Any) -> _seam.Effects:
    """State and actions of one call. Other calls have their own."""

    def before() -> Any:
        return {name: _copied(value) for name, value in tool_context.actions}

    def changes(old: Mapping[str, Any]) -> Any:
        found = {name: _change(old.get(name), value) for name, value in tool_context.actions}
        return {
            name: _renamed(change, tool_context.function_call_id, _THIS_CALL)
            for name, change in found.items()
            if change is not _SAME
        }

    def again(found: Mapping[str, Any]) -> None:
        for name, change in found.items():
            change = _renamed(change, _THIS_CALL, tool_context.function_call_id)
            if name == "state_delta":
                tool_context.state.update(change)
            elif isinstance(getattr(tool_context.actions, name), dict):
                getattr(tool_context.actions, name).update(change)
            else:
                setattr(tool_context.actions, name, change)

    return _seam.Effects(before, changes, again)


_SAME = object()


def _change(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return _seam.newly_set(old, new, other=operator.ne) or _SAME
    return _SAME if old == new else new


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001  # state may hold anything; what cannot be copied is compared as the object it is
        return dict(value) if isinstance(value, dict) else value


def _renamed(change: Any, old: Any, new: Any) -> Any:
    if isinstance(change, dict) and old in change:
        return {new if key == old else key: value for key, value in change.items()}
    return change
