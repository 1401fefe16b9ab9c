"""What the plugin costs those who do not use it: no heavy import, no fixture, no module patched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from project import Project

HEAVY = ("yaml", "opentelemetry", "deepdiff", "httpx", "httpx2", "openai", "anthropic", "pydantic", "_Watcher")
OURS_LATE = (
    "_hooks",
    "_life",
    "_testreport",
    "_run",
    "_store",
    "_codec",
    "_compare",
    "_render",
    "boundaries",
    "_relay",
)
"""Rooms of the package that only a marked test needs."""

CONFTEST = """
import json, pathlib, sys

def pytest_unconfigure(config):
    seen = [*sys.modules, *(type(finder).__name__ for finder in sys.meta_path)]
    pathlib.Path(__file__).with_name("seen.json").write_text(json.dumps(seen))
"""
PLAIN = """
import threading

def test_plain(request):
    assert not [name for name in request.fixturenames if "spanchain" in name or "cassette" in name]
    assert threading.Thread.start.__module__ == "threading"

def test_another(tmp_path):
    assert tmp_path.exists()
"""


@pytest.fixture
def bare(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project of unmarked tests that says at its end what was imported."""
    if sys.dont_write_bytecode:
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(pytester.path.parent / "bytecode"))
        monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(PLAIN)
    return pytester


def seen(bare: pytest.Pytester, *args: str) -> set[str]:
    """The modules, and the classes of import finders, at the end of a session."""
    file = bare.path / "seen.json"
    file.unlink(missing_ok=True)
    result = bare.runpytest_subprocess("-p", "no:cacheprovider", *args)
    assert result.ret == 0, result.stdout.str()
    return set(json.loads(file.read_text()))


def heavy(modules: set[str]) -> set[str]:
    """Those that only a marked test may import."""
    late = {f"pytest_spanchain.{name}" for name in OURS_LATE}
    return {name for name in modules if name in HEAVY or name in late or name.startswith("opentelemetry.")}


