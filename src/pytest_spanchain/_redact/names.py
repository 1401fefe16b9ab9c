"""Which names say that what stands under them is a credential.

Invariants:

* A name is judged in one form: lower case without ``-``, ``_``, ``.`` and blanks.
* A *strong* name decides alone. Under a *weak* one, which data use too (a key of a shop, a token of a text), the value
  has to look like a credential as well: to replace an order number would make two orders the same request.
"""

from __future__ import annotations

import functools
import re

ENVIRONMENT_NAME = re.compile(
    r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PASS$|_(?:PASS_.*|PWD|PAT|AUTH)$", re.IGNORECASE
)
# Variables that hold nothing but what somebody chose: their values need not look random.
ENVIRONMENT_PASSWORD = re.compile(r"PASSWORD|PASSWD|PASSPHRASE|SECRET|PASS$|_(?:PASS_.*|PWD)$", re.IGNORECASE)

# Names whose text is a credential whatever it looks like, so that a dummy in replay gives the same as the real one.
STRONG_KEYS = frozenset(
    [
        "accesskeyid",
        "secretaccesskey",
        "idtoken",
        "securitytoken",
        "apisecret",
        "webhooksecret",
        "accountkey",
        "sharedaccesskey",
        "subscriptionkey",
        "signingkey",
        "encryptionkey",
        "xauthtoken",
        "xamzsecuritytoken",
        "setcookie",
    ]
)
STRONG_ENDS = (
    "apikey",
    "secretkey",
    "accesskey",
    "privatekey",
    "authkey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "apitoken",
    "sessiontoken",
    "bearertoken",
    "bottoken",
    "webhooktoken",
    "csrftoken",
    "xsrftoken",
    "oauthtoken",
    "clientsecret",
    "appsecret",
    "consumersecret",
    "jwtsecret",
    "signingsecret",
    "tokensecret",
    "sharedsecret",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "dbpass",
    "authorization",
)
WEAK_KEYS = frozenset(
    ["token", "credential", "credentials", "cookie", "auth", "bearer", "jwt", "pwd", "pw", "pass", "sessionkey"]
)
WEAK_ENDS = ("secret", "connectionstring", "dbpwd")
# In a query string these too, if the value looks like a credential ...
QUERY_KEYS = frozenset({"signature", "sig"})
# ... and these if it looks like nothing else: shops and games use them for what a customer asks for.
AMBIGUOUS_QUERY_KEYS = frozenset({"key", "session", "sessionid", "sid", "code"})
AMAZON_QUERY = frozenset(
    [
        "xamzcredential",
        "xamzsignature",
        "xamzsecuritytoken",
        "awsaccesskeyid",
        "googleaccessid",
        "xgoogcredential",
        "xgoogsignature",
    ]
)

# How OpenTelemetry names headers, and what may stand there although other mappings use it for data.
_HEADER = re.compile(r"^http(?:request|response)header")
_HEADER_KEYS = frozenset({"cookie", "token", "auth"})

WORDS = (
    "key",
    "token",
    "secret",
    "pass",
    "credential",
    "auth",
    "cookie",
    "bearer",
    "jwt",
    "pwd",
    "connection",
)
"""In the names of credentials as they are written, in whatever case, is at least one of these."""
_WORD = re.compile("|".join(WORDS), re.IGNORECASE)
_POSING = "\u0130\u0131\u017f\u212a"
"""The letters that are none of ASCII's, but equal to one for an expression that ignores case (see ``re``)."""

_FOLD = str.maketrans("", "", "-_. ")


def fold(name: str) -> str:
    """The form in which names are compared."""
    return name.lower().translate(_FOLD)


def may_be_in(text: str) -> bool:
    """Whether a text may hold the name of a credential; false is certain."""
    if not text.isascii() and any(letter in text for letter in _POSING):
        return _WORD.search(text) is not None
    lower = text.lower()
    return any(word in lower for word in WORDS)


@functools.lru_cache(maxsize=4096)
def is_strong(folded: str) -> bool:
    """Whether any text under this folded name is a credential."""
    if folded.endswith("s") and folded[:-1].endswith(STRONG_ENDS):
        return True
    if folded in STRONG_KEYS or folded.endswith(STRONG_ENDS):
        return True
    bare = _HEADER.sub("", folded)
    return bare != folded and (bare in STRONG_KEYS or bare in _HEADER_KEYS)


@functools.lru_cache(maxsize=4096)
def is_weak(folded: str) -> bool:
    """Whether a text under this folded name is a credential if it looks like one."""
    return folded in WEAK_KEYS or folded.endswith(WEAK_ENDS)
