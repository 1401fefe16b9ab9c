"""What an MCP client sends, and what comes of it: the answer, and before and after it what the server says by itself.

Who carries the messages is others' affair: here a request is recorded while somebody else sends it, or its answer is
served, after what had come before it and never without.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from ...._capture import OpenSpan
from ...._layout import ordered, unordered
from ...._redact.text import PLACEHOLDER
from ...._run import Call, Run
from ....errors import MissError
from ... import _wait
from .._raised import raised_again
from ._server import Server

PROGRESS = "notifications/progress"

Message = Mapping[str, Any]
HandOver = Callable[["Asked", Message], Awaitable[None]]

Heard = Callable[[float, "float | None", "str | None"], Awaitable[None]]
"""An author's function that hears of progress."""

Result = TypeVar("Result")


class Asked:
    """One request or notification of the client.

    Args:
        server: to which it goes.
        run: that sees it.
        call: the exchange.
        outer: OpenTelemetry's context in which it is sent.
        agreed: takes note of a result, which may be that of a handshake, and gives what a span says of that.
    """

    def __init__(
        self, server: Server, run: Run, call: Call, outer: Any, *, agreed: Callable[[Any], dict[str, Any]]
    ) -> None:
        self.run = run
        self.outer = outer
        self.strand = call.span.strand
        self._server = server
        self._agreed = agreed
        self._call = call
        self._arrived: list[dict[str, Any]] = []
        self._response: Mapping[str, Any] | None = None
        self._behind = False
        recorded = call.recorded
        self.recorded: Mapping[str, Any] | None = None if recorded is None else unordered(recorded)
        """The response to serve; ``None``: the server is asked."""
        call.at_close = lambda: self._over(end="closed") if self.recorded is None else self.served()

    @property
    def span(self) -> OpenSpan:
        """Its span."""
        return self._call.span

    @contextmanager
    def within(self) -> Iterator[None]:
        """What carries the message and the answer is part of this exchange, for as long as it lives."""
        self._call.span.lasting = True
        with self._call.active():
            yield

    def arrived(self, method: str, params: Mapping[str, Any] | None, *, asks: bool = False) -> dict[str, Any]:
        """The server sent something on its own account.

        Returns:
            What is recorded of it.
        """
        message: dict[str, Any] = {"method": method, "params": None if params is None else dict(params)}
        if asks:
            message["asks"] = True
        if self.run.closed:
            return message
        if self._response is not None:
            message["late"] = True
        self._arrived.append(message)
        self._told_late()
        return message

    def withdrawn(self, message: dict[str, Any]) -> None:
        """Nobody waits for the client's answer to this any more."""
        if not self.run.closed:
            message["withdrawn"] = True
            self._told_late()

    def _told_late(self) -> None:
        # Once for all: a server may send thousands, and what is told is redacted as a whole.
        if self._response is not None and not self._behind:
            self._behind = True
            self.run.before_end.append(self._catch_up)

    def _catch_up(self) -> None:
        assert self._response is not None
        self._behind = False
        self._call.amend(ordered({**self._response, "arrived": list(self._arrived)}))

    def answered(self, result: Any) -> None:
        """The server answered; a notification has no answer, and is over when it is sent."""
        self._over(result=result)

    def refused(self, code: int, message: str, data: Any) -> None:
        """The server answered with an error, or the client's library stands in for one."""
        self._over(error={"code": code, "message": message, "data": data})

    def raised(self, error: Exception) -> None:
        """The client's library raised something else."""
        self._over(end="error", error={"type": type(error).__name__, "message": str(error)})

    def stopped(self) -> None:
        """Whoever asked stopped waiting."""
        self._over(end="cancelled")

    async def live(
        self,
        go: Callable[[], Awaitable[Result]],
        *,
        refusal: type[Exception],
        plain: Callable[[Result], Any] = lambda result: result,
    ) -> Result:
        """Let a request go out, and remember what comes of it.

        Args:
            go: sends it, and waits for the answer.
            refusal: what the SDK raises if the answer is an error.
            plain: gives what is recorded of a result.
        """
        __tracebackhide__ = True
        try:
            with self.within():
                result = await go()
        except refusal as error:
            said: Any = error
            self.refused(said.error.code, said.error.message, said.error.data)
            raise
        except Exception as error:
            self.raised(error)
            raise
        except BaseException:
            self.stopped()
            raise
        self.answered(plain(result))
        return result

    def hearing_progress(self, on_progress: Heard | None) -> Heard | None:
        """Stands for an author's function that hears of progress, and hears it as well."""
        if on_progress is None:
            return None

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            told = {"progress": progress, "total": total, "message": message}
            self.arrived(PROGRESS, {key: value for key, value in told.items() if value is not None})
            await on_progress(progress, total, message)

        return hear

    async def served_result(
        self, hand_over: HandOver, group: Any, refusal: Callable[[int, str, Any], Exception]
    ) -> Any:
        """Give the recorded result; see ``serve``.

        Args:
            hand_over: as for ``serve``.
            group: as for ``serve``.
            refusal: makes what the SDK raises if the answer is an error, of its code, its message and its data.

        Raises:
            MissError: as ``serve``.
            Exception: what was raised when this was recorded.
        """
        __tracebackhide__ = True
        recorded = await self.serve(hand_over, group)
        error = recorded["error"]
        if error is None:
            return recorded["result"]
        if "code" in error:
            raise refusal(error["code"], error["message"], error["data"])
        raise raised_again(error)

    async def serve(self, hand_over: HandOver, group: Any, *, bounded: bool = True) -> Mapping[str, Any]:
        """Give the recorded answer, after what came before it.

        Args:
            hand_over: hands a message of the server's to the client.
            group: task group in which to hand over what came after it.
            bounded: whether handing over is given up some time; else that is the affair of ``hand_over``.

        Raises:
            MissError: when this was recorded, nobody waited for an answer.
        """
        recorded = self.recorded
        assert recorded is not None
        # All that ask at the same time have asked before the first gets its answer, as it was.
        await _wait.step()
        early = [message for message in recorded["arrived"] if "late" not in message]
        if bounded:
            await self._hand_over(early, hand_over)
        else:
            for message in early:
                await hand_over(self, message)
        if recorded["end"] in ("closed", "cancelled"):
            if self._server.breaks is not None:
                self._server.breaks()
            await _wait.hold(self.served)
            self.served()
            raise self._call.drift(
                f"the agent has waited {_wait.HOLD_SECONDS:g} s for an answer of {self._server.name(self.run)},"
                " for which it did not wait when this was recorded"
            )
        await _wait.may_end_async(self._call, self.served)
        self.served()
        late = [message for message in recorded["arrived"] if "late" in message]
        if late and group is not None:
            group.start_soon(self._hand_over_late, late, hand_over)
        return recorded

    async def _hand_over(self, messages: list[Message], hand_over: HandOver) -> None:
        if not messages:
            return
        current = messages[0]

        async def each() -> None:
            nonlocal current
            for current in messages:
                if "withdrawn" not in current:
                    await hand_over(self, current)

        beside = [functools.partial(hand_over, self, message) for message in messages if "withdrawn" in message]
        if not await _wait.in_time(each, beside):
            raise self._call.drift(
                f"the agent did not deal with {current['method']} of {self._server.name(self.run)} within"
                f" {_wait.HOLD_SECONDS:g} s"
            )

    async def _hand_over_late(self, messages: list[Message], hand_over: HandOver) -> None:
        with suppress(MissError):  # nobody waits here; it is in the verdict
            await self._hand_over(messages, hand_over)

    def served(self) -> None:
        """The recorded answer was handed over."""
        if self._response is None:
            recorded = self._call.recorded
            assert recorded is not None
            self._response = self.recorded
            assert self.recorded is not None
            self._call.finish(recorded, attributes=self._told(self.recorded["result"]))

    def _over(self, *, result: Any = None, error: Mapping[str, Any] | None = None, end: str = "complete") -> None:
        if self._response is None and not self.run.closed:
            self._response = {"result": result, "error": error, "end": end, "arrived": list(self._arrived)}
            self._call.finish(ordered(self._response), attributes=self._told(result))

    def _told(self, result: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._agreed(result)
        if isinstance(result, Mapping) and result.get("isError") is True:
            found["error.type"] = "tool_error"
        if self._call.span.graft is not None:
            golden = self._call.span.graft[1].attributes
            found.update({key: golden[key] for key in ("mcp.session.id",) if key in golden})
        elif self._server.session_id():
            found["mcp.session.id"] = PLACEHOLDER  # whoever has it is the client: that there is one is all to tell
        return found


async def told_of_progress(on_progress: Heard, params: Mapping[str, Any]) -> dict[str, Any]:
    """Tell an author's function of progress; gives what its session is told of the same."""
    with logged(PROGRESS):
        await on_progress(params["progress"], params.get("total"), params.get("message"))
    return {**params, "progressToken": 0}


@contextmanager
def logged(method: str) -> Iterator[None]:
    """What the client's handlers raise goes to the log, as in the SDK, and not to whoever waits for an answer."""
    try:
        yield
    except Exception:
        logging.getLogger("mcp").exception("what handles %s raised", method)
