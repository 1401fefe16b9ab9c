"""Shared fixtures: a scripted model server, and the environment that points the SDKs to it."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic  # noqa: F401 - imported once here, or every in-process pytester run imports the SDKs anew
import openai  # noqa: F401
import pytest

from project import Project
from servers import ModelServer


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
