"""The life of a run around a test: what pytest calls from where a marked test was collected.

Invariants:

* a test has one outcome: the verdict is given in the call phase, and a body that failed first keeps its own failure;
* a cassette is written only when every other plugin has had its word on the outcome, and the outcome is a pass.

These are the last hooks to be registered, so they are around those of plugins and conftests but for what asks to be
first.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest

from . import _async, _fresh, _items, _life, _session, _testreport
from ._life import Life
from ._stash import LIFE, SESSION
from .errors import UsageError

__tracebackhide__ = True  # pytest looks among a frame's globals, too: a user's failure is not about these hooks

SETUP = pytest.StashKey[ExitStack]()
CURRENT_ITEM = pytest.StashKey["pytest.Item | None"]()
NOTES = pytest.StashKey[list[str]]()
ISOLATED = "make its class an IsolatedAsyncioTestCase"


def begin(item: pytest.Item, settings: object) -> Life:
    """The run of a test that has fixtures begins, before the first of them.

    Args:
        item: the test.
        settings: what the ``spanchain_config`` fixture returned.
    """
    life = _start(item, settings)
    life.context = item.stash[SETUP]
    life.context.enter_context(life.run.entered())
    return life


@pytest.hookimpl(wrapper=True)
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
    item = request.config.stash.get(CURRENT_ITEM, None)
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


@pytest.hookimpl(wrapper=True)
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


@pytest.hookimpl(wrapper=True)
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


@pytest.hookimpl(wrapper=True)
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
    """An interrupt leaves a test without teardown; pytest makes up for it here."""
    item = session.config.stash.get(CURRENT_ITEM, None)
    return (yield) if item is None else (yield from _torn_down(item))


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
        life = item.stash[LIFE] = _life.start(item, said=item.config.stash[SESSION].said, fixture=fixture)
    except UsageError as error:
        problem = f"spanchain: {error}"
    else:
        return life
    # Out here: pytest shows the error that another is raised in, and would say it twice.
    pytest.fail(problem, pytrace=False)


def _fail(life: Life) -> NoReturn:
    try:
        pytest.fail(life.words, pytrace=False)
    except pytest.fail.Exception as failure:
        life.failure = failure
        raise failure from None  # the report says what led to it
