"""The example's surroundings: a stand-in for the model while recording, nothing at all while replaying."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from messages_server import MessagesServer


@pytest.fixture(scope="session", autouse=True)
def messages_server(pytestconfig: pytest.Config) -> Iterator[None]:
    """Point the SDK to the stand-in when recording, and to a port where nobody listens when replaying.

    Your own conftest needs nothing like this: it records from the real model with the real key.
    """
    recording = (pytestconfig.getoption("--record-mode", default=None) or "none") != "none"
    with pytest.MonkeyPatch.context() as env:
        env.setenv("ANTHROPIC_API_KEY", "example")
        if recording:
            with MessagesServer() as server:
                env.setenv("ANTHROPIC_BASE_URL", server.url)
                yield
        else:
            env.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
            yield


@pytest.fixture(autouse=True)
def tickets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The desk's tickets, a fresh file for each test unless ``DESK_TICKETS`` already names one."""
    path = Path(os.environ.get("DESK_TICKETS") or tmp_path / "tickets.txt")
    monkeypatch.setenv("DESK_TICKETS", str(path))
    return path
