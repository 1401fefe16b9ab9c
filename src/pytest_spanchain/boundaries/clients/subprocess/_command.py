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
from .._variables import text_of

INTERPRETER = "python"
"""How the interpreter that runs the agent is written, wherever it lies."""

_BIN = frozenset({"bin", "sbin", "Scripts"})


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


def _program(word: str) -> str:
    """A program's name without the place where this machine keeps it; of the agent's own programs with it."""
    # By text alone: in replay the program need not be there.
    if word == sys.executable:
        return INTERPRETER
    kept = os.path.isabs(word) and os.path.basename(os.path.dirname(word)) in _BIN
    return os.path.basename(word) if kept else word
