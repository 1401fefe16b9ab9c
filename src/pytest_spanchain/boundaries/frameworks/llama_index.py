"""LlamaIndex: the function of a tool; tools of other classes where an agent workflow calls them.

Callbacks, default values, content blocks, errors and events of the workflow are the framework's, in replay too. What an
async tool writes into its context's store, and what a tool streams through its context, is done again.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "llama-index-core"
_OWN = "llama_index.core."


def install(module: ModuleType) -> None:
    """Patch ``llama_index.core.tools.function_tool`` or a module of ``llama_index.core.agent.workflow``.

    Raises:
        BoundaryError: it looks different.
    """
    if module.__name__.endswith("function_tool"):
        tool = _seam.member(module, "FunctionTool", dist=_DIST)
        _seam.uses(tool, "_real_fn", "ctx_param_name", dist=_DIST)
        for name, body in (("call", "_fn"), ("acall", "_async_fn")):
            _seam.patch(tool, name, _around_function(body), dist=_DIST, takes=("args", "kwargs"), reads=(body,))
    elif module.__name__.endswith("function_agent"):
        _seam.takes_up(getattr(module, "FunctionAgent", None), "handle_tool_call_results", _asked)
    else:
        name = "BaseWorkflowAgent" if module.__name__.endswith("base_agent") else "AgentWorkflow"
        agent = _seam.member(module, name, dist=_DIST)
        _seam.patch(agent, "_call_tool", _around_tool, dist=_DIST, takes=("tool", "tool_input"), reads=("acall",))


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    for one in given["results"]:
        yield _seam.ToolCall(one.tool_id, one.tool_name, one.tool_kwargs)


def _around_function(attribute: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        # Plain for both: what the async one returns is awaited by its caller.
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if str(getattr(self._real_fn, "__module__", "")).startswith(_OWN):
                return original(self, *args, **kwargs)  # a hand-over: it only tells the workflow who is next
            journal = _Journal(kwargs.get(self.ctx_param_name)) if self.ctx_param_name else None
            real = getattr(self, attribute)
            body = _seam.recorded(
                real if journal is None else journal.lent_to(real, self.ctx_param_name),
                name=self.metadata.get_name(),
                arguments=functools.partial(_named, self),
                # A tool may stream the workflow's own events.
                trust=_seam.body_types(self._real_fn, *_seam.classes("workflows.events")),
                effects=None if journal is None else _seam.Effects(journal.clear, journal.entries, journal.again),
            )
            bodies: dict[str, Any] = {attribute: body}
            return original(_seam.in_place_of(self, **bodies), *args, **kwargs)

        return call

    return around


def _around_tool(original: Callable[..., Any]) -> Callable[..., Any]:
    def call_tool(self: Any, ctx: Any, tool: Any, tool_input: Any) -> Any:
        if not hasattr(tool, "_real_fn"):
            output = _seam.classes("llama_index.core.tools.types", names=("ToolOutput",))
            body = _seam.recorded(
                tool.acall,
                name=tool.metadata.get_name(),
                arguments=tool_input,
                trust=_seam.body_types(tool.acall, *output),
            )
            tool = _seam.in_place_of(tool, acall=body)
        return original(self, ctx, tool, tool_input)

    return call_tool


def _named(tool: Any, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
    given = {name: value for name, value in kwargs.items() if name != tool.ctx_param_name}
    names = [name for name in inspect.signature(tool._real_fn).parameters if name != tool.ctx_param_name]
    return _seam.named(names, args, given)


class _Journal:
    """What a body does with the context that it is lent."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._entries: list[Any] = []

    def lent_to(self, function: Callable[..., Any], parameter: str) -> Callable[..., Any]:
        """The function, with a context that keeps this journal."""
        if self._context is None:
            return function
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                return await function(*args, **{**kwargs, parameter: self._lent()})

            return awaited

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **{**kwargs, parameter: self._lent()})

        return plain

    def clear(self) -> None:
        """A body begins."""
        self._entries = []

    def entries(self, _: Any) -> list[Any]:
        """What was done since."""
        return self._entries

    async def again(self, entries: list[Any]) -> None:
        """Do it again."""
        for what, *given in entries:
            if what == "stream":
                self._context.write_event_to_stream(*given)
            elif what == "edit":
                async with self._context.store.edit_state() as state:
                    for name, value in given[0].items():
                        _write(state, name, value)
            else:
                await getattr(self._context.store, what)(*given)

    def _lent(self) -> Any:
        store = self._context.store
        writes: dict[str, Any] = {name: self._kept(store, name) for name in ("set", "set_state", "clear")}
        kept = _seam.in_place_of(store, edit_state=self._edit, **writes)
        return _seam.in_place_of(self._context, write_event_to_stream=self._stream, store=kept)

    def _stream(self, ev: Any) -> None:
        self._entries.append(["stream", ev])
        self._context.write_event_to_stream(ev)

    def _kept(self, store: Any, name: str) -> Callable[..., Any]:
        method = getattr(store, name)

        @functools.wraps(method)
        async def write(*args: Any, **kwargs: Any) -> None:
            await method(*args, **kwargs)
            self._entries.append([name, *inspect.signature(method).bind(*args, **kwargs).args])

        return write

    @asynccontextmanager
    async def _edit(self) -> AsyncIterator[Any]:
        async with self._context.store.edit_state() as state:
            before = {name: _copied(value) for name, value in _items(state)}
            yield state
            after = dict(_items(state))
        self._entries.append(["edit", _seam.newly_set(before, after, other=_differs)])


def _items(state: Any) -> Any:
    return state.items() if hasattr(state, "items") else state


def _copied(value: Any) -> Any:
    # Beside plain data a state holds live objects (a memory), which nobody should copy or ask whether they are equal.
    return copy.deepcopy(value) if _is_plain(value) else value


def _differs(old: Any, new: Any) -> bool:
    return bool(old != new) if _is_plain(old) and _is_plain(new) else old is not new


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (str, int, float, bool))


def _write(state: Any, name: str, value: Any) -> None:
    if hasattr(state, "items"):
        state[name] = value
    else:
        setattr(state, name, value)
