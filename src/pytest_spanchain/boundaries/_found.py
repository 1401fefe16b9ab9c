"""Tools that nobody has named: found by what the model is offered, patched before it can ask for them.

Invariants:

* What is recorded of a call depends on the called function, the declaration, and what the model has asked for in this
  run; not on what else is imported. So a test comes to the same alone and in the whole suite.
* A function that is surely the tool is recorded whenever it is called, from the first model call that offers it on.
  One that only could be is recorded once the model has asked for exactly this call.
* What one tool of that name calls under the same name is part of it.
* No such body runs in replay while the model waits for a tool of which there is something to serve, unless it ran
  unrecorded, too, while the model waited (the recording names those functions).
"""

from __future__ import annotations

import difflib
import functools
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

from .. import _patch
from .._genai import ToolCall, ToolDeclaration
from .._genai.attributes import TOOL_NAME
from .._model import UNASKED, Span
from .._run import OWNERSHIP, Run
from . import tools
from ._fit import Fit, same
from ._sightings import Search, Sighting, module_functions
from ._targets import tool_name
from ._tool_drive import DRIVERS
from ._tool_io import ToolSpec, asked

_FINDERS: weakref.WeakKeyDictionary[Run, Finder] = weakref.WeakKeyDictionary()


@contextmanager
def finding(run: Run, *, listed: tools.Patch) -> Iterator[None]:
    """Find the tools that the models of a run are offered, from the first model call to the end of the run.

    Args:
        run: the run; without ``finds_tools`` nothing is looked for.
        listed: what its settings name, which is left alone.
    """
    if not run.settings.finds_tools:
        yield
        return
    finder = Finder(run, listed=listed)
    _FINDERS[run] = finder
    run.on_tools, run.on_asked = finder.offered, finder.asked
    try:
        yield
    finally:
        try:
            finder.close()
        finally:
            del _FINDERS[run]  # it holds the run, which nobody else may


class Role:
    """What one function may be to a run."""

    def __init__(self, *, bound: bool) -> None:
        self.bound = bound
        self.names: dict[str, Fit] = {}


