"""Child processes for the tests of the gateway: agents that are not in this process, in Node.js and in plain Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_replies import answer, last_text
from proof import REPLAYS, Proof
from pytest_spanchain import CassetteHandle
from pytest_spanchain.gateway import Gateway
from recording import Outcome, run_in
from servers import Reply, Request

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

PATIENCE = 60.0
PACKAGES = ("openai@6.49.0", "@opentelemetry/sdk-trace-base@2.12.1", "@opentelemetry/exporter-trace-otlp-http@0.223.1")

Work = Callable[[Gateway], Any]


def node_modules() -> Path:
    """A directory with the npm packages, installed once a machine."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    home = Path(tempfile.gettempdir()) / f"spanchain-node-{'-'.join(PACKAGES).replace('/', '-')}"
    if not home.exists():
        made = Path(tempfile.mkdtemp(dir=home.parent, prefix="spanchain-npm-"))
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(made), *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            shutil.rmtree(made)
            pytest.fail(f"npm did not install: {done.stderr}")
        try:
            made.rename(home)
        except OSError:  # another worker was quicker
            shutil.rmtree(made)
    return home / "node_modules"


def run(
    path: Path, work: Work, *, mode: str = "none", upstreams: dict[str, str] | None = None, **settings: Any
) -> Outcome:
    """Do something with a gateway, inside a cassette."""
    return run_in(path, lambda cassette: _through(cassette, work, upstreams), mode=mode, **settings)


def _through(cassette: CassetteHandle, work: Work, upstreams: dict[str, str] | None) -> Any:
    with cassette.gateway(upstreams=upstreams) as gateway:
        return work(gateway)


def holds(proof: Proof, work: Work, *, replays: int = REPLAYS, **settings: Any) -> Outcome:
    """Record with the model up, and replay with it down: the same value, and no connection."""
    recorded = run(proof.cassette, work, mode="rewrite", **settings)
    if recorded.failure is not None:
        raise recorded.failure
    if recorded.raised is not None:
        raise recorded.raised
    assert recorded.verdict.recorded
    assert not notes(recorded)
    proof.take_down()
    for _ in range(replays):
        again = run(proof.cassette, work, **settings)
        if again.failure is not None:
            raise again.failure
        assert again.value == recorded.value
        assert again.verdict.live_calls == 0
        assert not notes(again)
    proof.stays_untouched()
    return recorded


def breaks(proof: Proof, work: Work, **settings: Any) -> Outcome:
    """Replay something else: it is red, with nothing contacted."""
    changed = run(proof.cassette, work, **settings)
    assert changed.failure is not None, "a changed agent was green"
    proof.stays_untouched()
    return changed


def echo(request: Request) -> Reply:
    """A model that says what it was told."""
    return answer(request, f"You said {last_text(request)}.")


def node(source: str, home: Path) -> Work:
    """A Node.js program; gives what it printed."""
    modules = node_modules()
    program = home / "agent.mjs"

    def work(gateway: Gateway) -> str:
        program.write_text(source, encoding="utf-8")
        if not (home / "node_modules").exists():
            (home / "node_modules").symlink_to(modules)
        return printed(["node", str(program)], gateway.env)

    return work


def python(source: str, *arguments: str) -> Work:
    """A Python program, with ``ask`` of ``ASK``; gives what it printed."""

    def work(gateway: Gateway) -> str:
        return printed([sys.executable, "-c", ASK + source, *arguments], gateway.env)

    return work


def start(source: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """The same, without waiting for it."""
    command = [sys.executable, "-u", "-c", ASK + source]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(command: list[str], env: dict[str, str]) -> str:
    """What a program prints."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK = '''
import gzip, http.client, json, os, sys, threading, time, urllib.error, urllib.parse, urllib.request


def ask(url, body=None, **headers):
    """Status and text; an error of the connection is told by its name, with what came before it."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"content-type": "application/json", **names})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except http.client.IncompleteRead as error:
        return "IncompleteRead", error.partial.decode()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__, ""


OPENAI = os.environ["OPENAI_BASE_URL"] + "/chat/completions"


def chat(text, **more):
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], **more.pop("headers", {})}
    return ask(OPENAI, {"model": "gpt", "messages": [{"role": "user", "content": text}], **more}, **headers)


def said(answer):
    return json.loads(answer[1])["choices"][0]["message"]["content"]
'''
"""What a Python child begins with."""


def notes(outcome: Outcome) -> list[str]:
    """What the run has to say besides."""
    return list(outcome.verdict.notes)
