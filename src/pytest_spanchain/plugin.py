"""The door to pytest: options, fixtures, and the life of a run around a test.

Invariants:

* a test has one outcome: the verdict is given in the call phase, and a body that failed first keeps its own failure;
* a cassette is written only when every other plugin has had its word on the outcome, and the outcome is a pass;
* nothing heavy is imported before the first marked test runs, or a fixture that such a test asks for and that outlives
  it; and unmarked tests get no fixture.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from . import _async, _fresh, _items, _life, _options, _session, _settings, _testreport
from ._life import Life
from .errors import UsageError

if TYPE_CHECKING:
    from ._trace import CassetteHandle

__tracebackhide__ = True  # pytest looks among a frame's globals, too: a user's failure is not about these hooks

FIXTURE_PLUGIN = "spanchain-cassette-fixture"
LINE_PLUGIN = "spanchain-session-line"


LIFE = pytest.StashKey[Life]()
SETUP = pytest.StashKey[ExitStack]()
CURRENT_ITEM = pytest.StashKey["pytest.Item | None"]()
SAID = pytest.StashKey[_options.Said]()
SESSION = pytest.StashKey[_session.Session]()
NOTES = pytest.StashKey[list[str]]()
ISOLATED = "make its class an IsolatedAsyncioTestCase"


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
    config.stash[CURRENT_ITEM] = None
    try:
        _options.check_ini(config)
        config.stash[SAID] = _options.said(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    homes = tuple(map(str, (config.invocation_params.dir, config.rootpath)))
    session = config.stash[SESSION] = _session.begin(config.stash[SAID], homes=homes)
    config.add_cleanup(lambda: _session.end(session))
    plugins = config.pluginmanager
    plugins.register(_testreport.SessionLine(config, marker=marker, session=session), LINE_PLUGIN)
    namesakes = [getattr(plugin, _items.MARKER, None) for plugin in plugins.get_plugins()]
    if all(found is None or isinstance(found, ModuleType) for found in namesakes):
        plugins.register(_CassetteFixture(), FIXTURE_PLUGIN)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker what was said to the controller."""
    said = node.config.stash[SAID]
    node.workerinput[_options.WORKER_KEY] = [said.typed, said.committed]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear the last of an xdist worker."""
    node.config.pluginmanager.get_plugin(LINE_PLUGIN).add_worker(getattr(node, "workeroutput", {}))


# --- collection --------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class) -> Generator[None, object, object]:
    """Mark async tests for pytest-asyncio, which looks at them after us, where nobody else would run them."""
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and _items.is_marked(item) and _async.wants_asyncio(item):
            item.add_marker("asyncio")
    return made


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse wrong settings and two tests on one cassette, before anything runs."""
    marked = [item for item in items if _items.is_marked(item)]
    config.stash[SESSION].wanted = frozenset(name for item in marked for name in getattr(item, "fixturenames", ()))
    problems = "\n".join(_items.problems(marked, said=config.stash[SAID]))
    if problems and not hasattr(config, "workerinput"):
        raise pytest.UsageError(problems)
    if problems:
        # An xdist worker that ended here would take the reason with it; a failed collection reaches the controller.
        failed = pytest.CollectReport(nodeid="spanchain", outcome="failed", longrepr=problems, result=[])
        config.hook.pytest_collectreport(report=failed)
        items.clear()


# --- the life of a run -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def spanchain_config() -> Mapping[str, Any]:
    """Override this to set what the marker sets for many tests: a mapping such as ``{"tools": [...]}``."""
    return {}


