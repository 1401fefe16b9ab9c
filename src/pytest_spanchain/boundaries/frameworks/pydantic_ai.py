"""pydantic-ai: tools run through ``FunctionSchema.call``, and through ``call_tool`` of toolsets that users write.

The first is as deep as it gets: validation of arguments, retries, timeouts, approval, events and hooks are all around
it, so they happen in replay as they did live. Functions that make a run's output pass there too, and are tools to the
model. Toolsets of the package itself only hand calls on, or (MCP) leave the process elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "pydantic-ai-slim"
_dispatched: ContextVar[tuple[str | None, str]] = ContextVar("spanchain_pydantic_ai_tool", default=(None, ""))
_RETURNED = (
    "ToolReturn",
    "TextContent",
    "BinaryContent",
    "BinaryImage",
    "ImageUrl",
    "AudioUrl",
    "VideoUrl",
    "DocumentUrl",
    "UploadedFile",
)
"""Classes of ``pydantic_ai.messages`` that a tool may return without naming them where we can see it."""


def install(lib: ModuleType) -> None:
    """Patch ``pydantic_ai``.

    Raises:
        BoundaryError: it looks different.
    """
    schema = getattr(getattr(lib, "_function_schema", None), "FunctionSchema", None)
    combined = getattr(getattr(lib, "toolsets", None), "CombinedToolset", None)
    if schema is None or combined is None:
        raise _seam.unrecognised(_DIST, "FunctionSchema or CombinedToolset is not where it was")
    _seam.uses(schema, "takes_ctx", "single_arg_name", dist=_DIST)
    _seam.patch(schema, "call", _around_call, dist=_DIST, takes=("args_dict", "ctx"), reads=("function",))
    _seam.patch(combined, "call_tool", _around_call_tool, dist=_DIST, takes=("name", "tool_args", "ctx", "tool"))
    _seam.takes_up(getattr(lib, "_agent_graph", None), "process_tool_calls", _asked)


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    for part in given["tool_calls"]:
        yield _seam.ToolCall(part.tool_call_id, part.tool_name, part.args)


def _around_call(call: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(self: Any, args_dict: dict[str, Any], ctx: Any) -> Any:
        __tracebackhide__ = True
        lent = ctx.deps if self.takes_ctx else None
        # Of a function with one parameter that is a model, releases before 2 bring just that.
        named = args_dict if isinstance(args_dict, Mapping) else {self.single_arg_name or "input": args_dict}
        # What makes an output of the model's text is no tool to the model; releases before 2 have no name for it.
        name = _name(ctx) or getattr(self, "name", None) or getattr(self.function, "__name__", "output_function")
        body = _recorded(call, name, named, _trust(self.function), lent)
        return await body(self, args_dict, ctx)

    return wrapper


def _around_call_tool(call_tool: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(self: Any, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
        __tracebackhide__ = True
        body = _own_body(tool.toolset)
        if body is None:
            token = _dispatched.set((ctx.tool_call_id, name))
            try:
                return await call_tool(self, name, tool_args, ctx, tool)
            finally:
                _dispatched.reset(token)
        recorded = _recorded(call_tool, _name(ctx) or name, tool_args, _trust(body), ctx.deps)
        return await recorded(self, name, tool_args, ctx, tool)

    return wrapper


def _recorded(
    call: Callable[..., Any], name: Any, arguments: Mapping[str, Any], trust: Mapping[str, type], lent: Any
) -> Callable[..., Any]:
    effects = _seam.effects_on(lent, trust)
    return _seam.recorded(call, name=name, arguments=arguments, trust=trust, effects=effects)


def _name(ctx: Any) -> Any:
    """The tool's name as the model knows it: toolsets that rename hand their own name on."""
    call_id, name = _dispatched.get()
    # An output function passes no toolset, and may be called by an agent inside a tool.
    return name if name and call_id == ctx.tool_call_id else ctx.tool_name


def _own_body(toolset: Any) -> Any:
    """The ``call_tool`` of a toolset whose author is not the package."""
    owner = next(layer for layer in type(toolset).__mro__ if "call_tool" in vars(layer))
    return None if owner.__module__.partition(".")[0] == __name__.rpartition(".")[2] else vars(owner)["call_tool"]


def _trust(function: Any) -> Mapping[str, type]:
    raised = _seam.classes("pydantic_ai.exceptions", kind=Exception)
    return _seam.body_types(function, *_seam.classes("pydantic_ai.messages", names=_RETURNED), *raised)
