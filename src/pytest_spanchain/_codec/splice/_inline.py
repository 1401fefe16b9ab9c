"""Parts of canonical text, and values that stand on one line of a cassette; see the package for what it may assume."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Sequence
from json.encoder import encode_basestring as json_text
from typing import TypeAlias

from ..._canonical import LIFTED, canonical
from ..limits import MAX_DEPTH, MAX_KEY
from ..scalars import is_plain

MEMORABLE = 160
"""Characters up to which a value or a line is remembered: short ones come again."""

is_verbatim = re.compile(r'"[^"\\\t]*"|-?[1-9][0-9]{0,14}|0|null|true|false').fullmatch
"""Whether a value is its own canonical text."""
_LARGE = re.compile(r"-?[1-9][0-9]{15,3998}")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,30})\.[0-9]{1,30}(?:e[-+][0-9]{2,3})?")
_PLAIN_ITEM = r'(?:"[^"\\\t]*"|-?[1-9][0-9]{0,14}|0|null|true|false)'
_FLAT_LIST = rf"\[(?:{_PLAIN_ITEM}(?:, {_PLAIN_ITEM})*)?\]"
_KEY = r'"[\x20-\x21\x23-\x5b\x5d-\x7e]*": '
_FLAT_PAIR = rf"{_KEY}(?:{_PLAIN_ITEM}|{_FLAT_LIST})"
_FLAT = re.compile(rf"{_FLAT_LIST}|\{{(?:{_FLAT_PAIR}(?:, {_FLAT_PAIR})*)?\}}")
_PAIR = re.compile(rf'"([^"]*)": (?:{_PLAIN_ITEM}|{_FLAT_LIST})')
_NUMBERS = re.compile(r"\[[-+0-9.e, ]*\]")
# What JSON's writer leaves of a float that YAML 1.1 would take for text; and more digits than the strict reader takes.
_SHORT_FLOAT = re.compile(r"(?<=[\[ ])(-?[0-9])(?=e[-+])e")
_LONG_NUMBER = re.compile(r"[0-9]{4000}")
_spelt = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_sorted = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


class Doubt(Exception):
    """This may not be what the writer wrote."""


Part: TypeAlias = tuple[str, int, int]
"""What something comes to: its canonical text, how many scalars and collections it is, and of a value how high it is
nested, of what was put out how deep it reaches.

A plain tuple: to make one of a class of its own is a fifth of the work of reading.
"""


def summed(parts: Sequence[Part]) -> tuple[Sequence[str], int, int]:
    """The texts of some parts, their nodes together, and how deep or high they reach.

    Raises:
        Doubt: deeper than a cassette may.
    """
    texts, nodes, reaches = zip(*parts, strict=True)
    reach = max(reaches)
    if reach > MAX_DEPTH:
        raise Doubt
    return texts, sum(nodes), reach


def joined(parts: Sequence[Part]) -> Part:
    """Some parts as one.

    Raises:
        Doubt: they reach deeper than a cassette may.
    """
    texts, nodes, reach = summed(parts)
    return "".join(texts), nodes, reach


def view(text: str) -> str:
    """Text as it is seen here: a character for each byte of UTF-8."""
    return text if text.isascii() else text.encode("utf-8").decode("latin-1")


def real(view: str) -> str:
    """The text of which this is the view."""
    return view if view.isascii() else view.encode("latin-1").decode("utf-8")


def one_line(text: str) -> Part:
    """A scalar or a collection on one line."""
    if is_verbatim(text):
        return (text, 1, 0)
    if is_plain(text):
        return (f'"{text}"', 1, 0)
    first = text[0]
    if first in "{[":
        return _flow(text)
    if first == '"':
        return (unescaped(text), 1, 0)
    if _FLOAT.fullmatch(text):
        return (canonical(float(text)).decode("ascii"), 1, 0)
    if _LARGE.fullmatch(text):
        return (canonical(int(text)).decode("ascii"), 1, 0)
    raise Doubt


def unescaped(text: str) -> str:
    """Canonical text of a JSON string that has escapes; YAML has the same ones, but for halves of astral characters."""
    if "\t" in text:
        raise Doubt
    # Without escaped backslashes, a backslash can only begin an escape.
    bare = text.replace("\\\\", "")
    quotes = bare.count('\\"')
    if bare.count("\\") == quotes + bare.count("\\n") + bare.count("\\t") and bare.count('"') == quotes + 2:
        if bare[0] != '"' or bare[-1] != '"' or bare.endswith('\\"'):
            raise Doubt
        return text  # with those that JSON has no other spelling for
    if "\\ud" in text or "\\uD" in text:
        raise Doubt
    value = json.loads(real(text))
    if type(value) is not str:
        raise Doubt
    return view(json_text(value))


def _flow(text: str) -> Part:
    if (part := _flat(text)) is not None:
        return part
    if len(text) > MAX_KEY and not _NUMBERS.fullmatch(text):
        raise Doubt
    text = real(text)
    value = json.loads(text)
    # The writer's spelling and no other; so a key that stands there twice is seen, too.
    if _SHORT_FLOAT.sub(r"\1.0e", _spelt(value)) != text or _LONG_NUMBER.search(text):
        raise Doubt
    lifted = not text.isascii() or LIFTED.search(text) is not None
    return (canonical(value).decode("latin-1") if lifted else _sorted(value), _nodes(text), sum(map(text.count, "[{")))


def _flat(text: str) -> Part | None:
    """A list or a mapping of scalars without escapes, or one of lists of these: the usual, told from its text alone."""
    if len(text) > MEMORABLE or _FLAT.fullmatch(text) is None:
        return None
    keys = _PAIR.findall(text) if text[0] == "{" else ()
    if not all(map(operator.lt, keys, keys[1:])) or (len(keys) == 1 and keys[0].startswith("$")):
        return None
    pieces = text.split('"')
    pieces[::2] = [piece.replace(" ", "") for piece in pieces[::2]]  # what is outside of quotes
    # A bracket in a word makes it seem higher, and that only.
    return ('"'.join(pieces), _nodes(text), 2 if "[" in text[1:] else 1)


def _nodes(text: str) -> int:
    """How many values and keys a collection is, counted by the signs before them, which words may hold, too."""
    return 1 + sum(map(text.count, ",:[{"))
