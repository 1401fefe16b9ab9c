"""The door to pytest: options, markers, fixtures, the life of a run around a test, and its report.

Nothing heavy is imported before the first marked test runs.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import _settings
from .errors import CassetteError, LiveCallError, MissError, RunClosedError, UsageError

if TYPE_CHECKING:
    from ._model import Deviation
    from ._run import Hooks, Run
    from ._trace import CassetteHandle
    from ._verdict import Verdict

MARKER = "cassette"
MODE_DEST = "spanchain_mode"

_MODES = "; ".join(f"{mode}: {text}" for mode, text in _settings.MODE_HELP.items())
_INI_HELP = {
    "record_mode": ("string", f"record mode where the command line names none (not under CI): {_MODES}"),
    "directory": ("string", "directory of the cassettes, relative to the root directory (default: cassettes)"),
    "tools": ("linelist", "functions to record in every marked test: module:function, module:Class.method, module:*"),
    "ignore": ("linelist", "parts of requests that do not matter: JSON paths such as body.json.user, or re:<pattern>"),
    "ignore_attributes": ("linelist", "span attributes to leave out of the comparison"),
    "allow_hosts": ("linelist", "hosts that may be contacted in replay; localhost stands for loopback"),
    "redact": ("linelist", "more to redact: key names, JSON paths (with a dot), or re:<pattern>"),
    "eval_id": ("string", "groups runs of one evaluation (default: the node id without parameters)"),
}


@dataclass
class Tally:
    """What the session line counts. Travels from xdist workers as a plain dict."""

    replayed: int = 0
    recorded: int = 0
    live: int = 0
    unverified: int = 0
    changes: list[str] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Take in the tally of a worker."""
        for name in ("replayed", "recorded", "live", "unverified"):
            setattr(self, name, getattr(self, name) + other[name])
        self.changes.extend(other["changes"])


@dataclass
class Active:
    """The run of the item that is being run."""

    run: Run
    stack: ExitStack


TALLY = pytest.StashKey[Tally]()
ACTIVE = pytest.StashKey[Active]()
SETUP = pytest.StashKey[ExitStack]()
CURRENT_ITEM = pytest.StashKey["pytest.Item | None"]()
CLI_MODE = pytest.StashKey["str | None"]()


# --- options -----------------------------------------------------------------------------------------------------


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register our hookspecs."""
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini keys whose names are ours alone; ``--record-mode`` comes later, see below."""
    group = parser.getgroup("spanchain", "golden traces (spanchain)")
    group.addoption(
        "--spanchain-mode",
        dest=MODE_DEST,
        choices=_settings.RECORD_MODES,
        default=None,
        help="the same as --record-mode, where another plugin's --record-mode does not take the value",
    )
    for name, (kind, text) in _INI_HELP.items():
        parser.addini(_settings.INI_PREFIX + name, text, type=kind, default=None)  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add ``--record-mode`` unless another plugin has: by now every installed plugin has added its options.

    Two plugins that define one option crash pytest, whichever loads second, and neither can know in
    ``pytest_addoption``. pytest has no public way to ask which options exist, hence the guarded private access.
    """
    groups = [*getattr(parser, "_groups", []), getattr(parser, "_anonymous", None)]
    taken = any("--record-mode" in option.names() for group in groups if group for option in group.options)
    if taken:
        return
    try:
        parser.getgroup("spanchain").addoption(
            "--record-mode",
            dest=MODE_DEST,
            choices=_settings.RECORD_MODES,
            default=None,
            help=f"what marked tests may record; default none. {_MODES}",
        )
    except ValueError:  # a pytest whose parser hides its groups from us, and another plugin's option
        return
    early_config.known_args_namespace = parser.parse_known_args(args, namespace=early_config.option)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and the fixtures, and check what the ini file says."""
    names = ", ".join(f"{name}=..." for name in _settings.SETTING_NAMES)
    config.addinivalue_line(
        "markers",
        f"{MARKER}({names}): record model and tool I/O of this test once, replay it, compare the span tree",
    )
    config.stash[TALLY] = Tally()
    config.stash[CURRENT_ITEM] = None
    config.stash[CLI_MODE] = _cli_mode(config)
    try:
        # There is no public way to see keys that nobody registered (``Config.inicfg`` is deprecated since pytest 9).
        _settings.check_ini(config._inicfg if hasattr(config, "_inicfg") else config.inicfg)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    others = [plugin for plugin in config.pluginmanager.get_plugins() if hasattr(plugin, MARKER)]
    if not others:
        config.pluginmanager.register(_CassetteFixture(), "spanchain-cassette-fixture")


def _cli_mode(config: pytest.Config) -> str | None:
    own = config.getoption(MODE_DEST, None)
    if own is not None:
        return str(own)
    # Another plugin's --record-mode: its default is not the user's word, so look at what was typed.
    typed = [arg for arg in config.invocation_params.args if str(arg).startswith("--record-mode")]
    value = config.getoption("--record-mode", None) if typed else None
    return str(value) if value is not None else None


