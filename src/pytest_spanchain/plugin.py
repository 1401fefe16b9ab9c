"""The door to pytest: options, fixtures, collection; and, where a marked test was collected, the hooks of runs.

Invariants:

* a session without a marked test pays for the options, and for a look at each test as it is collected and set up;
* nothing heavy is imported before the first marked test runs, or a fixture that such a test asks for and that outlives
  it; and unmarked tests get no fixture.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Generator, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from . import _fresh, _items, _options, _session, _sessionline, _settings
from ._stash import LIFE, SESSION
from .errors import UsageError

if TYPE_CHECKING:
    from ._trace import CassetteHandle

__tracebackhide__ = True  # pytest looks among a frame's globals, too: a user's failure is not about these hooks

FIXTURE_PLUGIN = "spanchain-cassette-fixture"
LINE_PLUGIN = "spanchain-session-line"
RUNS_PLUGIN = "spanchain-runs"
BLOCKED = f"{RUNS_PLUGIN} is blocked, but there are marked tests: use -p no:spanchain instead"


# --- options -----------------------------------------------------------------------------------------------------


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register our hookspecs."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini keys whose names are ours alone."""
    # The first hook that is called of a plugin that has just been loaded, also by a conftest.
    _fresh.watch_makers()
    _options.add(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """``--record-mode``: by now every installed plugin has added its options."""
    _options.add_shared(parser, early_config=early_config, args=args)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the fixture, and check what the ini file says."""
    names = ", ".join(f"{name}=..." for name in _settings.SETTING_NAMES)
    what = "record model and tool I/O of this test once, replay it, compare the span tree"
    marker = f"{_items.MARKER}({names}): {what}"
    config.addinivalue_line("markers", marker)
    _fresh.saw("cwd", str(config.rootpath))
    # pytest's own directories for tests are below the system's, which is known, or below one of these.
    for place in (config.getoption("basetemp", None), os.environ.get("PYTEST_DEBUG_TEMPROOT")):
        if place:
            _fresh.saw("tmp", os.path.realpath(place))
    try:
        _options.check_ini(config)
        said = _options.said(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    homes = tuple(map(str, (config.invocation_params.dir, config.rootpath)))
    session = config.stash[SESSION] = _session.begin(said, homes=homes)
    config.add_cleanup(lambda: _session.end(session))
    plugins = config.pluginmanager
    plugins.register(_sessionline.SessionLine(config, marker=marker, session=session), LINE_PLUGIN)
    namesakes = [getattr(plugin, _items.MARKER, None) for plugin in plugins.get_plugins()]
    if all(found is None or isinstance(found, ModuleType) for found in namesakes):
        plugins.register(_CassetteFixture(), FIXTURE_PLUGIN)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker what was said to the controller."""
    said = node.config.stash[SESSION].said
    node.workerinput[_options.WORKER_KEY] = [said.typed, said.committed]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear the last of an xdist worker."""
    line = node.config.pluginmanager.get_plugin(LINE_PLUGIN)
    if line is not None:
        line.add_worker(getattr(node, "workeroutput", {}))


# --- collection --------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class) -> Generator[None, object, object]:
    """Mark async tests for pytest-asyncio, which looks at them after us, where nobody else would run them."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and _items.is_marked(item):
            from . import _async  # only where there is a marked test

            if _async.wants_asyncio(item):
                item.add_marker("asyncio")
    return made


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse wrong settings and two tests on one cassette, before anything runs."""
    marked = [item for item in items if _items.is_marked(item)]
    session = config.stash[SESSION]
    session.wanted = frozenset(name for item in marked for name in getattr(item, "fixturenames", ()))
    blocked = [BLOCKED] if marked and config.pluginmanager.is_blocked(RUNS_PLUGIN) else []
    problems = "\n".join([*blocked, *_items.problems(marked, said=session.said)])
    if problems and not hasattr(config, "workerinput"):
        raise pytest.UsageError(problems)
    if problems:
        # An xdist worker that ended here would take the reason with it; a failed collection reaches the controller.
        failed = pytest.CollectReport(nodeid="spanchain", outcome="failed", longrepr=problems, result=[])
        config.hook.pytest_collectreport(report=failed)
        items.clear()


def pytest_collection_finish(session: pytest.Session) -> None:
    """From the first marked test on, runs have their hooks; whoever marks tests at collection has done so by now."""
    if any(map(_items.is_marked, session.items)):
        _wake(session.config)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """The same where a test is marked, or made, only now; if by others' setup, its body is in a run even so."""
    item.config.stash[SESSION].alone = functools.partial(_items.command, item)
    if _items.is_marked(item) and _wake(item.config):
        from . import _hooks

        return (yield from _hooks.pytest_runtest_setup(item))  # those who are being called do not become more
    result = yield
    if _items.is_marked(item):
        _wake(item.config)
    return result


def _wake(config: pytest.Config) -> bool:
    """Give runs their hooks; false if they have them."""
    if config.pluginmanager.has_plugin(RUNS_PLUGIN):
        return False
    from . import _hooks

    if config.pluginmanager.register(_hooks, RUNS_PLUGIN) is None:
        raise pytest.UsageError(BLOCKED)
    return True


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """An xdist worker says what is left."""
    config = session.config
    try:
        return (yield)
    finally:
        output = getattr(config, "workeroutput", None)
        if output is not None:
            output[_sessionline.WORKER_KEY] = config.stash[SESSION].take(over=True)


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """``assert cassette.live == cassette.golden`` prints the same report."""
    if op != "==" or not (hasattr(left, "deviations_from") and hasattr(right, "deviations_from")):
        return None
    from ._report import explain
    from ._trace import Trace

    if not (isinstance(left, Trace) and isinstance(right, Trace)):
        return None
    return explain(left, right, verbosity=config.get_verbosity())


# --- fixtures ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def spanchain_config() -> Mapping[str, Any]:
    """Override this to set what the marker sets for many tests: a mapping such as ``{"tools": [...]}``."""
    return {}


@pytest.fixture
def _spanchain_run(request: pytest.FixtureRequest, spanchain_config: Mapping[str, Any]) -> Iterator[None]:
    """The first function-scoped fixture of a marked test: the others are set up and torn down inside its run."""
    from . import _hooks

    life = _hooks.begin(request.node, spanchain_config)
    yield
    # What is torn down after this outlives the test, so it is none of the run's business.
    life.context.close()


@pytest.fixture
def spanchain(request: pytest.FixtureRequest) -> CassetteHandle:
    """The cassette of this test: path, mode, golden, live, deviations, ``tool(fn)``."""
    return _handle(request)


class _CassetteFixture:
    """``cassette``, registered only where no other plugin owns a fixture of that name."""

    @pytest.fixture
    def cassette(self, request: pytest.FixtureRequest) -> CassetteHandle:
        """The cassette of this test: path, mode, golden, live, deviations, ``tool(fn)``."""
        return _handle(request)


def _handle(request: pytest.FixtureRequest) -> CassetteHandle:
    from ._trace import CassetteHandle
    from .boundaries.tools import tool

    life = request.node.stash.get(LIFE, None)
    if life is None:
        pytest.fail(
            f"{request.node.nodeid} uses the cassette fixture: mark it with @pytest.mark.cassette", pytrace=False
        )
    return CassetteHandle(life.run, tool=tool)
