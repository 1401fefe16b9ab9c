"""gRPC, plain and asyncio: calls are met where gRPC's Python hands them to its core.

The core opens its own sockets, of which no audit event tells: what is not met here would leave in replay, unnoticed. So
every way into it is: the multicallables of channels that were made long before the run, below interceptors and
wrappers (``google.api_core``), and what only asks whether a channel is connected.

What is recorded is an ``http`` exchange, as gRPC over HTTP/2 is one: ``POST grpc://host/package.Service/Method``, the
request as readable JSON (protobuf), text or base64; a list, if requests are streamed. Of metadata, what the allow-list
of headers knows. The answer is a stream of messages, one chunk each (``_wire`` has the forms), a status that is
told as gRPC's HTTP mapping tells it, and the exact code and details as ``error``. Spans follow OpenTelemetry's RPC
conventions.

A stream of requests is not all there when its call begins: streams of one method are told apart by the order in which
they begin, and what was sent is compared at the end (``_call`` has the turns of a conversation).

In replay a channel is always ready, and nothing connects it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ...._run import Run
from ....errors import BoundaryError
from ... import _wait
from .._needs import needs
from . import _aio, _sync
from . import _wire as wire
from ._call import Crossing, noted, watching

_SYNC = (
    ("_UnaryUnaryMultiCallable", ("_blocking", "future"), False),
    ("_SingleThreadedUnaryStreamMultiCallable", ("__call__",), False),
    ("_UnaryStreamMultiCallable", ("__call__",), False),
    ("_StreamUnaryMultiCallable", ("_blocking", "future"), True),
    ("_StreamStreamMultiCallable", ("__call__",), True),
)
"""Classes of ``grpc._channel``, their methods that reach the core, and whether they stream their requests."""

_AIO = (("UnaryUnaryCall", False), ("UnaryStreamCall", False), ("StreamUnaryCall", True), ("StreamStreamCall", True))
"""Classes of ``grpc.aio._call``, and whether they stream their requests."""

_OPERATIONS = (
    "receive_initial_metadata",
    "receive_message",
    "receive_status_on_client",
    "send_close_from_client",
    "send_message",
)


def install(lib: ModuleType) -> None:
    """Patch ``grpc._channel`` or ``grpc.aio._channel``.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        if lib.__name__ == "grpc._channel":
            _install_sync(lib)
        else:
            _install_aio(lib)
    except (AttributeError, KeyError) as error:
        raise BoundaryError(
            f"{lib.__name__} is not recognised: its calls would not be recorded, and replay would not notice them"
            f" ({error})"
        ) from None


def _install_sync(lib: Any) -> None:
    cygrpc = lib.cygrpc
    needs(cygrpc, "OperationType", "SendMessageOperation", "_Metadatum")
    needs(cygrpc.OperationType, *_OPERATIONS)
    needs(cygrpc.SendMessageOperation, "_message")
    needs(lib.Channel, "_target")
    patches = []
    for name, methods, streamed in _SYNC:
        kind = getattr(lib, name)
        needs(kind, "_channel", "_target", "_method", "_request_serializer", "_response_deserializer")
        for method in methods:
            patches.append((kind, method, _crossing(getattr(kind, method), streamed=streamed, cygrpc=cygrpc)))
    patches.append((lib.Channel, "subscribe", _subscribe(lib.Channel.subscribe)))
    for owner, name, function in patches:
        setattr(owner, name, function)


def _crossing(original: Callable[..., Any], *, streamed: bool, cygrpc: Any) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = watching(self._target.decode("utf-8"), method=self._method.decode("utf-8"))
        if run is not None:
            self = _sync.crossed(self, run, streamed=streamed, cygrpc=cygrpc)
        return original(self, *args, **kwargs)

    return method


def _subscribe(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def subscribe(self: Any, callback: Callable[[Any], None], try_to_connect: bool | None = None) -> None:
        if _replays(self._target):
            threading.Thread(target=callback, args=(_ready(),), daemon=True).start()
        else:
            original(self, callback, try_to_connect)

    return subscribe


def _install_aio(lib: Any) -> None:
    needs(lib.cygrpc, "AioRpcStatus", "EOF", "_AioCall")
    needs(lib.cygrpc._AioCall, "_initial_metadata", "_status", "is_locally_cancelled")
    needs(lib._common, "serialize")
    needs(lib.Channel, "_channel")
    patches: list[tuple[Any, str, Any]] = []
    for name, streamed in _AIO:
        kind = getattr(lib, name)
        known = inspect.signature(kind.__init__)
        for parameter in ("channel", "method", "request_serializer", "response_deserializer", "metadata"):
            known.parameters[parameter]
        patches.append((kind, "__init__", _call_made(kind.__init__, known, streamed=streamed, lib=lib)))
    patches.append((lib.Channel, "get_state", _get_state(lib.Channel.get_state)))
    patches.append((lib.Channel, "wait_for_state_change", _wait_for_state_change(lib.Channel.wait_for_state_change)))
    for owner, name, function in patches:
        setattr(owner, name, function)


def _call_made(
    original: Callable[..., Any], signature: inspect.Signature, *, streamed: bool, lib: Any
) -> Callable[..., Any]:
    @functools.wraps(original)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        given = bound.arguments
        target = _aio.target_of(given["channel"])
        method = given["method"]
        run = watching(target, method=method if isinstance(method, str) else method.decode("utf-8"))
        if run is not None:
            given.update(_crossed(run, target, given, streamed=streamed, lib=lib))
        original(*bound.args, **bound.kwargs)

    return made


def _crossed(run: Run, target: str, given: dict[str, Any], *, streamed: bool, lib: Any) -> dict[str, Any]:
    """The arguments of a call of ``grpc.aio`` that are others when it is a run's."""
    method = given["method"]
    crossing = Crossing(
        wire.Method(target, method if isinstance(method, str) else method.decode("utf-8"), streamed),
        metadata=given["metadata"],
        request_class=None,
        response_class=wire.message_class(getattr(given["response_deserializer"], "__self__", None)),
    )
    serialize = noted(given["request_serializer"], crossing)
    channel = _aio.Channel(run, given["channel"], crossing, lib.cygrpc)
    if streamed:
        return {"channel": channel, "request_serializer": serialize}
    # It would be serialized in a task of its own, when the call has begun long since.
    message = lib._common.serialize(given["request"], serialize)
    crossing.sent.append(message or b"")
    return {"channel": channel, "request": message, "request_serializer": None}


def _get_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_state(self: Any, try_to_connect: bool = False) -> Any:
        if _replays(_aio.target_of(self._channel)):
            return _ready()
        return original(self, try_to_connect)

    return get_state


def _wait_for_state_change(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def wait_for_state_change(self: Any, last_observed_state: Any) -> None:
        if not _replays(_aio.target_of(self._channel)):
            await original(self, last_observed_state)
        elif last_observed_state is _ready():
            await _wait.done(asyncio.get_running_loop().create_future())

    return wait_for_state_change


def _replays(target: str) -> bool:
    run = watching(target)
    return run is not None and not run.records


def _ready() -> Any:
    import grpc

    return grpc.ChannelConnectivity.READY
