"""The boundaries: where agent code leaves the process's own logic. One third-party library a file.

A library is never imported in order to be patched: what is already imported is patched when the first run starts, what
comes later is patched as it comes. Patches stay for the life of the process and do nothing while no run is active, so
that a thread that outlives its test meets the run's "closed" error and not the network.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

from .._forks import renewed
from .._run import OWNERSHIP, Run
from .._settings import Settings
from ..errors import BoundaryError
from . import _found, threads, tools
from ._loader import Watcher

CLIENTS = {
    "claude_agent_sdk._internal.client": "claude_agent_sdk",
    "claude_agent_sdk._internal.query": "claude_agent_sdk",
    "claude_agent_sdk._internal.transport.subprocess_cli": "claude_agent_sdk",
    "claude_agent_sdk.client": "claude_agent_sdk",
    "httpx": "httpx",
    "httpx2": "httpx",
    "aiohttp": "aiohttp",
    "http.client": "http_client",
    "urllib3.connectionpool": "urllib3",
    "httplib2": "httplib2",
    "botocore.httpsession": "botocore",
    "botocore.endpoint": "botocore",
    "botocore.waiter": "botocore",
    "grpc._channel": "grpc",
    "grpc.aio._channel": "grpc",
    "fastmcp.client.transports.memory": "mcp",
    "mcp.client._memory": "mcp",
    "mcp.client.client": "mcp",
    "mcp.client.session": "mcp",
    "mcp.client.sse": "mcp",
    "mcp.client.stdio": "mcp",
    "mcp.client.streamable_http": "mcp",
    "mcp.client.websocket": "mcp",
    "mcp.shared.memory": "mcp",
    "concurrent.futures.process": "multiprocessing",
    "joblib.externals.loky.process_executor": "multiprocessing",
    "loky.process_executor": "multiprocessing",
    "multiprocess.pool": "multiprocessing",
    "multiprocess.process": "multiprocessing",
    "multiprocess.spawn": "multiprocessing",
    "multiprocessing.pool": "multiprocessing",
    "multiprocessing.process": "multiprocessing",
    "multiprocessing.spawn": "multiprocessing",
    "subprocess": "subprocess",
    "asyncio.unix_events": "asyncio",
    "trio._subprocess": "trio",
    "openai._base_client": "retries",
    "anthropic._base_client": "retries",
}
"""Third-party module -> the module of ``clients``, with ``install(module)``, that knows it."""

FRAMEWORKS: dict[str, str] = {
    "anthropic.lib.tools._beta_functions": "anthropic_tools",
    "anthropic.lib.tools._beta_runner": "anthropic_tools",
    "anthropic.lib.tools._toolsets._runnable": "anthropic_tools",
    "pydantic_ai": "pydantic_ai",
    "langchain_core.tools": "langchain",
    "langchain_core.tools.base": "langchain",
    "langchain_core.output_parsers.openai_tools": "langchain",
    "langchain.agents.middleware.human_in_the_loop": "langchain",
    "langchain.agents.structured_output": "langchain",
    "langgraph.prebuilt.tool_node": "langchain",
    "langgraph.types": "langchain",
    "agents": "openai_agents",
    "google.genai._extra_utils": "google_genai",
    "crewai.agents.agent_executor": "crewai",
    "crewai.tools.base_tool": "crewai",
    "crewai.tools.structured_tool": "crewai",
    "crewai.utilities.agent_utils": "crewai",
    "fastmcp.tools.function_tool": "fastmcp",
    "google.adk.flows.llm_flows.tools._batch_executor": "google_adk",
    "google.adk.flows.llm_flows.tools._caller": "google_adk",
    "google.adk.tools.function_tool": "google_adk",
    "llama_index.core.agent.workflow.base_agent": "llama_index",
    "llama_index.core.agent.workflow.function_agent": "llama_index",
    "llama_index.core.agent.workflow.multi_agent_workflow": "llama_index",
    "llama_index.core.tools.function_tool": "llama_index",
    "smolagents.agents": "smolagents",
    "smolagents.tools": "smolagents",
    "strands.tools.decorator": "strands",
    "strands.tools.executors._executor": "strands",
    "strands.tools.tools": "strands",
}
"""The same for ``frameworks``: what runs tools."""

_NAMES = (*CLIENTS, *FRAMEWORKS)
_installed: tuple[ModuleType | None, ...] = ()
_lock = renewed(threading.Lock())
_MARK = "_spanchain_boundary"


@contextmanager
def around(run: Run) -> Iterator[None]:
    """Everything in place for one run, from its start to its end: library boundaries, its tools, and the run itself.

    The run is ended here, and not closed: closing it is the verdict, which is the caller's.
    """
    install()
    if problems := unrecognised(run.settings):
        raise BoundaryError("\n".join(problems))
    with ExitStack() as stack:
        listed = stack.enter_context(tools.install(run.settings.listed_tools, owner=run))
        stack.enter_context(_found.finding(run, listed=listed))
        run.start()
        try:
            yield
        finally:
            run.end()
            # A tool that somebody else has patched meanwhile was not recorded to the end.
            run.tried(stack.close)


def install() -> None:
    """Patch the watched libraries, now or when they are imported."""
    global _installed
    with _lock:
        threads.install()
        _watcher.start()
        imported = tuple(map(sys.modules.get, _NAMES))
        if imported == _installed:  # modules are equal only to themselves
            return
        _installed = imported
        for name, module in zip(_NAMES, imported, strict=True):
            # A module that is still being imported has no spec loaded to the end; the watcher is too late for it. And
            # what tests put in a module's place is none.
            if isinstance(module, ModuleType) and not getattr(module.__spec__, "_initializing", False):
                _install_one(name, module)
            elif module is not None:
                _installed = ()


def unrecognised(settings: Settings) -> list[str]:
    """Which of the libraries that are imported look so different that a run of these settings would miss their calls.

    Without the tools of a framework that changed, replay would run them again; who says ``tools="off"`` wants that.
    """
    names = [*CLIENTS, *(FRAMEWORKS if settings.finds_tools else ())]
    found = [getattr(sys.modules.get(name), _MARK, None) for name in names]
    return list(dict.fromkeys(one for one in found if isinstance(one, str)))


def _install_one(name: str, module: ModuleType) -> None:
    # Marked on the module, with what is wrong if it is not known: a library that is imported anew is patched anew, and
    # an alias of a patched one is not; nor is one tried twice, of which a part is patched.
    if getattr(module, _MARK, None) is not None:
        return
    home = f"{__name__}.clients.{CLIENTS[name]}" if name in CLIENTS else f"{__name__}.frameworks.{FRAMEWORKS[name]}"
    try:
        importlib.import_module(home).install(module)
    except BoundaryError as error:
        setattr(module, _MARK, str(error))
        for run in OWNERSHIP.active:  # imported while tests run
            if unrecognised(run.settings):
                run.note_error(str(error))
    else:
        setattr(module, _MARK, True)


def _told(name: str, module: ModuleType) -> None:
    with _lock:
        _install_one(name, module)


class _Watcher(Watcher):
    """Of the libraries, for the life of the process; a run has one of its own."""


_watcher = _Watcher(wants=lambda name: name in CLIENTS or name in FRAMEWORKS, told=_told)
