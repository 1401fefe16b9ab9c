"""Whether a function can be the tool that a model was offered: by its name, and by what it takes.

What is said of a function depends on the function and on the declaration, and on nothing else that happens to be
imported: a recording made alone and a replay in the whole suite must come to the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from enum import IntEnum
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FunctionType

from .. import _patch
from .._genai import ToolDeclaration


class Fit(IntEnum):
    """How well a function fits a declaration."""

    NONE = 0
    ASKED = 1
    """It could be: a call counts if it is one that the model has asked for."""
    NAMED = 2
    """Its name and all its parameters are the declared ones: all calls count, until something speaks against it."""
    SURE = 3
    """The same, and the program keeps it under the tool's name, or a call was what the model had asked for."""


SUPPLIED = {
    *(
        "ctx",
        "context",
        "run_context",
        "tool_context",
        "runtime",
        "config",
        "state",
        "deps",
        "agent",
        "user",
        "request",
    ),
    *("db", "conn", "connection", "cursor", "session", "client", "store", "cache", "logger", "log", "settings"),
}
"""Parameters that agents fill in themselves, though the model knows nothing of them."""

_AFFIX = re.compile(r"^(?:do|on|run|call|exec|execute|handle|tool)_|_(?:tool|handler|fn|func|function|impl)$")


def spellings(text: str) -> tuple[str, ...]:
    """What a name comes down to: as it is but for case and separators, and without words like ``do_`` and ``_tool``."""
    plain, bare = _plain(text), _bare(text)
    return (plain,) if plain == bare else (plain, bare)


class Names:
    """The declared names, and which of them a name in the code could mean."""

    def __init__(self, declared: Iterable[str]) -> None:
        self.exact = dict.fromkeys(declared).keys()
        self.spelt: dict[str, list[str]] = {}
        for name in sorted(self.exact):
            # ``shop__refund``, ``shop.refund``: the last part is the tool, the rest says whose it is.
            for spelling in {*spellings(name), _plain(re.split(r"__|[.:/]", name)[-1])} - {""}:
                self.spelt.setdefault(spelling, []).append(name)

    def meant(self, text: str) -> list[str]:
        """Declared names that a name in the code is, or is spelt a little differently from."""
        found = [name for spelling in spellings(text) for name in self.spelt.get(spelling, ())]
        return list(dict.fromkeys([text, *found])) if text in self.exact else list(dict.fromkeys(found))


def fit(function: FunctionType, declaration: ToolDeclaration, *, bound: bool) -> Fit:
    """How well a function of the right name takes what the model gives: ``SURE``, ``ASKED`` or ``NONE``.

    Args:
        function: the function.
        declaration: the tool.
        bound: whether the first parameter is a receiver.
    """
    code = _patch.code_of(function)
    positional, keyword = _parameters(code, bound=bound)
    named = {*positional[max(0, code.co_posonlyargcount - bound) :], *keyword}
    optional = positional[len(positional) - min(len(positional), len(function.__defaults__ or ())) :]
    required = {*positional, *keyword} - {*optional, *(function.__kwdefaults__ or {})}
    if declaration.parameters is None:
        return Fit.SURE if len(required - SUPPLIED) <= 1 else Fit.ASKED
    properties = declaration.parameters.get("properties")
    wanted = {_plain(name) for name in properties} if isinstance(properties, Mapping) else set()
    accepted = {_plain(name) for name in named}
    if wanted <= accepted or code.co_flags & CO_VARKEYWORDS:
        supplied = {name for name in required if _plain(name) not in wanted}
        return Fit.SURE if supplied <= SUPPLIED else Fit.ASKED
    takes = len(positional) if not code.co_flags & CO_VARARGS else len(wanted)
    needed = required - SUPPLIED
    # One parameter for all of them, or the same number under other names.
    return Fit.ASKED if takes and (len(needed) <= 1 or len(needed) <= len(wanted) <= takes) else Fit.NONE


def _parameters(code: CodeType, *, bound: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    count, keyword = code.co_argcount, code.co_kwonlyargcount
    return code.co_varnames[min(bound, count) : count], code.co_varnames[count : count + keyword]


@functools.lru_cache(maxsize=65536)
def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@functools.lru_cache(maxsize=65536)
def _bare(name: str) -> str:
    """Without the words that say no more than that it is a tool."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W", "_", name).lower().strip("_")
    return _plain(_AFFIX.sub("", _AFFIX.sub("", snake)) or name)
