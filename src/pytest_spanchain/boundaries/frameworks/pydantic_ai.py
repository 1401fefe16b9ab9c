"""pydantic-ai: tools run through ``FunctionSchema.call``, and through ``call_tool`` of toolsets that users write.

The first is as deep as it gets: validation of arguments, retries, timeouts, approval, events and hooks are all around
it, so they happen in replay as they did live. Functions that make a run's output pass there too, and are tools to the
model. Toolsets of the package itself only hand calls on, or (MCP) leave the process elsewhere.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "pydantic-ai-slim"
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
    _seam.patch(schema, "call", _around_call, dist=_DIST, takes=("args_dict", "ctx"))
    _seam.patch(combined, "call_tool", _around_call_tool, dist=_DIST, takes=("name", "tool_args", "ctx", "tool"))


def _around_call(call: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(self: Any, args_dict: dict[str, Any], ctx: Any) -> Any:
        __tracebackhide__ = True
        return await _seam.acall(
            _name(ctx) or self.name,
            args_dict,
            lambda: call(self, args_dict, ctx),
            trust=_trust(self.function),
        )

    return wrapper


def _around_call_tool(call_tool: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(self: Any, name: str, tool_args: dict[str, Any], ctx: Any, tool: Any) -> Any:
        __tracebackhide__ = True
        body = _own_body(tool.toolset)
        if body is None:
            return await call_tool(self, name, tool_args, ctx, tool)
        return await _seam.acall(
            _name(ctx) or name, tool_args, lambda: call_tool(self, name, tool_args, ctx, tool), trust=_trust(body)
        )

    return wrapper


def _name(ctx: Any) -> Any:
    """The tool's name as the model knows it: toolsets that rename hand their own name on."""
    return getattr(ctx, "_dispatched_tool_name", None) or ctx.tool_name


def _own_body(toolset: Any) -> Any:
    """The ``call_tool`` of a toolset whose author is not the package."""
    owner = next(layer for layer in type(toolset).__mro__ if "call_tool" in vars(layer))
    return None if owner.__module__.partition(".")[0] == __name__.rpartition(".")[2] else vars(owner)["call_tool"]


def _trust(function: Any) -> Mapping[str, type]:
    return _seam.body_types(function, *_package_types())


@functools.cache
def _package_types() -> tuple[type, ...]:
    messages, exceptions = sys.modules["pydantic_ai.messages"], sys.modules["pydantic_ai.exceptions"]
    raised = [found for found in vars(exceptions).values() if isinstance(found, type) and issubclass(found, Exception)]
    return (*filter(None, (getattr(messages, name, None) for name in _RETURNED)), *raised)
