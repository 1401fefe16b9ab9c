"""One run of one test: the only place where calls, capture, guard, judge and recorder meet.

It is active from ``start`` to ``end``: calls of its context, and of contexts that nobody owns, are its own. ``close``
comes to the verdict and, if the run records and all is well, to the cassette.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from . import _fresh, _guard, _otel
from ._call import UNANSWERED as UNANSWERED
from ._call import Call as Call
from ._call import Crossing as Crossing
from ._calls import Calls
from ._capture import Capture
from ._findings import Findings
from ._judge import DeviationHook, Judge, Judgement
from ._model import UNASKED, Attempt, Deviation, SpanTree
from ._normalise import Normaliser, RequestHook
from ._ownership import Ownership
from ._plan import Plan
from ._player import Player
from ._screen import RedactHook, Screen
from ._tool_calls import ToolCalls
from ._verdict import Verdict
from ._volatile import Volatile
from .errors import CassetteError, OwnershipError, RecordingError, RunClosedError

if TYPE_CHECKING:
    from ._recorder import Recording


Door = Callable[[Crossing], Call]
"""Through which a boundary brings a call in."""


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


class Run:
    """One run of one test: ``start`` .. ``entered`` .. ``end``, ``close``.

    Args:
        plan: what it is to do.
        hooks: the users' hooks.
    """

    def __init__(self, plan: Plan, *, hooks: Hooks | None = None) -> None:
        hooks, settings = hooks or Hooks(), plan.settings
        self.nodeid = plan.nodeid
        self.path = plan.path
        self.settings = settings
        self.mode = settings.mode
        self.replays = plan.replays
        self.records = plan.records
        self.refusal = plan.refusal
        """Why this run may neither replay nor record: every call is refused with it."""
        self.verdict: Verdict | None = None
        self._plan = plan
        self.screen = Screen(settings, hook=hooks.redact, note=lambda text: self.findings.note_error(text))
        self.redactor = self.screen.redactor
        self.findings = Findings(cassette=plan.path.name, shown=self.screen.text)
        if plan.note:
            self.findings.note(plan.note)
        self.tool_calls = ToolCalls()
        self.capture = Capture(name=plan.nodeid.rpartition("::")[2] or plan.nodeid)
        normaliser = Normaliser(settings.ignore, hook=hooks.normalise, stack="stack" not in settings.exact)
        volatile = Volatile(plan.then, _fresh.context, exact=settings.exact)
        self._player = None
        if plan.golden is not None and plan.replays:
            strict = hooks.normalise is not None or hooks.redact is not None
            self._player = Player(plan.golden, normalise=normaliser.request, volatile=volatile, strict=strict)
        self._calls = Calls(
            plan,
            capture=self.capture,
            screen=self.screen,
            normaliser=normaliser,
            volatile=volatile,
            player=self._player,
            findings=self.findings,
            tool_calls=self.tool_calls,
        )
        self._judge = Judge(
            plan.golden,
            normaliser=normaliser,
            volatile=volatile,
            ignored_attributes=frozenset(settings.ignore_attributes),
            hook=hooks.deviations,
            served=plan.replays,
        )
        self.guard = _guard.Guard(
            # While recording: what leaves elsewhere than at a boundary, and inside of no call, replay will refuse.
            refuse=self.findings.unrecorded if plan.records else self._refuse,
            expects=self._is_accounted_for if plan.records else None,
            concerns=lambda: OWNERSHIP.concerns(self),
            owns=lambda: OWNERSHIP.owns(self),
            allow_hosts=settings.allow_hosts,
        )
        # What a boundary asks of a run, each under its own address.
        self.begin: Door = self._calls.begin
        self.relay: Door = self._calls.relay
        self.answer: Door = self._calls.answer
        self.inside, self.inside_seam = self._calls.inside, self._calls.inside_seam
        self.note, self.note_error = self.findings.note, self.findings.note_error
        self.miss, self.tried = self.findings.miss, self.findings.tried
        self.before_end: list[Callable[[], None]] = []
        """What is to be done while calls are still taken."""

    @property
    def name(self) -> str:
        """Shown to the user."""
        return self.nodeid

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._calls.closed

    @property
    def late(self) -> list[str]:
        """What was refused after the end, whatever became of the error; it goes on growing."""
        return self.findings.late

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

    @property
    def ran_unasked(self) -> frozenset[str]:
        """What could have been a tool in the recorded run, and ran unrecorded."""
        recorded = self._plan.golden.tree.roots[0].attributes if self._plan.golden is not None else {}
        return frozenset(map(str, recorded.get(UNASKED, ())))

    def known_tools(self, *, unplayed: bool = False) -> frozenset[str]:
        """The tools of the cassette that is replayed: all of them, or those of which there is something to serve."""
        return self._player.tools(unplayed=unplayed) if self._player is not None else frozenset()

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

    def end(self) -> None:
        """Stop being active: from here on, calls of this run are refused. Safe to call twice."""
        if self.closed:
            return
        for step in self.before_end:
            self.tried(step)
        try:
            self._calls.end()
        finally:
            OWNERSHIP.unregister(self)
            _guard.disarm(self.guard)
            self.capture.close(self.capture.root)

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
        judged, attempts = self._judged(observed), self.findings.attempts
        verdict = Verdict(
            nodeid=self.nodeid,
            path=self.path,
            mode=self.mode,
            golden=judged.golden,
            live=judged.live,
            deviations=judged.deviations,
            attempts=attempts,
            errors=tuple(dict.fromkeys(self._errors(judged))),
            notes=tuple(self._notes(judged)),
            substitutions=tuple(dict.fromkeys((*self._calls.substitutions, *judged.substitutions))),
            replayed=self.replays,
            live_calls=self._calls.live + len(attempts),
            ignored_attributes=frozenset(self.settings.ignore_attributes),
        )
        if self.records and (self._calls.live or not self.replays):
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
        from . import _recorder

        recording = self._recording(observed, passed=verdict.aside is None)
        try:
            _recorder.save(path, recording, redactor=self.redactor)
        except RecordingError as error:
            return replace(verdict, errors=(*verdict.errors, self.screen.text(str(error))), aside=None)
        return verdict if verdict.aside else replace(verdict, recorded=True)

    def _recording(self, tree: SpanTree, *, passed: bool) -> Recording:
        from ._recorder import Recording

        golden = self._plan.golden
        return Recording(
            nodeid=self.nodeid,
            eval_id=self.settings.eval_id,
            mode=self.mode.value,
            scopes=self.capture.scopes,
            # What was served of the old recording was supplied by the old context.
            context=_fresh.context().joined(self._plan.then) if self.replays else _fresh.context(),
            supersedes=golden.head if golden is not None else None,
            tree=tree,
            outcome="passed" if passed else "failed",
            in_flight=len(self._calls.in_flight),
            runs=self.settings.runs,
        )

    def _observed(self) -> SpanTree:
        return self.screen.tree(self.capture.tree(self.nodeid))

    def _so_far(self) -> Verdict | Judgement:
        return self.verdict or self._judged(self._observed())

    def _judged(self, observed: SpanTree) -> Judgement:
        golden = self._plan.golden
        try:
            judged = self._judge.judge(observed, scopes=self.capture.scopes)
            if judged.deviations and golden is not None:
                golden.build()  # a report may show all of it
        except CassetteError as error:
            self.findings.note_error(str(error))
            return Judgement(None, observed)
        return judged

    def _errors(self, judged: Judgement) -> Iterator[str]:
        if self.refusal is not None:
            yield str(self.refusal)
        yield from self.findings.errors(judged.deviations)

    def _notes(self, judged: Judgement) -> Iterator[str]:
        yield from self.findings.notes()
        causes = [deviation for deviation in judged.deviations if deviation.failing and not deviation.consequence]
        if any(self._calls.ends.precede(deviation.golden) for deviation in causes):
            yield (
                "calls ran side by side before that: if what changed goes by which of them ended first, let the agent"
                " put results in the order of its questions"
                + ("; they could not end as recorded" if self._calls.ends.out_of_order else "")
            )
        if any(map(_is_elsewhere, causes)):
            yield (
                "only the server differs: a base URL, such as OPENAI_BASE_URL, was set in one of the two runs and not"
                " in the other"
            )
        if judged.left_out:
            scopes = ", ".join(judged.left_out)
            yield f"left out of the comparison, active in only one of the two runs: {scopes}"

    def _is_accounted_for(self, host: str, port: int | None) -> bool:
        """Whether what goes there is part of a recorded call, or telemetry."""
        return _guard.is_telemetry(host, port) or self.capture.enclosing() is not None

    def _refuse(self, attempt: Attempt) -> Exception:
        if self.closed:
            where = f"{attempt.target} was contacted at {attempt.site}"
            return self.findings.too_late(f"{where} after the run of {self.nodeid} had ended")
        return self.findings.refused(attempt, counts=not _guard.is_telemetry(attempt.host, attempt.port))


def _is_elsewhere(deviation: Deviation) -> bool:
    """Whether the same was asked of another server."""
    urls = [
        tuple(urlsplit(str(url)) for url in (change.golden, change.live))
        for change in deviation.changes
        if change.path == "request.url"
    ]
    return len(deviation.changes) == 1 and any(then[:2] != now[:2] and then[2:] == now[2:] for then, now in urls)


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
        raise run.findings.too_late(str(error)) from None
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
