"""Exact shapes of plain data, and those of an exchange's request and response (told in words in ``_model``).

A rule is asked of many values at once, which costs hardly more than one.

Invariants:

* key sets are exact: an unknown key is as wrong as a missing one;
* an exchange without a ``Fault`` can be replayed without a further check of its shape;
* no message quotes the payload.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

REQUEST_PARTS = ("method", "url", "headers", "body", "arguments", "server", "params", "argv", "cwd", "env", "stdin")
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


NULL = type(None)
_MANY = 4
"""From so many values on it is quicker to ask about all of them at once."""


@dataclass(frozen=True)
class Rule:
    """What one field must be.

    Args:
        words: what that is, for a message, after "must be".
        types: that it may be of; ``None``: any.
        test: whether values of these types, but for null, are that, all of them.
    """

    words: str
    types: frozenset[type] | None = None
    test: Callable[[Sequence[Any]], bool] | None = None

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether some values are that, all of them."""
        if self.types is None:
            return True
        if not self.types.issuperset(map(type, values)):
            return False
        if self.test is None:
            return True
        return self.test([one for one in values if one is not None] if NULL in self.types else values)


def of_type(kind: type, words: str, test: Callable[[Sequence[Any]], bool] | None = None) -> Rule:
    """A rule for values of one type."""
    return Rule(words, frozenset({kind}), test)


def matching(pattern: str, words: str) -> Rule:
    """Text that a pattern matches as a whole."""
    matches = re.compile(pattern).fullmatch
    return of_type(str, words, lambda values: all(map(matches, values)))


def one_of(*words: str) -> Rule:
    """One of some words."""
    return of_type(str, f"one of {', '.join(words)}", frozenset(words).issuperset)


def optional(rule: Rule) -> Rule:
    """Null, or what a rule says."""
    assert rule.types is not None, "what may be anything may be null"
    return Rule(f"null or {rule.words}", rule.types | {NULL}, rule.test)


ANY = Rule("anything")
TEXT = of_type(str, "text")
MAPPING = of_type(dict, "a mapping")
LIST = of_type(list, "a list")
INTEGER = of_type(int, "an integer")
COUNT = of_type(int, "an integer from 0 up", lambda values: min(values, default=0) >= 0)

Rules = Mapping[str, Rule]


def fit(values: Sequence[Any], rules: Rules) -> bool:
    """Whether some mappings have the shape of these rules, all of them; of many, it is asked key by key."""
    if len(values) < _MANY:
        return all(_fits(value, rules) for value in values)
    if not {dict}.issuperset(map(type, values)) or not {len(rules)}.issuperset(map(len, values)):
        return False
    try:
        for key, rule in rules.items():
            if not rule.holds([*map(itemgetter(key), values)]):
                return False
    except KeyError:
        return False
    return True


def _fits(value: Any, rules: Rules) -> bool:
    if type(value) is not dict or value.keys() != rules.keys():
        return False
    for key, rule in rules.items():
        one = value[key]
        if rule.types is not None and type(one) not in rule.types:
            return False
        if rule.test is not None and one is not None and not rule.test((one,)):
            return False
    return True


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
    if _fits(value, rules):  # nearly always
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
            if (known is rules or key in value) and not rule.holds((value[key],)):
                yield Fault(prefix + key, f"must be {rule.words}")


def _is_sent(one: Any) -> bool:
    return type(one) is list and len(one) == 3 and type(one[0]) is int and one[1] in ("send", "throw")


_MARKS = {"asks", "late", "withdrawn"}


def _is_message(one: Any) -> bool:
    return (
        type(one) is dict
        and type(one.get("method")) is str
        and (one.get("params") is None or type(one["params"]) is dict)
        and one.keys() - _MARKS == {"method", "params"}
        and all(one[key] is True for key in one.keys() & _MARKS)
    )


_ARGUMENTS = of_type(list, "a list of texts", lambda values: all(map(TEXT.holds, values)))
_TEXTS = of_type(dict, "a mapping of texts", lambda values: all(TEXT.holds([*value.values()]) for value in values))
COUNTS = of_type(list, "a list of byte counts", lambda values: all(map(COUNT.holds, values)))
_SENT = of_type(
    list, 'a list of [item, "send" or "throw", value]', lambda values: all(all(map(_is_sent, one)) for one in values)
)
_STREAMED: Rules = {"chunks": COUNTS, "message": ANY}

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