@pytest.mark.parametrize("args", [("--collect-only",), ()], ids=["collecting", "running"])
def test_alone_it_imports_nothing_heavy(
    bare: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    without = seen(bare, *args)
    with_us = seen(bare, "-p", "pytest_spanchain.plugin", *args)
    assert "pytest_spanchain.plugin" in with_us - without
    assert heavy(with_us) == set()
    # And of the rest, only what is ours: a standard library module more would be a millisecond more.
    others = {name for name in with_us - without if not name.startswith("pytest_spanchain")}
    assert len(others) <= 5, others


def test_among_all_installed_plugins_it_imports_nothing_heavy(bare: pytest.Pytester) -> None:
    fair = ("-p", "no:hypothesispytest", "-W", "ignore")
    with_us = seen(bare, *fair, "-o", "asyncio_default_fixture_loop_scope=function")
    assert "pytest_spanchain.plugin" in with_us
    without = seen(bare, *fair, "-p", "no:spanchain", "-o", "asyncio_default_fixture_loop_scope=function")
    assert "pytest_spanchain.plugin" not in without
    assert heavy(with_us) - heavy(without) == set()


def test_a_marked_test_that_is_not_selected_imports_nothing_heavy(
    bare: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    marked = "import pytest\n\n@pytest.mark.cassette\ndef test_marked(spanchain): ...\n"
    bare.makepyfile(test_marked=marked)
    deselected = seen(bare, "-p", "pytest_spanchain.plugin", "-k", "plain")
    assert heavy(deselected) <= {"pytest_spanchain._store", "pytest_spanchain._codec"}
    # The counter-proof: this test can see what a marked test imports.
    recorded = seen(bare, "-p", "pytest_spanchain.plugin", "--record-mode=once")
    assert {"opentelemetry.sdk.trace", "pytest_spanchain._run", "_Watcher"} <= heavy(recorded)


def test_unmarked_tests_beside_marked_ones_get_no_fixture(project: Project) -> None:
    project.write(
        """
@pytest.mark.cassette
def test_marked(request):
    assert request.fixturenames[0] == "_spanchain_run"
    ask("hello")

def test_plain(request):
    assert not [name for name in request.fixturenames if "spanchain" in name or "cassette" in name]
    assert ask("live") == "You said: live"
"""
    )
    result = project.record("--setup-show")
    assert result.outcomes == {"passed": 2}
    (plain,) = [line for line in result.out.splitlines() if "test_it.py::test_plain" in line]
    assert "fixtures used" in plain
    assert "spanchain" not in plain
    assert result.counts == {"replayed": 0, "recorded": 1, "live": 1, "unverified": 0}
    assert Path(project.cassettes()[0]).name.startswith("test_marked-")


def test_unmarked_tests_alone_get_no_hook_but_one(project: Project) -> None:
    project.write(
        """
def test_plain(pytestconfig):
    assert not pytestconfig.pluginmanager.has_plugin("spanchain-runs")
    ours = pytestconfig.pluginmanager.get_plugin("spanchain")
    per_test = ("pytest_runtest_protocol", "pytest_runtest_call", "pytest_fixture_setup", "pytest_runtest_makereport")
    assert not [name for name in per_test if hasattr(ours, name)]
"""
    )
    result = project.run(process=True)
    assert result.outcomes == {"passed": 1}, result.out


LATE = {
    "before its setup": "@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_protocol(item):\n    mark(item)",
    "first in its setup": "@pytest.hookimpl(tryfirst=True)\ndef pytest_runtest_setup(item):\n    mark(item)",
    "last in its setup": "@pytest.hookimpl(trylast=True)\ndef pytest_runtest_setup(item):\n    mark(item)",
    "after its setup": ("@pytest.hookimpl(wrapper=True)\ndef pytest_runtest_setup(item):\n    yield\n    mark(item)"),
}


@pytest.mark.parametrize("when", LATE)
def test_a_test_that_is_marked_only_when_it_runs_has_a_run(project: Project, when: str) -> None:
    project.pytester.makeconftest(
        f"import pytest\n\ndef mark(item):\n    item.add_marker('cassette')\n\n{LATE[when]}\n"
    )
    project.write(
        """
@pytest.mark.parametrize("number", [1, 2])
def test_it(number):
    assert ask("hello") == "You said: hello"
"""
    )
    refused = project.run()
    assert refused.outcomes.keys() <= {"failed", "errors"}, refused.out
    assert "there is no cassette" in refused.out
    assert project.requests == 0
    recorded = project.record()
    assert recorded.outcomes == {"passed": 2}, recorded.out
    project.server.close()
    replayed = project.run()
    assert replayed.counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}, replayed.out


def test_a_test_that_is_marked_before_its_setup_has_its_fixtures_and_settings_in_the_run(project: Project) -> None:
    project.pytester.makeconftest(
        """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    item.add_marker("cassette")
"""
    )
    project.write(
        """
@pytest.fixture(scope="session")
def spanchain_config():
    return {"directory": "golden"}

@pytest.fixture
def greeting():
    return ask("in the fixture")

@pytest.mark.parametrize("number", [1, 2])
def test_it(greeting, number):
    assert greeting == "You said: in the fixture"
"""
    )
    recorded = project.record()
    assert recorded.outcomes == {"passed": 2}, recorded.out
    assert len(list((project.pytester.path / "golden").rglob("*.yaml"))) == 2
    project.server.close()
    replayed = project.run()
    assert replayed.counts == {"replayed": 2, "recorded": 0, "live": 0, "unverified": 0}, replayed.out


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_the_hooks_of_runs_cannot_be_taken_away_alone(project: Project, workers: list[str]) -> None:
    project.write('@pytest.mark.cassette\ndef test_it():\n    ask("hello")\n')
    result = project.run("-p", "no:spanchain-runs", "--record-mode=once", *workers, process=True)
    assert "use -p no:spanchain instead" in result.out + result.err
    assert result.code != 0
    assert project.requests == 0
