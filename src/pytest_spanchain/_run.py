"""One run of one test: the only place where player, recorder, capture and guard meet.

A boundary asks ``begin`` and gets a call that either carries the recorded answer or lets the real thing go out; it says
``finish`` once. Whether to record, to serve or to refuse is decided here and nowhere else. What went wrong on the way
is remembered here too, so that an agent that swallows every exception still cannot pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import _fresh, _genai, _guard, _otel, _recorder, _store
from ._capture import Capture, OpenSpan
from ._genai.attributes import TOOL_CALL_ID, TOOL_NAME
from ._judge import DeviationHook, Judge, Judgement
from ._model import UNASKED, Attempt, Cassette, Deviation, Exchange, Span, SpanTree
from ._normalise import Normaliser, RequestHook
from ._ownership import Ownership
from ._player import Player
from ._screen import RedactHook, Screen
from ._settings import RecordMode, Settings
from ._verdict import Verdict
from ._volatile import Context, Substitution, Volatile
from .errors import (
    CassetteError,
    CassetteMissing,
    LiveCallError,
    MissError,
    OwnershipError,
    RecordingError,
    RunClosedError,
    SpanchainError,
)


@dataclass(frozen=True)
class Hooks:
    """What the users' hooks may change.

    Args:
        normalise: ``(kind, span name, request) -> request`` to match and compare by.
        redact: ``(kind, exchange part) -> part`` to store; ``kind`` is the exchange's.
        deviations: vetoes, adds or re-grades deviations.
    """

    normalise: RequestHook | None = None
    redact: RedactHook | None = None
    deviations: DeviationHook | None = None


class Call:
    """One crossing of a boundary. ``finish`` or ``fail`` ends it, exactly once."""

    def __init__(
        self, run: Run, span: OpenSpan, *, operation: _genai.Operation | None, recorded: Mapping[str, Any] | None
    ) -> None:
        self._run = run
        self._operation = operation
        self.span = span
        self.recorded = recorded
        """The response to serve; ``None``: the real thing must run."""
        self.at_close: Callable[[], None] | None = None
        """How to finish if the run ends first: a stream that nobody reads to its end."""

    def active(self) -> AbstractContextManager[None]:
        """Makes this call's span the parent of what the real thing starts."""
        return self._run.capture.current(self.span)

    def finish(self, response: Mapping[str, Any], *, attributes: Mapping[str, Any] | None = None) -> None:
        """Say what came back, or what was served."""
        self._run.finish(self, response, operation=self._operation, attributes=attributes or {})

    def fail(self, error: Exception) -> None:
        """Say that what came back cannot be recorded; the agent goes on, the recording fails."""
        self._run.note_error(str(error))

    def asked(self, request: Mapping[str, Any]) -> None:
        """Say what the whole request was, where it was not all there when the call began."""
        self._run.asked(self, request)

    def drift(self, message: str) -> MissError:
        """Say that the agent asks for more of this answer than was recorded.

        Returns:
            The error to raise into the agent.
        """
        return self._run.miss(f"{self.span.name}: {message}")


