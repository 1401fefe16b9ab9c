"""Exact shapes of plain data, and those of an exchange's request and response (told in words in ``_model``).

Invariants:

* key sets are exact: an unknown key is as wrong as a missing one;
* an exchange without a ``Fault`` can be replayed without a further check of its shape;
* no message quotes the payload.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REQUEST_PARTS = ("method", "url", "headers", "body", "arguments")
"""Keys of all requests: where a path into a request may start."""


@dataclass(frozen=True)
class Fault:
    """One departure from the exact shape.

    Args:
        field: dotted name of the field, empty for the whole.
        reason: what is wrong, without the field's content.
    """

    field: str
    reason: str


Check = Callable[[Any], bool]


@dataclass(frozen=True)
class Rule:
    """What one field must be.

    Args:
        holds: whether a value is that.
        words: the same for a message, after "must be".
    """

    holds: Check
    words: str


def matches(pattern: str) -> Check:
    """A check for text that a pattern matches as a whole."""
    compiled = re.compile(pattern)
    return lambda value: type(value) is str and compiled.fullmatch(value) is not None


def one_of(*words: str) -> Rule:
    """One of some words."""
    return Rule(lambda value: type(value) is str and value in words, f"one of {', '.join(words)}")


def optional(rule: Rule) -> Rule:
    """Null, or what a rule says."""
    return Rule(lambda value: value is None or rule.holds(value), f"null or {rule.words}")


ANY = Rule(lambda value: True, "anything")
TEXT = Rule(lambda value: type(value) is str, "text")
MAPPING = Rule(lambda value: type(value) is dict, "a mapping")
LIST = Rule(lambda value: type(value) is list, "a list")
INTEGER = Rule(lambda value: type(value) is int, "an integer")
COUNT = Rule(lambda value: type(value) is int and value >= 0, "an integer from 0 up")

Rules = Mapping[str, Rule]


def faults(value: Any, rules: Rules, *, prefix: str = "", extra: Rules | None = None) -> Iterator[Fault]:
    """Departures of a mapping from its shape.

    Args:
        value: what should be the mapping.
        rules: of the keys that it must have.
        prefix: dotted name of the mapping with a final dot.
        extra: rules of keys that it may have.
    """
    if type(value) is not dict:
        yield Fault(prefix.rstrip("."), "must be a mapping")
        return
    extra = extra or {}
    for key in rules:
        if key not in value:
            yield Fault(prefix + key, "is missing")
    for key in value:
        if key not in rules and key not in extra:
            # ascii(): the key is the file's own text, and an error message is no place for its control characters.
            yield Fault(prefix + ascii(key)[1:61].removesuffix("'"), "is not a key of this format")
    for known in (rules, extra):
        for key, rule in known.items():
            if (known is rules or key in value) and not rule.holds(value[key]):
                yield Fault(prefix + key, f"must be {rule.words}")


def _is_sent(one: Any) -> bool:
    return type(one) is list and len(one) == 3 and type(one[0]) is int and one[1] in ("send", "throw")


_TEXTS = Rule(
    lambda value: type(value) is dict and all(type(text) is str for text in value.values()), "a mapping of texts"
)
_COUNTS = Rule(lambda value: type(value) is list and all(map(COUNT.holds, value)), "a list of byte counts")
_SENT = Rule(
    lambda value: type(value) is list and all(map(_is_sent, value)),
    'a list of [item, "send" or "throw", value]',
)
_STREAMED: Rules = {"chunks": _COUNTS, "message": ANY}

_HTTP_REQUEST: Rules = {"method": TEXT, "url": TEXT, "headers": _TEXTS, "body": optional(MAPPING)}
_HTTP_RESPONSE: Rules = {
    "status": optional(INTEGER),
    "headers": _TEXTS,
    "body": optional(MAPPING),
    "end": one_of("complete", "closed", "cancelled", "error"),
    "error": optional(MAPPING),
}
_TOOL_REQUEST: Rules = {"arguments": MAPPING}
_TOOL_RESPONSE: Rules = {"result": ANY}
_TOOL_EXTRA: Rules = {
    "items": LIST,
    "sent": _SENT,
    "end": one_of("complete", "closed", "error"),
    "error": MAPPING,
    "returned": one_of("awaitable", "generator", "async_generator"),
    "order": TEXT,
}
_ERROR: Rules = {"type": TEXT, "message": TEXT}


def request_fault(kind: str, request: Any) -> Fault | None:
    """The first departure of the request of a ``model``, ``tool`` or ``http`` exchange from its shape."""
    return next(_request_faults(kind, request), None)


def response_fault(kind: str, response: Any) -> Fault | None:
    """The first departure of a response from its shape."""
    return next(_response_faults(kind, response), None)


def _request_faults(kind: str, request: Any) -> Iterator[Fault]:
    if kind == "tool":
        yield from faults(request, _TOOL_REQUEST)
        return
    yield from faults(request, _HTTP_REQUEST)
    # A consumer stops at the first fault, so whatever runs from here on has the right keys and types.
    if request["body"] is not None:
        yield from _body_faults(request["body"], answered=False)


def _response_faults(kind: str, response: Any) -> Iterator[Fault]:
    if kind == "tool":
        yield from faults(response, _TOOL_RESPONSE, extra=_TOOL_EXTRA)
        if "error" in response:
            # What stopped a call from outside is no answer of the tool's, and is not kept.
            value = {} if response.get("end") == "closed" else {"value": ANY}
            yield from faults(response["error"], {**_ERROR, **value}, prefix="error.")
        return
    yield from faults(response, _HTTP_RESPONSE)
    if response["body"] is not None:
        yield from _body_faults(response["body"], answered=True)
    if response["error"] is not None:
        yield from faults(response["error"], _ERROR, prefix="error.")


def _body_faults(body: dict[str, Any], *, answered: bool) -> Iterator[Fault]:
    forms = [key for key in ("json", "text", "base64") if key in body]
    if len(forms) != 1:
        yield Fault("body", "must hold one of json, text and base64")
        return
    form = forms[0]
    if form == "json":
        # Requests are only compared: nobody needs their bytes again.
        yield from faults(body, {form: ANY, **({"layout": TEXT} if answered else {})}, prefix="body.")
        return
    streamed = _STREAMED if "chunks" in body else {}
    yield from faults(body, {form: TEXT, **streamed}, prefix="body.")
    size = _size(form, body[form])
    if size is None:
        yield Fault("body.base64", "must be base64")
    elif streamed and sum(body["chunks"]) != size:
        yield Fault("body.chunks", f"must add up to the {size} bytes of the body")


def _size(form: str, text: str) -> int | None:
    if form == "text":
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None
