"""Tool calls between Python values and the plain requests and responses of a cassette (shapes in ``_model``).

Invariant: nothing that the values' own code raises gets through to the agent; it fails the run instead.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from .._canonical import canonical
from .._layout import LayoutError, ordered, unordered
from .._patch import unpatched
from .._run import Call
from .._values import Receiver, check_round_trip, decode, encode, mark
from .._values.objects import text_of
from .._values.trust import type_name
from ..errors import CassetteBroken, RunClosedError, SpanchainError, Unrecordable

Arguments = Callable[[tuple[Any, ...], Mapping[str, Any]], "Mapping[str, Any] | None"]
"""Takes a call's positional and keyword arguments; gives them by name."""


class Watcher(Protocol):
    """Told of one call of a function that may be none of the tool's."""

    @property
    def answers(self) -> bool:
        """Whether the call is known to answer the model, if that has asked."""

    def began(self, call: Call) -> None:
        """The call is to be recorded, or served."""

    def unrecordable(self, call: Call, error: Unrecordable) -> None:
        """Something of it cannot be recorded; the watcher answers for the run's being told, if it should be."""


@dataclass(frozen=True)
class ToolSpec:
    """A function that is recorded.

    Args:
        name: name of the tool.
        original: gives what runs the real body, when it is to run.
        arguments: names the arguments of a call; ``None`` if they do not fit, which the function then says itself.
        types: classes that its results may hold.
        wanted_by: whether a run wants it recorded.
        seam: whether this is where a framework calls tools, and the function behind may be a ``ToolSpec`` of its own.
        watcher: who is told of the one call that this is the spec of.
    """

    name: str
    original: Callable[[], Callable[..., Any]]
    arguments: Arguments
    types: Mapping[str, type]
    wanted_by: Callable[[Any], bool] = field(default=lambda run: True)
    seam: bool = False
    watcher: Watcher | None = None

    def began(self, call: Call) -> None:
        """Say that a call is to be recorded, or served."""
        if self.watcher is not None:
            self.watcher.began(call)

    def unrecordable(self, call: Call, error: Unrecordable) -> None:
        """Say that something of a call cannot be recorded: it fails the run, unless the watcher knows better."""
        if self.watcher is not None:
            self.watcher.unrecordable(call, error)
        else:
            call.fail(error)


@dataclass(frozen=True)
class Served:
    """A recorded response, decoded; it ``waits`` if the recorded agent waited until something stopped it."""

    result: Any = None
    items: tuple[Any, ...] | None = None
    end: str = "complete"
    error: Exception | None = None
    sent: Mapping[int, Any] = field(default_factory=dict)
    returned: str | None = None
    waits: bool = False


def arguments_of(function: Any, *, bound: bool) -> Arguments:
    """How to name the arguments of a function's calls.

    Args:
        function: the function, with its own code.
        bound: whether the first argument is the receiver, of which only what lasts is recorded.
    """
    declared = inspect.signature(function)
    # The signature set on a function (a patch does so) is no hint of what its code takes.
    own = inspect.signature(inspect.unwrap(function, stop=lambda _: True), follow_wrapped=False)
    signatures = (declared,) if own == declared else (declared, own)

    def arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        for signature in signatures:
            try:
                call = signature.bind(*args, **kwargs)
            except TypeError:
                continue
            call.apply_defaults()
            named = dict(call.arguments)
            return dict(_plainly(signature, _with_receiver(signature, named) if bound and named else named))
        return None

    return arguments


@dataclass(frozen=True)
class Asked:
    """What a call asks for.

    Args:
        request: the plain request.
        problems: why parts of it are only marked, though their author meant them to be recorded.
    """

    request: Mapping[str, Any]
    problems: tuple[Unrecordable, ...]


