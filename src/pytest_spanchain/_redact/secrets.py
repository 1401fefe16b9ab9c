"""What a credential looks like: by its shape, and in every spelling that it may take in a file.

Invariants:

* No rule guesses by entropy: hashes, ids and model names are what cassettes are full of.
* A format is found by a literal first and by its expression only there, so that a clean megabyte costs milliseconds.

Formats without a mark of their own (Mistral, Cohere, older Azure keys: plain letters and digits) are left to the
names and to the values seen in headers and environment. The prefixes are those that the providers publish; several
follow gitleaks' rules (MIT).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from . import names as _names

MIN_LENGTH = 8
"""Shorter values occur by chance in any text."""

_PART = re.compile(r"[-_. /]")
_NUMBER = re.compile(r"[-+0-9.,:%eTZ/ ]+")
_PATH = re.compile(r"(?:~|\.{1,2})?/|[A-Za-z]:[\\/]")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+=]{20,}")
_LETTER = re.compile(r"[A-Za-z]")
_DIGIT = re.compile(r"[0-9]")
_SCHEME = re.compile(
    r"(?:bearer|basic|digest|token|apikey|api-key|bot|key|oauth|negotiate|ntlm|aws4-\S+)\s+\S+", re.IGNORECASE
)
_ASSIGNMENT = re.compile(r"[\w\])]=[\w\"'/+\[]")
_FUNCTION_WORD = re.compile(
    r"\b(?:the|an?|of|to|for|in|is|are|be|must|not|never|your?|it|this|that|with|from|or|and|if|used?|as)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?:[a-z]+|[A-Z]+|[A-Z][a-z]+|[A-Za-z0-9]{1,3}|[0-9]{1,8})")


def looks_secret(value: str) -> bool:
    """Whether a value may be looked for everywhere without hitting ordinary text.

    Not so: fewer than 8 characters, numbers and times, file paths, URLs without credentials, and words: parts of
    plain letters, of up to 8 digits or of up to 3 characters, joined by ``-``, ``_``, ``.``, ``/`` or blanks, as in
    ``gpt-4o-mini`` or ``test-key``. A phrase of four or more words and 20 or more letters counts as a passphrase.
    """
    value = value.strip()
    if len(value) < MIN_LENGTH or _NUMBER.fullmatch(value):
        return False
    if _PATH.match(value) and not any(_MIXED.fullmatch(part) for part in value.split("/")):
        return False
    if "://" in value:
        return bool(_url_secrets(value))
    parts = [part for part in _PART.split(value) if part]
    if all(_WORD.fullmatch(part) for part in parts):
        return len(parts) >= 4 and len(value) >= 20 and all(part.isalpha() for part in parts)
    return True


def looks_random(value: str) -> bool:
    """Whether a value looks like a credential and like nothing that people give names to: long, letters and digits."""
    return len(value) >= 16 and looks_secret(value) and bool(_LETTER.search(value)) and bool(_DIGIT.search(value))


def is_prose(value: str) -> bool:
    """Whether a text under a credential's name speaks of a credential, as descriptions of parameters do.

    Not so: one word, ``Bearer x``, a list of ``name=value``, anything with a part that looks like a credential, and a
    passphrase: four or more words without those that hold sentences together.
    """
    words = value.split()
    if len(words) < 2 or has_scheme(value) or _ASSIGNMENT.search(value):
        return False
    if any(looks_secret(word.strip(".,;:!?()")) for word in words):
        return False
    if _FUNCTION_WORD.search(value):
        return True
    return len(words) < 4 and all(word.strip(".,;:!?").isalpha() for word in words)


def has_scheme(value: Any) -> bool:
    """Whether a value is a credential with its scheme, as in ``Bearer x``."""
    return isinstance(value, str) and _SCHEME.fullmatch(value.strip()) is not None


def is_example(value: str) -> bool:
    """Whether a value says itself that it only shows the form."""
    return _EXAMPLE.search(value) is not None


def environment_secrets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of what the environment holds under a credential's name and may be looked for everywhere.

    That is what ``looks_secret``. What somebody chose himself (variables named password, secret and the like) need not
    look random: 8 characters with letters and digits, 10 digits or a word of 12 letters are enough. Everything shorter
    or plainer occurs by chance in any text, and is not looked for.
    """
    for name, value in environment_values(environ):
        if looks_secret(value) or (_names.ENVIRONMENT_PASSWORD.search(name) and _is_chosen(value)):
            yield name, value


