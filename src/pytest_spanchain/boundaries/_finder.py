"""Tools that nobody has named: found by what the model is offered, patched before it can ask for them.

Invariants:

* What is recorded of a call depends on the called function, the declaration, and what the model has asked for in this
  run; not on what else is imported. So a test comes to the same alone and in the whole suite.
* A function that has the tool's name and parameters is recorded whenever it is called, from the first model call that
  offers it on (``_answers`` says what becomes of those that turn out not to be the tool). One that only could be is
  recorded once the model has asked for exactly this call.
* What one tool of that name calls under the same name is part of it.
* What goes wrong here fails the run, and the agent does not see it.
* No such body runs in replay while the model waits for a tool of which there is something to serve, unless it ran
  unrecorded, too, while the model waited (the recording names those functions).
"""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from types import FrameType, FunctionType, ModuleType
from typing import Any

from .. import _patch
from .._capture import OpenSpan
from .._genai import ToolCall, ToolDeclaration
from .._genai.attributes import TOOL_NAME
from .._model import UNASKED
from .._run import Run
from .._settings import FAIL
from ..errors import BoundaryError
from . import _answers, _missed, tools
from ._answers import Case
from ._fit import Fit
from ._sightings import Search, Sighting
from ._targets import tool_name
from ._tool_io import ToolSpec, asked

Invoke = Callable[[bool, _patch.Site], _patch.Invoke]
"""Takes whether a function's first parameter is a receiver, and where it is patched."""


class Role:
    """What one function may be to a run."""

    def __init__(self, *, bound: bool) -> None:
        self.bound = bound
        self.names: dict[str, Fit] = {}


