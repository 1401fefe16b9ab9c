"""FastMCP: the function of a tool that a server in this process runs.

Validation, injected parameters, time limits, middleware, errors and the form of results are the framework's, in replay
too. What goes over the wire to servers elsewhere is MCP's, and no matter of this module.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "fastmcp"


def install(module: ModuleType) -> None:
    """Patch ``fastmcp.tools.function_tool``.

    Raises:
        BoundaryError: it looks different.
    """
    tool = _seam.member(module, "FunctionTool", dist=_DIST)
    result = _seam.member(module, "ToolResult", dist=_DIST)

    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        # Plain: what it returns is awaited by its caller.
        def run(self: Any, arguments: Any) -> Any:
            _seam.met(_seam.ToolCall("", self.name, arguments))
            # What it gives tools to raise may come back, too.
            trust = _seam.body_types(self.fn, result, *_seam.classes("fastmcp.exceptions"))
            body = _seam.recorded(self.fn, name=self.name, arguments=arguments, trust=trust)
            return original(_seam.in_place_of(self, fn=body), arguments)

        return run

    _seam.patch(tool, "run", around, dist=_DIST, takes=("arguments",), reads=("fn",))
