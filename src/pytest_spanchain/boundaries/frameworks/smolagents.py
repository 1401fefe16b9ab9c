"""smolagents: a tool's ``forward``, whoever calls the tool: a tool-calling agent, interpreted code, the user.

Checks and conversions of arguments and results are the library's, in replay too. ``setup`` counts as the body: it loads
what the body needs. ``final_answer`` touches nothing, and its answer may be any object, so it just runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "smolagents"


def install(module: ModuleType) -> None:
    """Patch ``smolagents.tools`` or ``smolagents.agents``.

    Raises:
        BoundaryError: it looks different.
    """
    if module.__name__.endswith("agents"):
        _seam.takes_up(getattr(module, "ToolCallingAgent", None), "process_tool_calls", _asked)
        return
    tool = _seam.member(module, "Tool", dist=_DIST)
    takes = ("sanitize_inputs_outputs",)
    reads = ("forward", "setup", "is_initialized")
    _seam.patch(tool, "__call__", _around, dist=_DIST, takes=takes, reads=reads)
    pipeline = _seam.member(module, "PipelineTool", dist=_DIST)
    _seam.patch(pipeline, "__call__", _around_whole, dist=_DIST, takes=takes, reads=("decode",))


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    for call in given["chat_message"].tool_calls:
        yield _seam.ToolCall(call.id, call.function.name, call.function.arguments)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if _is_final_answer(self):
            return original(self, *args, **kwargs)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self.is_initialized:
                self.setup()
            return self.forward(*args, **kwargs)

        def named(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
            return _named(self, args, kwargs)

        body = _seam.recorded(forward, name=self.name, arguments=named, trust=_seam.body_types(self.forward))
        return original(_seam.in_place_of(self, forward=body, is_initialized=True), *args, **kwargs)

    return call


def _around_whole(original: Callable[..., Any]) -> Callable[..., Any]:
    # Its ``forward`` is one of three steps that all use the model.
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        given = {name: value for name, value in kwargs.items() if name != "sanitize_inputs_outputs"}
        return _seam.call(
            self.name,
            _named(self, args, given),
            lambda: original(self, *args, **kwargs),
            trust=_seam.body_types(self.decode),
        )

    return call


def _named(tool: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return _seam.named(tuple(tool.inputs), args, kwargs)


def _is_final_answer(tool: Any) -> bool:
    return (type(tool).__module__, type(tool).__name__) == ("smolagents.default_tools", "FinalAnswerTool")
