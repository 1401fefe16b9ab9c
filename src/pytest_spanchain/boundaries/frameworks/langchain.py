"""langchain and langgraph: a tool's body is its class's ``_run`` or ``_arun``, called by ``BaseTool.run`` and ``arun``.

Each class's own method is wrapped when a tool of the class first runs. Callbacks, parsing, injected state, the handling
of errors, ``content_and_artifact`` and ``ToolNode`` are all around it, so they happen in replay as they did live.

``interrupt`` inside a body: how often it asked and what it was answered is recorded beside the result. Replay asks
again, so that the graph stops and resumes as it did, under ids of its own; another answer than the recorded one is red.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, is_dataclass
from types import FunctionType, ModuleType
from typing import Any

from ... import _patch
from ..._canonical import canonical
from ..._run import current_run
from ..._values import encode
from ..._values.objects import is_model
from .. import _seam
from ._langchain_calls import TAKES_UP, called

_DIST = "langchain-core"
_MET = "__spanchain_seam__"
_METHODS = ("_run", "_arun")
_MODULES = ("langchain_core.messages", "langchain_core.documents", "langgraph.types", "langgraph.errors")

_lock = threading.Lock()
_asked: ContextVar[list[Question] | None] = ContextVar("spanchain_interrupts", default=None)


@dataclass
class Question:
    """What a body asked with ``interrupt``.

    Args:
        value: what it showed.
        schema: JSON schema of the answer that it wanted.
        answer: what it was told.
        answered: whether it was.
    """

    value: Any
    schema: Any = None
    answer: Any = None
    answered: bool = False


@dataclass(frozen=True)
class Asked:
    """What came of a body that asked.

    Args:
        questions: in order; if the last one was not answered, the graph stopped there.
        result: what it returned, if it did.
    """

    questions: list[Question]
    result: Any = None


def install(lib: ModuleType) -> None:
    """Patch one of the modules of langchain and langgraph that run tools, or answer for them.

    Raises:
        BoundaryError: it looks different.
    """
    if lib.__name__ in TAKES_UP:
        for owner, name, calls in TAKES_UP[lib.__name__]:
            _seam.takes_up(getattr(lib, owner, None), name, calls)
    elif lib.__name__ == "langchain_core.tools":
        # What it exports comes from ``base``, on use.
        if importlib.util.find_spec("langchain_core.tools.base") is None:
            raise _seam.unrecognised(_DIST, "langchain_core.tools.base is gone")
    elif lib.__name__ == "langgraph.types":
        interrupt = getattr(lib, "interrupt", None)
        if not isinstance(interrupt, FunctionType) or "value" not in inspect.signature(interrupt).parameters:
            raise _seam.unrecognised("langgraph", "langgraph.types.interrupt has changed")
        # By its code: whoever calls it has imported it by name.
        _patch.acquire(interrupt, lambda site: functools.partial(_listened, site))
    else:
        _install_tools(lib)


def _install_tools(lib: ModuleType) -> None:
    base = _seam.member(lib, "BaseTool", dist=_DIST)
    for name in (*_METHODS, "_filter_injected_args"):
        _seam.member(base, name, dist=_DIST)
    _seam.member(lib, "_get_runnable_config_param", dist=_DIST)
    for name, body in (("run", "_run"), ("arun", "_arun")):
        takes = ("tool_input", "config", "tool_call_id")
        _seam.patch(base, name, _around_run, dist=_DIST, takes=takes, reads=(body,))
        _seam.takes_up(base, name, called)


def _around_run(run: Callable[..., Any]) -> Callable[..., Any]:
    # Plain for both: what the async one returns is awaited by its caller.
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        _meet(type(self))
        return run(self, *args, **kwargs)

    return wrapper


def _meet(cls: type) -> None:
    """Wrap the bodies of a class where they are defined, once."""
    for name in _METHODS:
        owner = next(layer for layer in cls.__mro__ if name in vars(layer))
        body = vars(owner)[name]
        # BaseTool's own _arun calls _run in a thread, and BaseTool asks whether it is its own.
        if owner.__module__ == "langchain_core.tools.base" or hasattr(body, _MET):
            continue
        with _lock:
            if not hasattr(vars(owner)[name], _MET):
                seam = _seam.unless_idle(body, _around_body(body))
                setattr(seam, _MET, True)
                setattr(owner, name, seam)


def _around_body(body: Callable[..., Any]) -> Callable[..., Any]:
    wrapper: Callable[..., Any]
    if inspect.iscoroutinefunction(body):

        async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            crossing = _Crossing(self, body, args, kwargs)
            return crossing.over(await _seam.acall(*crossing.asks(), crossing.go_async, trust=crossing.trust()))

    else:

        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            crossing = _Crossing(self, body, args, kwargs)
            return crossing.over(_seam.call(*crossing.asks(), crossing.go, trust=crossing.trust()))

    return wrapper


class _Crossing:
    """One call of a tool's body."""

    def __init__(self, tool: Any, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._tool = tool
        self._body = body
        self._args = args
        self._kwargs = kwargs
        self._ran = False
        self._stopped: Exception | None = None

    def asks(self) -> tuple[str, Mapping[str, Any]]:
        """Name and arguments, without what langchain and langgraph inject."""
        named = dict(self._kwargs)
        if self._args:
            # The one text that tools took before there were schemas.
            named = {"input": self._args[0] if len(self._args) == 1 else list(self._args), **named}
        named.pop(_config_parameter(self._body) or "", None)
        return self._tool.name, self._tool._filter_injected_args(named)

    def trust(self) -> Mapping[str, type]:
        """The classes that the result may hold."""
        function = getattr(self._tool, "coroutine" if inspect.iscoroutinefunction(self._body) else "func", None)
        loaded = tuple(name for name in _MODULES if name in sys.modules)
        return _seam.body_types(function or self._body, Asked, Question, *_library_types(loaded))

    def go(self) -> Any:
        """Run the body."""
        __tracebackhide__ = True
        with self._heard():
            try:
                return self._returned(self._body(self._tool, *self._args, **self._kwargs))
            except Exception as error:  # noqa: BLE001  # raised again
                return self._raised(error)

    async def go_async(self) -> Any:
        """Run the body."""
        __tracebackhide__ = True
        with self._heard():
            try:
                return self._returned(await self._body(self._tool, *self._args, **self._kwargs))
            except Exception as error:  # noqa: BLE001  # raised again
                return self._raised(error)

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """While the body runs, what it asks is its own; then also that of the tool that called it."""
        self._ran = True
        token = _asked.set([])
        try:
            yield
        finally:
            questions = _asked.get() or []
            _asked.reset(token)
            if (outer := _asked.get()) is not None:
                outer.extend(questions)

    def _returned(self, value: Any) -> Any:
        questions = _asked.get()
        return Asked(list(questions), value) if questions else value

    def _raised(self, error: Exception) -> Any:
        questions = _asked.get()
        if not questions or questions[-1].answered:
            raise error
        self._stopped = error
        return Asked(list(questions))

    def over(self, outcome: Any) -> Any:
        """What the body came to, seen by whoever called it."""
        __tracebackhide__ = True
        if self._stopped is not None:
            raise self._stopped
        if type(outcome) is not Asked:
            return outcome
        if not self._ran:
            for question in outcome.questions:
                self._ask_again(question)
        return outcome.result

    def _ask_again(self, question: Question) -> None:
        types, errors = sys.modules["langgraph.types"], sys.modules["langgraph.errors"]
        kind = type(question.answer)
        schema = kind if is_model(kind) or is_dataclass(kind) else question.schema
        try:
            answer = types.interrupt(question.value, **({} if schema is None else {"response_schema": schema}))
        except errors.GraphInterrupt:
            if question.answered:
                self._drift("was answered when it was recorded, and is not now")
            raise
        if not question.answered:
            self._drift("is answered, where the recorded graph stopped")
        if canonical(encode(answer, opaque=True)) != canonical(encode(question.answer, opaque=True)):
            self._drift("is answered otherwise than when it was recorded")

    def _drift(self, what: str) -> None:
        run = current_run()
        assert run is not None
        raise run.miss(f"execute_tool {self._tool.name}: what it asks with interrupt() {what}")


def _listened(site: _patch.Site, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``interrupt``, heard by the body that calls it."""
    __tracebackhide__ = True
    questions = _asked.get()
    if questions is None:
        return site.twin(*args, **kwargs)
    call = inspect.signature(site.twin).bind(*args, **kwargs)
    question = Question(call.arguments["value"])
    questions.append(question)
    try:
        question.answer = site.twin(*args, **kwargs)
    except Exception as error:
        question.schema = _schema_of(error)
        raise
    question.answered = True
    return question.answer


def _schema_of(error: Exception) -> Any:
    asked = error.args[0] if error.args else ()
    return getattr(asked[0], "response_schema", None) if isinstance(asked, (tuple, list)) and asked else None


def _config_parameter(body: Callable[..., Any]) -> str | None:
    found = sys.modules["langchain_core.tools.base"]._get_runnable_config_param(body)
    return found if isinstance(found, str) else None


@functools.cache
def _library_types(modules: tuple[str, ...]) -> tuple[type, ...]:
    # What some of them export is only there once it is asked for.
    exported = {name: getattr(sys.modules[name], "__all__", None) for name in modules}
    return tuple(one for name in modules for one in _seam.classes(name, names=exported[name]))
