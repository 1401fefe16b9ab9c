"""What a model request says, whichever form its body has: JSON, or the fields of a multipart form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r'^content-disposition:\s*form-data\b[^\r\n]*?;\s*name="([^"\r\n]*)"', re.IGNORECASE | re.MULTILINE)


def content(body: Mapping[str, Any] | None) -> Any:
    """The JSON of a request's BODY (shape: see ``_model``), or a form's fields by name; of several the last one."""
    if body is None or "json" in body:
        return body and body["json"]
    text = body.get("text")
    return _fields(text) if isinstance(text, str) and text.startswith("--") else None


def _fields(text: str) -> dict[str, str]:
    delimiter = text.partition("\n")[0].rstrip("\r")
    found = {}
    for part in text.split(delimiter):
        head, _, value = part.lstrip("\r\n").replace("\r\n", "\n").partition("\n\n")
        name = _NAME.search(head)
        if name is not None:
            found[name[1]] = value.removesuffix("\n")
    return found
