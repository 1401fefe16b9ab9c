"""The door to pytest: options, fixtures, and the life of a run around a test.

Invariants:

* a test has one outcome: the verdict is given in the call phase, and a body that failed first keeps its own failure;
* a cassette is written only when every other plugin has had its word on the outcome, and the outcome is a pass;
* nothing heavy is imported before the first marked test runs, or a fixture that such a test asks for and that outlives
  it; and unmarked tests get no fixture.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from . import _async, _fresh, _items, _options, _session, _settings, _testreport
from .errors import UsageError

if TYPE_CHECKING:
    from ._aftermath import Aftermath
    from ._run import Run
    from ._trace import CassetteHandle
    from ._verdict import Verdict

FIXTURE_PLUGIN = "spanchain-cassette-fixture"
LINE_PLUGIN = "spanchain-session-line"


@dataclass(eq=False)
class Active:
    """The run of the item that is being run.

    Args:
        run: the run.
        stack: what is in place around it.
        context: what the setup or the teardown of function-scoped fixtures is in.
        body_over: whether the test's body has ended, so that reports of the call phase are of the test itself.
        subtests_passed: whether no sub-test has failed.
        suspended: whether a fixture is being set up that outlives the test; it may ask for others meanwhile.
        failure: the failure that says why the run fails.
        aftermath: of a recording whose verdict is given.
    """

    run: Run
    stack: ExitStack
    context: ExitStack
    body_over: bool = False
    subtests_passed: bool = True
    suspended: bool = False
    failure: BaseException | None = None
    aftermath: Aftermath | None = None

    def entered(self) -> AbstractContextManager[None]:
        """Make the calling context part of the run, or of what comes after it."""
        return self.run.entered() if self.aftermath is None else self.aftermath.entered()


ACTIVE = pytest.StashKey[Active]()
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
    _options.add(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """``--record-mode``: by now every installed plugin has added its options."""
    _fresh.watch_makers()
    _options.add_shared(parser, early_config=early_config, args=args)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the fixture, and check what the ini file says."""
    names = ", ".join(f"{name}=..." for name in _settings.SETTING_NAMES)
    what = "record model and tool I/O of this test once, replay it, compare the span tree"
    marker = f"{_items.MARKER}({names}): {what}"
    config.addinivalue_line("markers", marker)
    _fresh.watch_makers()
    config.stash[CURRENT_ITEM] = None
    try:
        _options.check_ini(config)
        config.stash[SAID] = _options.said(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    session = config.stash[SESSION] = _session.begin(config.stash[SAID])
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
    active = _start(item, spanchain_config)
    active.context = item.stash[SETUP]
    active.context.enter_context(active.run.entered())
    yield
    # What is torn down after this outlives the test, so it is none of the run's business.
    active.context.close()


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
            active = item.stash.get(ACTIVE, None)
            beside = any(error is one for one in item.config.stash[SESSION].errors)
            if active is not None and _testreport.is_ours(error) and not beside:
                _judge(item, active, passed=False)
                _fail(item, active)
            raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What outlives the test is not part of its run, whichever test happens to come first."""
    item = request.config.stash[CURRENT_ITEM]
    active = item.stash.get(ACTIVE, None) if item is not None else None
    with ExitStack() as context:
        # Not the fixture's scope: outside of a class, one of class scope lives as long as the test.
        if not isinstance(request.node, pytest.Item):
            context.enter_context(_watched(fixturedef, request))
            if active is not None and not active.suspended and not active.run.closed:
                context.enter_context(_suspended(active))
        elif active is not None and _async.is_async(fixturedef.func) and "anyio_backend" in request.fixturenames:
            context.enter_context(_async.fixture_in(fixturedef, request.instance, active.entered))
        value = yield
    _fresh.saw_fixture(fixturedef.argname, value)
    return value


@contextmanager
def _suspended(active: Active) -> Iterator[None]:
    active.suspended = True
    try:
        with active.run.suspended():
            yield
    finally:
        active.suspended = False


@contextmanager
def _watched(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Iterator[None]:
    """Count what a fixture that outlives tests asks of the world, now and when it is torn down."""
    session, name = request.config.stash[SESSION], fixturedef.argname
    if name not in session.wanted and request.config.stash[CURRENT_ITEM] is None:
        yield  # no marked test asks for it
        return
    from . import boundaries

    boundaries.install()
    fixturedef.addfinalizer(lambda: session.leave(name))  # the first, so it runs after the fixture's own
    session.enter(name)
    try:
        yield
    except Exception as error:
        if _testreport.is_ours(error):
            session.errors.append(error)
        raise
    finally:
        session.leave(name)
    fixturedef.addfinalizer(lambda: session.enter(name))


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
    active = item.stash.get(ACTIVE, None) or _start(item, {})  # an item without fixtures, e.g. of another plugin
    run = active.run
    try:
        if run.refusal is not None:
            _fail(item, active)
        with run.entered(), _async.body_in(item, run.entered):
            result = yield
    except Exception as error:
        if not run.records and _testreport.is_ours(error) and _judge(item, active, passed=False).failing:
            _fail(item, active)
        raise
    finally:
        active.body_over = True
    if not run.records and _judge(item, active, passed=active.subtests_passed).failing:
        _fail(item, active)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The last word on a run, after xfail, unittest and whoever else has changed the outcome."""
    report = yield
    active = item.stash.get(ACTIVE, None)
    if active is not None and call.when == "call" and not active.body_over:  # the report of a sub-test
        active.subtests_passed = active.subtests_passed and not report.failed
        return report
    counts = item.config.stash[SESSION].take()
    if notes := item.stash.get(NOTES, []):
        counts.append(_session.counts(notes=notes, test=True))
        del item.stash[NOTES]
    if active is not None and (call.when == "call" or (call.when == "setup" and report.failed)):
        counts.append(_last_word(item, active, call, report))
    if counts:  # extra attributes travel with the report from an xdist worker to the controller
        vars(report)["spanchain"] = counts
    return report


def _last_word(
    item: pytest.Item, active: Active, call: pytest.CallInfo[None], report: pytest.TestReport
) -> dict[str, Any]:
    """Judge a run, and let the report say so."""
    skipped = report.skipped and not hasattr(report, "wasxfail")
    verdict = _judge(item, active, passed=report.passed and active.subtests_passed, keep=not skipped)
    if report.failed and call.excinfo is not None and call.excinfo.value is active.failure:
        _testreport.colour(item, active.run, report)
    elif report.passed and active.subtests_passed and verdict.failing:
        report.outcome, report.longrepr = "failed", "\n".join(_testreport.lines(item, active.run))
        vars(report).pop("wasxfail", None)
    elif report.failed and verdict.failing:
        _testreport.add_section(report, "\n".join(_testreport.lines(item, active.run)))
    elif report.failed and verdict.aside is not None:
        _testreport.add_section(report, f"the recording was kept at {verdict.aside}")
    return _testreport.counts(verdict, skipped=skipped, told=lambda: _testreport.lines(item, active.run))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """A run whose body never ran ends here; what was refused too late for the verdict is told here."""
    active = item.stash.get(ACTIVE, None)
    result = yield from _torn_down(item)
    if active is None:
        return result
    item.config.stash[SESSION].watch(active.run.late)
    if active.run.late:  # refused, and swallowed
        pytest.fail("\n".join(f"spanchain: {text}" for text in dict.fromkeys(active.run.late)), pytrace=False)
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
    """The teardown of a test's own fixtures, around which a replay lets nothing out, and a recording takes note."""
    active = item.stash.get(ACTIVE, None)
    if active is None:
        return (yield)
    _judge(item, active, passed=False)
    with ExitStack() as context:
        active.context = context
        if not active.run.records:
            context.enter_context(active.run.entered())  # of a closed run: calls are refused
        else:
            from ._aftermath import Aftermath

            active.aftermath = Aftermath(active.run)
            context.enter_context(active.aftermath.noticed())
        del item.stash[ACTIVE]
        item.config.stash[CURRENT_ITEM] = None
        try:
            return (yield)
        finally:
            item.stash[NOTES] = active.aftermath.notes if active.aftermath else []


def _start(item: pytest.Item, fixture: object) -> Active:
    from . import _run, _store, boundaries
    from ._relay import Relay

    if not isinstance(fixture, Mapping):
        pytest.fail(f"fixture spanchain_config returns a mapping, not {fixture!r}", pytrace=False)
    stack, relay = ExitStack(), Relay(item)
    try:
        settings = _items.resolve(item, said=item.config.stash[SAID], fixture=fixture)
        run = _run.open_run(
            nodeid=item.nodeid,
            path=_store.cassette_path(item.config.rootpath / settings.directory, item.nodeid),
            settings=settings,
            hooks=relay.hooks(),
            command=_items.command(item, f"{_options.OPTION}=once"),
        )
        relay.report_to(run.note_error)
        stack.enter_context(boundaries.around(run))
    except UsageError as error:
        pytest.fail(f"spanchain: {error}", pytrace=False)
    active = item.stash[ACTIVE] = Active(run, stack, context=ExitStack())
    return active


def _judge(item: pytest.Item, active: Active, *, passed: bool, keep: bool = True) -> Verdict:
    """Close the run; only the first call decides.

    Args:
        item: the test.
        active: its run.
        passed: whether the test passed.
        keep: whether a recording that does not become a cassette is worth keeping.
    """
    if active.run.verdict is not None:
        return active.run.verdict
    cache = getattr(item.config, "cache", None)
    wanted = keep and active.body_over and active.run.records
    active.stack.close()
    return active.run.close(passed=passed, aside=cache.mkdir("spanchain-failed") if cache and wanted else None)


def _fail(item: pytest.Item, active: Active) -> NoReturn:
    try:
        pytest.fail("\n".join(_testreport.lines(item, active.run)), pytrace=False)
    except pytest.fail.Exception as failure:
        active.failure = failure
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

    active = request.node.stash.get(ACTIVE, None)
    if active is None:
        pytest.fail(
            f"{request.node.nodeid} uses the cassette fixture: mark it with @pytest.mark.cassette", pytrace=False
        )
    return CassetteHandle(active.run, tool=tool)
