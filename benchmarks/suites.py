"""What a suite of marked tests costs in replay, and what the plugin costs a suite that does not use it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .corpora import CORPORA, Exchange
from .measure import Row, row
from .server import serving

EXCHANGES = 5
"""Of each test."""

_TEST = """
import json, os
from pathlib import Path
import httpx2, pytest

@pytest.fixture(scope="session")
def client():
    transport = None
    if "BARE" in os.environ:
        def answer(request):
            headers = {{"content-type": "application/json"}}
            return httpx2.Response(200, content=answers[request.content], headers=headers)

        transport, answers = httpx2.MockTransport(answer), {{}}
        client_answers.append(answers)
    with httpx2.Client(base_url=os.environ["URL"], trust_env=False, transport=transport) as client:
        yield client

client_answers = []

{mark}
@pytest.mark.parametrize("number", range({tests}))
def test_agent(client, number):
    exchanges = json.loads(Path(__file__).with_name(f"{{number}}.json").read_text())
    for answers in client_answers:
        answers.update((request.encode(), answer.encode()) for path, request, answer in exchanges)
    for path, request, answer in exchanges:
        got = client.post(path, content=request.encode(), headers={{"content-type": "application/json"}})
        if answer.startswith("{{"):
            assert got.json() == json.loads(answer)
        else:
            assert got.text == answer
"""
_UNMARKED = "import pytest\n\n@pytest.mark.parametrize('number', range({tests}))\ndef test_nothing(number):\n    pass\n"
_VCR = '@pytest.mark.vcr(match_on=["method", "uri", "body"])'
_PLUGINS = ("spanchain", "cassetter", "recording")


@dataclass(frozen=True)
class _Suite:
    mark: str
    plugin: str


_SUITES = {
    "pytest-spanchain": _Suite("@pytest.mark.cassette", "spanchain"),
    "cassetter": _Suite(_VCR, "cassetter"),
    "pytest-recording": _Suite(_VCR, "recording"),
    "bare": _Suite("", ""),
}
TARGETS = {
    ("small", "cassetter"): 0.35,
    ("small", "pytest-recording"): 0.15,
    ("ten-turn sessions", "cassetter"): 0.35,
    ("ten-turn sessions", "pytest-recording"): 0.3,
}


def replays(*, tests: int, rounds: int, seed: int) -> Iterator[Row]:
    """Overhead of a replayed test: CPU time of the suite, less that of one whose client answers from memory."""
    for name in ("small", "ten-turn sessions"):
        corpus = CORPORA[name](EXCHANGES * tests, seed)
        with tempfile.TemporaryDirectory() as directory, serving([*corpus, *corpus, *corpus]) as url:
            for side, suite in _SUITES.items():
                _write(Path(directory) / side, suite, corpus, tests=tests)
                if suite.plugin:
                    _run(Path(directory) / side, suite, url, "--record-mode=once")
            taken: dict[str, list[float]] = {side: [] for side in _SUITES}
            for _ in range(rounds):
                for side, suite in _SUITES.items():
                    mode = ["--record-mode=none"] if suite.plugin else []
                    taken[side].append(_run(Path(directory) / side, suite, url, *mode) / tests)
        overhead = {
            side: [turn - bare for turn, bare in zip(turns, taken["bare"], strict=True)]
            for side, turns in taken.items()
        }
        for side in ("cassetter", "pytest-recording"):
            yield row(
                "replay overhead per test",
                label(name, tests=tests),
                side,
                overhead["pytest-spanchain"],
                overhead[side],
                target=TARGETS[name, side],
            )


def label(corpus: str, *, tests: int) -> str:
    """What a suite is called in a row."""
    return f"{corpus}, {tests:,} tests of {EXCHANGES}"


def unused(*, rounds: int) -> Iterator[Row]:
    """What the installed plugin costs a session without a marked test: at the start, and each test."""
    taken: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for tests in (1, 2_000):
            place = Path(directory) / str(tests)
            place.mkdir()
            (place / "pytest.ini").write_text("[pytest]\n")
            (place / "test_nothing.py").write_text(_UNMARKED.format(tests=tests))
        for number in range(rounds + 1):
            for tests in (1, 2_000):
                for side, suite in (("ours", _SUITES["pytest-spanchain"]), ("bare", _SUITES["bare"])):
                    spent = _run(Path(directory) / str(tests), suite, "")
                    if number:
                        taken.setdefault((side, tests), []).append(spent)
    yield row("start of a session, unused", "1 unmarked test", "bare pytest", taken["ours", 1], taken["bare", 1])
    each = {
        side: [(many - one) / 1_999 for many, one in zip(taken[side, 2_000], taken[side, 1], strict=True)]
        for side in ("ours", "bare")
    }
    yield row("an unmarked test", "2,000 unmarked tests", "bare pytest", each["ours"], each["bare"])


def _write(place: Path, suite: _Suite, corpus: Sequence[Exchange], *, tests: int) -> None:
    place.mkdir()
    (place / "pytest.ini").write_text("[pytest]\n")
    (place / "test_agent.py").write_text(_TEST.format(mark=suite.mark, tests=tests))
    for number in range(tests):
        part = corpus[EXCHANGES * number : EXCHANGES * (number + 1)]
        told = [(exchange.path, exchange.request.decode(), exchange.answer.decode()) for exchange in part]
        (place / f"{number}.json").write_text(json.dumps(told))


def _run(place: Path, suite: _Suite, url: str, *arguments: str) -> float:
    """Milliseconds of CPU of a session of pytest.

    Raises:
        AssertionError: it was not green.
    """
    others = [f"-pno:{plugin}" for plugin in _PLUGINS if plugin != suite.plugin]
    command = [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", "-pno:asyncio", *others, *arguments]
    dropped = ("PYTHONDONTWRITEBYTECODE", "PYTEST_ADDOPTS")
    environ = {key: value for key, value in os.environ.items() if key not in dropped}
    environ.update({"URL": url} if suite.plugin else {"URL": url or "http://bare.test", "BARE": "1"})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-1000:]}")
    return 1e3 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
