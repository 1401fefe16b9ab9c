"""Where credentials are in one text: learnt values, credential names in JSON, URLs and forms, the user's patterns.

Invariants:

* A search that finds nothing costs a few passes in C over the text, whatever its length.
* What is found is reported as spans of the decoded text, so that a text which arrives in parts can be searched whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._hosts import is_loopback
from ..errors import UsageError
from . import secrets as _secrets

PLACEHOLDER = "[redacted]"

Span = tuple[int, int]
Step = str | int

# "name": "value" in JSON text, however deep it is quoted, and in Python's repr; one pattern for plain quotes, where a
# value may hold escapes, and one for escaped quotes, where it ends at the next quote of the same depth.
_QUOTED = re.compile(
    r"(?P<q>[\"'])(?P<key>[A-Za-z][\w.\- ]{1,63})(?P=q)\s*:\s*(?:\"(?P<a>(?:[^\"\\]|\\.)*)(?:\"|\Z)"
    r"|'(?P<b>(?:[^'\\]|\\.)*)(?:'|\Z))",
    re.DOTALL,
)
_ESCAPED = re.compile(
    r"(?P<q>\\+\")(?P<key>[A-Za-z][\w.\- ]{1,63})(?P=q)\s*:\s*(?P=q)(?P<a>.*?)(?:(?<!\\)(?P=q)|\Z)", re.DOTALL
)
_NAMED = re.compile(
    r"(?:key|token|secret|passw|passphrase|passwd|credential|authorization|cookie|auth|bearer|jwt|pwd|connection)",
    re.IGNORECASE,
)
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s\"'<>\\`\x00]+")
_FORM = re.compile(r"[A-Za-z0-9_.\-\[\]%]+=[^&\s=]*(?:&[A-Za-z0-9_.\-\[\]%]+=[^&\s=]*)*")
_PARAMETER = re.compile(r"([^=&?#;]+)=([^&#;]*)")
_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)([^/?#\\]*)([^?#]*)(\?[^#]*)?(.*)", re.DOTALL)


_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Matcher:
    """Finds credentials in decoded text.

    Args:
        sources: the values to look for.
        keys: folded names that the user added.
        patterns: the user's expressions.
    """

    def __init__(
        self, sources: Mapping[str, str], *, keys: frozenset[str], patterns: Sequence[re.Pattern[str]]
    ) -> None:
        # Longest first: of two values where one holds the other, the whole one goes.
        forms = {form: value for value in sources for form in _secrets.spellings(value)}
        self._forms = dict(sorted(forms.items(), key=lambda pair: -len(pair[0])))
        self._packed = frozenset(form for value in sources for form in _secrets.packed(value))
        self._keys = keys
        self._patterns = tuple(patterns)
        self._key_names = (
            re.compile(f"{_NAMED.pattern}|{'|'.join(map(_loose, sorted(keys)))}", re.I) if keys else _NAMED
        )

    def may_hit(self, text: str) -> bool:
        """Whether ``spans`` may find anything in the text or in a part of it; false is certain."""
        return (
            any(form in text for form in self._forms)
            or "://" in text
            or any(pattern.search(text) for pattern in self._patterns)
            or self._may_name(text)
        )

    def is_credential(self, key: Any, value: Any, siblings: Mapping[Any, Any]) -> bool:
        """Whether the mapping key says that its text is a credential; ``siblings`` is the mapping."""
        if not isinstance(value, str) or not isinstance(key, str) or value in ("", PLACEHOLDER):
            return False
        folded = _secrets.fold(key)
        if folded in self._keys or _secrets.is_strong(folded):
            return True
        # Log probabilities list the tokens of the answer under this very name.
        return folded in _secrets.WEAK_KEYS and "logprob" not in siblings and _secrets.looks_secret(value)

    def redact(self, text: str) -> str:
        """The text with every credential replaced; the same object if there is none."""
        spans = self.spans(text)
        for start, end in reversed(spans):
            text = text[:start] + PLACEHOLDER + text[end:]
        return text

    def replace_values(self, text: str, placeholder: str) -> str:
        """The text with the learnt values and the user's patterns replaced by another placeholder."""
        for start, end in reversed(merged([*self.values(text), *self._matched(text)])):
            text = text[:start] + placeholder + text[end:]
        return text

    def find_value(self, text: str) -> tuple[str, int] | None:
        """The first learnt value found in any spelling, and where."""
        for form, value in self._forms.items():
            start = text.find(form)
            if start >= 0:
                return value, start
        return None

    def spans(self, text: str) -> list[Span]:
        """The credentials in a text: disjoint, in order."""
        found = [*self.values(text), *self._matched(text)]
        if self._may_name(text):
            found += self._named(text)
        if "://" in text or "=" in text:
            found += self._parameters(text)
        placeholders = (PLACEHOLDER, "redacted")
        return merged([(start, end) for start, end in found if text[start:end] not in placeholders])

    def values(self, text: str) -> list[Span]:
        """Where the learnt values stand, in any spelling; disjoint, in order."""
        found = []
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                end = start + len(form)
                # Base64 packs the first and the last bits into characters shared with the neighbours.
                shared = form in self._packed
                before = shared and start > 0 and text[start - 1] in _BASE64
                after = shared and end < len(text) and text[end] in _BASE64
                found.append((start - before, end + after))
                start = text.find(form, start + 1)
        return merged(found)

    def _matched(self, text: str) -> list[Span]:
        return [
            found.span("secret" if "secret" in pattern.groupindex else 0)
            for pattern in self._patterns
            for found in pattern.finditer(text)
            if found.end() > found.start()
        ]

    def _may_name(self, text: str) -> bool:
        return (":" in text or "=" in text) and self._key_names.search(text) is not None

    def _named(self, text: str) -> list[Span]:
        found = []
        for pattern in (_QUOTED, _ESCAPED):
            for match in pattern.finditer(text):
                group = "a" if match.group("a") is not None else "b"
                siblings = {"logprob": 0} if "logprob" in text[match.end() : match.end() + 40] else {}
                if self.is_credential(match.group("key"), match.group(group), siblings):
                    found.append(match.span(group))
        return found

    def _parameters(self, text: str) -> list[Span]:
        found: list[Span] = []
        for url in _URL.finditer(text) if "://" in text else ():
            found += url_spans(url.group(), url.start(), keys=self._keys)
        if "=" in text and not found and _FORM.fullmatch(text):
            for match in _PARAMETER.finditer(text):
                if self.is_credential(match.group(1), match.group(2), {}):
                    found.append(match.span(2))
        return found


