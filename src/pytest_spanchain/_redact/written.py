"""How a credential is written beside its name in a text: JSON, Python, headers, settings, markup, forms.

Each form yields the name, where the value stands, and whether the form itself leaves no doubt that it is a value. The
plain ones, ``name=value`` and ``name: value``, are found in prose and in program text as well, so there the value has
to be one that nobody writes for another reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import names as _names
from . import secrets as _secrets

# "name": "value" in JSON text, however deep it is quoted, and in Python's repr; one pattern for plain quotes, where a
# value may hold escapes, and one for escaped quotes, where it ends at the next quote of the same depth.
_KEY = r"(?P<key>[\w.$@\-][\w.\-:/ ]{1,127})"
_QUOTED = re.compile(
    r"(?P<q>[\"'])" + _KEY + r"(?P=q)\s*:\s*b?(?:\"(?P<a>(?:[^\"\\]|\\.)*)(?:\"|\Z)"
    r"|'(?P<b>(?:[^'\\]|\\.)*)(?:'|\Z))",
    re.DOTALL,
)
_ESCAPED = re.compile(r"(?P<q>\\+\")" + _KEY + r"(?P=q)\s*:\s*(?P=q)(?P<a>.*?)(?:(?<!\\)(?P=q)|\Z)", re.DOTALL)
_ELEMENT = re.compile(r"<(?P<key>[A-Za-z][\w.\-]{1,63})>(?P<a>[^<>\s]+)</(?P=key)>")
_FORM_PART = re.compile(r"name=\"(?P<key>[^\"\r\n]{2,64})\"\r?\n\r?\n(?P<a>[^\r\n]+)")
_PAIRED = re.compile(r"\"(?:name|key)\"\s*:\s*\"" + _KEY + r"\"\s*,\s*\"value\"\s*:\s*\"(?P<a>(?:[^\"\\]|\\.)*)\"")
_LISTED = re.compile(r"\"" + _KEY + r"\"\s*:\s*\[\s*\"(?P<a>(?:[^\"\\]|\\.)*)\"")
_OPTION = re.compile(r"--(?P<key>[A-Za-z][\w\-]{1,40})[ \t]+(?P<a>[^\s\"'`<>]+)")
_HEADER = re.compile(
    r"(?P<key>authorization)[\"']?\s{0,2}[:=,]\s{0,2}[\"']?(?:bearer|basic|token|bot|apikey|key)\s+"
    r"(?P<a>[^\s\"'`<>,;\\]+)",
    re.IGNORECASE,
)
# To the next blank, quote or separator; a comma ends it only before the next name.
_ASSIGNED = re.compile(
    rf"(?<![\w.\-$])(?:--)?(?=[\w.\-]{{0,60}}?(?i:{'|'.join(_names.WORDS)}))"
    r"(?P<key>[A-Za-z_][\w.\-]{1,63})(?P<sign>[ \t]?=[ \t]?|:[ \t]{0,2})(?P<q>[\"']?)"
    r"(?P<a>(?:(?!,\s*[\w.\-]+\s*[:=])[^\s\"'`<>;&\\|])+)"
)
_SIGN = re.compile(r"[:=](?:(?<=[\w.\-].)|(?<=[\w.\-][ \t].))")
"""What stands between a name and what it is set to."""
_LONGEST_NAME = 64
_LAST_WORD = re.compile(r"[\w.\-]+(?=[ \t]?\Z)")
_IN_FULL = (_QUOTED, _ESCAPED, _FORM_PART, _PAIRED)
# What stands for a value: variables, templates, calls, attributes, constants.
_REFERENCE = re.compile(
    r"[$<{\[%*(&].*|[A-Za-z_][\w.]*[\[({].*|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Z][A-Z_]+|redacted.*", re.DOTALL
)
_NO_VALUE = frozenset(
    ["none", "null", "true", "false", "bearer", "basic", "token", "key", "required", "optional", "string", "str"]
)
_DIGIT = re.compile(r"[0-9]")


@dataclass(frozen=True)
class Named:
    """A value beside its name."""

    key: str
    start: int
    end: int
    value: str
    beside: str
    """What follows: log probabilities list the tokens of an answer under a name like this."""


def in_full(text: str, *, wanted: Callable[[str], bool]) -> Iterator[Named]:
    """Values in forms that leave no doubt where they begin and end.

    Args:
        text: to look through.
        wanted: whether what stands under a name matters at all.
    """
    for pattern in _IN_FULL:
        for match in pattern.finditer(text):
            if wanted(match["key"]):
                group = "b" if match.groupdict().get("b") is not None else "a"
                yield _named(match, text, match.span(group))


def loosely(text: str) -> Iterator[Named]:
    """Values that are written plainly after a credential's name, and look like values."""
    for match in _ELEMENT.finditer(text) if "</" in text else ():
        if _is_value(match["key"], match["a"], sure=True):
            yield _named(match, text, match.span("a"))
    for pattern in (_LISTED, _OPTION):
        for match in pattern.finditer(text):
            if _is_value(match["key"], match["a"], sure=False):
                yield _named(match, text, match.span("a"))
    for pattern in (_HEADER, _ASSIGNED):
        for match in pattern.finditer(text) if pattern is _HEADER or _may_set_one(text) else ():
            start = match.start("a")
            value = match["a"].rstrip(",.)]}")
            if start and text[match.start() - 1 : match.start()] in ("?", "&", "#"):
                value = value.partition("#")[0]
            sure = pattern is _HEADER or "=" in match["sign"]
            if _is_value(match["key"], value, sure=sure):
                yield _named(match, text, (start, start + len(value)))


def _may_set_one(text: str) -> bool:
    """Whether there may be an assignment to a credential's name; to ask is much cheaper than to look for it."""
    for sign in _SIGN.finditer(text):
        before = text[max(sign.start() - _LONGEST_NAME - 1, 0) : sign.start()]
        if _names.may_be_in(before):
            last = _LAST_WORD.search(before)
            if last is not None and _names.may_be_in(last[0]):
                return True
    return False


def _named(match: re.Match[str], text: str, span: tuple[int, int]) -> Named:
    return Named(match["key"], *span, text[span[0] : span[1]], text[match.end() : match.end() + 40])


def _is_value(key: str, value: str, *, sure: bool) -> bool:
    folded = _names.fold(key)
    if not _names.is_strong(folded) and not _names.is_weak(folded):
        return False
    if _REFERENCE.fullmatch(value) or value.lower() in _NO_VALUE or _secrets.is_example(value):
        return False
    if sure and _names.is_strong(folded):
        return len(value) >= 4 and _names.fold(value) != folded
    return _secrets.looks_secret(value) and bool(_DIGIT.search(value))
