"""The options that pytest shows as ours, and what the command line and the ini file say.

``--record-mode`` may belong to another plugin; whose it is, and whether a value was typed or comes from a file that is
committed, is decided here and nowhere else.
"""

from __future__ import annotations

import argparse
import copy
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _settings
from .errors import UsageError

if TYPE_CHECKING:
    import pytest

OPTION = "--record-mode"
OWN_OPTION = "--spanchain-mode"
DEST = "spanchain_mode"
GROUP = "spanchain"
WORKER_KEY = "spanchain_said"

_MODES = "; ".join(f"{mode}: {text}" for mode, text in _settings.MODE_HELP.items())
_INI_HELP = {
    "record_mode": ("string", f"record mode where the command line names none (not under CI): {_MODES}"),
    "directory": ("string", "directory of the cassettes, relative to the root directory (default: cassettes)"),
    "tools": (
        "linelist",
        "functions to record in every marked test: module:function, module:Class.method, module:*; off: no others",
    ),
    "run": ("linelist", "names of tools whose bodies run in replay, too; what they give is compared"),
    "ignore": ("linelist", "parts of requests that do not matter: JSON paths such as body.json.user, or re:<pattern>"),
    "ignore_attributes": ("linelist", "span attributes to leave out of the comparison"),
    "allow_hosts": ("linelist", "hosts that may be contacted in replay; localhost stands for loopback"),
    "redact": ("linelist", "more to redact: key names, JSON paths (with a dot), or re:<pattern>"),
    "commands": ("linelist", "child processes to record: globs on the command line, such as git *"),
    "command_env": ("linelist", "environment variables (globs) that matter to them beside those that they are given"),
    "exact": ("linelist", f"volatile values to compare as they are: {', '.join(_settings.VOLATILE)}"),
    "unfound": ("string", "a tool that the model asked for and of which no call was met: note (the default), or fail"),
    "eval_id": ("string", "groups runs of one evaluation (default: the node id without parameters)"),
}


class Said(NamedTuple):
    """What was said about the record mode outside of the tests.

    Args:
        typed: on the command line (or in ``PYTEST_ADDOPTS``) of this very session.
        committed: in the ini file, as ``spanchain_record_mode`` or among its ``addopts``.
    """

    typed: str | None = None
    committed: str | None = None


def add(parser: pytest.Parser) -> None:
    """Add the option and the ini keys whose names are ours alone."""
    group = parser.getgroup(GROUP, "golden traces (spanchain)")
    group.addoption(
        OWN_OPTION,
        dest=DEST,
        type=_mode,
        metavar="MODE",
        default=None,
        help=f"the same as {OPTION}, where another plugin's {OPTION} does not take the value",
    )
    for name, (kind, text) in _INI_HELP.items():
        parser.addini(_settings.INI_PREFIX + name, text, type=kind, default=None)  # type: ignore[arg-type]


def add_shared(parser: pytest.Parser, *, early_config: pytest.Config, args: list[str]) -> None:
    """Add ``--record-mode`` unless another plugin has; to be called once every installed plugin has added its options.

    Two plugins that define one option crash pytest, whichever loads second, and neither can know in
    ``pytest_addoption``. pytest has no public way to ask which options exist, hence the guarded private access.
    """
    groups = [*getattr(parser, "_groups", []), getattr(parser, "_anonymous", None)]
    if any(OPTION in option.names() for group in groups if group for option in group.options):
        return
    try:
        parser.getgroup(GROUP).addoption(
            OPTION,
            dest=DEST,
            type=_mode,
            metavar="MODE",
            default=None,
            help=f"what marked tests may record; default none. {_MODES}",
        )
    except ValueError:  # a pytest whose parser hides its groups from us, and another plugin's option
        return
    # Conftests that are loaded after this look at what is known already; also at what pytest has decided by now, such
    # as where to stop looking for them.
    decided = vars(early_config.known_args_namespace)
    early_config.known_args_namespace = parser.parse_known_args(args, namespace=copy.copy(early_config.option))
    for name, value in decided.items():
        if getattr(early_config.known_args_namespace, name, None) is None:
            setattr(early_config.known_args_namespace, name, value)


def said(config: pytest.Config) -> Said:
    """What the command line and the ini file say about the record mode.

    Raises:
        UsageError: the ini file names an unknown mode.
    """
    handed_over = getattr(config, "workerinput", {}).get(WORKER_KEY)
    if handed_over is not None:  # an xdist worker: only the controller saw the command line
        return Said(*handed_over)
    ini = config.getini(_settings.INI_PREFIX + "record_mode") or None
    if ini is not None:
        _settings.parse_mode(ini, where="ini: spanchain_record_mode")
    own, shared = config.getoption(DEST, None), config.getoption(OPTION, None)
    typed, addopts = list(_typed(config)), [str(arg) for arg in config.getini("addopts")]
    if own is not None and not _value(own, shared, addopts):
        return Said(typed=own, committed=ini)  # also where the words are in a file of arguments (``@file``)
    return Said(typed=_value(own, shared, typed), committed=_value(own, shared, addopts) or ini)


def check_ini(config: pytest.Config) -> None:
    """Refuse misspelt ``spanchain_*`` keys of the ini file and of ``-o``.

    Raises:
        UsageError: it names the nearest valid key.
    """
    # There is no public way to see keys that nobody registered (``Config.inicfg`` is deprecated since pytest 9).
    in_file = config._inicfg if hasattr(config, "_inicfg") else config.inicfg
    overrides = [text.partition("=")[0] for text in config.getoption("override_ini", None) or ()]
    _settings.check_ini([*in_file, *overrides])


def ini_settings(config: pytest.Config, *, mode: str | None) -> dict[str, Any]:
    """Settings of the ini file by setting name; ``mode`` is what ``said`` found committed."""
    found: dict[str, Any] = {} if mode is None else {"mode": mode}
    for name in _settings.SETTING_NAMES:
        if name != "mode" and (value := config.getini(_settings.INI_PREFIX + name)):
            found[name] = value
    return found


def under_ci() -> bool:
    """Whether this runs under continuous integration, by the variable that all providers set."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _mode(text: str) -> str:
    """argparse type of the mode options; unlike ``choices``, it names the nearest valid mode."""
    try:
        return _settings.parse_mode(text, where="").value
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None


def _typed(config: pytest.Config) -> Iterator[str]:
    yield from shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    yield from (str(arg) for arg in config.invocation_params.args)


def _value(own: str | None, shared: str | None, args: Sequence[str]) -> str | None:
    """The mode that ``args`` ask for. A value that nobody wrote is the default of another plugin's option."""
    names = {arg.partition("=")[0] for arg in args}
    for value, name in ((own, OWN_OPTION), (shared, OPTION)):
        if value is not None and name in names:
            return str(value)
    return None
