"""CrewAI: what a tool runs, through function calling (``run``, ``arun``) and through text (``invoke``, ``ainvoke``).

Validation, usage limits, caches, events, retries and the wording of errors are the framework's, in replay too. Tools by
which agents ask each other just run: what the other agent does is recorded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "crewai"
_AGENTS = "crewai.tools.agent_tools."
_BODIES = ("func", "_run", "_arun")
_SEAMS: dict[str, tuple[dict[str, dict[str, str]], tuple[str, ...]]] = {
    "base_tool": (
        {"BaseTool": {"run": "_run", "arun": "_arun"}, "Tool": {"run": "func", "arun": "_arun"}},
        ("args", "kwargs"),
    ),
    "structured_tool": ({"CrewStructuredTool": {"invoke": "func", "ainvoke": "func"}}, ("input", "kwargs")),
}
"""By module: the methods of its classes, with the body that each of them runs, and what they take."""


def install(module: ModuleType) -> None:
    """Patch one of the modules of ``crewai`` that run tools.

    Raises:
        BoundaryError: it looks different.
    """
    # Known by what it holds: the package gives some of its modules the name of another. The second of the two that hold
    # this may have taken its reference already.
    if hasattr(module, "parse_tool_call_args"):
        _seam.takes_up(module, "parse_tool_call_args", _asked)
        return
    seams, takes = _SEAMS["structured_tool" if module.__name__.endswith("structured_tool") else "base_tool"]
    around = _around(
        _seam.member(module, "sanitize_tool_name", dist=_DIST),
        _seam.classes(module.__name__, names=("ToolFailure",)),
    )
    for name, methods in seams.items():
        tool = _seam.member(module, name, dist=_DIST)
        for method, body in methods.items():
            _seam.patch(tool, method, around, dist=_DIST, takes=takes, reads=(body,))
    if "BaseTool" in seams:
        _seam.uses(module.BaseTool, "_original_tool", dist=_DIST)


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    yield _seam.ToolCall(given["call_id"], given["func_name"], given["func_args"])


def _around(
    sanitized: Callable[[str], str], returned: tuple[type, ...]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(original: Callable[..., Any]) -> Callable[..., Any]:
        # Plain for all: what the async ones return is awaited by their caller.
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            if _asks_agents(self):
                return original(self, *args, **kwargs)
            bodies: dict[str, Any] = {
                name: _seam.recorded(
                    body,
                    name=sanitized(self.name),
                    arguments=lambda *args, **kwargs: _named(self, args, kwargs),
                    trust=_seam.body_types(_real(body), *returned),
                )
                for name in _BODIES
                if (body := getattr(self, name, None)) is not None
            }
            return original(_seam.in_place_of(self, **bodies), *args, **kwargs)

        return run

    return around


def _asks_agents(tool: Any) -> bool:
    real = getattr(tool, "_original_tool", None) or tool
    return type(real).__module__.startswith(_AGENTS)


def _real(body: Any) -> Any:
    """The user's function, where the framework's own ``Tool`` stands between."""
    return getattr(getattr(body, "__self__", None), "func", body)


def _named(tool: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    return _seam.named(tuple(tool.args_schema.model_fields) if tool.args_schema is not None else (), args, kwargs)
