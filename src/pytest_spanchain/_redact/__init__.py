"""Redaction: what leaves the run for a file, a log or a match never holds a credential.

Invariants:

* A placeholder is constant text: nothing of the secret (length, prefix, hash) is left in it.
* Redacting twice changes nothing, and what holds no credential is returned as the same object.
* A request redacts to the same value whichever key the machine has: names decide where they can.
* What was not recognised by its place, and still looks like a credential, fails the recording (``check``).
* Values of the environment are looked for; they enter neither ``rules`` nor a message.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._canonical import digest
from ..errors import SecretFound, UsageError
from . import secrets as _secrets
from . import stream as _redact_stream
from .text import PLACEHOLDER, Matcher, Step, compile_path, compile_pattern, redact_url

RULE_SET = "spanchain-redaction/1"

ALLOWED_REQUEST_HEADERS: Mapping[str, str] = {
    "content-type": "decides how the body is read",
    "accept": "decides what comes back",
    "anthropic-version": "decides the shape of the answer",
    "anthropic-beta": "switches features on",
    "openai-beta": "switches features on",
}
"""Request headers that are kept, and so take part in matching: name -> why."""

ALLOWED_RESPONSE_HEADERS: Mapping[str, str] = {
    "content-type": "decides how the client reads the body",
    "retry-after": "decides the client's retries",
    "retry-after-ms": "decides the client's retries",
    "x-should-retry": "decides the client's retries",
    "location": "decides where the client goes next",
}
"""Response headers that are kept: name -> why. Ids, dates, lengths and counters change with every recording."""

_CREDENTIAL_HEADER = re.compile(r"auth|key|token|secret|password|credential|cookie|signature|session")
# Names that match the above and hold no credential; their values change all the time.
_NO_CREDENTIAL = re.compile(
    r"idempotency|sec-websocket|rate-?limit|max-tokens|token-count|surrogate-key|www-authenticate"
)
_BOUNDARY = re.compile(r"(\bboundary=)(\"[^\"]*\"|[^\s;]+)", re.IGNORECASE)
_PARAMETER = re.compile(r"(\w+)=\"?([^\",\s]+)")


@dataclass(frozen=True)
class _State:
    """The values looked for, as one immutable whole, so that readers need no lock."""

    sources: Mapping[str, str]
    matcher: Matcher


class Redactor:
    """Takes credentials out of plain values, texts, URLs, headers and streams. Safe to share between threads.

    Args:
        environ: the environment; what stands under a credential's name in it is looked for everywhere.
        keys: further names (of headers, mapping keys, query parameters) whose text is a credential.
        patterns: regular expressions; what they match is a credential, or their group ``secret`` if they have one.
        paths: places whose value is always replaced, e.g. ``request.body.json.messages[*].name``: names, ``*`` for any
            one step, ``**`` for any number, ``[n]`` and ``[*]`` for items; from the place given as ``where`` or from
            the value itself.

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
        self._rules = {"id": RULE_SET, "digest": digest("spanchain/redaction/v1", _description(texts))}
        self._lock = threading.Lock()
        self._state = _State({}, Matcher({}, keys=self._keys, patterns=self._patterns))
        self._learn((value, f"environment variable {name}") for name, value in _secrets.environment_secrets(environ))

    @property
    def rules(self) -> Mapping[str, str]:
        """Id and digest of the rule set with the user's additions, for the header."""
        return dict(self._rules)

    def learn(self, value: str, *, source: str) -> None:
        """Look for a value from now on, if it looks like a credential.

        Args:
            value: the credential, e.g. an SDK client's ``api_key``.
            source: where it was seen, for messages.
        """
        self._learn([(value, source)])

    def request_headers(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The request headers worth keeping, by lower-case name; values of credential headers are learnt."""
        return self._headers(pairs, ALLOWED_REQUEST_HEADERS)

    def response_headers(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The response headers worth keeping, by lower-case name; values of credential headers are learnt."""
        return self._headers(pairs, ALLOWED_RESPONSE_HEADERS)

    def url(self, text: str) -> str:
        """A URL without user, password and credential parameters.

        By the rule ``loopback`` the host and port of this machine become ``loopback``, since ports are given anew in
        every run. The placeholder is ``redacted``: brackets would make the host unreadable to URL parsers.
        """
        matcher = self._state.matcher
        return matcher.replace_values(redact_url(text, keys=self._keys, loopback=True), "redacted")

    def text(self, text: str) -> str:
        """A name, message or other text without credentials."""
        return self._state.matcher.redact(text)

    def value(self, plain: Any, *, where: str = "") -> Any:
        """A plain value without credentials; the same object if there are none.

        Args:
            plain: a JSON-like value.
            where: dotted place of the value, for the user's paths, e.g. ``request.body.json``.
        """
        matcher = self._state.matcher
        if not self._paths and not _suspicious(plain, matcher):
            return plain
        prefix = compile_path(where).steps if where else ()
        return self._walk(plain, prefix, len(prefix), matcher)

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
        edits = _redact_stream.edits(text, self._state.matcher)
        if not edits:
            return text, chunks
        return _redact_stream.apply(text, edits), _redact_stream.recount(text, edits, chunks)

    def check(self, plain: Any, where: str) -> None:
        """Refuse what still holds a credential. The last screen before a file is written.

        Args:
            plain: a document's text, or a plain value.
            where: what it is, for the message: a file or a dotted place.

        Raises:
            SecretFound: names the place and the rule, and shows at most four characters.
        """
        state = self._state
        strings: list[tuple[str, str]] = []
        _collect(plain, where, strings)
        self._refuse(strings, state, document=isinstance(plain, str))
        streams = [(path, whole) for path, text in strings for whole in _redact_stream.joined(text)]
        self._refuse(streams, state)

    def _refuse(self, strings: Sequence[tuple[str, str]], state: _State, *, document: bool = False) -> None:
        # One search for all; a hit across the border of two strings is an artefact that no single one repeats.
        if self._found("\x00".join(text for _, text in strings), state) is None:
            return
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
        known = _secrets.known_format(text)
        if known is not None:
            return f"what looks like a credential ({known[0]}, {text[known[1] : known[1] + 4]}…)", known[1]
        return None

    def _learn(self, pairs: Iterable[tuple[str, str]]) -> None:
        wanted = {value.strip(): source for value, source in pairs if _secrets.looks_secret(value)}
        if wanted.keys() <= self._state.sources.keys():
            return
        with self._lock:
            sources = {**wanted, **self._state.sources}
            self._state = _State(sources, Matcher(sources, keys=self._keys, patterns=self._patterns))

    def _headers(self, pairs: Iterable[tuple[str, str]], allowed: Mapping[str, str]) -> dict[str, str]:
        listed = [(name.lower(), value) for name, value in pairs]
        self._learn(
            (secret, f"header {name}")
            for name, value in listed
            if name not in allowed and self._is_credential_header(name)
            for secret in header_secrets(name, value)
        )
        kept: dict[str, str] = {}
        for name, value in listed:
            if name in allowed and _secrets.fold(name) not in self._keys:
                value = self._header_value(name, value)
                kept[name] = f"{kept[name]}, {value}" if name in kept else value
        return kept

    def _is_credential_header(self, name: str) -> bool:
        if _secrets.fold(name) in self._keys:
            return True
        return bool(_CREDENTIAL_HEADER.search(name)) and not _NO_CREDENTIAL.search(name)

    def _header_value(self, name: str, value: str) -> str:
        if name == "location":
            return self.url(value)
        if name == "content-type":
            # The rule multipart_boundary: clients draw a boundary at random for every request.
            value = _BOUNDARY.sub(r"\1boundary", value)
        return self.text(value)

    def _walk(self, plain: Any, place: tuple[Step, ...], depth: int, matcher: Matcher) -> Any:
        if self._paths and len(place) > depth and self._is_path(place, depth):
            return PLACEHOLDER
        if isinstance(plain, str):
            return matcher.redact(plain)
        if isinstance(plain, list):
            items = [self._walk(item, (*place, index), depth, matcher) for index, item in enumerate(plain)]
            return plain if all(new is old for new, old in zip(items, plain, strict=True)) else items
        if not isinstance(plain, dict):
            return plain
        walked: dict[Any, Any] = {}
        for key, item in plain.items():
            name = _unused(matcher.redact(key), walked) if isinstance(key, str) else key
            if matcher.is_credential(key, item, plain):
                walked[name] = PLACEHOLDER
            else:
                walked[name] = self._walk(item, (*place, key), depth, matcher)
        same = all(old is new for old, new in zip(plain, walked, strict=True))
        return plain if same and all(plain[key] is walked[key] for key in walked) else walked

    def _is_path(self, place: tuple[Step, ...], depth: int) -> bool:
        return any(path.matches(place) or path.matches(place[depth:]) for path in self._paths)


def header_secrets(name: str, value: str) -> list[str]:
    """The credentials in the value of a credential header: bare tokens, passwords, cookie values, signatures."""
    if name == "set-cookie":
        value = value.partition(";")[0]
    if "cookie" in name:
        return [part.partition("=")[2].strip().strip('"') for part in value.split(";")]
    found = [value]
    scheme, _, rest = value.strip().partition(" ")
    rest = rest.strip()
    if rest:
        found.append(rest)
        found += [parameter.split("/")[0] for _, parameter in _PARAMETER.findall(rest)]
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(rest, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return found
        found += [pair, pair.partition(":")[2]]
    return found


def _strings(values: Iterable[str], name: str) -> list[str]:
    if isinstance(values, str):
        raise UsageError(f"redaction {name}: expected a list of texts, got the text {values!r}")
    listed = list(values)
    for value in listed:
        if not isinstance(value, str) or not value.strip():
            raise UsageError(f"redaction {name}: {value!r} is not a text with content")
    return listed


def _key(key: str) -> str:
    folded = _secrets.fold(key)
    if not folded:
        raise UsageError(f"redaction keys: {key!r} holds no letter or digit")
    return folded


def _description(user: Mapping[str, list[str]]) -> dict[str, Any]:
    """Everything that decides what is redacted, as plain data: the digest changes when a rule does."""
    return {
        "headers": [sorted(ALLOWED_REQUEST_HEADERS), sorted(ALLOWED_RESPONSE_HEADERS)],
        "names": [_CREDENTIAL_HEADER.pattern, _NO_CREDENTIAL.pattern, _secrets.ENVIRONMENT_NAME.pattern],
        "keys": [sorted(_secrets.STRONG_KEYS), sorted(_secrets.STRONG_ENDS), sorted(_secrets.WEAK_KEYS)],
        "query": sorted(_secrets.QUERY_KEYS),
        "formats": [[known.rule, list(known.marks), known.pattern.pattern] for known in _secrets.FORMATS],
        "normalised": ["loopback", "multipart_boundary"],
        "placeholder": PLACEHOLDER,
        "user": {name: sorted(values) for name, values in user.items()},
    }


def _suspicious(plain: Any, matcher: Matcher) -> bool:
    """Whether anything in the value may have to be replaced: one search over all its texts instead of one each."""
    strings: list[str] = []
    pending = [plain]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            strings.append(item)
        elif isinstance(item, dict):
            for key, value in item.items():
                if matcher.is_credential(key, value, item):
                    return True
                strings.append(str(key))
                pending.append(value)
        elif isinstance(item, list):
            pending.extend(item)
    return matcher.may_hit("\x00".join(strings))


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


def _unused(name: str, taken: Mapping[Any, Any]) -> str:
    """Two secret keys must not become one."""
    number, unused = 2, name
    while unused in taken:
        unused, number = f"{name} {number}", number + 1
    return unused