class Run:
    """One run of one test. Make it with ``open_run``; use it as ``start`` .. ``entered`` .. ``close``."""

    def __init__(
        self,
        *,
        nodeid: str,
        path: Path,
        settings: Settings,
        golden: Cassette | None,
        then: Context,
        hooks: Hooks,
        note: str = "",
        refusal: CassetteError | None = None,
    ) -> None:
        self.nodeid = nodeid
        self.path = path
        self.settings = settings
        self.mode = settings.mode
        self.closed = False
        self.verdict: Verdict | None = None
        self.refusal = refusal
        """Why this run may neither replay nor record: every call is refused with it."""
        self._lock = threading.Lock()
        self._cassette = golden
        self._screen = Screen(settings, hook=hooks.redact, note=self.note_error)
        self._normaliser = Normaliser(settings.ignore, hook=hooks.normalise, stack="stack" not in settings.exact)
        self._then = then
        self._volatile = Volatile(self._then, _fresh.context, exact=settings.exact)
        self._substitutions: dict[tuple[str, Substitution], None] = {}
        self._player = None
        if golden is not None and not self.mode.replaces:
            self._player = Player(golden, normalise=self._normaliser.request, volatile=self._volatile)
        self.records = refusal is None and (self._player is None or self.mode is RecordMode.NEW_EPISODES)
        self.guard = _guard.Guard(
            refuse=self._notice if self.records else self._refuse,
            concerns=lambda: OWNERSHIP.concerns(self),
            owns=lambda: OWNERSHIP.owns(self),
            allow_hosts=settings.allow_hosts,
        )
        self._judge = Judge(
            golden,
            normaliser=self._normaliser,
            volatile=self._volatile,
            ignored_attributes=frozenset(settings.ignore_attributes),
            hook=hooks.deviations,
        )
        self._notes: dict[str, None] = {note: None} if note else {}
        self._errors: list[str] = []
        self._misses: list[str] = []
        self._attempts: list[Attempt] = []
        self._unrecorded: dict[str, Attempt] = {}
        self._offered: list[_genai.ToolCall] = []
        self._met: dict[int, _genai.ToolCall] = {}
        self.on_tools: Callable[[tuple[_genai.ToolDeclaration, ...]], None] = lambda declared: None
        """Told of the tools that each model request offers, before it is answered."""
        self.on_asked: Callable[[tuple[_genai.ToolCall, ...]], None] = lambda calls: None
        """Told of the tools that each answer asks for, before the agent has read its end."""
        self._live_calls = 0
        self.late: list[str] = []
        """What was refused after the end, whatever became of the error."""
        self._in_flight: dict[int, Call] = {}
        self.capture = Capture(name=nodeid.rpartition("::")[2] or nodeid)

    @property
    def name(self) -> str:
        """Shown to the user."""
        return self.nodeid

    @property
    def replays(self) -> bool:
        """Whether recorded answers are served."""
        return self._player is not None

    @property
    def golden(self) -> SpanTree | None:
        """The recorded tree, as compared; ``None`` if there is none."""
        return self._so_far().golden

    @property
    def live(self) -> SpanTree:
        """The observed tree, up to now or as compared."""
        return self._so_far().live

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Differences between golden and live; up to now while the run lasts."""
        return self._so_far().deviations

    def start(self) -> None:
        """Become active: calls of this process may now belong to this run."""
        _fresh.watch()
        _otel.listen(_current_capture)
        OWNERSHIP.register(self)
        _guard.arm(self.guard, stray_guard=_stray_guard)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Own the calling context and make the run's root span current in it."""
        with OWNERSHIP.own(self), self.capture.current(self.capture.root):
            yield

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Not be there for a while: what happens meanwhile belongs to no test."""
        from opentelemetry import context as otel_context

        OWNERSHIP.unregister(self)
        token = otel_context.attach(otel_context.Context())
        try:
            with OWNERSHIP.own(None):
                yield
        finally:
            otel_context.detach(token)
            OWNERSHIP.register(self)

    def begin(
        self,
        kind: str,
        name: str,
        request: Mapping[str, Any],
        *,
        attributes: Mapping[str, Any] | None = None,
        span_kind: str = "internal",
        whole: bool = True,
    ) -> Call:
        """A call reaches a boundary.

        Args:
            kind: ``tool`` or ``http``; an HTTP request that a model API understands becomes ``model``.
            name: span name; a model call gets its own.
            request: as in ``_model``; an HTTP request brings its headers as a list of pairs.
            attributes: span attributes known now.
            span_kind: OpenTelemetry's span kind.
            whole: whether the request is all there; if not, ``Call.asked`` brings it.

        Raises:
            MissError: replay has nothing to serve.
            RunClosedError: the run has ended.
        """
        if self.closed:
            raise self.too_late(f"a call was made after the run of {self.nodeid} had ended")
        if self.refusal is not None:
            raise self.refusal
        operation = None
        found = dict(attributes or {})
        if kind == "http":
            request = self._screen.http_request(request)
            asked = _genai.content(request["body"])
            operation = _genai.recognise(method=request["method"], url=request["url"], body=asked)
            if operation is not None:
                kind, name = "model", operation.name
                found.update(operation.attributes)
                if declared := _genai.declared_tools(operation, asked):
                    self.on_tools(declared)
        request = self._screen.request(kind, request)
        if kind == "tool":
            found.update(self._tool_call_id(found.get(TOOL_NAME), request))
        span = self.capture.open(self._screen.text(name), span_kind=span_kind)
        span.attributes = self._screen.attributes(found)
        span.exchange = Exchange(kind, request, None)
        recorded = self._recorded(kind, span, request, whole=whole)
        if recorded is None and not self._runs_in_replay(span):
            with self._lock:
                self._live_calls += 1
        call = Call(self, span, operation=operation, recorded=recorded)
        with self._lock:
            self._in_flight[span.span_id] = call
        return call

    def finish(
        self,
        call: Call,
        response: Mapping[str, Any],
        *,
        operation: _genai.Operation | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """A call is over; see ``Call.finish``."""
        span = call.span
        assert span.exchange is not None
        if call.recorded is None:
            response = self._screen.response(span.exchange.kind, operation, response)
        # What stands for an answer that was never recorded is none either.
        span.exchange = replace(span.exchange, response=None if response is UNANSWERED else response)
        found = dict(attributes)
        if operation is not None:
            found.update(_genai.describe_response(operation, response))
            calls = _genai.tool_calls(operation, response)
            with self._lock:
                self._offered.extend(calls)
            if calls:
                self.on_asked(calls)
        error = _error_of(response)
        if error is not None:
            span.status, span.status_message = "error", error[1]
            found.setdefault("error.type", error[0])
        span.attributes = {**span.attributes, **self._screen.attributes(found)}
        self.capture.close(span)
        with self._lock:
            self._in_flight.pop(span.span_id, None)

    def asked(self, call: Call, request: Mapping[str, Any]) -> None:
        """A request is all there; see ``Call.asked``."""
        exchange = call.span.exchange
        assert exchange is not None
        request = self._screen.request(exchange.kind, self._screen.http_request(request))
        if call.span.graft is not None:
            request = self._translated(call.span, call.span.graft[1], request)
        call.span.exchange = replace(exchange, request=request)

    def inside(self, *kinds: str) -> bool:
        """Whether the calling context is inside a call of one of these kinds that has yet to end."""
        span = self.capture.enclosing()
        return span is not None and span.exchange is not None and span.exchange.kind in kinds

    def inside_seam(self, name: str) -> bool:
        """Whether the calling context is what a framework's call of that tool runs."""
        span = self.capture.enclosing()
        return span is not None and span.seam and span.attributes.get(TOOL_NAME) == self._screen.text(name)

    def wanted(self, name: str) -> tuple[_genai.ToolCall, ...]:
        """What the model has asked of a tool, and nobody has done yet."""
        with self._lock:
            return tuple(call for call in self._offered if call.name == name)

    def met(self, call: _genai.ToolCall) -> None:
        """A framework whose tools are recorded has taken up what the model asked for, whether or not a body is to run.

        Args:
            call: as the framework has it; its id may be empty, or drawn by the framework if the API gives none.
        """
        with self._lock:
            for asked in self._offered:
                known = asked.id == call.id if asked.id and call.id else asked.arguments == call.arguments
                if asked.name == call.name and known and id(asked) not in self._met:
                    self._met[id(asked)] = asked
                    return

    @property
    def undone(self) -> tuple[_genai.ToolCall, ...]:
        """What the model has asked for, and nobody is known to have taken up."""
        with self._lock:
            return tuple(call for call in self._offered if id(call) not in self._met)

    @property
    def ran_unasked(self) -> frozenset[str]:
        """What could have been a tool in the recorded run, and ran unrecorded."""
        recorded = self._cassette.tree.roots[0].attributes if self._cassette is not None else {}
        return frozenset(map(str, recorded.get(UNASKED, ())))

    def known_tools(self, *, unplayed: bool = False) -> frozenset[str]:
        """The tools of the cassette that is replayed: all of them, or those of which there is something to serve."""
        return self._player.tools(unplayed=unplayed) if self._player is not None else frozenset()

    def note(self, text: str) -> None:
        """Remember what the reader should know, whatever becomes of the run; each thing once."""
        with self._lock:
            self._notes[self._screen.text(text)] = None

    def miss(self, message: str) -> MissError:
        """Remember that replay had nothing to serve, and make the error for the agent."""
        text = f"{message} (cassette {self.path.name}; the test will fail whatever the agent does with this)"
        with self._lock:
            self._misses.append(message)
        return MissError(text)

    def too_late(self, text: str) -> RunClosedError:
        """Remember what was refused after the end, and make the error for whoever asked."""
        self.late.append(text)
        return RunClosedError(text)

    def note_error(self, text: str) -> None:
        """Remember what fails the run whatever the agent does."""
        with self._lock:
            self._errors.append(self._screen.text(text))

    def end(self) -> None:
        """Stop being active: from here on, calls of this run are refused. Safe to call twice."""
        if self.closed:
            return
        with self._lock:
            still_open = list(self._in_flight.values())
        try:
            for call in still_open:
                if call.at_close is not None:
                    self.tried(call.at_close)
        finally:
            self.closed = True
            OWNERSHIP.unregister(self)
            _guard.disarm(self.guard)
            self.capture.close(self.capture.root)

    def tried(self, step: Callable[[], None]) -> None:
        """Do a step of the end; if it fails, the run does, and what is left is still done."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  # whatever it is, nothing that was recorded may be lost by it
            self.note_error(str(error) if isinstance(error, SpanchainError) else repr(error))

    def close(self, *, passed: bool, aside: Path | None = None) -> Verdict:
        """Judge the run and, if it records and all is well, write the cassette. Ends it first; safe to call twice.

        Args:
            passed: whether the test's body passed.
            aside: directory in which a recording that may not become a cassette is kept.
        """
        if self.verdict is not None:
            return self.verdict
        self.end()
        observed = self._observed()
        judged = self._judged(observed)
        verdict = Verdict(
            nodeid=self.nodeid,
            path=self.path,
            mode=self.mode,
            golden=judged.golden,
            live=judged.live,
            deviations=judged.deviations,
            attempts=tuple(self._attempts),
            errors=tuple(dict.fromkeys(self._all_errors(judged))),
            notes=tuple(self._notes_on(judged)),
            substitutions=tuple(dict.fromkeys((*self._substitutions, *judged.substitutions))),
            replayed=self.replays,
            live_calls=self._live_calls + len(self._attempts),
            ignored_attributes=frozenset(self.settings.ignore_attributes),
        )
        if self.records and (self._live_calls or not self.replays):
            verdict = self._written(verdict, observed, passed=passed, aside=aside)
        self.verdict = verdict
        return verdict

    def _written(self, verdict: Verdict, observed: SpanTree, *, passed: bool, aside: Path | None) -> Verdict:
        path = self.path
        if not passed or verdict.failing:
            if aside is None:
                return verdict
            path = aside / self.path.name
            verdict = replace(verdict, aside=path)
        try:
            _recorder.save(
                path, self._recording(observed, passed=verdict.aside is None), redactor=self._screen.redactor
            )
        except RecordingError as error:
            return replace(verdict, errors=(*verdict.errors, self._screen.text(str(error))), aside=None)
        return verdict if verdict.aside else replace(verdict, recorded=True)

    def _recording(self, tree: SpanTree, *, passed: bool) -> _recorder.Recording:
        return _recorder.Recording(
            nodeid=self.nodeid,
            eval_id=self.settings.eval_id,
            mode=self.mode.value,
            scopes=self.capture.scopes,
            # What was served of the old recording was supplied by the old context.
            context=_fresh.context().joined(self._then) if self.replays else _fresh.context(),
            supersedes=self._cassette.head if self._cassette else None,
            tree=tree,
            outcome="passed" if passed else "failed",
            in_flight=len(self._in_flight),
            runs=self.settings.runs,
        )

    def _observed(self) -> SpanTree:
        return self._screen.tree(self.capture.tree(self.nodeid))

    def _so_far(self) -> Verdict | Judgement:
        return self.verdict or self._judged(self._observed())

    def _judged(self, observed: SpanTree) -> Judgement:
        return self._judge.judge(observed, scopes=self.capture.scopes)

    def _notes_on(self, judged: Judgement) -> Iterator[str]:
        yield from self._notes
        yield from map(_not_recorded, self._unrecorded.values())
        if judged.left_out:
            scopes = ", ".join(judged.left_out)
            yield f"left out of the comparison, active in only one of the two runs: {scopes}"

    def _all_errors(self, judged: Judgement) -> Iterator[str]:
        if self.refusal is not None:
            yield str(self.refusal)
        yield from self._errors
        if not any(deviation.failing for deviation in judged.deviations):
            yield from self._misses  # no deviation shows them: they fail the run in their own words

    def _recorded(
        self, kind: str, span: OpenSpan, request: Mapping[str, Any], *, whole: bool
    ) -> Mapping[str, Any] | None:
        if self._player is None:
            return None
        wanted = self._normaliser.request(kind, span.name, request)
        served = self._player.find(
            kind, span.name, wanted, branch=self.capture.branch(span), borrow=not self.records, whole=whole
        )
        if served is None and self.records:
            return None
        if served is None:
            span.status, span.status_message = "error", "not recorded"
            self.capture.close(span)
            raise self.miss(f"nothing recorded for {span.name}")
        assert served.exchange is not None
        span.exchange = Exchange(kind, self._translated(span, served, request), None)
        if self._runs_in_replay(span):
            return None
        self._player.skip_below(served)
        span.graft = (self._player.cassette.tree, served)
        return served.exchange.response or UNANSWERED

    def _translated(self, span: OpenSpan, served: Span, request: Mapping[str, Any]) -> Mapping[str, Any]:
        assert served.exchange is not None
        translation = self._volatile.claim(served.exchange.request, request)
        with self._lock:
            for made in translation.made:
                self._substitutions[span.name, replace(made, path=f"request.{made.path}")] = None
        found: Mapping[str, Any] = translation.value
        return found

    def _runs_in_replay(self, span: OpenSpan) -> bool:
        """Whether a call is a tool's that is to run for real although it is recorded."""
        tool = span.attributes.get(TOOL_NAME)
        return self.replays and isinstance(tool, str) and self.settings.runs(tool)

    def _tool_call_id(self, name: Any, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The id under which the model asked for this call: same name, and same arguments if there are several."""
        with self._lock:
            asked = [call for call in self._offered if call.name == name]
            exact = [call for call in asked if _same_arguments(call.arguments, request["arguments"])]
            found = exact[0] if exact else asked[0] if len(asked) == 1 else None
            if found is None:
                return {}
            # By identity: one that is equal may have been met, and this one not.
            self._offered = [call for call in self._offered if call is not found]
            self._met.pop(id(found), None)
        return {TOOL_CALL_ID: found.id} if found.id else {}

    def _notice(self, attempt: Attempt) -> None:
        """While recording: what leaves the process elsewhere than at a boundary will be refused in replay."""
        if not (_guard.is_telemetry(attempt.host, attempt.port) or self.capture.enclosing()):
            # Once for each function: a line that sends on a connection says no more than the one that made it.
            file, _, rest = attempt.site.rpartition(":")
            with self._lock:
                self._unrecorded.setdefault(f"{attempt.target} {file} {rest.partition(' ')[2]}", attempt)

    def _refuse(self, attempt: Attempt) -> Exception:
        if self.closed:
            return self.too_late(
                f"{attempt.target} was contacted at {attempt.site} after the run of {self.nodeid} had ended"
            )
        if not _guard.is_telemetry(attempt.host, attempt.port):
            with self._lock:
                self._attempts.append(attempt)
        return LiveCallError(
            f"replay does not let anything out: {attempt.target} was contacted at {attempt.site}. Make the function"
            f" that does it one of the tools, and it is recorded; or let it out with allow_hosts=[{attempt.host!r}]"
        )


UNANSWERED: Mapping[str, Any] = {
    "status": None,
    "headers": {},
    "body": None,
    "end": "closed",
    "error": None,
}
"""What stands for the answer of a call that was still open when the recording ended."""

OWNERSHIP: Ownership[Run] = Ownership()
"""The runs of this process."""


def current_run() -> Run | None:
    """The run that owns the calling context; see ``Ownership.current``."""
    try:
        return OWNERSHIP.current()
    except RunClosedError as error:
        run = OWNERSHIP.left_behind()
        if run is None:
            raise
        raise run.too_late(str(error)) from None
    except OwnershipError as error:
        for run in OWNERSHIP.active:  # it may be the call of any: none of them may become a cassette without it
            (run.note_error if run.records else run.note)(str(error))
        raise


def _current_capture() -> Capture | None:
    run = OWNERSHIP.peek()
    return run.capture if run is not None else None


def _stray_guard() -> _guard.Guard | None:
    run = OWNERSHIP.left_behind()
    return run.guard if run is not None and not run.records else None


def open_run(*, nodeid: str, path: Path, settings: Settings, hooks: Hooks | None = None, command: str = "") -> Run:
    """Decide by mode and file whether to replay or to record, and verify what will be replayed.

    Args:
        nodeid: node id of the test, or a name.
        path: the cassette's path.
        settings: settings of the run.
        hooks: the users' hooks.
        command: the command that records this cassette, for the error message.

    Returns:
        A run; if the cassette is missing, unreadable, broken or incomplete and the mode does not replace it, a run
        with a ``refusal``, which lets nothing out and nothing pass.
    """
    eval_id = settings.eval_id or nodeid.partition("[")[0]
    settings = replace(settings, eval_id=eval_id)
    note, golden, then = "", None, Context()
    refusal: CassetteError | None = None
    try:
        if _store.exists(path):
            loaded = _store.load(path, nodeid=nodeid)
            then = Context.from_plain(loaded.header.recorder.get("context"))
            golden = loaded
        elif settings.mode is RecordMode.NONE:
            refusal = CassetteMissing(
                "there is no cassette, and record mode 'none' does not make one",
                path=str(path),
                remedy=f"record it: {command}" if command else "record it with mode 'once'",
            )
    except CassetteError as error:
        if settings.mode.replaces:
            note = f"the old cassette could not be compared with: {error.reason}"
        else:
            refusal = error
    return Run(
        nodeid=nodeid,
        path=path,
        settings=settings,
        golden=golden,
        then=then,
        hooks=hooks or Hooks(),
        note=note,
        refusal=refusal,
    )


def _not_recorded(attempt: Attempt) -> str:
    return (
        f"{attempt.target} was contacted at {attempt.site}, which was not recorded: replay will refuse it, unless the"
        f" function that does it is one of the tools, or with allow_hosts=[{attempt.host!r}]"
    )


def _same_arguments(asked: Any, given: Mapping[str, Any]) -> bool:
    """Whether a call is what the model asked for: the rest are defaults, and the receiver of a method."""
    return isinstance(asked, Mapping) and all(name in given and given[name] == asked[name] for name in asked)


def _error_of(response: Mapping[str, Any]) -> tuple[str, str] | None:
    error = response.get("error")
    if error is not None:
        kind = str(error.get("type", "error"))
        return kind.rpartition(":")[2], str(error.get("message", ""))
    status = response.get("status")
    return (str(status), "") if isinstance(status, int) and status >= 400 else None
