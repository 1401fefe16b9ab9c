"""How single values are written in YAML: plain, quoted, as a literal block, or as lines in quotes.

Invariant: whatever form is chosen, the strict reader, and any other reader of YAML, gives back the same value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from json.encoder import encode_basestring as _json_text
from typing import Any

from ..errors import Unrecordable
from .limits import MAX_DIGITS, MAX_KEY

INDENT = 2
"""Columns of one level; a literal block that starts with a blank has to name them."""

# Text that every YAML reader, of 1.1 and 1.2, takes for text. Hex runs are left out: a hash that starts with a letter
# should look like one that starts with a digit.
_PLAIN = re.compile(r"(?![0-9a-f]{16,}\Z)[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
_TYPED_WORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})

# Legal in JSON text, but not (or not verbatim) in YAML: DEL, C1 with NEL, line and paragraph separator, BOM,
# non-characters. C0 is escaped by JSON itself.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
NEEDS_ESCAPE = re.compile('["\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]')

# A literal block cannot hold these; a blank before a line end it can, but editors and hooks strip it.
_NOT_LITERAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|[ \t](?=\n|\\Z)")
_BITS_PER_DIGIT = math.log2(10)


def is_plain(text: str) -> bool:
    """Whether text is written without quotes."""
    return _PLAIN.fullmatch(text) is not None and text.lower() not in _TYPED_WORDS


def text_lines(lead: str, text: str, margin: str) -> Iterator[str]:
    """Text that needs escapes in JSON: a literal block if that is exact and safe from editors, else quoted lines."""
    body = text.rstrip("\n")
    if not body or body.startswith("\t") or _NOT_LITERAL.search(text):
        yield from _quoted_lines(lead, text, margin)
        return
    tail = len(text) - len(body)
    explicit = str(INDENT) if body[0] in " \n" else ""
    yield f"{lead} |{explicit}{'-' if tail == 0 else '' if tail == 1 else '+'}"
    for line in (text[:-1] if tail else text).split("\n"):
        yield margin + line if line else ""


def _quoted_lines(lead: str, text: str, margin: str) -> Iterator[str]:
    """Double quotes, one line of text per line; a backslash before the line end keeps every blank."""
    first, *rest = re.findall(r"[^\n]*\n|[^\n]+", text)
    if not rest:
        yield f"{lead} {_quote(first)}"
        return
    yield f'{lead} "{_quote(first)[1:-1]}\\'
    for position, line in enumerate(rest):
        inner = _quote(line)[1:-1]
        # A blank that starts a continued line would be skipped.
        inner = "\\" + inner if inner.startswith(" ") else inner
        yield margin + inner + ('"' if position == len(rest) - 1 else "\\")


def _quote(text: str) -> str:
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", _json_text(text))


def quoted(value: str, path: str) -> str:
    """Text as in JSON, with what YAML does not allow escaped; ``path`` is for the refusal of lone surrogates."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise Unrecordable(f"{path}: text holds a lone surrogate") from None
    return _quote(value)


def number_or_word(value: Any, path: str) -> str:
    """A number, boolean or null in the form that every reader takes for it; anything else is refused."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if type(value) is int:
        if value.bit_length() > (MAX_DIGITS - 1) * _BITS_PER_DIGIT:
            raise Unrecordable(f"{path}: an integer of more than {MAX_DIGITS} digits")
        return str(value)
    if type(value) is float and math.isfinite(value):
        return _float(value)
    raise Unrecordable(f"{path}: {type(value).__qualname__} has no plain form here")


def _float(value: float) -> str:
    """Shortest digits that give the same number, in the form that YAML 1.1, YAML 1.2 and JSON all read as a float."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"


def key_text(key: str, path: str) -> str:
    """A mapping key in a block; one that is no YAML simple key is refused."""
    written = key if is_plain(key) else quoted(key, path)
    if len(written) > MAX_KEY:
        raise Unrecordable(f"{path}: a mapping key of more than {MAX_KEY} characters")
    return written


def flow_key(written: str) -> str:
    """The same key in JSON."""
    return written if written.startswith('"') else f'"{written}"'
