"""A user's project to run pytest in: a test module, its cassettes, and what pytest said."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import caller
import pytest_spanchain
from model_replies import answer, last_text
from servers import ModelServer, Reply, Request

# An in-process run of pytest forgets what it imported: without this, each would get a second copy of the package, of
# which the patches that the first one left in the HTTP libraries know nothing. What others import late takes time.
LATE = ("deepdiff", "httpcore", "httpcore2", "opentelemetry.sdk.trace", "yaml")
for name in (*(module.name for module in pkgutil.walk_packages(pytest_spanchain.__path__, "pytest_spanchain.")), *LATE):
    importlib.import_module(name)

HEADER = "import pytest\nfrom caller import aask, ask, swallow\n"


def echo(request: Request) -> Reply:
    """A model that says what it was told."""
    return answer(request, f"You said: {last_text(request)}")


@dataclass(frozen=True)
class Result:
    """What one pytest session came to.

    Args:
        outcomes: count by outcome, without warnings.
        code: exit status.
        out: standard output.
        err: standard error.
    """

    outcomes: dict[str, int]
    code: int
    out: str
    err: str

    @property
    def counts(self) -> dict[str, int]:
        """The session line: ``replayed``, ``recorded``, ``live`` and ``unverified``; empty if there is none."""
        found: list[str] = re.findall(r"^spanchain: (\d+ replayed.*)$", self.out, re.MULTILINE)
        assert len(found) <= 1, f"{len(found)} session lines:\n{self.out}"
        return {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", found[0])} if found else {}


class Project:
    """A directory with tests, and a model that they can reach.

    Args:
        pytester: pytest's own fixture.
        server: the model; it echoes unless it is given another script.
        monkeypatch: pytest's own fixture; processes of their own find ``caller`` through the environment.
    """

    def __init__(self, pytester: pytest.Pytester, server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.server = server
        self.find(Path(caller.__file__).parent, monkeypatch=monkeypatch)
        if sys.dont_write_bytecode:  # nor could processes of their own: each would compile two seconds long
            monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
            monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(pytester.path.parent / "bytecode"))
        server.script(echo)
        self.ini()

    def find(self, *directories: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let processes of their own import from more directories."""
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, directories)), prepend=os.pathsep)

    @property
    def path(self) -> Path:
        """The root directory."""
        return self.pytester.path

    @property
    def requests(self) -> int:
        """How many requests the model has had."""
        return len(self.server.requests)

    def write(self, source: str, name: str = "test_it.py") -> None:
        """Write a test module; ``caller`` and ``pytest`` are imported in it. Another file is written as it is."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._put(path, (HEADER if path.name.startswith("test_") else "") + source)

    def edit(self, path: Path, old: str, new: str) -> None:
        """Replace something in a file."""
        self._put(path, path.read_text(encoding="utf-8").replace(old, new))

    def _put(self, path: Path, text: str) -> None:
        # Python goes by seconds and size: of what is as long, and comes at once, it would run what it compiled before.
        seconds = path.stat().st_mtime + 2 if path.exists() else None
        path.write_text(text, encoding="utf-8")
        if seconds is not None:
            os.utime(path, (seconds, seconds))

    def ini(self, *lines: str) -> None:
        """Write the ini file."""
        common = ["asyncio_mode = auto", "asyncio_default_fixture_loop_scope = function"]
        self.pytester.makeini("\n".join(["[pytest]", *common, *lines]))

    def run(self, *args: str, process: bool = False) -> Result:
        """Run pytest here, in a process of its own if asked."""
        run = self.pytester.runpytest_subprocess if process else self.pytester.runpytest_inprocess
        result = run("-p", "no:hypothesispytest", *args)
        out = result.stdout.str()
        try:
            outcomes = result.parseoutcomes()
        except ValueError:  # not even a summary line
            outcomes = {}
        outcomes = {name: count for name, count in outcomes.items() if not name.startswith("warning")}
        return Result(outcomes, int(result.ret), out, result.stderr.str())

    def record(self, *args: str) -> Result:
        """Record, and insist that all is well."""
        result = self.run("--record-mode=once", *args)
        assert result.code == 0, result.out
        return result

    def cassettes(self) -> list[Path]:
        """All cassettes."""
        return sorted((self.path / "cassettes").rglob("*.yaml"))

    def kept_aside(self) -> list[Path]:
        """Recordings that did not become cassettes."""
        return sorted((self.path / ".pytest_cache").rglob("*.yaml"))
