"""Plain gRPC: a multicallable's call is met where it is handed to the core (``cygrpc``), as batches of operations.

Everything above (futures, iterators, errors, interceptors, callbacks) is gRPC's own in replay as well: what is served
are the events that the core would give.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...._run import Call, Run
from . import _wire as wire
from ._batches import Batch, Replayed
from ._call import Crossing, Playback, Recording, noted


def crossed(multicallable: Any, run: Run, *, streamed: bool, cygrpc: Any) -> Any:
    """A multicallable like another, for one call of a run."""
    crossing = Crossing(
        wire.Method(multicallable._target.decode("utf-8"), multicallable._method.decode("utf-8"), streamed),
        metadata=(),
        request_class=None,
        response_class=wire.message_class(getattr(multicallable._response_deserializer, "__self__", None)),
    )
    twin = copy.copy(multicallable)
    twin._request_serializer = noted(multicallable._request_serializer, crossing)
    edge = _Edge(run, crossing, cygrpc)
    twin._channel = _Channel(functools.partial(edge.segregated, multicallable._channel.segregated_call))
    if hasattr(multicallable, "_managed_call"):
        twin._managed_call = functools.partial(edge.integrated, multicallable._managed_call)
    return twin


@dataclass(frozen=True)
class _Channel:
    """What a multicallable wants of its channel."""

    segregated_call: Callable[..., Any]


class _Edge:
    """Stands before the core for one call. The arguments are the core's, in its order."""

    def __init__(self, run: Run, crossing: Crossing, cygrpc: Any) -> None:
        self._run = run
        self._crossing = crossing
        self._types = cygrpc.OperationType
        self._cygrpc = cygrpc

    def segregated(
        self,
        real: Callable[..., Any],
        flags: Any,
        method: Any,
        host: Any,
        deadline: Any,
        metadata: Any,
        credentials: Any,
        batches: Sequence[Batch],
        *rest: Any,
    ) -> Any:
        """A call whose events the caller asks for."""
        call = self._begin(metadata, [operations for operations, _ in batches])
        if call.recorded is not None:
            return Replayed(Playback(call, self._crossing), batches, self._cygrpc)
        live = _Live(Recording(call, self._crossing), self._cygrpc)
        with live.making(call):
            live.real = real(flags, method, host, deadline, metadata, credentials, batches, *rest)
        return live

    def integrated(
        self,
        real: Callable[..., Any],
        flags: Any,
        method: Any,
        host: Any,
        deadline: Any,
        metadata: Any,
        credentials: Any,
        operations: Sequence[Sequence[Any]],
        handler: Any,
        *rest: Any,
    ) -> Any:
        """A call whose events a thread of the channel hands to a handler."""
        call = self._begin(metadata, operations)
        if call.recorded is not None:
            return Replayed(Playback(call, self._crossing), [(some, handler) for some in operations], self._cygrpc)
        live = _Live(Recording(call, self._crossing), self._cygrpc)
        with live.making(call):
            tag = live.watched(handler)
            live.real = real(flags, method, host, deadline, metadata, credentials, operations, tag, *rest)
        return live

    def _begin(self, metadata: Any, batches: Sequence[Sequence[Any]]) -> Call:
        self._crossing.metadata = metadata
        for operation in (one for batch in batches for one in batch):
            if operation.type() == self._types.send_message:
                self._crossing.sent.append(operation._message)
        return self._crossing.begin(self._run)


class _Live:
    """A call of the core's that is recorded."""

    def __init__(self, recording: Recording, cygrpc: Any) -> None:
        self.real: Any = None
        self._recording = recording
        self._types = cygrpc.OperationType
        self._reading = False

    @contextmanager
    def making(self, call: Call) -> Iterator[None]:
        """Around the real thing."""
        try:
            with call.active():
                yield
        except BaseException as error:
            self._recording.failed(error)
            raise

    def watched(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A handler that hears after us, so that a call is over before its caller learns of it."""

        def handle(event: Any) -> Any:
            self._observe(event)
            return handler(event)

        return handle

    def operate(self, operations: Sequence[Any], tag: Any) -> Any:
        """Start a batch."""
        kinds = [operation.type() for operation in operations]
        for operation, kind in zip(operations, kinds, strict=True):
            if kind == self._types.send_message:
                self._recording.sent(operation._message)
            elif kind == self._types.send_close_from_client:
                self._recording.closed()
            elif kind == self._types.receive_message:
                self._reading = True
        going = self.real.operate(operations, None if tag is None else self.watched(tag))
        if not going and self._types.send_message in kinds:
            self._recording.unsent()
        return going

    def next_event(self) -> Any:
        """Wait for the next event."""
        event = self.real.next_event()
        self._observe(event)
        return event

    def cancel(self, code: int, details: Any) -> None:
        """End the call."""
        self._recording.gave_up(waiting=self._reading)
        self.real.cancel(code, details)

    def _observe(self, event: Any) -> None:
        for operation in event.batch_operations:
            kind = operation.type()
            if kind == self._types.receive_initial_metadata:
                self._recording.initial = operation.initial_metadata() or ()
            elif kind == self._types.receive_message:
                self._reading = False
                if (message := operation.message()) is not None:
                    self._recording.received(message)
            elif kind == self._types.receive_status_on_client:
                self._recording.ended(
                    wire.code_name(operation.code()),
                    wire.text(operation.details()),
                    operation.trailing_metadata() or (),
                    wire.text(operation.error_string()),
                )
