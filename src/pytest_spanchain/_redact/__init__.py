"""Redaction: what leaves the run for a file, a log or a match never holds a credential.

Invariants:

* A placeholder is constant text: nothing of the secret (length, prefix, hash) is left in it.
* Redacting twice changes nothing, and what holds no credential is returned as the same object.
* A request redacts to the same value whichever key the machine has: names decide where they can.
* What was not recognised by its place, and still looks like a credential, fails the recording (``check``).
* Values of the environment are looked for; they enter neither ``rules`` nor a message.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .._canonical import digest
from .._rules import compile_path, compile_pattern
from ..errors import SecretFound, UsageError
from . import names as _names
from . import options as _options
from . import secrets as _secrets
from . import stream as _redact_stream
from .commands import with_commands
from .headers import ALLOWED_REQUEST_HEADERS as ALLOWED_REQUEST_HEADERS
from .headers import ALLOWED_RESPONSE_HEADERS as ALLOWED_RESPONSE_HEADERS
from .headers import NAME_PATTERNS, PLACES, header_secrets, is_credential, without_boundary
from .text import PLACEHOLDER, Learnt, Matcher
from .walk import Clean, Walk, suspicious

_LONGEST_KNOWN = 1_000
RULE_SET = "spanchain-redaction/1"


@dataclass(frozen=True)
class _State:
    """The values looked for, as one immutable whole, so that readers need no lock."""

    sources: Mapping[str, str]
    matcher: Matcher
    clean: Clean


class Redactor:
    """Takes credentials out of plain values, texts, URLs, headers and streams. Safe to share between threads.

    Args:
        environ: the environment; what stands under a credential's name in it is looked for everywhere.
        keys: further names (of headers, mapping keys, query parameters) whose text is a credential.
        patterns: regular expressions; what they match is a credential, or their group ``secret`` if they have one.
        paths: places below a request or response whose value is always replaced, e.g. ``body.json.messages[*].name``;
            the grammar is in ``_rules``.

    Raises:
        UsageError: for an expression or a path that cannot be read, or that matches the empty text.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        keys: Iterable[str] = (),
        patterns: Iterable[str] = (),
        paths: Iterable[str] = (),
    ) -> None:
        texts = {"keys": _strings(keys, "keys"), "patterns": _strings(patterns, "patterns")}
        texts["paths"] = _strings(paths, "paths")
        self._keys = frozenset(_key(key) for key in texts["keys"])
        self._patterns = tuple(compile_pattern(pattern) for pattern in texts["patterns"])
        self._paths = tuple(compile_path(path) for path in texts["paths"])
        self._texts = texts
        self._lock = threading.Lock()
        # pytest tells of the test in a variable: but for that, every run sees the same.
        self._exact, secrets = _environment(tuple(pair for pair in environ.items() if pair[0] != "PYTEST_CURRENT_TEST"))
        self._state = self._looking_for(secrets)
        self._joined: dict[str, Sequence[str]] = {}
        """Of streams in which nothing had to change: what arrives in pieces, in whole. So they are taken apart once."""

    @property
    def rules(self) -> Mapping[str, str]:
        """Id and digest of the rule set with the user's additions, for the header."""
        # Made when it is asked for: only a recording needs it.
        return {"id": RULE_SET, "digest": digest("spanchain/redaction/v1", _description(self._texts))}

    def request_headers(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The request headers worth keeping, by lower-case name; values of credential headers are learnt."""
        return self._headers(pairs, ALLOWED_REQUEST_HEADERS)

    def chosen_headers(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """All headers, by lower-case name, of a connection whose author chose them; credentials are replaced."""
        listed = [(name.lower(), value) for name, value in pairs]
        self._headers(listed, {})  # learns
        return {
            name: PLACEHOLDER if is_credential(name, self._keys) else self._header_value(name, value)
            for name, value in listed
        }

    def response_headers(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The response headers worth keeping, by lower-case name; values of credential headers are learnt."""
        return self._headers(pairs, ALLOWED_RESPONSE_HEADERS)

    def url(self, text: str) -> str:
        """A URL without user, password and credential parameters.

        By the rule ``loopback`` the host and port of this machine become ``loopback``, since ports are given anew in
        every run. The placeholder is ``redacted``: brackets would make the host unreadable to URL parsers.
        """
        state = self._state
        known = state.clean.urls.get(text)
        if known is not None:
            return known
        learnt: Learnt = []
        redacted = state.matcher.redact_url(text, learnt)
        if not learnt:
            state.clean.add_url(text, redacted)
        self._learn_named(learnt)
        return redacted

    def text(self, text: str) -> str:
        """A name, message or other text without credentials."""
        clean = self._state.clean
        if clean.knows(text):
            return text
        learnt: Learnt = []
        redacted = self._state.matcher.redact(text, learnt)
        if redacted is text:
            clean.add_words(text)
        return self._state.matcher.redact(redacted) if self._learn_named(learnt) else redacted

    def value(self, plain: Any) -> Any:
        """A plain value without credentials; the same object if there are none."""
        for path in self._paths:
            plain = path.put(plain, PLACEHOLDER)
        state = self._state
        if not suspicious(plain, state.matcher, state.clean):
            return plain
        learnt: Learnt = []
        walked = Walk(state.matcher, learnt, state.clean).value(plain)
        if not self._learn_named(learnt):
            return walked
        # What was learnt here may stand beside its name as well.
        state = self._state
        return Walk(state.matcher, [], state.clean).value(walked)

    def attributes(self, plain: dict[str, Any]) -> dict[str, Any]:
        """The same for a span's attributes, of which many are alike."""
        clean = self._state.clean
        text = clean.text(plain)
        if text in clean and not self._paths:
            return plain
        found: dict[str, Any] = self.value(plain)
        if found is plain and len(text) <= _LONGEST_KNOWN:
            clean.add(text)
        return found

    def arguments(self, words: Sequence[str]) -> list[str]:
        """A command line without credentials: an option's name decides on the word that follows it."""
        learnt: Learnt = []
        found, matcher = list(words), self._state.matcher
        for index, (option, word) in enumerate(pairwise(words), 1):
            name = option.lstrip("-")
            if name != option and "=" not in option and matcher.is_credential(name, word, {}):
                matcher.learn(name, word, learnt)
                found[index] = PLACEHOLDER
        for index, start, end in reversed([*_options.places(words)]):
            if found[index] is not PLACEHOLDER:
                matcher.learn("password", words[index][start:end], learnt)
                found[index] = found[index][:start] + PLACEHOLDER + found[index][end:]
        self._learn_named(learnt)
        return [self.text(with_commands(word, self.arguments)) for word in found]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Variables for another process, without those that are credentials by their names."""
        found = dict(_secrets.environment_values(variables))
        self._learn((value, f"environment variable {name}") for name, value in found.items())
        return {name: PLACEHOLDER if name in found else value for name, value in variables.items()}

    def stream(self, text: str, chunks: Sequence[int]) -> tuple[str, Sequence[int]]:
        """An event stream without credentials, those split over several events included.

        Args:
            text: the body as received.
            chunks: byte count (UTF-8) of each chunk of it.

        Returns:
            The text and the counts; the same objects if nothing was found. A chunk that becomes empty is left out,
            because an empty chunk means the end to some clients.

        Raises:
            ValueError: if the counts do not add up to the text.
        """
        if chunks and sum(chunks) != len(text.encode("utf-8", "surrogatepass")):
            raise ValueError(f"chunks of {sum(chunks)} bytes do not add up to the text")
        learnt: Learnt = []
        found = _redact_stream.search(text, self._state.matcher, learnt)
        if self._learn_named(learnt):
            found = _redact_stream.search(text, self._state.matcher)
        if not found.edits:
            self._joined[text] = found.joined
            return text, chunks
        return _redact_stream.apply(text, found.edits), _redact_stream.recount(text, found.edits, chunks)

    def _wholes(self, text: str) -> Sequence[str]:
        known = self._joined.get(text)
        return _redact_stream.joined(text) if known is None else known

    def check(self, plain: Any, where: str) -> None:
        """Refuse what still holds a credential. The last screen before a file is written.

        Args:
            plain: a document's text, or a plain value.
            where: what it is, for the message: a file or a dotted place.

        Raises:
            SecretFound: names the place and the rule, and shows at most four characters.
        """
        state = self._state
        # Every text once, whatever its place: agents send their history again and again.
        texts = _texts(plain)
        texts |= {whole for text in texts for whole in self._wholes(text)}
        if self._found("\x00".join(texts), state) is None:
            return
        strings: list[tuple[str, str]] = []
        _collect(plain, where, strings)
        self._refuse(strings, state, document=isinstance(plain, str))
        streams = [(path, whole) for path, text in strings for whole in self._wholes(text)]
        self._refuse(streams, state)

    def _refuse(self, strings: Sequence[tuple[str, str]], state: _State, *, document: bool = False) -> None:
        # There need be none: a hit of the search through all may lie across the border of two, which none repeats.
        for path, text in strings:
            found = self._found(text, state)
            if found is not None:
                line = f", line {text.count(chr(10), 0, found[1]) + 1}" if document else ""
                raise SecretFound(
                    f"{path}{line}: holds {found[0]}. Nothing was written. "
                    "Keep the credential out of what the agent sends and receives, or redact the place by path, key "
                    "or pattern"
                )

    def _found(self, text: str, state: _State) -> tuple[str, int] | None:
        hit = state.matcher.find_value(text)
        if hit is not None:
            return f"the value of {state.sources[hit[0]]}", hit[1]
        known = _secrets.held_format(text)
        if known is not None:
            return f"what looks like a credential ({known[0]}, {known[1]}…)", known[2]
        return None

    def _learn_named(self, learnt: Learnt) -> bool:
        """Look for what was found by its name from now on; whether there is anything new."""
        # With blanks it may be a sentence, and then its words stand elsewhere as well.
        return self._learn(
            (secret, f"the key {key}")
            for value, key in learnt
            for secret in (header_secrets("authorization", value) if " " in value.strip() else [value])
            if not any(map(str.isspace, secret.strip()))
        )

    def _learn(self, pairs: Iterable[tuple[str, str]]) -> bool:
        wanted = {value.strip(): source for value, source in pairs if _secrets.looks_secret(value)}
        if wanted.keys() <= self._state.sources.keys():
            return False
        with self._lock:
            self._state = self._looking_for({**wanted, **self._state.sources})
        return True

    def _looking_for(self, sources: Mapping[str, str]) -> _State:
        return _state_of(tuple(sources.items()), self._keys, self._patterns, self._exact)

    def _headers(self, pairs: Iterable[tuple[str, str]], allowed: Mapping[str, str]) -> dict[str, str]:
        listed = [(name.lower(), value) for name, value in pairs]
        self._learn(
            (secret, f"header {name}")
            for name, value in listed
            if name not in allowed and is_credential(name, self._keys)
            for secret in header_secrets(name, value)
        )
        kept: dict[str, str] = {}
        for name, value in listed:
            if name in allowed and _names.fold(name) not in self._keys:
                value = self._header_value(name, value)
                kept[name] = f"{kept[name]}, {value}" if name in kept else value
        return kept

    def _header_value(self, name: str, value: str) -> str:
        return self.url(value) if name in PLACES else self.text(without_boundary(name, value))


# Every run of a session looks for much the same.
@functools.lru_cache(maxsize=16)
def _state_of(
    sources: tuple[tuple[str, str], ...],
    keys: frozenset[str],
    patterns: tuple[re.Pattern[str], ...],
    exact: frozenset[str],
) -> _State:
    known = dict(sources)
    return _State(known, Matcher(known, keys=keys, patterns=patterns, exact=exact), Clean())


@functools.lru_cache(maxsize=4)
def _environment(variables: tuple[tuple[str, str], ...]) -> tuple[frozenset[str], dict[str, str]]:
    """What is a credential where it stands alone, and what is looked for everywhere, with where it is from."""
    environ = dict(variables)
    secrets = {value: f"environment variable {name}" for name, value in _secrets.environment_secrets(environ)}
    return frozenset(value for _, value in _secrets.environment_values(environ)), secrets


def _strings(values: Iterable[str], name: str) -> list[str]:
    if isinstance(values, str):
        raise UsageError(f"redaction {name}: expected a list of texts, got the text {values!r}")
    listed = list(values)
    for value in listed:
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"redaction {name}: {value!r} is not a text with content")
    return listed


def _key(key: str) -> str:
    folded = _names.fold(key)
    if not folded:
        raise UsageError(f"redaction keys: {key!r} holds no letter or digit")
    return folded


def _description(user: Mapping[str, list[str]]) -> dict[str, Any]:
    """Everything that decides what is redacted, as plain data: the digest changes when a rule does."""
    return {
        "headers": [sorted(ALLOWED_REQUEST_HEADERS), sorted(ALLOWED_RESPONSE_HEADERS)],
        "names": list(NAME_PATTERNS),
        "environment": [_names.ENVIRONMENT_NAME.pattern, _names.ENVIRONMENT_PASSWORD.pattern],
        "keys": [*map(sorted, (_names.STRONG_KEYS, _names.STRONG_ENDS, _names.WEAK_KEYS, _names.WEAK_ENDS))],
        "query": [*map(sorted, (_names.QUERY_KEYS, _names.AMBIGUOUS_QUERY_KEYS, _names.AMAZON_QUERY))],
        "options": {name: dict(known) for name, known in _options.OPTIONS.items()},
        "formats": [[known.rule, list(known.marks), known.pattern.pattern] for known in _secrets.FORMATS],
        "normalised": ["loopback", "multipart_boundary"],
        "placeholder": PLACEHOLDER,
        "user": {name: sorted(values) for name, values in user.items()},
    }


def _texts(plain: Any) -> set[str]:
    """Every text of a value, keys included."""
    found: set[str] = set()
    pending = [plain]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found.add(item)
        elif isinstance(item, Mapping):
            found.update(map(str, item))
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
    return found


def _collect(plain: Any, where: str, found: list[tuple[str, str]]) -> None:
    if isinstance(plain, str):
        found.append((where, plain))
    elif isinstance(plain, Mapping):
        for key, value in plain.items():
            found.append((f"a key of {where}", str(key)))
            _collect(value, f"{where}.{key}", found)
    elif isinstance(plain, (list, tuple)):
        for index, value in enumerate(plain):
            _collect(value, f"{where}[{index}]", found)
