"""Frameworks whose agents have tools in MCP servers: nothing of the servers is there in replay."""

# The libraries are not all there in every environment.
# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore, no-any-return"

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from clerk import async_client, calls
from clerk import loop as loop
from clerk import sdk as sdk
from openai import AsyncOpenAI
from starts import STARTED

from model_replies import ToolCall
from proof import Proof, Stack

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp_everything

STACK = Stack(
    name="mcp in frameworks",
    dists=("mcp", "fastmcp", "pydantic-ai-slim", "openai-agents"),
    records="tools of MCP servers over stdio that agents of pydantic-ai, openai-agents and LangChain (through"
    " langchain-mcp-adapters), and fastmcp's client, use",
    limits=("A framework's own span around a call of a tool is compared like any other span.",),
)

EVERYTHING = str(mcp_everything.__file__)
ADD = ToolCall("add", {"a": 1, "b": 2}, id="a")


def holds(proof: Proof, agent: Any) -> Any:
    """As ``Proof.holds``; and a server was started for the recording, and for no replay."""
    STARTED.clear()
    recorded = proof.holds(agent, ran=["started stdio", "add 1 2"])
    assert recorded.raised is None
    assert len([start for start in STARTED if EVERYTHING in start]) == 1, "one server, of the recording"
    return recorded


def test_pydantic_ai(proof: Proof) -> None:
    pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    pytest.importorskip("fastmcp", reason="fastmcp, by which pydantic-ai reaches MCP servers, is not installed")
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai import Agent
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def agent() -> str:
        client = AsyncOpenAI(http_client=async_client())
        model = OpenAIChatModel("gpt-test", provider=OpenAIProvider(openai_client=client))
        transport = StdioTransport(sys.executable, [EVERYTHING, str(proof.ledger)], keep_alive=False)
        async with Agent(model, toolsets=[MCPToolset(transport)]) as clerk:
            return str((await clerk.run("What is the sum?")).output)

    proof.server.script(calls(ADD))
    recorded = holds(proof, agent)
    assert "3" in recorded.value
    assert [span.name for span in recorded.verdict.live if span.kind == "mcp"].count("tools/call add") == 1


def test_openai_agents(proof: Proof, sdk: Any) -> None:
    servers = importlib.import_module("agents.mcp")

    async def agent() -> str:
        model = sdk.OpenAIChatCompletionsModel("gpt-test", AsyncOpenAI(http_client=async_client()))
        options = {"command": sys.executable, "args": [EVERYTHING, str(proof.ledger)]}
        async with servers.MCPServerStdio(params=options) as server:
            clerk = sdk.Agent(name="clerk", model=model, mcp_servers=[server])
            return str((await sdk.Runner.run(clerk, "What is the sum?")).final_output)

    proof.server.script(calls(ADD))
    recorded = holds(proof, agent)
    assert "3" in recorded.value


def test_langchain(proof: Proof) -> None:
    if not mcp_everything.FIRST:
        pytest.skip("langchain-mcp-adapters 0.3 needs mcp 1.x")
    adapters = pytest.importorskip("langchain_mcp_adapters.client", reason="langchain-mcp-adapters is not installed")
    load_mcp_tools = importlib.import_module("langchain_mcp_adapters.tools").load_mcp_tools
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    async def agent() -> Any:
        server = {"transport": "stdio", "command": sys.executable, "args": [EVERYTHING, str(proof.ledger)]}
        client = adapters.MultiServerMCPClient({"sums": server})
        async with client.session("sums") as opened:
            tools = await load_mcp_tools(opened)
            model = ChatOpenAI(model="gpt-test", http_async_client=async_client(), max_retries=0)
            clerk: Any = create_agent(model, [tool for tool in tools if tool.name == "add"])
            said = await clerk.ainvoke({"messages": [("user", "What is the sum?")]})
        return said["messages"][-1].content

    proof.server.script(calls(ADD))
    recorded = holds(proof, agent)
    assert "3" in recorded.value


def test_fastmcp_client(proof: Proof) -> None:
    fastmcp = pytest.importorskip("fastmcp", reason="fastmcp is not installed")
    from fastmcp.client.transports import StdioTransport

    async def agent() -> Any:
        transport = StdioTransport(sys.executable, [EVERYTHING, str(proof.ledger)], keep_alive=False)
        async with fastmcp.Client(transport) as client:
            tools = sorted(tool.name for tool in await client.list_tools())
            return tools, (await client.call_tool("add", {"a": 1, "b": 2})).data.result

    recorded = holds(proof, agent)
    assert recorded.value[1] == 3
