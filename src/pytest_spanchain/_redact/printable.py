"""What of a live value may stand in a report: nothing that a cassette may not hold.

Redaction proper replaces what it knows to be a credential. What only looks like one stops a recording; a report has to
be printed all the same, and goes to the logs of builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import secrets as _secrets
from . import stream as _redact_stream

UNPRINTABLE = "[not shown: looks like a credential]"
"""Not the placeholder of redaction: this is never equal to what was recorded."""


def printable(plain: Any) -> Any:
    """A plain value for a report: every text that looks as if it held a key, and so could not be recorded, is replaced.

    The whole text goes, since a key format only says where a key begins. The same object if there is none.
    """
    if isinstance(plain, str):
        held = any(_secrets.held_format(text) is not None for text in (plain, *_redact_stream.joined(plain)))
        return UNPRINTABLE if held else plain
    if isinstance(plain, Mapping):
        pairs = {printable(key): printable(item) for key, item in plain.items()}
        same = len(pairs) == len(plain) and all(pairs.get(key) is item for key, item in plain.items())
        return plain if same else pairs
    if isinstance(plain, (list, tuple)):
        items = [printable(item) for item in plain]
        return plain if all(new is old for new, old in zip(items, plain, strict=True)) else type(plain)(items)
    return plain