def asked(spec: ToolSpec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Asked | None:
    """What a call asks for; ``None`` if the arguments do not fit the function, which then says so itself."""
    named = spec.arguments(args, kwargs)
    if named is None:
        return None
    problems: list[Unrecordable] = []
    arguments = {name: _argument(spec, value, f"argument {name}", problems.append) for name, value in named.items()}
    return Asked({"arguments": arguments}, tuple(problems))


def _argument(spec: ToolSpec, value: Any, what: str, fail: Callable[[Unrecordable], None]) -> Any:
    try:
        return encode(value, opaque=True)
    except Unrecordable as error:
        fail(Unrecordable(f"tool {spec.name}: {what} cannot be recorded: {error}"))
        return mark(value)


def _with_receiver(signature: inspect.Signature, named: dict[str, Any]) -> dict[str, Any]:
    """The arguments, the first of them marked as what the method is called on: of it only what lasts is compared."""
    first = next(iter(signature.parameters.values()))
    if first.name not in named:
        return named
    if first.kind is first.VAR_POSITIONAL:
        receiver, *others = named[first.name] or (None,)
        return {**named, first.name: (Receiver(receiver, unpatched), *others)}
    return {**named, first.name: Receiver(named[first.name], unpatched)}


def _plainly(signature: inspect.Signature, named: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for name, value in named.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            value = list(value)
        # Not every value has a truth of its own (an array has none), so only ours are asked for it.
        if kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) or value:
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
        self._running = False
        self._ended = False
        self._over = False
        if streamed or returned:
            call.at_close = self._left

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the tool's own code runs: its span is current, and the agent waits."""
        self._running = True
        try:
            with self._call.active():
                yield
        finally:
            self._running = False

    def item(self, value: Any) -> None:
        """A generator yielded."""
        assert self._items is not None
        if not self._ended:
            self._items.append(self._plain(value, f"item {len(self._items)}"))

    def sent(self, how: str, value: Any) -> None:
        """The agent went on after an item: by ``send`` (of ``None``: it just asked for the next) or ``throw``."""
        assert self._items is not None
        if not self._ended and value is not None:
            index = len(self._items) - 1
            what = f"what was sent after item {index}"
            self._sent.append([index, how, _argument(self._spec, value, what, self._fail)])

    def thrown(self, error: BaseException) -> None:
        """An exception went into a generator after an item."""
        if isinstance(error, Exception):
            self.sent("throw", error)
        else:  # closed or cancelled: the agent reads no further, and the call is over when the generator is
            self._ended = True

    def result(self, value: Any) -> None:
        """The call returned."""
        if self._ended:
            self._close()
        else:
            self._finish("complete", result=self._plain(value, "the result"))

    def raised(self, error: BaseException) -> None:
        """The call ended with an exception; the caller re-raises it."""
        if self._ended:
            self._close()
            return
        described = {"type": type_name(type(error)), "message": text_of(error)}
        if isinstance(error, Exception):
            self._finish("error", error={**described, "value": self._plain(error, "the exception")})
        else:  # cancelled, closed or interrupted from outside: not the tool's answer
            self._finish("closed", error=described)

    def _left(self) -> None:
        """The run ended first: between two items that is an agent that stopped, else one that was stopped."""
        if self._running and not self._ended:
            error = {"type": type_name(RunClosedError), "message": "the run ended while the agent waited"}
            self._finish("closed", error=error)
        else:
            self._close()

    def _close(self) -> None:
        if not self._over:
            self._finish("closed")

    def _finish(self, end: str, *, result: Any = None, error: Any = None) -> None:
        self._over = self._ended = True
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
        self._call.finish(ordered(response))

    def _plain(self, value: Any, what: str) -> Any:
        try:
            plain = encode(value)
            check_round_trip(plain, types=self._spec.types)
        except Unrecordable as error:
            self._fail(Unrecordable(f"tool {self._spec.name}: {what} cannot be recorded: {error}"))
            return _argument(self._spec, value, what, lambda _: None)  # for whoever looks into the failed recording
        return plain

    def _fail(self, error: Unrecordable) -> None:
        self._spec.unrecordable(self._call, error)


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
        return Served(end="closed", waits=True)
    try:
        response = unordered(recorded)
    except LayoutError as error:
        raise CassetteBroken(str(error), field="response.order", remedy="Record it again.") from error
    raised = response.get("error")
    closed = response.get("end") == "closed"
    return Served(
        result=decode(response["result"], types=types),
        items=tuple(decode(item, types=types) for item in response["items"]) if "items" in response else None,
        end="closed" if closed else "error" if raised else "complete",
        error=decode(raised["value"], types=types) if raised and not closed else None,
        sent={index: [how, plain] for index, how, plain in response.get("sent", ())},
        returned=response.get("returned"),
        waits=closed and bool(raised),
    )


def matches(spec: ToolSpec, call: Call, served: Served, index: int, how: str, value: Any) -> bool:
    """Whether what goes into a generator after an item is what went in when it was recorded."""
    recorded = served.sent.get(index)
    if value is None or recorded is None:
        return value is None and recorded is None
    plain = _argument(spec, value, f"what was sent after item {index}", call.fail)
    return canonical(recorded) == canonical([how, plain])


def cut(recorded: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The response that a run saw which stopped iterating after ``count`` items."""
    if "items" not in recorded or (recorded["end"] == "closed" and len(recorded["items"]) == count):
        return dict(recorded)
    response = unordered(recorded)
    kept = {"result": None, "items": response["items"][:count], "end": "closed"}
    # What was sent after the last item would have brought the next one.
    kept["sent"] = [one for one in response.get("sent", ()) if one[0] < count - 1]
    kept["returned"] = response.get("returned")
    return ordered({name: part for name, part in kept.items() if part or name in ("result", "items")})
