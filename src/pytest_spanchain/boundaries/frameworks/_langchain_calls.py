"""Which calls of the model langchain and langgraph take up, and where; see ``_seam.takes_up``.

A call may be refused, answered by people or be the run's output, and then no body of a tool runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import _seam


def _dispatched(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    """Of nodes that run tools, and of people's decisions."""
    call = given.get("call") or given["tool_call"]
    yield _seam.ToolCall(call["id"] or "", call["name"], call["args"])


def called(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    """Of a tool, whoever calls it: its arguments may be refused."""
    yield _seam.ToolCall(given.get("tool_call_id") or "", given["self"].name, given["tool_input"])


def _output(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    """Of ``create_agent``, whose output may be a call of a tool that is none."""
    yield _seam.ToolCall("", given["self"].tool.name, given["tool_args"])


def _parsed(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    """Of ``with_structured_output``; a parser that hands on all calls is an agent's own."""
    if given["self"].first_tool_only:
        for call in given["result"][0].message.tool_calls:
            yield _seam.ToolCall(call["id"] or "", call["name"], call["args"])


TAKES_UP: dict[str, tuple[tuple[str, str, Callable[[Mapping[str, Any]], Iterator[_seam.ToolCall]]], ...]] = {
    "langgraph.prebuilt.tool_node": (("ToolNode", "_run_one", _dispatched), ("ToolNode", "_arun_one", _dispatched)),
    "langchain.agents.middleware.human_in_the_loop": (
        ("HumanInTheLoopMiddleware", "_create_action_and_config", _dispatched),
    ),
    "langchain.agents.structured_output": (("OutputToolBinding", "parse", _output),),
    "langchain_core.output_parsers.openai_tools": (
        ("JsonOutputKeyToolsParser", "parse_result", _parsed),
        ("PydanticToolsParser", "parse_result", _parsed),
    ),
}
"""By module: its classes and their functions, with what gives the calls."""
