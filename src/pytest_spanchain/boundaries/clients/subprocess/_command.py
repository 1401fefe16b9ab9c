"""What a child process is asked: its command line, its directory, and the variables that were chosen for it.

Invariants:

* What differs from machine to machine and says nothing of the agent is not in it: where a program lies, the variables
  that a child inherits anyway, the trace context.
* It is text that a cassette can hold, whatever bytes the operating system was given.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .... import _body

INTERPRETER = "python"
"""How the interpreter that runs the agent is written, wherever it lies."""

_BIN = frozenset({"bin", "sbin", "Scripts"})
_NOT_CHOSEN = ("TRACEPARENT", "TRACESTATE", "BAGGAGE", "PYTEST_", "SPANCHAIN_", "COV_", "COVERAGE_")
_LONG = 4


@dataclass(frozen=True)
class Command:
    """What is started.

    Args:
        argv: the command line, as recorded.
        name: base name of the executable.
        cwd: its directory, ``None`` if it is ours.
        spellings: the texts that the setting ``commands`` is matched with.
        program: the executable as it was given.
        own_group: whether it leads a process group of its own.
    """

    argv: tuple[str, ...]
    name: str
    cwd: str | None
    spellings: tuple[str, ...]
    program: Any
    own_group: bool = False

    def request(self, env: Mapping[str, str], stdin: bytes) -> dict[str, Any]:
        """The plain request (shape: see ``_model``)."""
        body = _body.body_of([stdin], content_type="", layout=False)
        return {"argv": list(self.argv), "cwd": self.cwd, "env": dict(env), "stdin": body}


def command_of(given: Mapping[str, Any]) -> Command | None:
    """The command in the arguments of ``Popen._execute_child``; ``None`` if they are no command at all."""
    args, executable = given["args"], given["executable"]
    try:
        words = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        texts = [text_of(word) for word in words]
    except TypeError:
        return None
    if not texts:
        return None
    cwd = None if given["cwd"] is None else text_of(given["cwd"])
    group = bool(given.get("start_new_session")) or given.get("process_group") == 0
    if given["shell"]:
        argv = ("sh", "-c", *texts)
        return Command(argv, "sh", cwd, (texts[0],), executable or "/bin/sh", group)
    program = texts[0] if executable is None else text_of(executable)
    argv = (_program(texts[0]), *texts[1:])
    spelt = [shlex.join([first, *texts[1:]]) for first in (texts[0], os.path.basename(texts[0]), argv[0])]
    name = os.path.basename(_program(program)) or program
    return Command(argv, name, cwd, tuple(dict.fromkeys(spelt)), executable or words[0], group)


def matches(spellings: Iterable[str], patterns: Iterable[str]) -> bool:
    """Whether a pattern names a command; one that ends in `` *`` is also met without arguments."""
    patterns = tuple(patterns)
    return any(
        fnmatchcase(text, glob) or (glob.endswith(" *") and fnmatchcase(text, glob[:-2]))
        for text in spellings
        for glob in patterns
    )


def chosen(env: Mapping[Any, Any] | None, names: Iterable[str]) -> dict[str, str]:
    """The variables that were chosen for a child: what it is given beside our own, and what was asked for by name.

    Args:
        env: as given to ``Popen``.
        names: globs of the setting ``command_env``.
    """
    globs = tuple(names)
    found = {}
    for key, value in (os.environ if env is None else env).items():
        name, text = text_of(key), text_of(value)
        own = os.environ.get(name)
        if name.upper().startswith(_NOT_CHOSEN):
            continue
        if (env is not None and own != text) or any(fnmatchcase(name, glob) for glob in globs):
            # What is put before a search path is the agent's, the rest of the path is the machine's.
            is_longer = own is not None and len(own) >= _LONG and own != text and own in text
            found[name] = text.replace(own, f"${name}") if is_longer and own is not None else text
    return dict(sorted(found.items()))


def text_of(given: Any) -> str:
    """Text that a cassette can hold.

    Raises:
        TypeError: it is neither text, nor bytes, nor a path.
    """
    text = os.fspath(given)
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "backslashreplace")


def _program(word: str) -> str:
    """A program's name without the place where this machine keeps it; of the agent's own programs with it."""
    # By text alone: in replay the program need not be there.
    if word == sys.executable:
        return INTERPRETER
    kept = os.path.isabs(word) and os.path.basename(os.path.dirname(word)) in _BIN
    return os.path.basename(word) if kept else word