@pytest.fixture
def _spanchain_run(request: pytest.FixtureRequest, spanchain_config: Mapping[str, Any]) -> Iterator[None]:
    """The first function-scoped fixture of a marked test: the others are set up and torn down inside its run."""
    item = request.node
    life = _start(item, spanchain_config)
    life.context = item.stash[SETUP]
    life.context.enter_context(life.run.entered())
    yield
    # What is torn down after this outlives the test, so it is none of the run's business.
    life.context.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Make the run's start the first of the test's fixtures, and keep the setup in its context."""
    if not _items.is_marked(item):
        return (yield)
    item.config.stash[CURRENT_ITEM] = item
    names = getattr(item, "fixturenames", None)
    if names is not None and "_spanchain_run" not in names:
        # A list of its own: parametrized tests share one, and not all of them may be marked.
        item.fixturenames = ["_spanchain_run", *names]  # type: ignore[attr-defined]
    with ExitStack() as context:
        item.stash[SETUP] = context
        try:
            return (yield)
        except Exception as error:
            life = item.stash.get(LIFE, None)
            beside = any(error is one for one in item.config.stash[SESSION].errors)
            if life is not None and _testreport.is_ours(error) and not beside:
                life.judge(passed=False)
                _fail(life)
            raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What outlives the test is not part of its run, whichever test happens to come first."""
    item = request.config.stash[CURRENT_ITEM]
    life = item.stash.get(LIFE, None) if item is not None else None
    with ExitStack() as context:
        # Not the fixture's scope: outside of a class, one of class scope lives as long as the test.
        if not isinstance(request.node, pytest.Item):
            session = request.config.stash[SESSION]
            if item is not None or fixturedef.argname in session.wanted:
                context.enter_context(_life.outliving(fixturedef, session))
            if life is not None and not life.suspended and not life.run.closed:
                context.enter_context(life.away())
        elif life is not None and _async.is_async(fixturedef.func) and "anyio_backend" in request.fixturenames:
            context.enter_context(_async.fixture_in(fixturedef, request.instance, life.entered))
        value = yield
    _fresh.saw_fixture(fixturedef.argname, value)
    return value


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test that nobody else runs."""
    return (_items.is_marked(pyfuncitem) and _async.runs_alone(pyfuncitem)) or None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the body in the run, then judge a replay here; a recording is judged with the test's report."""
    if not _items.is_marked(item):
        return (yield)
    if _async.is_never_awaited(item):
        pytest.fail(
            f"spanchain: {item.nodeid} is async, which unittest.TestCase does not run: {ISOLATED}", pytrace=False
        )
    life = item.stash.get(LIFE, None) or _start(item, {})  # an item without fixtures, e.g. of another plugin
    run = life.run
    try:
        if run.refusal is not None:
            _fail(life)
        with run.entered(), _async.body_in(item, run.entered):
            result = yield
    except Exception as error:
        if not run.records and _testreport.is_ours(error) and life.judge(passed=False).failing:
            _fail(life)
        raise
    finally:
        life.body_over = True
    if not run.records and life.judge(passed=life.subtests_passed).failing:
        _fail(life)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The last word on a run, after xfail, unittest and whoever else has changed the outcome."""
    report = yield
    life = item.stash.get(LIFE, None)
    if life is not None and call.when == "call" and not life.body_over:  # the report of a sub-test
        life.subtests_passed = life.subtests_passed and not report.failed
        return report
    counts = item.config.stash[SESSION].take()
    if notes := item.stash.get(NOTES, []):
        counts.append(_session.counts(notes=notes, test=True))
        del item.stash[NOTES]
    if life is not None and (call.when == "call" or (call.when == "setup" and report.failed)):
        counts.append(life.last_word(call, report))
    if counts:  # extra attributes travel with the report from an xdist worker to the controller
        vars(report)["spanchain"] = counts
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """A run whose body never ran ends here; what was refused too late for the verdict is told here."""
    life = item.stash.get(LIFE, None)
    result = yield from _torn_down(item)
    if life is None:
        return result
    item.config.stash[SESSION].watch(life.run.late)
    if life.run.late:  # refused, and swallowed
        pytest.fail("\n".join(f"spanchain: {text}" for text in dict.fromkeys(life.run.late)), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """An interrupt leaves a test without teardown; pytest makes up for it here. An xdist worker says what is left."""
    config = session.config
    item = config.stash.get(CURRENT_ITEM, None)
    try:
        return (yield) if item is None else (yield from _torn_down(item))
    finally:
        output = getattr(config, "workeroutput", None)
        if output is not None:
            output[_testreport.WORKER_KEY] = config.stash[SESSION].take(over=True)


def _torn_down(item: pytest.Item) -> Generator[None, object, object]:
    life = item.stash.get(LIFE, None)
    if life is None:
        return (yield)
    with life.torn_down():
        del item.stash[LIFE]
        item.config.stash[CURRENT_ITEM] = None
        try:
            return (yield)
        finally:
            item.stash[NOTES] = life.notes


def _start(item: pytest.Item, fixture: object) -> Life:
    if not isinstance(fixture, Mapping):
        pytest.fail(f"fixture spanchain_config returns a mapping, not {fixture!r}", pytrace=False)
    try:
        life = item.stash[LIFE] = _life.start(item, said=item.config.stash[SAID], fixture=fixture)
    except UsageError as error:
        pytest.fail(f"spanchain: {error}", pytrace=False)
    return life


def _fail(life: Life) -> NoReturn:
    try:
        pytest.fail(life.words, pytrace=False)
    except pytest.fail.Exception as failure:
        life.failure = failure
        raise failure from None  # the report says what led to it


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
