"""The seams of frameworks, for all that are there: what they cost without a run, and releases that they do not know."""

# The libraries are not there in every environment.
# mypy: disable-error-code="unused-ignore"

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import pytest

from pytest_spanchain import use_cassette
from pytest_spanchain._ownership import Nobody
from pytest_spanchain._run import OWNERSHIP
from pytest_spanchain.boundaries import FRAMEWORKS, _seam
from pytest_spanchain.errors import BoundaryError
from releases import other, other_release

Tool = Callable[[], Any]


class Shop:
    """A function that is a tool, and how often it ran."""

    def __init__(self) -> None:
        self.ran = 0

    def function(self) -> Callable[..., str]:
        def lookup(order: str) -> str:
            """State of an order.

            Args:
                order: its number.
            """
            self.ran += 1
            return f"{order} delivered"

        lookup.__annotations__ = {"order": str, "return": str}  # old releases of google-genai take no texts
        return lookup


def _anthropic(function: Callable[..., Any]) -> Tool:
    from anthropic import beta_tool

    tool = beta_tool(function)
    return lambda: tool.call({"order": "1"})


def _crewai(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("crewai.tools").tool("lookup")(function)
    return lambda: made.run(order="1")


def _crewai_structured(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("crewai.tools").tool("lookup")(function).to_structured_tool()
    return lambda: made.invoke({"order": "1"})


def _fastmcp(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("fastmcp.tools.function_tool").FunctionTool.from_function(function)
    return lambda: asyncio.run(made.run({"order": "1"})).content[0].text


def _google_genai(function: Callable[..., Any]) -> Tool:
    invoke = importlib.import_module("google.genai._extra_utils").invoke_function_from_dict_args
    return lambda: invoke({"order": "1"}, function)


def _langchain(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("langchain_core.tools").tool(function)
    return lambda: made.invoke({"order": "1"})


def _langchain_async(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("langchain_core.tools").tool(function)
    return lambda: asyncio.run(made.ainvoke({"order": "1"}))


def _llama_index(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("llama_index.core.tools").FunctionTool.from_defaults(fn=function)
    return lambda: made.call(order="1").content


def _llama_index_async(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("llama_index.core.tools").FunctionTool.from_defaults(fn=function)
    return lambda: asyncio.run(made.acall(order="1")).content


def _pydantic_ai(function: Callable[..., Any]) -> Tool:
    lib, models = importlib.import_module("pydantic_ai"), importlib.import_module("pydantic_ai.models.test")
    agent = lib.Agent(models.TestModel(), tools=[function])
    return lambda: asyncio.run(agent.run("Where?")).output


def _smolagents(function: Callable[..., Any]) -> Tool:
    made: Any = importlib.import_module("smolagents").Tool

    class Lookup(made):  # type: ignore[misc]
        name, description, output_type = "lookup", "State of an order.", "string"
        inputs = {"order": {"type": "string", "description": "its number"}}  # noqa: RUF012

        def forward(self, order: str) -> Any:
            return function(order)

    tool = Lookup()
    return lambda: tool("1")


def _strands(function: Callable[..., Any]) -> Tool:
    made = importlib.import_module("strands").tool(function)

    async def call() -> Any:
        stream = made.stream({"toolUseId": "c1", "name": "lookup", "input": {"order": "1"}}, {})
        assert inspect.isasyncgen(stream)
        events: list[Any] = [event async for event in stream]
        return events[-1]["tool_result"]["content"][0]["text"]

    return lambda: asyncio.run(call())


TOOLS: dict[str, Callable[[Callable[..., Any]], Tool]] = {
    "anthropic": _anthropic,
    "crewai": _crewai,
    "crewai structured": _crewai_structured,
    "fastmcp": _fastmcp,
    "google.genai": _google_genai,
    "langchain_core": _langchain,
    "langchain_core async": _langchain_async,
    "llama_index.core": _llama_index,
    "llama_index.core async": _llama_index_async,
    "pydantic_ai": _pydantic_ai,
    "smolagents": _smolagents,
    "strands": _strands,
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, shop: Shop) -> Tool:
    pytest.importorskip(request.param.partition(" ")[0], reason="not in this environment")
    return TOOLS[request.param](shop.function())


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What seams prepare for a call: stand-ins, recorded bodies, their types."""
    found: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(_seam, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            found.append(name)
            return real(*args, **kwargs)

        return call

    for name in ("in_place_of", "recorded", "call", "acall", "body_types"):
        monkeypatch.setattr(_seam, name, counted(name))
    return found


def test_without_a_run_nothing_is_prepared(tool: Tool, shop: Shop, prepared: list[str], tmp_path: Path) -> None:
    with use_cassette(tmp_path / "c.yaml", mode="rewrite"):
        value = tool()
    assert prepared, "the seam was not crossed"
    assert shop.ran == 1
    prepared.clear()
    assert tool() == value
    assert shop.ran == 2
    assert prepared == []
    with use_cassette(tmp_path / "c.yaml", mode="none"):
        assert tool() == value
    assert shop.ran == 2


def test_what_a_run_left_behind_is_refused(tool: Tool, shop: Shop, tmp_path: Path) -> None:
    left: list[Context] = []
    with use_cassette(tmp_path / "c.yaml", mode="rewrite"):
        tool()
        left.append(copy_context())
    said = ""
    try:
        said = str(left[0].run(tool))  # some frameworks make words for the model of it
    except Exception as error:  # noqa: BLE001  # others an exception of their own
        said = f"{error!r} {error.__cause__!r}"
    assert "had ended" in said
    assert shop.ran == 1


def test_what_comes_after_a_recording_is_told(tool: Tool, shop: Shop, tmp_path: Path) -> None:
    with use_cassette(tmp_path / "c.yaml", mode="rewrite"):
        tool()
    told: list[str] = []
    with OWNERSHIP.own(Nobody(met=lambda: told.append("met"))):
        tool()
    assert told
    assert shop.ran == 2


ASYNC = {
    "anthropic.lib.tools._beta_functions": "BetaAsyncFunctionTool.call",
    "anthropic.lib.tools._beta_runner": "BaseAsyncToolRunner._run_tool",
    "crewai.tools.base_tool": "BaseTool.arun",
    "crewai.tools.structured_tool": "CrewStructuredTool.ainvoke",
    "fastmcp.tools.function_tool": "FunctionTool.run",
    "google.genai._extra_utils": "invoke_function_from_dict_args_async",
    "google.adk.tools.function_tool": "FunctionTool.run_async",
    "llama_index.core.tools.function_tool": "FunctionTool.acall",
    "pydantic_ai.toolsets": "CombinedToolset.call_tool",
}


@pytest.mark.parametrize("home", ASYNC)
def test_what_is_awaited_is_still_seen_as_such(home: str, tmp_path: Path) -> None:
    """Frameworks look at the kind of a function to decide how to run it."""
    found: Any = pytest.importorskip(home, reason="not in this environment")
    with use_cassette(tmp_path / "c.yaml", mode="rewrite"):
        pass
    for name in ASYNC[home].split("."):
        found = getattr(found, name)
    assert inspect.iscoroutinefunction(found)
    assert hasattr(found, "__wrapped__"), "it is not patched"


RELIED_ON: dict[str, tuple[str, ...]] = {
    "anthropic.lib.tools._beta_functions": ("BetaFunctionTool", "call", "func"),
    "anthropic.lib.tools._beta_runner": ("BaseAsyncToolRunner", "_run_tool", "call"),
    "anthropic.lib.tools._toolsets._runnable": ("BetaRunnableToolset", "tool_result", "call"),
    "crewai.tools.base_tool": ("sanitize_tool_name", "run", "_arun", "_run", "func", "_original_tool"),
    "crewai.tools.structured_tool": ("CrewStructuredTool", "ainvoke", "func"),
    "fastmcp.tools.function_tool": ("ToolResult", "run", "fn"),
    "google.adk.flows.llm_flows.tools._caller": ("_call_tool_async", "run_async"),
    "google.adk.tools.function_tool": (
        "_prepare_invocation_args",
        "run_async",
        "func",
        "_spec",
        "has_signature",
        "_context_param_name",
    ),
    "google.genai._extra_utils": ("invoke_function_from_dict_args_async",),
    "langchain_core.tools.base": ("_filter_injected_args", "_get_runnable_config_param", "_arun", "arun"),
    "llama_index.core.agent.workflow.base_agent": ("BaseWorkflowAgent", "_call_tool", "acall"),
    "llama_index.core.tools.function_tool": ("acall", "_fn", "_async_fn", "_real_fn", "ctx_param_name"),
    "smolagents.tools": ("PipelineTool", "forward", "setup", "is_initialized", "decode"),
    "strands.tools.decorator": (
        "_tool_func",
        "_metadata",
        "_context_param",
        "_interrupt_state",
        "_interrupt_id",
        "v1:tool_call:",
        "interrupts",
    ),
    "strands.tools.executors._executor": ("_run_tool", "stream"),
    "strands.tools.tools": ("stream", "_tool_func"),
}
DISTS = {
    "anthropic": "anthropic",
    "crewai": "crewai",
    "fastmcp": "fastmcp",
    "google.adk": "google-adk",
    "google.genai": "google-genai",
    "langchain_core": "langchain-core",
    "llama_index": "llama-index-core",
    "smolagents": "smolagents",
    "strands": "strands-agents",
}


def installed(home: str, name: str) -> None:
    module = pytest.importorskip(home, reason="not in this environment")
    seam = importlib.import_module(f"pytest_spanchain.boundaries.frameworks.{FRAMEWORKS[home]}")
    release = other_release(module, name)
    if home == "strands.tools.decorator":  # it is another module's, and inherits how it asks
        vars(release)["ToolContext"] = other(module.ToolContext, name, "interrupt")
    seam.install(release)


@pytest.mark.parametrize(("home", "name"), [(home, name) for home, names in RELIED_ON.items() for name in names])
def test_a_release_in_which_a_name_is_another(home: str, name: str) -> None:
    dist = next(dist for begins, dist in DISTS.items() if home.startswith(begins))
    with pytest.raises(
        BoundaryError, match=rf"{dist} \S+ is not recognised: its tools would not be recorded.*\b{name}(\b| |\))"
    ):
        installed(home, name)


@pytest.mark.parametrize("home", RELIED_ON)
def test_a_release_in_which_nothing_of_it_is_another(home: str) -> None:
    installed(home, "no_such_name")
