"""The door to pytest: markers, fixtures, the life of a run around a test, and its report.

Invariants:

* a test has one outcome: the verdict is given in the call phase, and a body that failed first keeps its own failure;
* a cassette is written only when every other plugin has had its word on the outcome, and the outcome is a pass;
* nothing heavy is imported before the first marked test runs, and unmarked tests get no fixture.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from . import _options, _settings
from .errors import CassetteError, LiveCallError, MissError, RunClosedError, UsageError

if TYPE_CHECKING:
    from ._model import Deviation
    from ._run import Hooks, Run
    from ._trace import CassetteHandle
    from ._verdict import Verdict

MARKER = "cassette"
FIXTURE_PLUGIN = "spanchain-cassette-fixture"


@dataclass(eq=False)
class Active:
    """The run of the item that is being run.

    Args:
        run: the run.
        stack: what is in place around it.
        context: what the setup or the teardown of function-scoped fixtures is in.
        body_over: whether the test's body has ended, so that reports of the call phase are of the test itself.
        subtests_passed: whether no sub-test has failed.
        failure: the failure that says why the run fails.
    """

    run: Run
    stack: ExitStack
    context: ExitStack
    body_over: bool = False
    subtests_passed: bool = True
    failure: BaseException | None = None


ACTIVE = pytest.StashKey[Active]()
SETUP = pytest.StashKey[ExitStack]()
CURRENT_ITEM = pytest.StashKey["pytest.Item | None"]()
SAID = pytest.StashKey[_options.Said]()


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
    _options.add_shared(parser, early_config=early_config, args=args)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the fixture, and check what the ini file says."""
    names = ", ".join(f"{name}=..." for name in _settings.SETTING_NAMES)
    config.addinivalue_line(
        "markers",
        f"{MARKER}({names}): record model and tool I/O of this test once, replay it, compare the span tree",
    )
    config.stash[CURRENT_ITEM] = None
    try:
        _options.check_ini(config)
        config.stash[SAID] = _options.said(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    plugins = config.pluginmanager
    plugins.register(_SessionLine(config), "spanchain-session-line")
    if not any(hasattr(plugin, MARKER) for plugin in plugins.get_plugins()):
        plugins.register(_CassetteFixture(), FIXTURE_PLUGIN)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker what was said to the controller."""
    said = node.config.stash[SAID]
    node.workerinput[_options.WORKER_KEY] = [said.typed, said.committed]


# --- collection --------------------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse wrong settings and two tests on one cassette, before anything runs."""
    marked = [item for item in items if _is_marked(item)]
    problems = []
    for item in marked:
        try:
            _resolve(item, fixture={})
        except UsageError as error:
            problems.append(f"{item.nodeid}: {error}")
    problems = problems or _shared_paths(marked, config)
    if problems:
        raise pytest.UsageError("\n".join(dict.fromkeys(problems)))


def _shared_paths(items: Sequence[pytest.Item], config: pytest.Config) -> list[str]:
    from . import _store

    owners: dict[str, str] = {}
    problems = []
    for item in items:
        directory = config.rootpath / _resolve(item, fixture={}).directory
        path = str(_store.cassette_path(directory, item.nodeid)).casefold()
        owner = owners.setdefault(path, item.nodeid)
        if owner != item.nodeid:
            problems.append(f"{item.nodeid} and {owner} would share the cassette {path}: rename one of them")
    return problems


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None or "spanchain" in getattr(item, "fixturenames", ())


def _resolve(item: pytest.Item, *, fixture: Mapping[str, Any]) -> _settings.Settings:
    said = item.config.stash[SAID]
    return _settings.resolve(
        marker=_marker_kwargs(item),
        cli_mode=said.typed,
        fixture=fixture,
        ini=_options.ini_settings(item.config, mode=said.committed),
        ci=_options.under_ci(),
    )


def _marker_kwargs(item: pytest.Item) -> dict[str, Any]:
    """Keyword arguments of all cassette markers; lists add up, otherwise the nearest wins."""
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        if marker.args:
            raise UsageError(f"marker cassette takes keyword arguments only, not {', '.join(map(repr, marker.args))}")
        for name, value in marker.kwargs.items():
            outer = merged.get(name)
            if isinstance(outer, (list, tuple)) and isinstance(value, (list, tuple)):
                value = [*outer, *value]
            merged[name] = value
    return merged


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
    if not _is_marked(item):
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
            if active is not None and _is_ours(error):
                _judge(item, active, passed=False)
                _fail(item, active)
            raise


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What outlives the test is not part of its run, whichever test happens to come first."""
    item = request.config.stash[CURRENT_ITEM]
    active = item.stash.get(ACTIVE, None) if item is not None else None
    # Not the fixture's scope: outside of a class, one of class scope lives as long as the test.
    if active is None or request.node is item or active.run.closed:
        return (yield)
    with active.run.suspended():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the body in the run, then judge a replay here; a recording is judged with the test's report."""
    if not _is_marked(item):
        return (yield)
    active = item.stash.get(ACTIVE, None) or _start(item, {})  # an item without fixtures, e.g. of another plugin
    run = active.run
    try:
        if run.refusal is not None:
            _fail(item, active)
        with run.entered():
            result = yield
    except Exception as error:
        if not run.records and _is_ours(error) and _judge(item, active, passed=False).failing:
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
    if active is None or call.when == "teardown" or (call.when == "setup" and not report.failed):
        return report
    if call.when == "call" and not active.body_over:  # the report of a sub-test
        active.subtests_passed = active.subtests_passed and not report.failed
        return report
    skipped = report.skipped and not hasattr(report, "wasxfail")
    verdict = _judge(item, active, passed=report.passed and active.subtests_passed, keep=not skipped)
    if report.failed and call.excinfo is not None and call.excinfo.value is active.failure:
        _color(item, active, report)
    elif report.passed and active.subtests_passed and verdict.failing:
        report.outcome, report.longrepr = "failed", "\n".join(_lines(item, active))
        vars(report).pop("wasxfail", None)
    elif report.failed and verdict.failing:
        _add_section(report, "\n".join(_lines(item, active)))
    elif report.failed and verdict.aside is not None:
        _add_section(report, f"the recording was kept at {verdict.aside}")
    # Extra attributes travel with the report from an xdist worker to the controller.
    vars(report)["spanchain"] = _counts(item, active, compared=not skipped)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """A run whose body never ran ends here; a replay lets nothing out while the test's own fixtures are torn down."""
    active = item.stash.get(ACTIVE, None)
    if active is None:
        return (yield)
    _judge(item, active, passed=False)
    with ExitStack() as context:
        active.context = context
        if not active.run.records:
            context.enter_context(active.run.entered())  # of a closed run: calls are refused
        del item.stash[ACTIVE]
        item.config.stash[CURRENT_ITEM] = None
        return (yield)


def _start(item: pytest.Item, fixture: object) -> Active:
    from . import _run, _store, boundaries

    if not isinstance(fixture, Mapping):
        pytest.fail(f"fixture spanchain_config returns a mapping, not {fixture!r}", pytrace=False)
    stack = ExitStack()
    try:
        settings = _resolve(item, fixture=fixture)
        run = _run.open_run(
            nodeid=item.nodeid,
            path=_store.cassette_path(item.config.rootpath / settings.directory, item.nodeid),
            settings=settings,
            hooks=_hooks(item),
            command=_command(item, f"{_options.OPTION}=once"),
        )
        stack.enter_context(boundaries.around(run))
    except UsageError as error:
        pytest.fail(f"spanchain: {error}", pytrace=False)
    active = item.stash[ACTIVE] = Active(run, stack, context=ExitStack())
    return active


def _hooks(item: pytest.Item) -> Hooks:
    from ._run import Hooks

    relay, given = item.ihook, {"config": item.config, "nodeid": item.nodeid}

    # Hooks change a copy in place, as pytest's own do, so that those of several conftests add up.
    def normalise(kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(request))
        relay.pytest_spanchain_normalise(**given, kind=kind, name=name, request=copy)
        return copy

    def redact(kind: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(part))
        relay.pytest_spanchain_redact(**given, kind=kind, part=copy)
        return copy

    def deviations(found: tuple[Deviation, ...]) -> tuple[Deviation, ...]:
        copy = list(found)
        relay.pytest_spanchain_deviations(**given, deviations=copy)
        return tuple(copy)

    return Hooks(
        normalise=normalise if relay.pytest_spanchain_normalise.get_hookimpls() else None,
        redact=redact if relay.pytest_spanchain_redact.get_hookimpls() else None,
        deviations=deviations if relay.pytest_spanchain_deviations.get_hookimpls() else None,
    )


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
    with active.stack:
        return active.run.close(passed=passed, aside=cache.mkdir("spanchain-failed") if cache and wanted else None)


def _fail(item: pytest.Item, active: Active) -> NoReturn:
    try:
        pytest.fail("\n".join(_lines(item, active)), pytrace=False)
    except pytest.fail.Exception as failure:
        active.failure = failure
        raise failure from None  # the report says what led to it


def _is_ours(error: BaseException) -> bool:
    """Whether something failed because of what the run did to it: then the report says it better than a traceback.

    A failed assertion is the test's own word, whatever led to it.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and not isinstance(current, AssertionError):
        if isinstance(current, (MissError, LiveCallError, RunClosedError, CassetteError)):
            return True
        inner = getattr(current, "exceptions", None)
        if isinstance(inner, tuple) and inner:  # a group of exceptions, as task groups raise them
            return all(_is_ours(one) for one in inner)
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return False


# --- reports -----------------------------------------------------------------------------------------------------


def _lines(item: pytest.Item, active: Active, *, color: bool = False) -> list[str]:
    from ._report import report

    if active.run.refusal is not None:
        return str(active.run.refusal).splitlines()
    assert active.run.verdict is not None
    return report(
        active.run.verdict,
        accept=_command(item, f"{_options.OPTION}=rewrite"),
        closer=_command(item, "-vv"),
        root=item.config.rootpath,
        verbosity=item.config.get_verbosity(),
        color=color,
    )


def _command(item: pytest.Item, option: str) -> str:
    """What to type, where the user is, to run only this test."""
    path, separator, names = item.nodeid.partition("::")
    with suppress(ValueError):  # on another drive
        path = Path(os.path.relpath(item.config.rootpath / path, item.config.invocation_params.dir)).as_posix()
    return f"pytest {shlex.quote(path + separator + names)} {option}"


def _add_section(report: pytest.TestReport, text: str) -> None:
    add = getattr(report.longrepr, "addsection", None)
    if add is not None:
        add("spanchain", text)
    else:
        report.sections.append(("spanchain", text))


def _color(item: pytest.Item, active: Active, report: pytest.TestReport) -> None:
    reporter = item.config.pluginmanager.get_plugin("terminalreporter")  # there is none in an xdist worker
    if reporter is not None and getattr(item.config.get_terminal_writer(), "hasmarkup", False):
        plain, colored = (_lines(item, active, color=color) for color in (False, True))
        report.longrepr = _Words("\n".join(plain), colored="\n".join(colored))  # type: ignore[assignment]


class _Words:
    """A failure in words: coloured on the terminal, plain wherever else reports go."""

    def __init__(self, plain: str, *, colored: str) -> None:
        self._plain = plain
        self._colored = colored
        self.reprcrash = SimpleNamespace(message=plain.partition("\n")[0])

    def __str__(self) -> str:
        return self._plain

    def toterminal(self, writer: Any) -> None:
        """Write to a terminal, or to a file that stands in for one."""
        writer.line(self._colored if writer.hasmarkup else self._plain)


def _counts(item: pytest.Item, active: Active, *, compared: bool) -> dict[str, Any]:
    """What the session line counts of one test: it was replayed, recorded, or neither."""
    verdict = active.run.verdict
    assert verdict is not None
    changed = verdict.recorded and (verdict.deviations or verdict.notes)
    replayed = verdict.replayed and not verdict.recorded and compared
    return {
        "replayed": int(replayed),
        "recorded": int(verdict.recorded),
        "live": verdict.live_calls,
        "unverified": int(not (replayed or verdict.recorded)),
        "changes": "\n".join(_lines(item, active)) if changed else "",
    }


class _SessionLine:
    """Adds up the tests of a session, whichever process they ran in, and says so at its end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts = {"replayed": 0, "recorded": 0, "live": 0, "unverified": 0}
        self._changes: list[str] = []
        self._remarks: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Look for others that react to our marker, or take the same tests."""
        marked = [item for item in session.items if _is_marked(item)]
        ours = [line for line in self._config.getini("markers") if line.partition("(")[0].partition(":")[0] == MARKER]
        if marked and len(ours) > 1:
            self._remarks.append(f"another plugin reacts to the marker, too: {'; '.join(ours[:-1])}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test once; an attempt that is run again only counts what it cost."""
        counts = getattr(report, "spanchain", None)
        if counts is None:
            return
        for name in self._counts:
            if name == "live" or str(report.outcome) != "rerun":
                self._counts[name] += counts[name]
        if counts["changes"]:
            self._changes.append(counts["changes"])

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """What re-recordings changed, and one line a session."""
        if not any(self._counts.values()):
            return
        for line in (*self._changes, *(f"spanchain: {remark}" for remark in self._remarks)):
            terminalreporter.write_line(line)
        counted = ", ".join(f"{count} {name}" for name, count in self._counts.items())
        terminalreporter.write_line(f"spanchain: {counted}")


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
