"""Which environment variables were chosen for a child process, and are its author's: not what it inherits anyway.

Nor what a gateway supplies, which says of each run where it is and which key stands for the real one; where the author
says of something that it is at the gateway, ``$SPANCHAIN_GATEWAY`` stands for where that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_NOT_CHOSEN = ("TRACEPARENT", "TRACESTATE", "BAGGAGE", "PYTEST_", "SPANCHAIN_", "COV_", "COVERAGE_")
_LONG = 4

GATEWAY = "SPANCHAIN_GATEWAY"
"""Names the gateway, by its URL, in the environment of its children."""

_supplied: dict[str, Mapping[str, str]] = {}


def supply(url: str, variables: Mapping[str, str]) -> None:
    """A gateway gives children these variables, until it takes them back."""
    _supplied[url] = variables


def take_back(url: str) -> None:
    """The gateway is closed."""
    _supplied.pop(url, None)


def chosen(env: Mapping[Any, Any] | None, names: Iterable[str]) -> dict[str, str]:
    """The variables that were chosen for a child: what it is given beside our own, and what was asked for by name.

    Args:
        env: as given to ``Popen``.
        names: globs of the setting ``command_env``.
    """
    globs = tuple(names)
    url = text_of("" if env is None else env.get(GATEWAY, ""))
    supplied = _supplied.get(url, {})
    found = {}
    for key, value in (os.environ if env is None else env).items():
        name, text = text_of(key), text_of(value)
        own = os.environ.get(name)
        if name.upper().startswith(_NOT_CHOSEN) or supplied.get(name) == text:
            continue
        if (env is not None and own != text) or any(fnmatchcase(name, glob) for glob in globs):
            # What is put before a search path is the agent's, the rest of the path is the machine's.
            is_longer = own is not None and len(own) >= _LONG and own != text and own in text
            text = text.replace(own, f"${name}") if is_longer and own is not None else text
            found[name] = text.replace(url, f"${GATEWAY}") if url else text
    return dict(sorted(found.items()))


def text_of(given: Any) -> str:
    """Text that a cassette can hold.

    Raises:
        TypeError: it is neither text, nor bytes, nor a path.
    """
    text = os.fspath(given)
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "backslashreplace")