def environment_values(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of everything that the environment holds under a credential's name."""
    for name, value in environ.items():
        if not _names.ENVIRONMENT_NAME.search(name):
            continue
        value = value.strip()
        if "://" in value:
            candidates = _url_secrets(value)
        elif value.startswith("{"):
            candidates = _json_secrets(value)
        else:
            candidates = [value]
        yield from ((name, candidate.strip()) for candidate in candidates if candidate.strip())


def _is_chosen(value: str) -> bool:
    if len(value) < MIN_LENGTH or _PATH.match(value) or "://" in value or any(map(str.isspace, value)):
        return False
    if value.isdigit():
        return len(value) >= 10
    if _DIGIT.search(value):
        return bool(_LETTER.search(value))
    return len(value) >= 12 and value.isalpha()


def _url_secrets(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        found = [
            parts.password or "",
            *(v for k, v in parse_qsl(parts.query) if is_query_credential(_names.fold(k), v)),
        ]
    except ValueError:
        return []
    return [value for value in found if value]


def is_query_credential(folded: str, value: str) -> bool:
    """Whether a query parameter of this folded name and of this decoded value is a credential."""
    if _names.is_strong(folded) or folded in _names.AMAZON_QUERY:
        return True
    if _names.is_weak(folded) or folded in _names.QUERY_KEYS:
        return looks_secret(value)
    return folded in _names.AMBIGUOUS_QUERY_KEYS and looks_random(value)


def may_be_query_credential(folded: str) -> bool:
    """Whether a query parameter of this folded name is a credential, if its value is one."""
    return _names.is_weak(folded) or folded in _names.QUERY_KEYS | _names.AMBIGUOUS_QUERY_KEYS


def _json_secrets(text: str) -> list[str]:
    """A service account file kept in a variable: what stands under a credential's name in it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [item for key, item in value.items() if isinstance(item, str) and _names.is_strong(_names.fold(key))]


def spellings(secret: str) -> list[str]:
    """Every form of a secret that is looked for, longest first."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {secret, raw.hex(), raw.hex().upper()}
    quoted = (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), ascii(secret), repr(raw)[1:])
    for text in (secret, *(form[1:-1] for form in quoted)):
        forms |= {text, json.dumps(text)[1:-1], text.replace("/", "\\/")}
    for encoded in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        forms |= {encoded, re.sub(r"%..", lambda found: found.group().lower(), encoded)}
    forms |= packed(secret)
    return sorted(forms, key=lambda form: (-len(form), form))


def packed(secret: str) -> set[str]:
    """What base64 makes of a secret at its three alignments: the characters that the secret alone decides."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = set()
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + raw).decode()
        part = whole[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]
        forms |= {part, part.replace("+", "-").replace("/", "_")}
    return forms


@dataclass(frozen=True)
class Format:
    """A published key format.

    Args:
        rule: name for messages.
        marks: literals, one of which starts every match.
        pattern: expression matched at the mark; group 1, if there is one, is the secret part.
    """

    rule: str
    marks: tuple[str, ...]
    pattern: re.Pattern[str]


def _format(rule: str, marks: str, pattern: str) -> Format:
    return Format(rule, tuple(marks.split(" ")), re.compile(pattern))


_END = r"(?![A-Za-z0-9])"
FORMATS = (
    _format("anthropic key", "sk-ant-", r"sk-ant-([A-Za-z0-9_-]{24,})"),
    _format("openrouter key", "sk-or-", r"sk-or-(?:v\d-)?([A-Za-z0-9]{24,})"),
    _format("langfuse key", "sk-lf-", r"sk-lf-([0-9a-f-]{32,})"),
    _format("openai key", "sk-", r"sk-(?:proj|svcacct|admin|None)-([A-Za-z0-9_-]{24,})|sk-([A-Za-z0-9]{32,})"),
    _format("google key", "AIza", rf"AIza([A-Za-z0-9_-]{{35}}){_END}"),
    _format("google token", "ya29. GOCSPX-", r"(?:ya29\.|GOCSPX-)([A-Za-z0-9_-]{20,})"),
    _format("aws key id", "AKIA ASIA ABIA ACCA", rf"A(?:KI|SI|BI|CC)A([A-Z2-7]{{16}}){_END}"),
    _format(
        "aws secret key",
        "SecretAccessKey secretAccessKey secret_access_key SECRET_ACCESS_KEY",
        r"(?i:secret_?access_?key)[\\\"']*\s*[:=]\s*[\\\"']*([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    _format("azure storage key", "AccountKey=", r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    _format("azure shared key", "SharedAccessKey=", r"SharedAccessKey=([A-Za-z0-9+/]{43}=)"),
    _format("hugging face token", "hf_ api_org_", rf"(?:hf_|api_org_)([A-Za-z]{{34}}){_END}"),
    _format("groq key", "gsk_", rf"gsk_([A-Za-z0-9]{{40,}}){_END}"),
    _format("xai key", "xai-", r"xai-([A-Za-z0-9]{60,})"),
    _format("perplexity key", "pplx-", r"pplx-([A-Za-z0-9]{40,})"),
    _format("replicate token", "r8_", rf"r8_([A-Za-z0-9]{{37}}){_END}"),
    _format("langsmith key", "lsv2_", r"lsv2_(?:pt|sk)_([0-9a-f]{32}_[0-9a-f]{10})"),
    _format("github token", "ghp_ gho_ ghu_ ghs_ ghr_", rf"gh[pousr]_([A-Za-z0-9]{{36,}}){_END}"),
    _format("github token", "github_pat_", r"github_pat_([A-Za-z0-9_]{40,})"),
    _format("gitlab token", "glpat-", r"glpat-([A-Za-z0-9_-]{20,})"),
    _format("slack token", "xoxb- xoxp- xoxa- xoxr- xoxs- xapp-", r"(?:xox[bpars]|xapp)-([A-Za-z0-9-]{20,})"),
    _format("slack webhook", "hooks.slack.com/services/", r"hooks\.slack\.com/services/([A-Za-z0-9+/]{40,})"),
    _format("stripe key", "sk_live_ rk_live_ sk_test_ whsec_", r"(?:[sr]k_(?:live|test)_|whsec_)([A-Za-z0-9]{20,})"),
    _format("telegram token", "bot", r"bot\d{8,10}:(AA[A-Za-z0-9_-]{30,})"),
    _format("npm token", "npm_", rf"npm_([A-Za-z0-9]{{36}}){_END}"),
    _format("pypi token", "pypi-AgEIcHlwaS5vcmc", r"pypi-AgEIcHlwaS5vcmc([A-Za-z0-9_-]{50,})"),
    _format("jwt", "eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.([A-Za-z0-9_-]{16,})"),
    _format(
        "private key",
        "-----BEGIN",
        r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?([A-Za-z0-9+/]{40})",
    ),
    _format("password in a url", "://", r"://[^\s/?#:@\"'<>\\]*:([^\s/?#@\"'<>\\]{3,})@"),
)
_URL_PASSWORD = FORMATS[-1]
_BEFORE = re.compile(r"[A-Za-z0-9+]")
_BY_CONTEXT = frozenset({"aws secret key", "private key", "slack webhook"})
_PACKED = re.compile(r"[A-Za-z0-9+/_-]{32,}")
_URL_SAFE = str.maketrans("-_", "+/")
_EXAMPLE = re.compile(r"example|placeholder|redacted|your[-_]", re.IGNORECASE)


def known_format(text: str) -> tuple[str, int, int] | None:
    """Rule, start and end of the first thing in a known key format, or ``None``.

    What only shows the form is passed over: the words example, placeholder, redacted and your-, a bracketed or
    dollar-sign variable, or fewer than five different characters, as in ``sk-xxxx``.
    """
    for known in FORMATS:
        for mark in known.marks:
            start = text.find(mark)
            while start >= 0:
                found = known.pattern.match(text, start)
                if found and _is_real(known, found, text):
                    return known.rule, start, found.end()
                start = text.find(mark, start + len(mark))
    return None


def held_format(text: str) -> tuple[str, str, int] | None:
    """Rule, first characters and start of what is in a known key format, in the text or in base64 within it."""
    known = known_format(text)
    if known is not None:
        return known[0], text[known[1] : known[1] + 4], known[1]
    # Hashes and long names are all in one case. One search for the rest: a hit across two runs is repeated by neither.
    found = [run for run in _PACKED.finditer(text) if not run.group().islower()]
    runs = [(_unpacked(run.group()), run.start()) for run in found]
    if not runs:
        return None
    if known_format("\x00".join(data for data, _ in runs)) is None:
        return None
    for data, start in runs:
        known = known_format(data)
        if known is not None:
            return f"{known[0]} in base64", data[known[1] : known[1] + 4], start
    return None


def _unpacked(run: str) -> str:
    whole = run[:-1] if len(run) % 4 == 1 else run
    return base64.b64decode(whole.translate(_URL_SAFE) + "=" * (-len(whole) % 4)).decode("latin-1")


def _is_real(known: Format, found: re.Match[str], text: str) -> bool:
    secret = next(group for group in found.groups() if group)
    start = found.start()
    if known is _URL_PASSWORD:
        return secret[0] not in "{$<[%" and not _EXAMPLE.search(secret) and len(set(secret)) > 1
    if start and known.rule not in _BY_CONTEXT and _BEFORE.match(text, start - 1) and not _escaped(text, start):
        return False  # the middle of a longer word, e.g. of base64
    return len(set(secret)) >= 5 and not _EXAMPLE.search(secret)


def _escaped(text: str, start: int) -> bool:
    r"""Whether the letter before belongs to an escape of JSON or of a URL, as in ``\nsk-…`` and ``%3Dsk-…``."""
    return text[start - 2 : start - 1] == "\\" or text[start - 3 : start - 2] == "%"
