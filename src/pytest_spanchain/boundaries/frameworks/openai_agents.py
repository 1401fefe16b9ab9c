"""openai-agents: a function tool's body, met inside ``agents.tool.invoke_function_tool``.

Invariants:

* Of a tool made by ``function_tool`` only the user's function is not run in replay: parsing and validation of arguments
  and output, guardrails, hooks, approval, timeouts and the failure handler are around it. Of a ``FunctionTool`` made
  by hand it is ``on_invoke_tool``.
* An agent used as a tool is no tool here: it runs in replay too, and its prompts are compared.
* The user's tool objects are never changed: each call goes through a stand-in that is made for it.
"""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import CellType, FunctionType, ModuleType
from typing import Any

from ... import _patch
from ..._run import OWNERSHIP
from .. import _seam

_DIST = "openai-agents"
_BODY = "the_func"
_OF_A_SERVER = "invoke_mcp_tool"
_RETURNED = ("ToolOutputText", "ToolOutputImage", "ToolOutputFileContent")


def install(lib: ModuleType) -> None:
    """Patch ``agents``; a module of that name that is not the SDK's is left alone.

    Raises:
        BoundaryError: it looks different.
    """
    if not _is_the_sdk(lib):
        return
    tool = getattr(lib, "tool", None)
    # From 0.19 on, both are there, and the SDK calls the first.
    invoke = getattr(tool, "_invoke_function_tool_with_metadata", None) or getattr(tool, "invoke_function_tool", None)
    invoker = getattr(tool, "_FailureHandlingFunctionToolInvoker", None)
    if not isinstance(invoke, FunctionType) or not isinstance(invoker, type):
        raise _seam.unrecognised(_DIST, "agents.tool.invoke_function_tool is gone")
    if {"function_tool", "context", "arguments"} - set(inspect.signature(invoke).parameters):
        raise _seam.unrecognised(_DIST, "agents.tool.invoke_function_tool has changed")
    if _BODY not in _cells(_impl(_seam.member(lib, "function_tool", dist=_DIST)(_probe).on_invoke_tool)):
        raise _seam.unrecognised(_DIST, "function_tool keeps the function elsewhere")
    _check_kinds(lib)
    # By its code: other modules of the SDK have taken their reference already.
    _patch.acquire(invoke, lambda site: functools.partial(_invoke, site))
    for home in ("agents.run_internal.turn_resolution", "agents._run_impl"):
        owner = sys.modules.get(home)
        _seam.takes_up(getattr(owner, "RunImpl", owner), "process_model_response", _asked)
    _mute(_seam.member(_seam.member(lib, "tracing", dist=_DIST), "processors", dist=_DIST))


def _check_kinds(lib: ModuleType) -> None:
    """That tools which are agents or an MCP server's are known by what we know them by, and contexts too."""
    agent = _seam.member(lib, "Agent", dist=_DIST)
    _seam.uses(_seam.member(agent, "as_tool", dist=_DIST), "_is_agent_tool", dist=_DIST)
    servers = _seam.member(sys.modules.get("agents.mcp.util", lib), "MCPUtil", dist=_DIST)
    made = _seam.member(servers, "to_function_tool", dist=_DIST)
    _seam.uses(made, "partial", _OF_A_SERVER, dist=_DIST)
    _seam.member(sys.modules.get("agents.run_context", lib), "RunContextWrapper", dist=_DIST)


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    """Handoffs and function tools, known or not. Tools of other classes (a shell) have bodies of their own."""
    others = {getattr(tool, "name", None) for tool in given["all_tools"] if type(tool).__name__ != "FunctionTool"}
    for item in given["response"].output:
        if getattr(item, "type", None) == "function_call" and item.name not in others:
            yield _seam.ToolCall(item.call_id, item.name, item.arguments)


def _is_the_sdk(lib: ModuleType) -> bool:
    try:
        home = metadata.distribution(_DIST).locate_file("agents")
    except metadata.PackageNotFoundError:
        return False
    return lib.__file__ is not None and Path(lib.__file__).parent.resolve() == Path(str(home)).resolve()


def _probe(order: str) -> str:
    """Looked at, never called."""
    return order


