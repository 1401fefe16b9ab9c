"""The matrix of stacks: which releases were tested, with what result, and what does not work.

A session of pytest with ``--matrix FILE`` writes what it saw; ``python tests/matrix.py FILE...`` makes
``docs/matrix.md`` of several such files, one of each environment.

Where tests run, ``Watch`` says with their reports what they are of and how often they replayed; where the session ends,
``Matrix`` adds the reports up. With xdist these are several processes, and reports are all that goes between them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from proof import Stack
from pytest_spanchain._run import Run
from pytest_spanchain._verdict import Verdict

DOC = Path(__file__).parents[1] / "docs" / "matrix.md"

_HEAD = """\
# Stacks

What is recorded of each stack, tested live against servers on loopback and then with everything down. This page is
written by `python tests/matrix.py` from the results of the tests in `tests/stacks`, in the environments that
`environments/` pins. "replays" counts runs that were served from a cassette, those of changed agents with them; "again"
counts tool bodies that ran and connections that were made in replay, and is "-" where each test asserts by itself that
none of its own servers and processes was needed.

| stack | releases | what is recorded | tests | replays | again |
| --- | --- | --- | --- | --- | --- |
"""


class Watch:
    """Tells, with the reports of a stack's test, of which stack it is, and how often it replayed."""

    def __init__(self) -> None:
        self._close = Run.close
        self._replays = 0
        self._before = 0

    @pytest.hookimpl
    def pytest_sessionstart(self) -> None:
        """Count at the one place where a run ends, whoever has begun it: the door for scripts, or pytest in pytest."""
        close = self._close

        def counted(run: Run, **how: Any) -> Verdict:
            again = run.verdict is not None
            verdict = close(run, **how)
            self._replays += verdict.replayed and not again
            return verdict

        Run.close = counted  # type: ignore[method-assign, assignment]

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Leave it as it was."""
        Run.close = self._close  # type: ignore[method-assign]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Reports take what the item has to say by then."""
        stack = getattr(getattr(item, "module", None), "STACK", None)
        if isinstance(stack, Stack):
            if call.when == "setup":
                item.user_properties.append(("stack", _new_row(stack)))
            if call.when == "teardown":
                item.user_properties.append(("seen", {"replays": self._replays - self._before}))
        if call.when == "teardown":
            self._before = self._replays
        return (yield)


class Matrix:
    """Collects what the tests of stacks come to.

    Args:
        file: where it is written at the end.
        environment: name of the pinned environment.
    """

    def __init__(self, file: Path, *, environment: str) -> None:
        self._file = file
        self._environment = environment
        self._rows: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test, and what was seen of it."""
        properties: list[tuple[str, Any]] = list(report.user_properties)
        new: dict[str, Any] | None = next((value for name, value in properties if name == "stack"), None)
        if new is None:
            return
        row = self._rows.setdefault(new["name"], new)
        if report.when == "call" or not report.passed:
            row["tests"][report.outcome] = row["tests"].get(report.outcome, 0) + 1
        if report.when == "teardown":
            for seen in (value for name, value in properties if name == "seen"):
                for key, count in seen.items():
                    row[key] = (row[key] or 0) + count

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """Write it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # By name: in which order processes tell of their tests is chance.
        found = {"environment": self._environment, "stacks": [self._rows[name] for name in sorted(self._rows)]}
        self._file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def render(files: Iterable[Mapping[str, Any]]) -> str:
    """The page, from what sessions wrote."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for file in files:
        for row in file["stacks"]:
            rows.setdefault(row["name"], []).append(row)
    lines, limits = [], []
    for name in sorted(rows, key=str.lower):
        of_stack = rows[name]
        releases = "<br>".join(dict.fromkeys(_releases(row) for row in of_stack))
        tests = "<br>".join(_tests(row) for row in of_stack)
        again = _again(of_stack)
        replays = sum(row["replays"] for row in of_stack)
        lines.append(f"| {name} | {releases} | {of_stack[0]['records']} | {tests} | {replays} | {again} |")
        if of_stack[0]["limits"]:
            limits += [f"**{name}**", "", *(f"- {limit}" for limit in of_stack[0]["limits"]), ""]
    page = _HEAD + "\n".join(lines) + "\n"
    return page + "\n## Known limits\n\n" + "\n".join(limits).rstrip() + "\n" if limits else page


def _new_row(stack: Stack) -> dict[str, Any]:
    versions = {}
    for dist in stack.dists:
        try:
            versions[dist] = metadata.version(dist)
        except metadata.PackageNotFoundError:  # only some environments have it
            continue
    return {
        "name": stack.name,
        "versions": versions,
        "records": stack.records,
        "limits": list(stack.limits),
        "tests": {},
        "replays": 0,
        "again": None,  # until a proof counts it
    }


def _again(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = [row["again"] for row in rows if row["again"] is not None]
    return str(sum(counts)) if counts else "-"


def _releases(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{dist} {version}" for dist, version in row["versions"].items())


def _tests(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(row["tests"].items(), key=lambda item: item[0]))


if __name__ == "__main__":
    DOC.write_text(render(json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]), "utf-8")