_MESSAGES = of_type(
    list,
    'a list of messages: "method", "params" and, where it applies, "asks", "late" and "withdrawn"',
    lambda values: all(all(map(_is_message, one)) for one in values),
)
_MCP_REQUEST: Rules = {"server": TEXT, "method": TEXT, "params": optional(MAPPING)}
_MCP_RESPONSE: Rules = {
    "result": ANY,
    "error": optional(MAPPING),
    "end": one_of("complete", "closed", "cancelled", "error"),
    "arrived": _MESSAGES,
}
_REFUSAL: Rules = {"code": INTEGER, "message": TEXT, "data": ANY}
_CALLBACK_REQUEST: Rules = {"method": TEXT, "params": optional(MAPPING)}
_CALLBACK_RESPONSE: Rules = {"result": ANY, "error": optional(MAPPING)}
_PROCESS_REQUEST: Rules = {"argv": _ARGUMENTS, "cwd": optional(TEXT), "env": _TEXTS, "stdin": optional(MAPPING)}
_PROCESS_RESPONSE: Rules = {
    "exit": optional(INTEGER),
    "stdout": optional(MAPPING),
    "stderr": optional(MAPPING),
    "turns": TEXT,
    "end": one_of("complete", "closed", "cancelled", "error"),
    "error": optional(MAPPING),
}


def request_fault(kind: str, request: Any) -> Fault | None:
    """The first departure of an exchange's request from the shape of its kind."""
    return next(_REQUESTS[kind](request), None)


def response_fault(kind: str, response: Any) -> Fault | None:
    """The first departure of a response from the shape of its kind."""
    return next(_RESPONSES[kind](response), None)


# A consumer stops at the first fault, so whatever runs after the first line of these has the right keys and types.


def _tool_request(request: Any) -> Iterator[Fault]:
    yield from faults(request, _TOOL_REQUEST)


def _tool_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _TOOL_RESPONSE, extra=_TOOL_EXTRA)
    if "error" in response:
        # What stopped a call from outside is no answer of the tool's, and is not kept.
        value = {} if response.get("end") == "closed" else {"value": ANY}
        yield from faults(response["error"], {**_ERROR, **value}, prefix="error.")


def _http_request(request: Any) -> Iterator[Fault]:
    yield from faults(request, _HTTP_REQUEST)
    yield from _body_faults(request["body"], "body", answered=False)


def _http_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _HTTP_RESPONSE)
    yield from _body_faults(response["body"], "body", answered=True)
    yield from _error_faults(response["error"])


def _mcp_request(request: Any) -> Iterator[Fault]:
    yield from faults(request, _MCP_REQUEST)


def _mcp_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _MCP_RESPONSE, extra={"order": TEXT, "stderr": MAPPING})
    if "stderr" in response:
        yield from faults(response["stderr"], {"text": TEXT, "bytes": COUNT}, prefix="stderr.")
    yield from _refusal_faults(response["error"])


def _agent_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _MCP_RESPONSE, extra={"order": TEXT})
    yield from _refusal_faults(response["error"])


def _callback_request(request: Any) -> Iterator[Fault]:
    yield from faults(request, _CALLBACK_REQUEST)


def _callback_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _CALLBACK_RESPONSE)
    yield from _refusal_faults(response["error"])


def _process_request(request: Any) -> Iterator[Fault]:
    yield from faults(request, _PROCESS_REQUEST)
    yield from _body_faults(request["stdin"], "stdin", answered=False)


def _process_response(response: Any) -> Iterator[Fault]:
    yield from faults(response, _PROCESS_RESPONSE)
    yield from _body_faults(response["stdout"], "stdout", answered=True)
    yield from _body_faults(response["stderr"], "stderr", answered=True)
    yield from _error_faults(response["error"])


_REQUESTS: Mapping[str, Callable[[Any], Iterator[Fault]]] = {
    "model": _http_request,
    "http": _http_request,
    "tool": _tool_request,
    "mcp": _mcp_request,
    "callback": _callback_request,
    "agent": _mcp_request,
    "process": _process_request,
}
_RESPONSES: Mapping[str, Callable[[Any], Iterator[Fault]]] = {
    "model": _http_response,
    "http": _http_response,
    "tool": _tool_response,
    "mcp": _mcp_response,
    "callback": _callback_response,
    "agent": _agent_response,
    "process": _process_response,
}


def _error_faults(error: Any) -> Iterator[Fault]:
    if error is not None:
        yield from faults(error, _ERROR, prefix="error.")


def _refusal_faults(error: Any) -> Iterator[Fault]:
    if error is not None:
        yield from faults(error, _REFUSAL if "code" in error else _ERROR, prefix="error.")


def _body_faults(body: dict[str, Any] | None, name: str, *, answered: bool) -> Iterator[Fault]:
    if body is None:
        return
    forms = [key for key in ("json", "text", "base64") if key in body]
    if len(forms) != 1:
        yield Fault(name, "must hold one of json, text and base64")
        return
    form = forms[0]
    if form == "json":
        # Requests are only compared: nobody needs their bytes again.
        yield from faults(body, {form: ANY, **({"layout": TEXT} if answered else {})}, prefix=f"{name}.")
        return
    streamed = _STREAMED if "chunks" in body else {}
    yield from faults(body, {form: TEXT, **streamed}, prefix=f"{name}.")
    size = _size(form, body[form])
    if size is None:
        yield Fault(f"{name}.base64", "must be base64")
    elif streamed and sum(body["chunks"]) != size:
        yield Fault(f"{name}.chunks", f"must add up to the {size} bytes of the body")


def _size(form: str, text: str) -> int | None:
    if form == "text":
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return None
