"""Anthropic's tool runner: tools made of functions, the built-in ones (memory), and toolsets.

A function tool is met where it is called, so that a loop of the user's own over the same tools is recorded as the
runner's is. Built-in tools and toolsets have no common body and are met where the runner calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..._values import trusted_types
from .. import _seam

_DIST = "anthropic"


def install(module: ModuleType) -> None:
    """Patch one of the modules of ``anthropic.lib.tools`` that call tools.

    Raises:
        BoundaryError: it looks different.
    """
    _INSTALLERS[module.__name__.rpartition(".")[2]](module)


def _function_tools(module: ModuleType) -> None:
    failure = _seam.member(module, "ToolError", dist=_DIST)

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, input: Any) -> Any:  # noqa: A002  # the SDK's name, by which it may be passed
            __tracebackhide__ = True
            trust = _seam.body_types(self.func, failure)
            return _seam.call(self.name, _seam.whole(input), lambda: original(self, input), trust=trust)

        return call

    def around_async(original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: Any, input: Any) -> Any:  # noqa: A002
            __tracebackhide__ = True
            trust = _seam.body_types(self.func, failure)
            return await _seam.acall(self.name, _seam.whole(input), lambda: original(self, input), trust=trust)

        return call

    plain = _seam.member(module, "BetaFunctionTool", dist=_DIST)
    _seam.patch(plain, "call", around, dist=_DIST, takes=("input",), reads=("func",))
    awaited = _seam.member(module, "BetaAsyncFunctionTool", dist=_DIST)
    _seam.patch(awaited, "call", around_async, dist=_DIST, takes=("input",), reads=("func",))


def _runners(module: ModuleType) -> None:
    failure = _seam.member(module, "ToolError", dist=_DIST)

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        # Plain for both runners: what the async one returns is awaited by its caller.
        def run_tool(self: Any, tool: Any, tool_use: Any) -> Any:
            _seam.met(_asked(tool_use))
            if not hasattr(tool, "func"):  # a function tool is met where it is called
                trust = trusted_types(type(tool).call, failure)
                arguments = _seam.whole(tool_use.input)
                body = _seam.recorded(tool.call, name=tool_use.name, arguments=arguments, trust=trust)
                tool = _seam.in_place_of(tool, call=body)
            return original(self, tool, tool_use)

        return run_tool

    for name in ("BaseSyncToolRunner", "BaseAsyncToolRunner"):
        runner = _seam.member(module, name, dist=_DIST)
        _seam.patch(runner, "_run_tool", around, dist=_DIST, takes=("tool", "tool_use"), reads=("call",))


def _toolsets(module: ModuleType) -> None:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        def tool_result(self: Any, tool_use: Any) -> Any:
            _seam.met(_asked(tool_use))
            trust = trusted_types(type(self).call)
            body = _seam.recorded(self.call, name=tool_use.name, arguments=_seam.whole(tool_use.input), trust=trust)
            return original(_seam.in_place_of(self, call=body), tool_use)

        return tool_result

    for name in ("BetaRunnableToolset", "BetaAsyncRunnableToolset"):
        toolset = _seam.member(module, name, dist=_DIST)
        _seam.patch(toolset, "tool_result", around, dist=_DIST, takes=("tool_use",), reads=("call",))


_INSTALLERS = {"_beta_functions": _function_tools, "_beta_runner": _runners, "_runnable": _toolsets}


def _asked(tool_use: Any) -> _seam.ToolCall:
    return _seam.ToolCall(tool_use.id, tool_use.name, tool_use.input)
