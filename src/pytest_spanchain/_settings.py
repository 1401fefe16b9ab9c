"""What the user may set, and the one place that decides which setting wins.

Precedence, strongest first: marker, command line, ``spanchain_config`` fixture, ini. Lists of the marker, the fixture
and the ini add up; single values override. An unknown name or value anywhere is a ``UsageError`` that names the
nearest valid one.

Every session of pytest imports this: so no dataclass, which takes a millisecond to make, and no expression compiled.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .errors import UsageError


class RecordMode(str, Enum):
    """When a run may record. ``all`` and ``rewrite`` are two names of one thing, as in other recorders."""

    NONE = "none"
    ONCE = "once"
    NEW_EPISODES = "new_episodes"
    ALL = "all"
    REWRITE = "rewrite"

    __str__ = str.__str__

    @property
    def replaces(self) -> bool:
        """Whether the run goes live and replaces an existing cassette."""
        return self in (RecordMode.ALL, RecordMode.REWRITE)


RECORD_MODES = tuple(mode.value for mode in RecordMode)

MODE_HELP = {
    RecordMode.NONE: "replay only (the default)",
    RecordMode.ONCE: "record if there is no cassette, else replay",
    RecordMode.NEW_EPISODES: "replay what is known, record the rest",
    RecordMode.ALL: "run live and replace the cassette if the test passes",
    RecordMode.REWRITE: "the same as all",
}


class Settings(NamedTuple):
    """Everything that steers one run.

    Args:
        mode: record mode.
        directory: where cassettes live; relative to the pytest root directory.
        tools: plain functions to record, ``module:function``, ``module:Class.method`` or ``module:*``; and how tools
            are found that nobody names: ``auto`` (the default) or ``off``, the last of these words counts.
        run: names of tools (globs) whose bodies run in replay, too: what they give is compared, not served.
        ignore: parts of a request that do not matter: JSON paths below ``request`` (``body.json.user``) or
            ``re:<pattern>`` applied to every text.
        ignore_attributes: span attribute names to leave out of the comparison.
        allow_hosts: hosts (``localhost`` stands for loopback) and Unix sockets (``unix:/run/db/*``) that may be
            contacted live in replay.
        redact: key names, JSON paths (with a dot) or ``re:<pattern>`` to replace before anything is stored.
        commands: child processes to record: globs on the command line (``git *``), or on the text given to a shell.
        command_env: names (globs) of environment variables that matter to them beside those that they are given.
        exact: kinds of volatile values (``VOLATILE``) that are compared as they are all the same.
        eval_id: groups runs of one evaluation; the node id without parameters by default.
        unfound: what it is that the model asked for a tool of which no call was met: a ``note`` (the default), or
            reason to ``fail``. Where no tools are looked for, none are missed.
    """

    mode: RecordMode = RecordMode.NONE
    directory: str = "cassettes"
    tools: tuple[Any, ...] = ()
    run: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ignore_attributes: tuple[str, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    redact: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    command_env: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    eval_id: str = ""
    unfound: str = "note"

    @property
    def listed_tools(self) -> tuple[Any, ...]:
        """The tools that were named."""
        return tuple(tool for tool in self.tools if tool not in TOOL_WORDS)

    @property
    def finds_tools(self) -> bool:
        """Whether tools are recorded that nobody named: those that frameworks run, and those that models ask for."""
        words = [tool for tool in self.tools if tool in TOOL_WORDS]
        return not words or words[-1] == AUTO

    def runs(self, tool: str) -> bool:
        """Whether a tool of that name runs for real in replay."""
        return any(fnmatchcase(tool, glob) for glob in self.run)


AUTO, OFF = "auto", "off"
TOOL_WORDS = (AUTO, OFF)
"""What ``tools`` may say besides naming functions."""

NOTE, FAIL = "note", "fail"
UNFOUND_WORDS = (NOTE, FAIL)
"""What ``unfound`` may say."""

VOLATILE = {
    "clock": "the date and the time of the run",
    "uuid": "a uuid that the process has just made",
    "pid": "the number of the process",
    "cwd": "the working directory, and pytest's root directory",
    "home": "the user's home directory",
    "tmp": "temporary files and directories, pytest's own among them",
    "port": "the port of a server on this machine",
    "stack": "what protocols count and draw for themselves: trace contexts, JSON-RPC ids",
}
"""What the run's own context supplies to prompts and arguments, by kind."""

_HOST = r"[^\W_]([\w.-]*\w)?"

SETTING_NAMES = Settings._fields
LIST_SETTINGS = (
    "tools",
    "run",
    "ignore",
    "ignore_attributes",
    "allow_hosts",
    "redact",
    "commands",
    "command_env",
    "exact",
)
INI_PREFIX = "spanchain_"
INI_NAMES = tuple(INI_PREFIX + ("record_mode" if name == "mode" else name) for name in SETTING_NAMES)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as `` (did you mean 'tools'?)``, or the list of valid names."""
    import difflib  # 2 ms that only a mistake needs

    choices = list(valid)
    found = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else f" (valid: {', '.join(choices)})"


def check_names(given: Iterable[str], *, where: str) -> None:
    """Refuse unknown setting names.

    Raises:
        UsageError: it names the place, the unknown name and the nearest valid one.
    """
    for name in given:
        if name not in SETTING_NAMES:
            raise UsageError(f"{where}: unknown setting {name!r}{nearest(name, SETTING_NAMES)}")


def check_ini(given: Iterable[str]) -> None:
    """Refuse unknown ``spanchain_*`` ini keys, which pytest itself lets pass without ``--strict-config``."""
    for name in given:
        if name.startswith(INI_PREFIX) and name not in INI_NAMES:
            raise UsageError(f"ini: unknown key {name!r}{nearest(name, INI_NAMES)}")


def parse_mode(value: Any, *, where: str) -> RecordMode:
    """A record mode from its name.

    Raises:
        UsageError: it names the place and the nearest valid mode.
    """
    if isinstance(value, str) and value in RECORD_MODES:
        return RecordMode(value)
    raise UsageError(f"{where}: unknown record mode {value!r}{nearest(str(value).lower(), RECORD_MODES)}")


def resolve(
    *,
    marker: Mapping[str, Any],
    cli_mode: str | None,
    fixture: Mapping[str, Any],
    ini: Mapping[str, Any],
    ci: bool,
) -> Settings:
    """The settings of one run.

    Args:
        marker: keyword arguments of ``@pytest.mark.cassette``.
        cli_mode: ``--record-mode`` as given on the command line, else ``None``.
        fixture: what the ``spanchain_config`` fixture returned.
        ini: settings from the ini file by setting name.
        ci: whether this runs under CI; there, recording needs the command line, so that nothing that is committed
            (a marker, a fixture, the ini file) can make CI spend money.

    Raises:
        UsageError: for an unknown name or a value of the wrong type.
    """
    layers = [("ini", ini), ("fixture spanchain_config", fixture), ("marker cassette", marker)]
    merged: dict[str, Any] = {}
    for where, layer in layers:
        check_names(layer, where=where)
        for name, value in layer.items():
            if name == "mode":
                continue
            if name in LIST_SETTINGS:
                merged[name] = merged.get(name, ()) + _as_tuple(value, name=name, where=where)
            elif not isinstance(value, str) or not value:
                raise UsageError(f"{where}: {name} takes a non-empty text, not {value!r}")
            elif name == "unfound" and value not in UNFOUND_WORDS:
                raise UsageError(f"{where}: unfound: there is no {value!r}{nearest(value, UNFOUND_WORDS)}")
            else:
                merged[name] = value
    return Settings(mode=_mode(marker=marker, cli_mode=cli_mode, fixture=fixture, ini=ini, ci=ci), **merged)


def _mode(
    *, marker: Mapping[str, Any], cli_mode: str | None, fixture: Mapping[str, Any], ini: Mapping[str, Any], ci: bool
) -> RecordMode:
    command_line = {} if cli_mode is None else {"mode": cli_mode}
    layers = {
        "ini": ini,
        "fixture spanchain_config": fixture,
        "--record-mode": command_line,
        "marker cassette": marker,
    }
    # Parsed even where another layer wins: a misspelt mode is an error wherever it stands.
    said = [parse_mode(layer["mode"], where=where) for where, layer in layers.items() if "mode" in layer]
    if ci and cli_mode in (None, RecordMode.NONE):
        return RecordMode.NONE
    return said[-1] if said else RecordMode.NONE


def _as_tuple(value: Any, *, name: str, where: str) -> tuple[Any, ...]:
    if name == "tools" and isinstance(value, str) and value in TOOL_WORDS:
        return (value,)
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise UsageError(f"{where}: {name} takes a list, not {value!r}")
    for one in value:
        if name == "tools" and callable(one):
            continue
        if not isinstance(one, str) or not one:
            raise UsageError(f"{where}: {name} takes non-empty texts, not {one!r}")
        if problem := _problem(name, one):
            raise UsageError(f"{where}: {name}: {problem}")
    return tuple(sorted(value)) if isinstance(value, (set, frozenset)) and name != "tools" else tuple(value)


def _problem(name: str, text: str) -> str:
    """What is wrong with one text of a list setting: what could never have an effect is an error, not ignored."""
    if name == "allow_hosts":
        from ._hosts import is_address

        if text.startswith("unix:") or is_address(text) or re.fullmatch(_HOST, text):
            return ""
        return f"{text!r} is no host name or address (without scheme, port and path), and no unix:<glob of a path>"
    if name == "commands" and sys.platform == "win32":
        return f"child processes are not recorded on Windows: {text!r} would run in replay, too"
    if name == "commands":
        return "" if text == text.strip() else f"no command line begins or ends with a blank: {text!r}"
    if name == "command_env":
        return f"{text!r} is no name of a variable" if "=" in text else ""
    if name == "exact":
        return "" if text in VOLATILE else f"there is no kind of volatile value {text!r}{nearest(text, VOLATILE)}"
    if name not in ("ignore", "redact"):
        return ""
    try:
        return _rule_problem(name, text)
    except UsageError as error:
        return str(error)


def _rule_problem(name: str, text: str) -> str:
    from . import _rules
    from ._shape import REQUEST_PARTS

    rules = _rules.sort_out([text], names=name == "redact")
    for pattern in rules.patterns:
        _rules.compile_pattern(pattern)
    for path in rules.paths:
        first = _rules.compile_path(path).steps[0]
        if first in ("request", "response") or (name == "ignore" and first not in (*REQUEST_PARTS, "*", "**")):
            below = "a request: " if name == "ignore" else "a request or a response: "
            parts = f"{', '.join(REQUEST_PARTS)}, * or **"
            inner = path.partition(".")[2] if first in ("request", "response") else ""
            instead = f": write {inner!r}" if inner else ""
            return f"the path {path!r} leads nowhere, paths start below {below}{parts}{instead}"
    return ""
