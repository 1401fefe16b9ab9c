"""What an MCP client's library raised when this was recorded, raised again."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Mapping
from typing import Any

_STATUS = re.compile(r"'(\d{3}) [^']*' for url '([^']*)'")
_NUMBERED = re.compile(r"\[Errno (-?\d+)\] ([^:]*)(?:: '(.*)')?", re.DOTALL)


def raised_again(error: Mapping[str, Any]) -> Exception:
    """An exception as it was recorded, if its class is one of Python's or of an imported client's; else its kin."""
    kind = getattr(builtins, error["type"], None)
    for library in ("io", "anyio", "httpx", "httpx2"):
        kind = kind or getattr(sys.modules.get(library), error["type"], None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return ConnectionError(f"{error['type']}: {error['message']}")
    numbered = _NUMBERED.fullmatch(error["message"])
    if issubclass(kind, OSError) and numbered:
        number, words, filename = numbered.groups()
        return OSError(int(number), words, *([filename] if filename else []))
    refused = _STATUS.search(error["message"])
    if error["type"] == "HTTPStatusError" and refused:
        client: Any = sys.modules[kind.__module__.partition(".")[0]]
        request = client.Request("POST", refused[2])
        response = client.Response(int(refused[1]), request=request)
        made: Exception = client.HTTPStatusError(error["message"], request=request, response=response)
        return made
    try:
        return kind(error["message"]) if error["message"] else kind()
    except TypeError:
        return ConnectionError(f"{error['type']}: {error['message']}")
