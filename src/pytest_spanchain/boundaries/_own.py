"""What code is the user's own: not the standard library's, nobody's package in any environment, and not ours.

Told by the file that a function was compiled from and the file of the module that it lives in; both must be the user's.
An installed package is not, an editable install is.

Invariant: the answer depends on the file and on where the project is, and not on where the process has gone since.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path
from types import FunctionType
from typing import Any

from .. import _patch, _session

_PACKAGES = {"site-packages", "dist-packages"}
_OURS = str(Path(__file__).resolve().parent.parent)
_LIBRARY = ("stdlib", "platstdlib")
_IN_ENVIRONMENT = {"lib", "lib64", "Lib", "bin", "Scripts", "include", "share"}
_TEST_FILES = ("test_", "conftest")


def _started_in() -> tuple[str, ...]:
    try:
        return (os.getcwd(),)
    except OSError:  # it is gone
        return ()


_STARTED_IN = _started_in()


def is_users(function: FunctionType) -> bool:
    """Whether a function is the user's, and no test or fixture."""
    home = function.__globals__.get("__file__")
    if not is_users_file(_patch.code_of(function).co_filename):
        return False
    if isinstance(home, str) and not is_users_file(home):
        return False
    return not _is_test(function) and not _is_fixture(function)


def is_users_class(cls: type) -> bool:
    """Whether a class is defined in the user's code."""
    name = type.__getattribute__(cls, "__module__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    home = getattr(module, "__file__", None)
    if isinstance(home, str):
        return is_users_file(home)
    # A module that was executed and not imported: what its methods were compiled from tells.
    return module is None and any(
        isinstance(member, FunctionType) and is_users_file(_patch.code_of(member).co_filename)
        for member in list(type.__getattribute__(cls, "__dict__").values())
    )


def is_users_file(path: str) -> bool:
    """Whether a source file is the user's."""
    return _is_users_file(path, homes())


def homes() -> tuple[str, ...]:
    """Where the project is; outside of pytest, where the process was when it first had a run."""
    session = _session.current()
    return (session.homes if session is not None else ()) or _STARTED_IN


@functools.cache
def _is_users_file(path: str, homes: tuple[str, ...]) -> bool:
    if not path or path.startswith("<"):  # made by a program: dataclasses, templates, a shell
        return False
    # A relative entry of ``sys.path`` makes relative files; they are relative to where the program was started.
    absolute = os.path.normpath(os.path.join(*homes[:1], path))
    return not any(_is_foreign(spelling, homes) for spelling in {absolute, os.path.realpath(absolute)})


def _is_foreign(path: str, homes: tuple[str, ...]) -> bool:
    parts = Path(path).parts
    return (
        bool(_PACKAGES.intersection(parts))
        or any(path.startswith(directory + os.sep) for directory in (_OURS, *_standard_library()))
        or _is_in_environment(Path(path), homes)
    )


@functools.lru_cache(maxsize=1)
def _standard_library() -> tuple[str, ...]:
    found = {sysconfig.get_path(name) for name in _LIBRARY}
    return tuple({spelling for path in found if path for spelling in (path, os.path.realpath(path))})


def _is_in_environment(path: Path, homes: tuple[str, ...]) -> bool:
    """Below a virtual environment; of one that holds the whole project, only in the directories that are its own."""
    for parent in path.parents:
        if _is_environment(parent):
            holds_project = any(parent in (home, *home.parents) for home in _spelt(homes))
            return not holds_project or path.relative_to(parent).parts[0] in _IN_ENVIRONMENT
    return False


@functools.cache
def _spelt(homes: tuple[str, ...]) -> tuple[Path, ...]:
    """As they are written, and as they are."""
    return tuple({Path(spelling) for home in homes for spelling in (home, os.path.realpath(home))})


@functools.cache
def _is_environment(directory: Path) -> bool:
    return (directory / "pyvenv.cfg").is_file() or (directory / "conda-meta").is_dir()


def _is_test(function: FunctionType) -> bool:
    """A tool may be called ``test_connection``: only what lives where tests live, or is marked as one, is a test."""
    if "pytestmark" in vars(function):
        return True
    if not function.__name__.startswith("test"):
        return False
    name = os.path.basename(_patch.code_of(function).co_filename)
    return name.startswith(_TEST_FILES) or name.endswith("_test.py") or function.__qualname__.startswith("Test")


def _is_fixture(function: FunctionType) -> bool:
    """By what has taken its place: pytest hands its module a definition instead of the function."""
    if hasattr(function, "_pytestfixturefunction") or hasattr(function, "__pytest_wrapped__"):
        return True
    place: Any = function.__globals__
    for step in function.__qualname__.split("."):
        place = (
            place.get(step) if isinstance(place, dict) else vars(place).get(step) if isinstance(place, type) else None
        )
    return is_pytests(type(place))


def is_pytests(cls: type) -> bool:
    """Whether a class is one of pytest's own."""
    return str(type.__getattribute__(cls, "__module__")).startswith("_pytest.")
