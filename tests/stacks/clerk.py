"""A shop's clerk, on whom most frameworks are tried: how its model answers, and how its tools tell that they ran.

The tools are not here: each module declares its own, in the words of its framework, and that is what it tests.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import model_replies
from model_replies import ToolCall, answer
from sdks import http
from servers import Reply, Request, Script

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI


def ledger(line: str) -> None:
    """Tell, outside of any recording, that a tool's body ran: ``Proof.ran`` has the lines."""
    with open(os.environ["AGENT_LEDGER"], "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def calls(*tools: ToolCall, preface: str = "") -> Script:
    """A model that asks for these tools at once, then says what they said, in a sentence of its own.

    Args:
        tools: the calls.
        preface: what it says with them.
    """
    return _asks(tools, preface, lambda said: f"Said: {'; '.join(said)}.")


def repeats(*tools: ToolCall, preface: str = "") -> Script:
    """A model that asks for these tools at once, then repeats what they said, and adds no word.

    Args:
        tools: the calls.
        preface: what it says with them.
    """
    return _asks(tools, preface, " / ".join)


def async_client() -> Any:
    """What an SDK may be given as its client: its connections do not outlive the loop that they were made in."""
    return http.AsyncClient(limits=_NOTHING_KEPT, verify=False)


@pytest.fixture
def model() -> Iterator[ChatOpenAI]:
    """The model as langchain and langgraph take it."""
    from langchain_openai import ChatOpenAI

    with http.Client(limits=_NOTHING_KEPT, verify=False) as client:
        yield ChatOpenAI(model="gpt-test", http_client=client, http_async_client=async_client(), max_retries=0)


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """A loop to be found: what runs an agent synchronously makes one that nobody closes, if there is none."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    made.close()
    asyncio.set_event_loop(None)


def agents_home() -> Path | None:
    """Where the package of openai-agents lies, if it is installed."""
    try:
        return Path(str(metadata.distribution("openai-agents").locate_file("agents")))
    except metadata.PackageNotFoundError:
        return None


@pytest.fixture(scope="module")
def sdk() -> Iterator[Any]:
    """openai-agents, whose package has the name of a module of this test-suite."""
    home = agents_home()
    if home is None:
        pytest.skip("openai-agents is not installed")
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "agents"}
    for name in ours:
        del sys.modules[name]
    sys.path.insert(0, str(home.parent))
    try:
        yield importlib.import_module("agents")
    finally:
        sys.path.remove(str(home.parent))
        # Its own submodules stay: what it does at exit imports some.
        sys.modules.pop("agents", None)
        sys.modules.update(ours)


def _asks(tools: Sequence[ToolCall], preface: str, tells: Callable[[Sequence[str]], str]) -> Script:
    def script(request: Request) -> Reply:
        said = model_replies.tool_results(request)
        return answer(request, tells(said)) if said else answer(request, preface, tools=tools)

    return script


_NOTHING_KEPT = http.Limits(max_keepalive_connections=0)
