"""The example's surroundings: a stand-in for the model while recording, nothing at all while replaying."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from model_server import ModelServer


@pytest.fixture(scope="session", autouse=True)
def model_server(pytestconfig: pytest.Config) -> Iterator[None]:
    """Point the SDK to the stand-in when recording, and to a port where nobody listens when replaying.

    Your own conftest needs nothing like this: it records from the real model with the real key.
    """
    recording = (pytestconfig.getoption("--record-mode", default=None) or "none") != "none"
    with pytest.MonkeyPatch.context() as env:
        env.setenv("OPENAI_API_KEY", "example")
        if recording:
            with ModelServer() as server:
                env.setenv("OPENAI_BASE_URL", server.url)
                yield
        else:
            env.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
            yield


@pytest.fixture(autouse=True)
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The shop's ledger, a fresh file for each test unless ``SHOP_LEDGER`` already names one."""
    path = Path(os.environ.get("SHOP_LEDGER") or tmp_path / "ledger.txt")
    monkeypatch.setenv("SHOP_LEDGER", str(path))
    return path