# --- collection --------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse misspelt marker arguments and two tests on one cassette, before anything runs."""
    problems: list[str] = []
    for item in items:
        for marker in item.iter_markers(MARKER):
            try:
                if marker.args:
                    raise UsageError(f"marker cassette takes keyword arguments only, not {marker.args!r}")
                _settings.check_names(marker.kwargs, where="marker cassette")
                if "mode" in marker.kwargs:
                    _settings.parse_mode(marker.kwargs["mode"], where="marker cassette")
            except UsageError as error:
                problems.append(f"{item.nodeid}: {error}")
    problems.extend(_shared_paths([item for item in items if _is_marked(item)], config))
    if problems:
        raise pytest.UsageError("\n".join(dict.fromkeys(problems)))


def _shared_paths(items: Sequence[pytest.Item], config: pytest.Config) -> list[str]:
    from ._store import cassette_path

    owners: dict[str, str] = {}
    problems = []
    for item in items:
        directory = _marker_kwargs(item).get("directory") or _ini(config).get("directory") or "cassettes"
        path = str(cassette_path(Path(directory), item.nodeid)).casefold()
        owner = owners.setdefault(path, item.nodeid)
        if owner != item.nodeid:
            problems.append(f"{item.nodeid} and {owner} would share the cassette {path}")
    return problems


def _is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARKER) is not None or "spanchain" in getattr(item, "fixturenames", ())


def _marker_kwargs(item: pytest.Item) -> dict[str, Any]:
    """Keyword arguments of all cassette markers; lists add up, otherwise the nearest wins."""
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        for name, value in marker.kwargs.items():
            both_lists = name in _settings.LIST_SETTINGS and name in merged
            merged[name] = [*merged[name], *value] if both_lists else value
    return merged


def _ini(config: pytest.Config) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _settings.INI_NAMES:
        value = config.getini(key)
        if value:
            name = key.removeprefix(_settings.INI_PREFIX)
            found["mode" if name == "record_mode" else name] = value
    return found


# --- the life of a run -------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Keep the context that the run's start enters (see ``_spanchain_run``) for the rest of the setup."""
    if not _is_marked(item):
        return (yield)
    item.config.stash[CURRENT_ITEM] = item
    with ExitStack() as context:
        item.stash[SETUP] = context
        return (yield)


@pytest.fixture(scope="session")
def spanchain_config() -> Mapping[str, Any]:
    """Override this to set what the marker sets for many tests: a mapping such as ``{"tools": [...]}``."""
    return {}


