"""Headers: which are kept, which hold a credential, and what of their values the credential is."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping

from .names import fold

ALLOWED_REQUEST_HEADERS: Mapping[str, str] = {
    "content-type": "decides how the body is read",
    "accept": "decides what comes back",
    "anthropic-version": "decides the shape of the answer",
    "anthropic-beta": "switches features on",
    "openai-beta": "switches features on",
    "x-amz-target": "names the operation: the rest of two requests may be the same",
    "x-amz-copy-source": "says what is copied",
    "x-amz-acl": "says who may read it",
    "soapaction": "names the operation",
    "x-http-method-override": "is the method",
    "x-goog-upload-command": "says what an upload does next",
    "x-goog-upload-offset": "says where it goes on",
    "range": "decides which part comes back",
    "content-range": "says which part is sent",
    "if-match": "decides whether anything is done",
    "if-none-match": "decides whether anything is done",
    "accept-language": "decides what comes back",
    "prefer": "decides what comes back",
    "destination": "says where it is moved or copied to",
}
"""Request headers that are kept, and so take part in matching: name -> why."""

ALLOWED_RESPONSE_HEADERS: Mapping[str, str] = {
    "content-type": "decides how the client reads the body",
    "retry-after": "decides the client's retries",
    "retry-after-ms": "decides the client's retries",
    "x-should-retry": "decides the client's retries",
    "x-amzn-errortype": "names the error that botocore raises",
    "location": "decides where the client goes next",
    "operation-location": "decides where the client goes next",
    "x-goog-upload-url": "decides where the client goes next",
    "x-goog-upload-status": "decides whether the client goes on",
    "x-amz-bucket-region": "decides where the client goes next",
    "www-authenticate": "decides how the client tries again",
    "link": "decides where the client goes next",
    "x-total-count": "decides how often the client asks",
    "x-next-page": "decides what the client asks for next",
    "content-range": "decides how often the client asks",
    "content-length": "answers HEAD; of other answers it is not brought here",
    "content-disposition": "names what came",
    "etag": "the client may send it back",
    "trailer": "says which of these came after the body",
    "grpc-status-details-bin": "what went wrong, as gRPC clients read it",
}
"""Response headers that are kept: name -> why. Ids, dates, lengths and counters change with every recording."""

_CREDENTIAL_HEADER = re.compile(r"auth|key|token|secret|password|credential|cookie|signature|session")
# Names that match the above and hold no credential; their values change all the time.
_NO_CREDENTIAL = re.compile(
    r"idempotency|sec-websocket|rate-?limit|max-tokens|token-count|surrogate-key|www-authenticate"
)
NAME_PATTERNS = (_CREDENTIAL_HEADER.pattern, _NO_CREDENTIAL.pattern)
"""What decides whether a header's name is a credential's; a part of the rule set."""

_BOUNDARY = re.compile(r"(\bboundary=)(\"[^\"]*\"|[^\s;]+)", re.IGNORECASE)
PLACES = frozenset({"location", "operation-location", "x-goog-upload-url", "destination"})
"""Headers whose value is a URL."""

_PARAMETER = re.compile(r"(\w+)=\"?([^\",\s]+)")


def is_credential(name: str, keys: Collection[str]) -> bool:
    """Whether a header holds a credential.

    Args:
        name: in lower case.
        keys: folded names that the user calls a credential's.
    """
    if fold(name) in keys:
        return True
    return bool(_CREDENTIAL_HEADER.search(name)) and not _NO_CREDENTIAL.search(name)


def without_boundary(name: str, value: str) -> str:
    """The rule ``multipart_boundary``: clients draw a boundary at random for every request."""
    return _BOUNDARY.sub(r"\1boundary", value) if name == "content-type" else value


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