async def _invoke(site: _patch.Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    __tracebackhide__ = True
    if not _seam.idle():
        kwargs = {**kwargs, "function_tool": _stand_in(kwargs["function_tool"], kwargs["context"].context)}
    return await site.twin(*args, **kwargs)


def _stand_in(tool: Any, lent: Any) -> Any:
    """A tool like this one, whose body is met; the tool itself if it has none here."""
    invoker = tool.on_invoke_tool
    impl = _impl(invoker)
    if getattr(tool, "_is_agent_tool", False) or _is_a_servers(impl):
        return tool
    if impl is None:
        return _with(tool, on_invoke_tool=_met(invoker, tool, lent))
    body = _cells(impl).get(_BODY)
    inner = _met(impl, tool, lent) if body is None else _rebuilt(impl, _met_function(body, tool, lent))
    return _with(tool, on_invoke_tool=_with(invoker, _invoke_tool_impl=inner))


def _is_a_servers(impl: Any) -> bool:
    """Whether it calls an MCP server. Only later releases say so at the tool."""
    return isinstance(impl, functools.partial) and getattr(impl.func, "__name__", "") == _OF_A_SERVER


def _with(instance: Any, **changed: Any) -> Any:
    # Not copy.copy: that runs the SDK's own set-up once more.
    made = object.__new__(type(instance))
    made.__dict__.update(vars(instance), **changed)
    return made


def _impl(invoker: Any) -> Any:
    return getattr(invoker, "_invoke_tool_impl", None)


def _cells(function: Any) -> Mapping[str, Any]:
    if not isinstance(function, FunctionType) or function.__closure__ is None:
        return {}
    return {
        name: cell.cell_contents for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True)
    }


def _rebuilt(impl: FunctionType, body: Callable[..., Any]) -> FunctionType:
    """The same function with another body in the cell that holds it."""
    assert impl.__closure__ is not None
    cells = tuple(
        CellType(body) if name == _BODY else cell
        for name, cell in zip(impl.__code__.co_freevars, impl.__closure__, strict=True)
    )
    made = FunctionType(impl.__code__, impl.__globals__, impl.__name__, impl.__defaults__, cells)
    made.__kwdefaults__ = impl.__kwdefaults__
    made.__dict__.update(vars(impl))
    return made


def _met_function(body: Callable[..., Any], tool: Any, lent: Any) -> Callable[..., Any]:
    """The user's function, met where the SDK calls it: in its event loop, or in a thread."""

    def arguments(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
        named = inspect.signature(body).bind(*args, **kwargs).arguments
        context = sys.modules["agents.run_context"].RunContextWrapper
        return {name: value for name, value in named.items() if not isinstance(value, context)}

    trust = _trust(body)
    effects = _seam.effects_on(lent, trust)
    return _seam.recorded(body, name=tool.name, arguments=arguments, trust=trust, effects=effects)


def _met(invoke: Callable[..., Any], tool: Any, lent: Any) -> Callable[..., Any]:
    """What takes the model's arguments as text: hand-made tools, and those of extensions."""

    async def awaited(ctx: Any, text: str) -> Any:
        return await invoke(ctx, text)

    # Wrapped, because the SDK looks at its annotations to choose the context that it hands over.
    @functools.wraps(invoke)
    async def run(ctx: Any, text: str) -> Any:
        __tracebackhide__ = True
        trust = _trust(invoke)
        effects = _seam.effects_on(lent, trust)
        body = _seam.recorded(awaited, name=tool.name, arguments=_parsed(text), trust=trust, effects=effects)
        return await body(ctx, text)

    return run


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    return _seam.whole(found if isinstance(found, dict) else text)


def _trust(function: Any) -> Mapping[str, type]:
    raised = _seam.classes("agents.exceptions", kind=Exception)
    return _seam.body_types(function, *_seam.classes("agents.tool", names=_RETURNED), *raised)


def _mute(processors: Any) -> None:
    """Keep the SDK's own traces at home while a test runs.

    They are telemetry, sent to the host of the models by a thread that may be older than the run: recorded they would
    be there one time and not the next, and a replay's would go out at the end of the process.
    """
    exporter = _seam.member(processors, "BackendSpanExporter", dist=_DIST)
    batch = _seam.member(processors, "BatchTraceProcessor", dist=_DIST)
    _seam.uses(batch, "_exporter", dist=_DIST)

    def around_queue(put: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, item: Any) -> Any:
            muted = OWNERSHIP.peek() is not None and type(self._exporter) is exporter
            return None if muted else put(self, item)

        return wrapper

    def around_export(export: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            return None if OWNERSHIP.active else export(self, *args, **kwargs)

        return wrapper

    for name, item in (("on_trace_start", "trace"), ("on_span_end", "span")):
        _seam.patch(batch, name, around_queue, dist=_DIST, takes=(item,))
    export = "_export_with_deadline" if hasattr(exporter, "_export_with_deadline") else "export"
    _seam.patch(exporter, export, around_export, dist=_DIST, takes=("items",))
