"""Where credentials are in one text: learnt values, credential names in JSON, URLs and forms, the user's patterns.

Invariants:

* A search that finds nothing costs a few passes in C over the text, whatever its length.
* What is found is reported as spans of the decoded text, so that a text which arrives in parts can be searched whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from .._hosts import is_loopback
from . import names as _names
from . import secrets as _secrets
from . import written as _written

PLACEHOLDER = "[redacted]"

Span = tuple[int, int]

Learnt = list[tuple[str, str]]
"""What was found by its name, with the name."""

# A URL with a user, a query or a fragment; others hold nothing.
_TELLING_URL = re.compile(r"://[^\s\x00]*[@?#]")
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s\"'<>\\`\x00]+")
_FORM = re.compile(r"[A-Za-z0-9_.\-\[\]%]+=[^&\s=]*(?:&[A-Za-z0-9_.\-\[\]%]+=[^&\s=]*)*")
_PARAMETER = re.compile(r"([^=&?#;]+)=([^&#;]*)")
_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*://)([^/?#\\]*)([^?#]*)(\?[^#]*)?(.*)", re.DOTALL)


# Where ``key`` is what a client is known by.
_KEY_IN_QUERY = (".googleapis.com",)
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


class Matcher:
    """Finds credentials in decoded text.

    Args:
        sources: the values to look for.
        keys: folded names that the user added.
        patterns: the user's expressions.
        exact: values that are credentials where they are the whole text under a weak name, e.g. a dummy of a test.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        keys: frozenset[str],
        patterns: Sequence[re.Pattern[str]],
        exact: frozenset[str] = frozenset(),
    ) -> None:
        # Longest first: of two values where one holds the other, the whole one goes.
        forms = {form: value for value in sources for form in _secrets.spellings(value)}
        self._forms = dict(sorted(forms.items(), key=lambda pair: -len(pair[0])))
        self._packed = frozenset(form for value in sources for form in _secrets.packed(value))
        self._keys = keys
        self._exact = exact
        self._patterns = tuple(patterns)
        self._added_names = re.compile("|".join(map(_loose, sorted(keys))), re.IGNORECASE) if keys else None

    def may_hit(self, text: str) -> bool:
        """Whether ``spans`` may find anything in the text or in a part of it; false is certain."""
        return (
            any(form in text for form in self._forms)
            or ("://" in text and _TELLING_URL.search(text) is not None)
            or any(pattern.search(text) for pattern in self._patterns)
            or self._may_name(text)
        )

    def is_credential(self, key: Any, value: Any, siblings: Mapping[Any, Any]) -> bool:
        """Whether the mapping key says that its text is a credential; ``siblings`` is the mapping."""
        if not isinstance(value, str) or not isinstance(key, str) or value in ("", PLACEHOLDER):
            return False
        folded = _folded(key)
        if folded in self._keys:
            return True
        if _names.is_strong(folded):
            return not _secrets.is_prose(value)
        # Log probabilities list the tokens of the answer under this very name.
        if not _names.is_weak(folded) or "logprob" in siblings:
            return False
        return value in self._exact or (_secrets.looks_secret(value) and not _secrets.is_prose(value))

    def is_strong(self, key: Any) -> bool:
        """Whether the name alone decides."""
        return isinstance(key, str) and (_folded(key) in self._keys or _names.is_strong(_folded(key)))

    def is_name(self, text: str) -> bool:
        """Whether a text is the name of a credential."""
        return self.is_strong(text) or _names.is_weak(_folded(text))

    def learn(self, key: Any, value: str, learnt: Learnt | None) -> None:
        """Note a credential that was found by its name. Only by names of our own: users' keys name personal data."""
        folded = _folded(str(key))
        if learnt is not None and (_names.is_strong(folded) or _names.is_weak(folded)):
            learnt.append((value, str(key)))

    def redact(self, text: str, learnt: Learnt | None = None) -> str:
        """The text with every credential replaced; the same object if there is none."""
        spans = self.spans(text, learnt)
        for start, end in reversed(spans):
            text = text[:start] + PLACEHOLDER + text[end:]
        return text

    def redact_url(self, url: str, learnt: Learnt | None = None) -> str:
        """A URL with ``redacted`` in place of credentials and ``loopback`` in place of this machine."""
        for start, end in reversed(merged([*self._url_spans(url, 0, learnt)])):
            url = f"{url[:start]}redacted{url[end:]}"
        match = _SPLIT.match(url)
        if match is not None:
            user, at, place = match.group(2).rpartition("@")
            host = _HOST_AND_PORT.fullmatch(place)
            if host is not None and is_loopback(host.group(1)):
                url = f"{match.group(1)}{user}{at}loopback{url[match.end(2) :]}"
        return self.replace_values(url, "redacted")

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

    def spans(self, text: str, learnt: Learnt | None = None) -> list[Span]:
        """The credentials in a text: disjoint, in order; what was found by a name is noted in ``learnt``."""
        found = [*self.values(text), *self._matched(text)]
        if self._may_name(text):
            found += self._named(text, learnt)
        if "://" in text or "=" in text:
            found += self._parameters(text, learnt)
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
        if not any(sign in text for sign in (":", "=", "</", "--")):
            return False
        return _names.may_be_in(text) or (self._added_names is not None and bool(self._added_names.search(text)))

    def _named(self, text: str, learnt: Learnt | None) -> Iterator[Span]:
        for named in _written.in_full(text, wanted=self.is_name):
            siblings = {"logprob": 0} if "logprob" in named.beside else {}
            if self.is_credential(named.key, named.value, siblings):
                self.learn(named.key, named.value, learnt)
                yield named.start, named.end
        for named in _written.loosely(text):
            self.learn(named.key, named.value, learnt)
            yield named.start, named.end

    def _parameters(self, text: str, learnt: Learnt | None) -> list[Span]:
        found: list[Span] = []
        for url in _URL.finditer(text) if "://" in text else ():
            found += self._url_spans(url.group(), url.start(), learnt)
        if "=" in text and not found and _FORM.fullmatch(text):
            for match in _PARAMETER.finditer(text):
                if self.is_credential(match.group(1), match.group(2), {}):
                    self.learn(match.group(1), unquote_plus(match.group(2)), learnt)
                    found.append(match.span(2))
        return found

    def _url_spans(self, url: str, offset: int, learnt: Learnt | None) -> Iterator[Span]:
        """Where a URL holds user and password, or a credential parameter (in the query, or in a fragment like one)."""
        match = _SPLIT.match(url)
        if match is None:
            start = url.find("?")
            if start >= 0:
                yield from self._query_spans(url[start:], offset + start, "", learnt)
            return
        user, at, place = match.group(2).rpartition("@")
        if at and user and user != "redacted":
            yield offset + match.start(2), offset + match.start(2) + len(user)
        for group in (4, 5):
            if match.group(group):
                yield from self._query_spans(match.group(group), offset + match.start(group), place, learnt)

    def _query_spans(self, query: str, offset: int, place: str, learnt: Learnt | None) -> Iterator[Span]:
        for match in _PARAMETER.finditer(query):
            name, value = _folded(match.group(1).lstrip("?#&")), unquote_plus(match.group(2))
            if value in ("", "redacted", PLACEHOLDER):
                continue
            own = name == "key" and place.endswith(_KEY_IN_QUERY)
            weak = _secrets.may_be_query_credential(name) and value in self._exact
            if own or weak or name in self._keys or _secrets.is_query_credential(name, value):
                self.learn(match.group(1).lstrip("?#&"), value, learnt)
                yield offset + match.start(2), offset + match.end(2)


@lru_cache(maxsize=4096)
def _folded(name: str) -> str:
    return _names.fold(name)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Overlapping and touching spans as one, in order."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:]+)(?::\d*)?")


def _loose(folded: str) -> str:
    """An expression for a folded name as it may be written."""
    return "[-_. ]*".join(map(re.escape, folded))
