"""gRPC for asyncio: a call is met where it asks its channel for a call of the core's (``cygrpc.AioChannel.call``).

``grpc.aio`` drives that call with plain bytes. What stands for it in replay answers the same methods, so that
everything above (tasks, iterators, read and write, errors, interceptors, cancellation) is gRPC's own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ...._run import Run
from ... import _wait
from . import _wire as wire
from ._call import UNANSWERED, WAIT, Crossing, Playback, Recording

UNKNOWN_TARGET = "unknown"
"""Stands for a channel's target where gRPC does not tell it."""


def target_of(channel: Any) -> str:
    """The target of a channel of the core's; releases before 1.70 or so do not tell it."""
    told = getattr(channel, "target", None)
    return wire.text(told() if callable(told) else told) or UNKNOWN_TARGET


class Channel:
    """Stands for a channel of the core's, for one call of a run.

    Args:
        run: whose call it is.
        channel: the real one.
        crossing: the call.
        cygrpc: the core.
    """

    def __init__(self, run: Run, channel: Any, crossing: Crossing, cygrpc: Any) -> None:
        self._run = run
        self._channel = channel
        self._crossing = crossing
        self._cygrpc = cygrpc

    def call(self, method: Any, deadline: Any, *rest: Any) -> Any:
        """The call of the core's, recorded, or what stands for it."""
        call = self._crossing.begin(self._run)
        if call.recorded is not None:
            return _Replayed(Playback(call, self._crossing), deadline, self._cygrpc)
        recording = Recording(call, self._crossing)
        try:
            with call.active():
                return _Live(self._channel.call(method, deadline, *rest), recording)
        except BaseException as error:
            recording.failed(error)
            raise


class _Live:
    """A call of the core's that is recorded; what is not here goes to it."""

    def __init__(self, real: Any, recording: Recording) -> None:
        self._real = real
        self._recording = recording
        self._waiting = False
        real.add_done_callback(self._ended)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __repr__(self) -> str:
        return repr(self._real)

    async def unary_unary(self, request: bytes, *rest: Any) -> Any:
        return await self._waited(self._real.unary_unary(request, *rest))

    async def stream_unary(self, *args: Any) -> Any:
        return await self._waited(self._real.stream_unary(*args))

    async def receive_serialized_message(self) -> Any:
        return await self._waited(self._real.receive_serialized_message())

    async def send_serialized_message(self, message: bytes) -> None:
        self._recording.sent(message)
        try:
            await self._real.send_serialized_message(message)
        except BaseException:
            self._recording.unsent()
            raise

    async def send_receive_close(self) -> None:
        self._recording.closed()
        await self._real.send_receive_close()

    def cancel(self, details: str) -> None:
        if not self._real.done():
            self._recording.gave_up(waiting=self._waiting)
        self._real.cancel(details)

    async def _waited(self, answer: Any) -> Any:
        self._waiting = True
        try:
            message = await answer
        except asyncio.CancelledError:
            self._recording.gave_up(waiting=True)
            raise
        finally:
            self._waiting = False
        if isinstance(message, bytes):
            self._recording.received(message)
        if self._real.done():
            self._ended()
        return message

    def _ended(self) -> None:
        # The status may be there before the last answer has come up to whoever waits for it.
        if self._waiting or self._real.is_locally_cancelled():
            return
        status = self._real._status
        self._recording.initial = self._real._initial_metadata or ()
        self._recording.ended(
            wire.code_name(status.code()),
            wire.text(status.details()),
            status.trailing_metadata() or (),
            wire.text(status.debug_error_string()),
        )


class _Replayed:
    """What stands for a call of the core's in replay."""

    def __init__(self, playback: Playback, deadline: float | None, cygrpc: Any) -> None:
        self._playback = playback
        self._deadline = deadline
        self._cygrpc = cygrpc
        self._status: Any = None
        self._initial_metadata: Any = None
        self._cancelled_here = False
        self._callbacks: list[Callable[[], None]] = []
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<replayed call, status {self._status}>"

    def done(self) -> bool:
        return self._status is not None

    def cancelled(self) -> bool:
        return self.done() and self._status.code() == wire.code_number("CANCELLED")

    def is_locally_cancelled(self) -> bool:
        return self._cancelled_here

    def is_ok(self) -> bool:
        return self.done() and self._status.code() == 0

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        if self.done():
            callback()
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.time(), 0)

    def cancel(self, details: str) -> None:
        self._cancelled_here = True
        self._playback.over()
        self._settle(wire.code_number("CANCELLED"), details, None, None)

    def set_internal_error(self, error: str) -> None:
        self._settle(wire.code_number("INTERNAL"), "Internal error from Core", (), error)

    async def status(self) -> Any:
        await self._until(self.done)
        return self._status

    async def initial_metadata(self) -> Any:
        await self._until(lambda: self._initial_metadata is not None)
        return self._initial_metadata

    async def unary_unary(self, request: bytes, *_: Any) -> Any:
        return await self._answer()

    async def stream_unary(self, metadata: Any, may_send: Callable[[], None], *_: Any) -> Any:
        may_send()
        return await self._answer()

    async def initiate_unary_stream(self, request: bytes, *_: Any) -> None:
        await self._begin()

    async def initiate_stream_stream(self, metadata: Any, may_send: Callable[[], None], *_: Any) -> None:
        may_send()
        await self._begin()

    async def receive_serialized_message(self) -> Any:
        message = await self._next()
        self._go()
        # A real stream lets other tasks run between messages; so does its replay.
        await _wait.step()
        return self._cygrpc.EOF if message is None else message

    async def send_serialized_message(self, message: bytes) -> None:
        self._playback.sent(message)
        self._go()
        await _wait.step()

    async def send_receive_close(self) -> None:
        self._playback.closed()
        self._go()
        await _wait.step()

    async def _begin(self) -> None:
        if self._playback.answers():
            self._initial_metadata = self._playback.initial
        self._go()
        await _wait.step()

    async def _answer(self) -> Any:
        await self._begin()
        message = await self._next()
        self._go()
        await self._until(self.done)
        return message

    async def _next(self) -> Any:
        while not self.done():
            await self._playback.may_end_async()
            if self.done():  # the agent has given it up meanwhile
                break
            step = self._playback.step()
            if step is None:
                self._go()
            if step is not WAIT and step is not UNANSWERED:
                return step
            await self._change()
        return None

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._change()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if not await _wait.done(waiter):
            raise self._playback.waited()

    def _go(self) -> None:
        if not self.done() and self._playback.is_over():
            played = self._playback
            played.over()
            self._settle(wire.code_number(played.code), played.details, played.trailing, played.debug)
        self._wake()

    def _settle(self, code: int, details: str, trailing: Any, debug: Any) -> None:
        if self.done():
            return
        self._status = self._cygrpc.AioRpcStatus(code, details, trailing, debug)
        if self._initial_metadata is None:
            self._initial_metadata = self._playback.initial
        self._wake()
        for callback in self._callbacks:
            callback()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