@pytest.fixture
def _spanchain_run(request: pytest.FixtureRequest, spanchain_config: Mapping[str, Any]) -> None:
    """Starts the run before the test's other fixtures, so that the calls they make belong to it."""
    item = request.node
    run = _start(item, spanchain_config)
    item.stash[SETUP].enter_context(run.entered())


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marked tests start their run as their first fixture."""
    names = getattr(item, "fixturenames", None)
    if names is not None and _is_marked(item) and "_spanchain_run" not in names:
        names.insert(0, "_spanchain_run")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """What outlives the test is not part of its run, whichever test happens to come first."""
    item = request.config.stash[CURRENT_ITEM]
    active = item.stash.get(ACTIVE, None) if item is not None else None
    if active is None or fixturedef.scope == "function" or active.run.closed:
        return (yield)
    with active.run.suspended():
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run the body in the run, then judge: one verdict, in this phase."""
    if not _is_marked(item):
        return (yield)
    if ACTIVE not in item.stash:  # an item without fixtures, e.g. of another plugin
        _start(item, {})
    active = item.stash[ACTIVE]
    run = active.run
    if run.refusal is not None:
        _finish(item, active, passed=False)
        pytest.fail(str(run.refusal), pytrace=False)
    try:
        with run.entered():
            result = yield
    except BaseException as error:
        verdict = _finish(item, active, passed=False)
        lines = _report(item, verdict)
        if _is_ours(error) and verdict.failing:
            pytest.fail("\n".join(lines), pytrace=False)
        if verdict.failing and not isinstance(error, pytest.skip.Exception):
            item.add_report_section("call", "spanchain", "\n".join(lines))
        elif verdict.aside is not None:
            item.add_report_section("call", "spanchain", f"the recording was kept at {verdict.aside}")
        raise
    verdict = _finish(item, active, passed=True)
    if verdict.failing:
        pytest.fail("\n".join(_report(item, verdict)), pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """A run whose body never ran ends here, without a cassette."""
    active = item.stash.get(ACTIVE, None)
    if active is not None:
        _finish(item, active, passed=False)
        del item.stash[ACTIVE]
        item.config.stash[CURRENT_ITEM] = None
    return (yield)


def _start(item: pytest.Item, config_fixture: object) -> Run:
    from . import _run, _store, boundaries

    if not isinstance(config_fixture, Mapping):
        raise pytest.UsageError(f"fixture spanchain_config returns a mapping, not {config_fixture!r}")
    try:
        settings = _settings.resolve(
            marker=_marker_kwargs(item),
            cli_mode=item.config.stash[CLI_MODE],
            fixture=config_fixture,
            ini=_ini(item.config),
            ci=os.environ.get("CI", "").lower() not in ("", "0", "false"),
        )
        run = _run.open_run(
            nodeid=item.nodeid,
            path=_store.cassette_path(item.config.rootpath / settings.directory, item.nodeid),
            settings=settings,
            hooks=_hooks(item),
            command=_command(item.nodeid, "--record-mode=once"),
        )
        stack = ExitStack()
        stack.enter_context(boundaries.around(run))
    except UsageError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from None
    item.stash[ACTIVE] = Active(run, stack)
    return run


def _hooks(item: pytest.Item) -> Hooks:
    from ._run import Hooks

    relay, config, nodeid = item.ihook, item.config, item.nodeid

    # Hooks change a copy in place, as pytest's own do, so that those of several conftests add up.
    def normalise(kind: str, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(request))
        relay.pytest_spanchain_normalise(config=config, nodeid=nodeid, kind=kind, name=name, request=copy)
        return copy

    def redact(kind: str, part: Mapping[str, Any]) -> Mapping[str, Any]:
        copy = deepcopy(dict(part))
        relay.pytest_spanchain_redact(config=config, nodeid=nodeid, kind=kind, part=copy)
        return copy

    def deviations(found: tuple[Deviation, ...]) -> tuple[Deviation, ...]:
        copy = list(found)
        relay.pytest_spanchain_deviations(config=config, nodeid=nodeid, deviations=copy)
        return tuple(copy)

    return Hooks(
        normalise=normalise if relay.pytest_spanchain_normalise.get_hookimpls() else None,
        redact=redact if relay.pytest_spanchain_redact.get_hookimpls() else None,
        deviations=deviations if relay.pytest_spanchain_deviations.get_hookimpls() else None,
    )


def _finish(item: pytest.Item, active: Active, *, passed: bool) -> Verdict:
    """Close the run once, count it once."""
    first = active.run.verdict is None
    cache = getattr(item.config, "cache", None)
    aside = cache.mkdir("spanchain-failed") if cache else None
    verdict = active.run.close(passed=passed, aside=aside)
    if first:
        active.stack.close()
        tally = item.config.stash[TALLY]
        tally.replayed += verdict.replayed
        tally.recorded += verdict.recorded
        tally.live += verdict.live_calls
        tally.unverified += active.run.refusal is not None
        if verdict.recorded and verdict.deviations:
            tally.changes.append("\n".join(_report(item, verdict)))
    return verdict


def _is_ours(error: BaseException) -> bool:
    """Whether the body failed because of what the run did to it: then the report says it better than a traceback."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, (MissError, LiveCallError, RunClosedError, CassetteError)):
            return True
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return False


# --- reports -----------------------------------------------------------------------------------------------------


def _report(item: pytest.Item, verdict: Verdict) -> list[str]:
    from ._report import report

    return report(
        verdict,
        accept=_command(item.nodeid, "--record-mode=rewrite"),
        closer=_command(item.nodeid, "-vv"),
        root=item.config.rootpath,
        verbosity=item.config.get_verbosity(),
        color=bool(getattr(item.config.get_terminal_writer(), "hasmarkup", False)),
    )


def _command(nodeid: str, option: str) -> str:
    return f"pytest {shlex.quote(nodeid)} {option}"


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """``assert cassette.live == cassette.golden`` prints the same report."""
    if op != "==" or not (hasattr(left, "deviations_from") and hasattr(right, "deviations_from")):
        return None
    from ._report import explain
    from ._trace import Trace

    if not (isinstance(left, Trace) and isinstance(right, Trace)):
        return None
    return explain(left, right, verbosity=config.get_verbosity())


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line a session, and what re-recordings changed."""
    tally = config.stash[TALLY]
    if not (tally.replayed or tally.recorded or tally.live or tally.unverified):
        return
    for change in tally.changes:
        terminalreporter.write_line(change)
    terminalreporter.write_line(
        f"spanchain: {tally.replayed} replayed, {tally.recorded} recorded, "
        f"{tally.live} live, {tally.unverified} unverified"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """An xdist worker hands its tally to the controller."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        tally = session.config.stash[TALLY]
        output["spanchain"] = dict(vars(tally))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The controller takes in a worker's tally."""
    output = getattr(node, "workeroutput", {})
    if "spanchain" in output:
        node.config.stash[TALLY].add(output["spanchain"])


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
        raise pytest.UsageError(f"{request.node.nodeid} uses the cassette fixture: mark it with @pytest.mark.cassette")
    return CassetteHandle(active.run, tool=tool)
