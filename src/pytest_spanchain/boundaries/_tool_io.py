"""Tool calls between Python values and the plain requests and responses of a cassette (shapes in ``_model``).

Beyond the shapes in ``_model`` a tool's response may have: ``order``, the key order of the mappings inside the whole
response (agents print results into prompts); ``sent``, what was sent or thrown into a generator, as ``[index of the
item before it, "send" | "throw", value]``; ``returned``, if a plain function returned an ``awaitable``, ``generator``
or ``async_generator`` whose outcome this is. Its ERROR also has ``value``, the exception itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._canonical import canonical
from .._layout import LayoutError, order_of, reorder
from .._values import check_round_trip, decode, encode
from .._values.trust import type_name
from ..errors import CassetteBroken, SpanchainError, Unrecordable
from ._port import Call


@dataclass(frozen=True)
class ToolSpec:
    """A function that is recorded.

    Args:
        name: name of the tool.
        original: gives what runs the real body, when it is to run.
        signatures: signatures to bind a call by, best first.
        bound: whether the first argument is the receiver, which is not recorded.
        types: classes that its results may hold.
        wanted_by: whether a run wants it recorded.
    """

    name: str
    original: Callable[[], Callable[..., Any]]
    signatures: tuple[inspect.Signature, ...]
    bound: bool
    types: Mapping[str, type]
    wanted_by: Callable[[Any], bool] = field(default=lambda run: True)


@dataclass(frozen=True)
class Served:
    """A recorded response, decoded."""

    result: Any = None
    items: tuple[Any, ...] = ()
    end: str = "complete"
    error: Exception | None = None
    sent: Mapping[int, Any] = field(default_factory=dict)
    returned: str | None = None


def signatures_of(function: Any) -> tuple[inspect.Signature, ...]:
    """The signature that a function declares and, if it is another, the one that it has."""
    declared = inspect.signature(function)
    # The signature set on a function (a patch does so) is no hint of what its code takes.
    own = inspect.signature(inspect.unwrap(function, stop=lambda _: True), follow_wrapped=False)
    return (declared,) if own == declared else (declared, own)


def request_of(spec: ToolSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The request of a call; ``None`` if the arguments do not fit the function, which then says so itself."""
    for signature in spec.signatures:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            continue
        bound.apply_defaults()
        named = dict(bound.arguments)
        if spec.bound and named:
            named = _without_receiver(signature, named)
        return {"arguments": {name: encode(value, opaque=True) for name, value in _plainly(signature, named)}}
    return None


def _without_receiver(signature: inspect.Signature, named: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(signature.parameters.values()))
    if first.kind is first.VAR_POSITIONAL:
        return {**named, first.name: named[first.name][1:]}
    return {name: value for name, value in named.items() if name != first.name}


def _plainly(signature: inspect.Signature, named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, value in named.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            value = list(value)
        if value or kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            found.append((name, value))
    return found


class Take:
    """What comes out of one live call, on its way into the cassette. The agent's own values are never touched."""

    def __init__(self, spec: ToolSpec, call: Call, *, streamed: bool = False, returned: str | None = None) -> None:
        self._spec = spec
        self._call = call
        self._items: list[Any] | None = [] if streamed else None
        self._sent: list[Any] = []
        self._returned = returned

    def item(self, value: Any) -> None:
        """A generator yielded."""
        assert self._items is not None
        self._items.append(self._plain(value, f"item {len(self._items)}"))

    def sent(self, how: str, value: Any) -> None:
        """Something went into a generator: ``send`` or ``throw``."""
        assert self._items is not None
        self._sent.append([len(self._items) - 1, how, encode(value, opaque=True)])

    def result(self, value: Any) -> None:
        """The call returned."""
        self._finish("complete", result=self._plain(value, "the result"))

    def raised(self, error: BaseException) -> None:
        """The call ended with an exception; the caller re-raises it."""
        described = {"type": type_name(type(error)), "message": _message(error)}
        if isinstance(error, Exception):
            self._finish("error", error={**described, "value": self._plain(error, "the exception")})
        else:  # cancelled, closed or interrupted from outside: not the tool's answer
            self._finish("closed", error=described)

    def closed(self) -> None:
        """The agent stopped iterating."""
        self._finish("closed")

    def _finish(self, end: str, *, result: Any = None, error: Any = None) -> None:
        response: dict[str, Any] = {"result": result}
        if self._items is not None:
            response["items"] = self._items
        if self._items is not None or end == "closed":
            response["end"] = end
        if error is not None:
            response["error"] = error
        if self._sent:
            response["sent"] = self._sent
        if self._returned is not None:
            response["returned"] = self._returned
        self._call.finish(_ordered(response))

    def _plain(self, value: Any, what: str) -> Any:
        try:
            plain = encode(value)
            check_round_trip(plain, types=self._spec.types)
        except Unrecordable as error:
            self._call.fail(Unrecordable(f"tool {self._spec.name}: {what} cannot be recorded: {error}"))
            return encode(value, opaque=True)
        return plain


def _ordered(response: dict[str, Any]) -> dict[str, Any]:
    # Sorted first, so that the order speaks only of what is inside.
    response = dict(sorted(response.items()))
    order = order_of(response)
    return {**response, "order": order} if order else response


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # a broken ``__str__`` must not change what the agent sees
        return ""
    return text.encode("utf-8", "replace").decode("utf-8")


def serve(spec: ToolSpec, call: Call) -> Served:
    """Decode the response that the run found.

    Raises:
        SpanchainError: it cannot be decoded; the run is told, and the call is over.
    """
    assert call.recorded is not None
    try:
        return _served(call.recorded, spec.types)
    except SpanchainError as error:
        failure: SpanchainError = type(error)(f"tool {spec.name}: {error}")
        call.fail(failure)
        call.finish(call.recorded)
        raise failure from error


def _served(recorded: Mapping[str, Any], types: Mapping[str, type]) -> Served:
    if "result" not in recorded:  # the call was still open when the recording ended
        return Served(end="closed")
    try:
        inner = {name: part for name, part in recorded.items() if name != "order"}
        response = reorder(inner, recorded.get("order", ""))
    except LayoutError as error:
        raise CassetteBroken(str(error), field="response.order", remedy="Record it again.") from error
    raised = response.get("error")
    closed = response.get("end") == "closed"
    return Served(
        result=decode(response["result"], types=types),
        items=tuple(decode(item, types=types) for item in response.get("items", ())),
        end="closed" if closed else "error" if raised else "complete",
        error=decode(raised["value"], types=types) if raised and not closed else None,
        sent={index: [how, plain] for index, how, plain in response.get("sent", ())},
        returned=response.get("returned"),
    )


def matches(served: Served, index: int, live: tuple[str, Any] | None) -> bool:
    """Whether what goes into a generator after an item is what went in when it was recorded."""
    recorded = served.sent.get(index)
    if live is None or recorded is None:
        return live is None and recorded is None
    return canonical(recorded) == canonical([live[0], encode(live[1], opaque=True)])


def cut(recorded: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The response that a run saw which stopped iterating after ``count`` items."""
    if recorded.get("end") == "closed" and len(recorded["items"]) == count:
        return dict(recorded)
    inner = {name: part for name, part in recorded.items() if name != "order"}
    response = reorder(inner, recorded.get("order", ""))
    kept = {name: part for name, part in response.items() if name in ("returned", "sent")}
    return _ordered({**kept, "result": None, "items": response["items"][:count], "end": "closed"})
