"""The matrix of stacks: which releases were tested, with what result, and what does not work.

A session of pytest with ``--matrix FILE`` writes what it saw; ``python tests/matrix.py FILE...`` makes
``docs/matrix.md`` of several such files, one of each environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from proof import Stack

DOC = Path(__file__).parents[1] / "docs" / "matrix.md"

_HEAD = """\
# Stacks

What is recorded of each stack, tested live against servers on loopback and then with everything down. This page is
written by `python tests/matrix.py` from the results of the tests in `tests/stacks`, in the environments that
`environments/` pins; "again" counts tool bodies that ran and connections that were made in replay.

| stack | releases | what is recorded | tests | replays | again |
| --- | --- | --- | --- | --- | --- |
"""


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
        self._stacks: dict[str, Stack] = {}

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Know the stacks of the modules that could be imported."""
        for item in items:
            stack = getattr(getattr(item, "module", None), "STACK", None)
            if isinstance(stack, Stack):
                self._stacks[item.nodeid.partition("::")[0]] = stack

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test, and what its proof saw."""
        stack = self._stacks.get(report.nodeid.partition("::")[0])
        if stack is None:
            return
        row = self._rows.setdefault(stack.name, _new_row(stack))
        if report.when == "call" or not report.passed:
            row["tests"][report.outcome] = row["tests"].get(report.outcome, 0) + 1
        if report.when == "teardown":
            properties: list[tuple[str, Any]] = list(report.user_properties)
            for seen in (value for name, value in properties if name == "stack"):
                for key in ("replays", "connections", "tools_run_again"):
                    row[key] += seen[key]

    def pytest_sessionfinish(self) -> None:
        """Write it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        found = {"environment": self._environment, "stacks": list(self._rows.values())}
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
        again = sum(row["tools_run_again"] + row["connections"] for row in of_stack)
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
        "connections": 0,
        "tools_run_again": 0,
    }


def _releases(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{dist} {version}" for dist, version in row["versions"].items())


def _tests(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(row["tests"].items(), key=lambda item: item[0]))


if __name__ == "__main__":
    DOC.write_text(render(json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]), "utf-8")
