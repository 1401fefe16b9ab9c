"""Shared fixtures: a scripted model server, and the environment that points the SDKs to it."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path

import anthropic  # noqa: F401 - imported once here, or every in-process pytester run imports the SDKs anew
import hypothesis  # noqa: F401 - as it is imported, it looks for who holds what, which nobody sees of what is frozen
import openai  # noqa: F401
import pytest

from matrix import Matrix, Watch
from project import Project
from proof import Proof, Stack
from servers import ModelServer


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--matrix", metavar="FILE", help="write what the tests of stacks came to, for docs/matrix.md")


def pytest_configure(config: pytest.Config) -> None:
    if file := config.getoption("--matrix"):
        config.pluginmanager.register(Watch(), "matrix-watch")
        if not hasattr(config, "workerinput"):  # a worker of xdist tells the controller, which writes
            config.pluginmanager.register(Matrix(Path(file), environment=Path(file).stem), "matrix")


def pytest_collection_finish() -> None:
    # What the libraries are made of is no garbage: it need not be looked at after each test.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What a framework left to the collector is taken away with the test that made it.

    Clients that nobody closes come to it in cycles. Where it reaches a socket before its client, that is a warning, and
    so an error of whichever test is running, perhaps minutes later. A socket that we left in a cycle would go unseen
    here, and be seen in the tests of the same boundaries that are not of stacks.
    """
    result = yield
    if item.path.parent.name == "stacks":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A model server without a script."""
    with ModelServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite itself may run under CI, whose rules for recording are tested where they are meant."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture
def sdk_env(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """The server, with both SDKs pointed to it."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    return server


@pytest.fixture
def project(pytester: pytest.Pytester, sdk_env: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project of a user, whose model echoes."""
    return Project(pytester, sdk_env, monkeypatch)


@pytest.fixture
def proof(
    request: pytest.FixtureRequest, sdk_env: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proof]:
    """A cassette to be, a model that is up, and a ledger that ``AGENT_LEDGER`` names."""
    stack = request.module.STACK
    assert isinstance(stack, Stack)
    ledger = tmp_path / "ledger.txt"
    monkeypatch.setenv("AGENT_LEDGER", str(ledger))
    proof = Proof(tmp_path / "run.yaml", sdk_env, ledger)
    yield proof
    proof.close()
    request.node.user_properties.append(("seen", {"again": proof.connections + proof.tools_run_again}))