class Finder:
    """The tools of one run. Safe to call from any thread."""

    def __init__(self, run: Run, *, listed: tools.Patch) -> None:
        self._run = run
        self._lock = threading.RLock()
        # Unlike what was listed, much of what was found is another's: only what was called is kept from running late.
        self._patch = tools.Patch(run, leaves=lambda site: site.reference() in self._called)
        self._called: weakref.WeakSet[Any] = weakref.WeakSet()
        self._listed = {target.function: target.name for target in listed.targets}
        self._covered = {part for name in self._listed.values() for part in (name, name.rpartition(".")[2])}
        self._declared: dict[str, ToolDeclaration] = {}
        self._modules = 0
        self._roles: weakref.WeakKeyDictionary[FunctionType, Role] = weakref.WeakKeyDictionary()
        self._aliases: dict[str, set[str]] = {}
        self._taken: dict[str, dict[str, bool]] = {}
        self._unasked: set[str] = set()

    def offered(self, declared: tuple[ToolDeclaration, ...]) -> None:
        """A model call offers tools: patch what can be meant before it is answered."""
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
            self._take(search.frames(sys._getframe(1)).found)

    def asked(self, calls: tuple[ToolCall, ...]) -> None:
        """The model asks for tools: if nothing has been found for one, look at everything there is."""
        with self._lock:
            known = {name for role in self._roles.values() for name in role.names}
            lost = {call.name for call in calls} - known - self._covered - self._aliases.keys()
            lost_ones = {name: self._declared.get(name, ToolDeclaration(name)) for name in sorted(lost) if name}
            if lost_ones:
                self._take(Search(lost_ones).memory().found)

    def spec(self, function: FunctionType, base: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The tool that a call is a call of; empty if of none."""
        with self._lock:
            role = self._roles.get(function)
        if role is None:
            return ""
        name = self._name_of(role, base, args, kwargs)
        span = self._run.capture.enclosing()
        outer = str(span.attributes.get(TOOL_NAME, "")) if span is not None else ""
        inside = {outer, outer.rpartition(".")[2]} - {""}
        if not name and not inside.intersection(role.names):
            name = self._pending_name(role, _label(function))
        if name in inside:
            return ""
        if name:
            self._called.add(function)
        return name

    def close(self) -> None:
        """Say what was not found, and take the patches back."""
        try:
            self._say()
            if self._run.records and self._unasked:
                self._run.capture.root.attributes[UNASKED] = sorted(self._unasked)
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
                if not self._patched(function, role):
                    continue
                self._roles[function] = role
            role.names[sighting.name] = max(role.names.get(sighting.name, Fit.NONE), sighting.fit)

    def _patched(self, function: FunctionType, role: Role) -> bool:
        try:
            self._patch.add(function, functools.partial(_invoke_at, role.bound))
        except Exception as error:  # noqa: BLE001  # whatever it is about the function, the agent is not to see it
            self._run.note(f"{_label(function)} cannot be recorded as a tool: {error}")
            return False
        return True

    def _name_of(self, role: Role, base: ToolSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        sure = [name for name, found in role.names.items() if found is Fit.SURE]
        if len(role.names) == 1 and sure:
            return sure[0]
        wanted = asked(base, args, kwargs)
        if wanted is None:
            return ""
        given: Mapping[str, Any] = wanted.request["arguments"]
        exact = [name for name in role.names if any(same(call.arguments, given) for call in self._run.wanted(name))]
        if exact:
            # A function that serves several tools is told which.
            name = next((one for one in exact if one in given.values() or one == _named(args)), exact[0])
            role.names[name] = Fit.SURE
            return name
        open_ones = [name for name in sure if self._run.wanted(name)]
        return next(
            (one for one in sure if one in given.values() or one == _named(args)), (open_ones or sure or [""])[0]
        )

    def _pending_name(self, role: Role, label: str) -> str:
        """The tool that the model waits for, in replay: an agent that changed the arguments must not reach the body."""
        pending = [name for name in role.names if self._run.wanted(name)]
        if not pending:
            return ""
        if self._run.records:
            self._unasked.add(label)
            return ""
        unplayed = self._run.known_tools(unplayed=True)
        return next((name for name in pending if name in unplayed and label not in self._run.ran_unasked), "")

    def _say(self) -> None:
        undone: dict[str, list[ToolCall]] = {}
        for call in self._run.undone:
            undone.setdefault(call.name, []).append(call)
        if not undone:
            return
        spans = [span for span in self._run.capture.tree(self._run.nodeid) if TOOL_NAME in span.attributes]
        # What a replay leaves out of what was recorded is a deviation, and nothing that anybody missed.
        crossed = {str(span.attributes[TOOL_NAME]) for span in spans} | self._run.known_tools()
        crossed |= {name.rpartition(".")[2] for name in crossed}
        # A function that is listed may have another name than the model knows it by: then the arguments tell.
        listed = [span.exchange.request for span in spans if span.exchange and self._is_listed(span)]
        for name, calls in undone.items():
            if name in crossed or self._run.settings.runs(name) or self._aliases.get(name, set()) & crossed:
                continue
            missed = [call for call in calls if not any(same(call.arguments, one["arguments"]) for one in listed)]
            if missed:
                could = [_label(function) for function, role in self._roles.items() if name in role.names]
                self._run.note(_not_found(name, len(missed), could))

    def _is_listed(self, span: Span) -> bool:
        return span.attributes[TOOL_NAME] in self._listed.values()


def _invoke_at(bound: bool, site: _patch.Site) -> _patch.Invoke:
    base = tools.spec_at(site, name="", bound=bound)
    drive = DRIVERS[_patch.kind_of(site.twin)]
    return functools.partial(_invoke, site, base, drive)


def _invoke(
    site: _patch.Site, base: ToolSpec, drive: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    __tracebackhide__ = True
    function, run = site.reference(), OWNERSHIP.peek()
    finder = _FINDERS.get(run) if run is not None else None
    name = finder.spec(function, base, args, kwargs) if finder is not None and function is not None else ""
    spec = ToolSpec(
        name=name,
        original=base.original,
        arguments=base.arguments,
        types=base.types,
        wanted_by=base.wanted_by if name else lambda run: False,
    )
    return drive(spec, args, kwargs)


def _named(args: tuple[Any, ...]) -> Any:
    """The name of a tool that is an object, if its method is called."""
    own = getattr(args[0], "__dict__", {}) if args else {}
    return own.get("name") if isinstance(own, dict) else None


def _label(function: FunctionType) -> str:
    return f"{function.__module__}:{tool_name(function)}"


def _not_found(name: str, count: int, candidates: list[str]) -> str:
    times = "once" if count == 1 else f"{count} times"
    near = sorted({one for one in candidates if "<" not in one})[:3] or _near(name)
    hint = f" (near: {', '.join(near)})" if near else ""
    return (
        f"the model asked for {name} {times}, but no call of a function of that name was met: what it does was not"
        f" recorded and runs again in replay. Name it: spanchain_tools = module:function{hint}"
    )


def _near(name: str) -> list[str]:
    known: dict[str, list[str]] = {}
    for label in module_functions():
        known.setdefault(label.rpartition(":")[2].lower(), []).append(label)
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    return [label for one in close for label in known[one]][:3]
