"""What a credential looks like: by its name, by its shape, and in every spelling that it may take in a file.

Invariants:

* A name is judged in one form: lower case without ``-``, ``_``, ``.`` and blanks.
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
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

MIN_LENGTH = 8
"""Shorter values occur by chance in any text."""

ENVIRONMENT_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL", re.IGNORECASE)

# Names whose text is a credential whatever it looks like, so that a dummy in replay gives the same as the real one.
STRONG_KEYS = frozenset(
    [
        "apikey",
        "xapikey",
        "accesskey",
        "accesskeyid",
        "secretkey",
        "secretaccesskey",
        "accesstoken",
        "refreshtoken",
        "idtoken",
        "authtoken",
        "apitoken",
        "bearertoken",
        "sessiontoken",
        "securitytoken",
        "clientsecret",
        "apisecret",
        "signingsecret",
        "webhooksecret",
        "password",
        "passwd",
        "passphrase",
        "privatekey",
        "accountkey",
        "sharedaccesskey",
        "subscriptionkey",
        "signingkey",
        "encryptionkey",
        "authorization",
        "proxyauthorization",
        "xauthtoken",
        "xgoogapikey",
        "xamzsecuritytoken",
        "setcookie",
    ]
)
STRONG_ENDS = (
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "apitoken",
    "sessiontoken",
    "clientsecret",
    "password",
    "passphrase",
)
# Names that data use too (a token of a text, a cookie to bake): only a value that looks like a credential counts.
WEAK_KEYS = frozenset(
    ["token", "secret", "credential", "credentials", "cookie", "auth", "bearer", "jwt", "pwd", "connectionstring"]
)
# In a query string even these are credentials: nobody puts data under them there.
QUERY_KEYS = frozenset({"key", "token", "secret", "credential", "signature", "sig", "auth", "jwt", "session"})

_FOLD = str.maketrans("", "", "-_. ")
_PART = re.compile(r"[-_. /]")
_NUMBER = re.compile(r"[-+0-9.,:%eTZ/ ]+")
_PATH = re.compile(r"(?:~|\.{1,2})?/|[A-Za-z]:[\\/]")
_MIXED = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9+=]{20,}")
_WORD = re.compile(r"(?:[a-z]+|[A-Z]+|[A-Z][a-z]+|[A-Za-z0-9]{1,3}|[0-9]{1,8})")


def fold(name: str) -> str:
    """The form in which names are compared."""
    return name.lower().translate(_FOLD)


def is_strong(folded: str) -> bool:
    """Whether any text under this folded name is a credential."""
    return folded in STRONG_KEYS or folded.endswith(STRONG_ENDS)


def is_query_credential(folded: str) -> bool:
    """Whether a query parameter of this folded name is a credential."""
    return is_strong(folded) or folded in QUERY_KEYS or folded in _AMAZON_QUERY


_AMAZON_QUERY = frozenset({"xamzcredential", "xamzsignature", "xamzsecuritytoken", "awsaccesskeyid", "googleaccessid"})


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


def environment_secrets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name and value of what the environment holds under a credential's name."""
    for name, value in environ.items():
        if not ENVIRONMENT_NAME.search(name):
            continue
        value = value.strip()
        if "://" in value:
            candidates = _url_secrets(value)
        elif value.startswith("{"):
            candidates = _json_secrets(value)
        else:
            candidates = [value]
        yield from ((name, candidate) for candidate in candidates if looks_secret(candidate))


def _url_secrets(url: str) -> list[str]:
    try:
        parts = urlsplit(url)
        found = [parts.password or "", *(v for k, v in parse_qsl(parts.query) if is_query_credential(fold(k)))]
    except ValueError:
        return []
    return [value for value in found if value]


def _json_secrets(text: str) -> list[str]:
    """A service account file kept in a variable: what stands under a credential's name in it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [item for key, item in value.items() if isinstance(item, str) and is_strong(fold(key))]


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
