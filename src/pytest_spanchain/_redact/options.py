"""Options of well-known programs that take a credential under a name that says nothing of it, as in ``curl -u me:pw``.

Options that name what they take (``--password``, ``--api-key``) are known by that name, and not listed here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

_PAIR, _WHOLE, _HEADER, _COOKIES, _ATTACHED = "user:password", "the whole", "a header", "cookies", "attached only"
OPTIONS = {
    "curl": {
        **dict.fromkeys(("-u", "--user", "-U", "--proxy-user"), _PAIR),
        **dict.fromkeys(("-H", "--header"), _HEADER),
        **dict.fromkeys(("-b", "--cookie"), _COOKIES),
    },
    **{name: {"-a": _PAIR, "--auth": _PAIR} for name in ("http", "https")},
    **{name: {"-p": _ATTACHED} for name in ("mysql", "mysqldump", "mysqladmin", "mariadb", "mariadb-dump")},
    **{name: {"-p": _WHOLE} for name in ("mongo", "mongosh", "mongodump", "mongorestore", "sshpass")},
    **{name: {"-p": _WHOLE} for name in ("docker login", "podman login", "helm login")},
    **{name: {"-w": _WHOLE} for name in ("ldapsearch", "ldapmodify", "ldapadd")},
    "redis-cli": {"-a": _WHOLE, "--pass": _WHOLE},
}
"""Program (with the word that has to be there) -> option -> what of its value is the credential."""

_TOKEN = re.compile(r"[^\s;&|()]+")
_COOKIE = re.compile(r"=([^;\s]+)")
_CREDENTIAL_HEADER = re.compile(r"[\w-]*(?:auth|cookie|key|token|secret)[\w-]*:\s*(?:\w+\s+)?(\S.*)", re.IGNORECASE)


def places(words: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Where credentials are in a command line: number of the word, start and end in it; shell text included."""
    known: dict[str, str] = {}
    awaited: str | None = None
    for number, word in enumerate(words):
        if re.search(r"\s", word) and awaited is None and not word.startswith("-"):
            yield from ((number, start, end) for start, end in _in_text(word))
            continue
        if awaited is not None:
            yield from ((number, start, end) for start, end in _parts(awaited, word, 0))
            awaited = None
            continue
        name = os.path.basename(word) if number == 0 or word.startswith("/") else word
        of_program = OPTIONS.get(name) or next(
            (OPTIONS[f"{name} {more}"] for more in words[number + 1 :] if f"{name} {more}" in OPTIONS), None
        )
        if of_program is not None:
            known = of_program
            continue
        option, start = _split(word, known)
        kind = known.get(option)
        if kind is None:
            continue
        if start < len(word):
            yield from ((number, *span) for span in _parts(kind, word, start))
        elif kind != _ATTACHED:
            awaited = kind


def _split(word: str, known: dict[str, str]) -> tuple[str, int]:
    """The option that a word is, and where in it its value starts."""
    if word.startswith("--"):
        name, sign, _ = word.partition("=")
        return name, len(name) + len(sign)
    return (word[:2], 2) if word[:2] in known else (word, len(word))


def _parts(kind: str, word: str, start: int) -> Iterator[tuple[int, int]]:
    value = word[start:]
    if kind == _PAIR:
        user, colon, password = value.partition(":")
        found = [(len(user) + 1, len(value))] if colon and password else []
    elif kind == _HEADER:
        header = _CREDENTIAL_HEADER.match(value)
        found = [header.span(1)] if header else []
    elif kind == _COOKIES:
        found = [cookie.span(1) for cookie in _COOKIE.finditer(value)]
    else:
        found = [(0, len(value))]
    for first, last in found:
        if not value[first:last].startswith(("$", "[redacted]")):  # a shell's variable says nothing
            yield start + first, start + last


def _in_text(text: str) -> Iterator[tuple[int, int]]:
    """The same within text for a shell."""
    tokens = [(found.start(), found.group()) for found in _TOKEN.finditer(text)]
    bare = [(start + len(token) - len(token.lstrip("'\"")), token.strip("'\"")) for start, token in tokens]
    for number, first, last in places([token for _, token in bare]):
        yield bare[number][0] + first, bare[number][0] + last