def merged(spans: Sequence[Span]) -> list[Span]:
    """Overlapping and touching spans as one, in order."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def url_spans(url: str, offset: int, *, keys: frozenset[str]) -> list[Span]:
    """Where a URL holds user and password, or a credential parameter (in the query, or in a fragment like one)."""
    match = _SPLIT.match(url)
    if match is None:
        start = url.find("?")
        return _query_spans(url[start:], offset + start, keys) if start >= 0 else []
    found = []
    user, at, _ = match.group(2).rpartition("@")
    if at and user:
        found.append((offset + match.start(2), offset + match.start(2) + len(user)))
    for group in (4, 5):
        if match.group(group):
            found += _query_spans(match.group(group), offset + match.start(group), keys)
    return [(start, end) for start, end in found if url[start - offset : end - offset] != "redacted"]


def redact_url(url: str, *, keys: frozenset[str], loopback: bool = False) -> str:
    """A URL with ``redacted`` in place of credentials and, if asked, ``loopback`` in place of this machine."""
    for start, end in reversed(merged(url_spans(url, 0, keys=keys))):
        url = f"{url[:start]}redacted{url[end:]}"
    match = _SPLIT.match(url) if loopback else None
    if match is not None:
        user, at, place = match.group(2).rpartition("@")
        host = _HOST_AND_PORT.fullmatch(place)
        if host is not None and is_loopback(host.group(1)):
            return f"{match.group(1)}{user}{at}loopback{url[match.end(2) :]}"
    return url


_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]+)(?::\d*)?")


def _query_spans(query: str, offset: int, keys: frozenset[str]) -> list[Span]:
    found = []
    for match in _PARAMETER.finditer(query):
        folded = _secrets.fold(match.group(1).lstrip("?#&"))
        if match.group(2) and (folded in keys or _secrets.is_query_credential(folded)):
            found.append((offset + match.start(2), offset + match.end(2)))
    return found


def _loose(folded: str) -> str:
    """An expression for a folded name as it may be written."""
    return "[-_. ]*".join(map(re.escape, folded))


@dataclass(frozen=True)
class Path:
    """A place that the user named: steps, ``*`` for any one, ``**`` for any number."""

    steps: tuple[Step, ...]

    def matches(self, place: Sequence[Step]) -> bool:
        """Whether this is the place."""
        reached = {0}
        for step in place:
            reached = self._closure(reached)
            reached = {
                position if self.steps[position] == "**" else position + 1
                for position in reached
                if position < len(self.steps) and self.steps[position] in ("*", "**", step)
            }
        return len(self.steps) in self._closure(reached)

    def _closure(self, reached: set[int]) -> set[int]:
        found = set(reached)
        for position in range(len(self.steps)):
            if position in found and self.steps[position] == "**":
                found.add(position + 1)
        return found


_STEP = re.compile(r"\[(\d+|\*)\]|([^.\[\]]+)")


def compile_path(text: str) -> Path:
    """Read a user's path.

    Raises:
        UsageError: if it is not names, ``*``, ``**`` and ``[n]`` joined by dots.
    """
    source = text[1:].lstrip(".") if text.startswith("$") else text
    steps: list[Step] = []
    position = 0
    while position < len(source):
        if source[position] == "." and steps and position + 1 < len(source) and source[position + 1] not in ".[":
            position += 1
        found = _STEP.match(source, position)
        if found is None or (found.group(2) and steps and source[position - 1] != "."):
            raise UsageError(f"redaction paths: {text!r} cannot be read from character {position + 1} on")
        steps.append(found.group(2) or (found.group(1) if found.group(1) == "*" else int(found.group(1))))
        position = found.end()
    if not steps:
        raise UsageError(f"redaction paths: {text!r} names no place")
    return Path(tuple(steps))


def compile_pattern(text: str) -> re.Pattern[str]:
    """Read a user's expression.

    Raises:
        UsageError: if it is not a regular expression, or matches the empty text.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"redaction patterns: {text!r} is not a regular expression: {error}") from None
    if pattern.fullmatch("") is not None:
        raise UsageError(f"redaction patterns: {text!r} matches the empty text, and so everywhere")
    return pattern