class Finder:
    """The tools of one run. Safe to call from any thread.

    Args:
        run: the run.
        listed: what its settings name, which is left alone.
        invoke: makes what a found function's calls go to; it asks ``case``.
    """

    def __init__(self, run: Run, *, listed: tools.Patch, invoke: Invoke) -> None:
        self._run = run
        self._invoke = invoke
        self._lock = threading.RLock()
        # Unlike what was listed, much of what was found is another's: only what was called is kept from running late.
        self._patch = tools.Patch(run, leaves=lambda site: site.reference() in self._called)
        self._called: weakref.WeakSet[Any] = weakref.WeakSet()
        self._listed = {target.function: target.name for target in listed.targets}
        self._covered = {part for name in self._listed.values() for part in (name, name.rpartition(".")[2])}
        self._declared: dict[str, ToolDeclaration] = {}
        self._modules = 0
        self._sought: dict[str, tuple[int, ToolDeclaration]] = {}
        self._roles: weakref.WeakKeyDictionary[FunctionType, Role] = weakref.WeakKeyDictionary()
        self._refused: dict[str, str] = {}
        self._aliases: dict[str, set[str]] = {}
        self._asked: list[ToolCall] = []
        self._cases: list[Case] = []
        self._left = run.ran_unasked if run.replays else frozenset()
        self._met_left: dict[str, dict[str, None]] = {}
        self._unasked: dict[str, dict[str, None]] = {}

    def offered(self, declared: tuple[ToolDeclaration, ...]) -> None:
        """A model call offers tools: patch what can be meant before it is answered."""
        frame = sys._getframe(1)
        self._run.tried(lambda: self._look(declared, frame))

    def _look(self, declared: tuple[ToolDeclaration, ...], frame: FrameType) -> None:
        with self._lock:
            new = {one.name: one for one in declared if one.name and one.name not in self._covered}
            changed = any(self._declared.get(name) != one for name, one in new.items())
            self._declared.update(new)
            if not new:
                return
            search = Search(new)
            # Modules stay as they are; what the running code holds may be made anew for every model call.
            if changed or self._modules != len(sys.modules):
                self._modules = len(sys.modules)
                search.modules()
            self._take(search.frames(frame).found)

    def wants(self, module: str) -> bool:
        """Whether a module that is imported may bring a tool."""
        return bool(self._declared)

    def imported(self, name: str, module: ModuleType) -> None:
        """A module of the user's has been imported: by the function that is about to call the tool in it."""
        self._run.tried(self._look_anew)

    def _look_anew(self) -> None:
        with self._lock:
            self._modules = len(sys.modules)
            self._take(Search({**self._declared}).modules().found)

    def asked(self, calls: tuple[ToolCall, ...]) -> None:
        """The model asks for tools: if nothing has been found for one, look at everything there is."""
        self._run.tried(lambda: self._seek(calls))

    def _seek(self, calls: tuple[ToolCall, ...]) -> None:
        with self._lock:
            self._asked.extend(calls)
            known = {name for role in self._roles.values() for name in role.names}
            lost = {call.name for call in calls} - known - self._covered - self._aliases.keys() - {""}
            state = {name: (len(sys.modules), self._declared.get(name, ToolDeclaration(name))) for name in sorted(lost)}
            # A whole look costs as much as the program is large: one that found nothing is not repeated for nothing.
            # Where nothing is recorded of a tool, there is nothing to serve.
            if not self._run.records:
                state = {name: now for name, now in state.items() if name in self._run.known_tools()}
            anew = {name: now[1] for name, now in state.items() if self._sought.get(name) != now}
            if anew:
                found = Search(anew).memory().found
                self._take(found)
                self._sought.update({name: state[name] for name in anew.keys() - {one.name for one in found}})

    def case(
        self, function: FunctionType, base: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Case | None:
        """What tool a call is a call of; ``None`` if of none."""
        with self._lock:
            role = self._roles.get(function)
            if role is None:
                return None
            label = _label(function)
            name, exact = self._name_of(role, label, base, args, kwargs)
            span = self._run.capture.enclosing()
            outer = str(span.attributes.get(TOOL_NAME, "")) if span is not None else ""
            inside = {outer, outer.rpartition(".")[2]} - {""}
            if not name and not inside.intersection(role.names):
                name = self._pending_name(role, label)
            # Inside of what is only called like the tool, what the model asked for still is the tool.
            if not name or (name in inside and not (exact and span is not None and self._is_doubtful(span))):
                return None
            self._called.add(function)
            case = Case(name, label, sure=role.names[name] is Fit.SURE, awaited=self._run.tool_calls.wanted(name))
            self._cases.append(case)
            return case

    def close(self) -> None:
        """Say what was not found, and take the patches back."""
        try:
            self._settle()
            self._say()
            unasked = {label for labels in self._unasked.values() for label in labels}
            if self._run.records and (unasked or self._left):
                self._run.capture.root.attributes[UNASKED] = sorted(unasked | self._left)
        finally:
            self._patch.undo()

    def _take(self, sightings: list[Sighting]) -> None:
        for sighting in sightings:
            function = sighting.function
            if function in self._listed or tools.is_decorated(function):
                known = self._listed.get(function) or tools.name_of(function)
                self._aliases.setdefault(sighting.name, set()).add(known)
                continue
            role = self._roles.get(function)
            if role is None:
                role = Role(bound=sighting.bound)
                if not self._patched(function, role, sighting):
                    continue
                self._roles[function] = role
            role.names[sighting.name] = max(role.names.get(sighting.name, Fit.NONE), sighting.fit)

    def _patched(self, function: FunctionType, role: Role, sighting: Sighting) -> bool:
        """Patch a function. One that is of a kind which cannot be is a matter only if the model asks for it."""
        label = _label(function)
        try:
            self._patch.add(function, functools.partial(self._invoke, role.bound))
        except BoundaryError as error:
            problem = f"{label} cannot be recorded as a tool: {error}"
            self._run.note(problem)
            if sighting.fit >= Fit.NAMED:
                self._refused.setdefault(sighting.name, problem)
            return False
        except Exception as error:  # noqa: BLE001  # it is ours to answer for, and would else surface in the agent
            self._run.note_error(f"{label} cannot be recorded as a tool: {type(error).__name__}: {error}")
            return False
        return True

    def _name_of(
        self, role: Role, label: str, base: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, bool]:
        """The tool, and whether the model has asked for exactly this call."""
        if [*role.names.values()] == [Fit.SURE] and not self._run.tool_calls.wanted(next(iter(role.names))):
            return next(iter(role.names)), False
        wanted = asked(base, args, kwargs)
        if wanted is None:
            return "", False
        given: Mapping[str, Any] = wanted.request["arguments"]
        exact = [name for name in role.names if self._run.tool_calls.waits_for(name, given)]
        if exact:
            # A function that serves several tools is told which.
            name = next((one for one in exact if one in given.values() or one == _named(args)), exact[0])
            role.names[name] = Fit.SURE
            return name, True
        sure = [
            name
            for name, fit in role.names.items()
            if fit is Fit.SURE or (fit is Fit.NAMED and label not in self._left)
        ]
        for name in role.names.keys() - set(sure):
            if role.names[name] is Fit.NAMED:
                self._met_left.setdefault(name, {})[label] = None
        open_ones = [name for name in sure if self._run.tool_calls.wanted(name)]
        return next(
            (one for one in sure if one in given.values() or one == _named(args)), (open_ones or sure or [""])[0]
        ), False

    def _is_doubtful(self, span: OpenSpan) -> bool:
        return any(case.span is span and not case.sure for case in self._cases)

    def _pending_name(self, role: Role, label: str) -> str:
        """The tool that the model waits for, in replay: an agent that changed the arguments must not reach the body."""
        pending = [name for name in role.names if self._run.tool_calls.wanted(name)]
        if not pending:
            return ""
        if self._run.records or label in self._left:
            for name in pending:
                self._unasked.setdefault(name, {})[label] = None
            return ""
        unplayed = self._run.known_tools(unplayed=True)
        return next((name for name in pending if name in unplayed), "")

    def _settle(self) -> None:
        """Say what is to be said of functions that were only called like a tool, and take out what is none."""
        for finding in _answers.judge(
            self._cases,
            asked=self._counts(),
            unrecorded=self._unasked,
            left=self._met_left,
            tree=lambda: self._run.capture.tree(self._run.nodeid),
        ):
            for error in finding.errors:
                self._run.note_error(error)
            for note in finding.notes:
                self._run.note(note)
            for case in self._cases:
                if case.tool == finding.tool and case.label in finding.dropped and case.span is not None:
                    case.span.hidden = True
                    self._unasked.setdefault(case.tool, {})[case.label] = None
        for case in self._cases:
            open_ones = [
                call for call in case.awaited if any(call is one for one in self._run.tool_calls.wanted(case.tool))
            ]
            if case.span is not None and not (case.sure or case.span.hidden) and len(open_ones) == 1:
                self._run.tool_calls.answered(open_ones[0], by=case.span)

    def _say(self) -> None:
        """Say which tools the model has asked for, and nobody was seen to run."""
        missed = _missed.missed(
            self._run,
            listed=frozenset(self._listed.values()),
            aliases=self._aliases,
            asked=self._counts(),
            candidates=lambda name: [_label(function) for function, role in self._roles.items() if name in role.names],
        )
        tell = self._run.note_error if self._run.settings.unfound == FAIL else self._run.note
        for name, text in missed:
            if name in self._refused:
                self._run.note_error(f"the model asked for {name}: {self._refused[name]}")
            tell(text)

    def _counts(self) -> dict[str, int]:
        return Counter(call.name for call in self._asked)


def _named(args: tuple[Any, ...]) -> Any:
    """The name of a tool that is an object, if its method is called."""
    own = getattr(args[0], "__dict__", {}) if args else {}
    return own.get("name") if isinstance(own, dict) else None


def _label(function: FunctionType) -> str:
    return f"{function.__module__}:{tool_name(function)}"
