"""Functions made to call elsewhere by a swap of their code object, so that every reference to them is reached.

``rerouted`` does the same to a copy, for decorators.

Invariants:

* A patched function keeps its identity, kind (plain, async, generator, async generator), closure, signature and place
  in the source; only its code is a trampoline. A second function object, the *twin*, holds the original code.
* Patches are counted: the first ``acquire`` swaps, the last ``release`` puts the old code back. Both are thread-safe.
* Each owner's calls go where that owner wants them, whoever else has acquired the function.
* A patch keeps nothing alive: a closure that was patched, and stays so, is collected like any other.
* A function that was patched for a replay stays patched: what the test left behind (a finalizer, a thread) then meets
  the run's "closed" error, and not the body.

The trampoline cannot look its target up by name (its globals are the user's), so the target is one of its constants.
"""

from __future__ import annotations

import ast
import functools
import inspect
import keyword
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from ._forks import renewed
from .errors import BoundaryError

Invoke = Callable[[tuple[Any, ...], dict[str, Any]], Any]
"""Takes a call's positional and keyword arguments; gives what a function of the same kind gives when called."""

_TARGET = "<spanchain target>"
_HEAD = f"""\
def trampoline(*_spanchain_args, **_spanchain_kwargs):
    __tracebackhide__ = True
    _spanchain_target = {_TARGET!r}
"""
_CALL = "_spanchain_target(_spanchain_args, _spanchain_kwargs)"
_BODIES = {
    "sync": f"    return {_CALL}\n",
    "async": f"    return await {_CALL}\n",
    "generator": f"    return (yield from {_CALL})\n",
    # There is no ``yield from`` for async generators: hand on what comes out, what is sent in, and the end.
    "async_generator": f"""\
    _spanchain_inner = {_CALL}
    _spanchain_step = _spanchain_inner.__anext__()
    while True:
        try:
            _spanchain_item = await _spanchain_step
        except StopAsyncIteration:
            return
        try:
            _spanchain_sent = yield _spanchain_item
        except GeneratorExit:
            await _spanchain_inner.aclose()
            raise
        except BaseException as _spanchain_error:
            _spanchain_step = _spanchain_inner.athrow(_spanchain_error)
        else:
            _spanchain_step = _spanchain_inner.asend(_spanchain_sent)
""",
}


@dataclass(eq=False)
class Site:
    """A patched function.

    Args:
        reference: the function itself. Weak, because the trampoline leads back here, and through code objects the
            garbage collector sees no cycle.
        code: its own code.
        uses: who acquired it, once per ``acquire``, and where their calls go; ``None`` stands for everybody.
        rest: where the calls of everybody else go.
        caller: tells on whose behalf a call is made.
        signed: whether ``__signature__`` is ours to remove.
        stays: whether the patch outlives its owners.
    """

    reference: weakref.ref[FunctionType]
    code: CodeType
    uses: list[tuple[Any, Invoke]] = field(default_factory=list)
    rest: Invoke | None = None
    caller: Callable[[], Any] | None = None
    signed: bool = False
    stays: bool = False
    trampoline: weakref.ref[CodeType] | None = None

    @property
    def twin(self) -> Any:
        """A function that still runs ``code``."""
        function = self.reference()
        assert function is not None, "nobody can call what is gone"
        return twin_of(function, self.code)

    @property
    def owners(self) -> list[Any]:
        """Who acquired it, once per ``acquire``."""
        return [owner for owner, _ in self.uses]

    def wanted_by(self, run: Any) -> bool:
        """Whether ``run`` is one of those for whom the function was patched."""
        return any(owner is None or owner is run for owner in self.owners)

    def invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the trampoline calls: what the caller, else what everybody is to have."""
        __tracebackhide__ = True
        caller = self.caller() if self.caller is not None else None
        uses = tuple(self.uses)
        own = [invoke for owner, invoke in uses if owner is not None and owner is caller]
        chosen = next(iter([*own, *(invoke for owner, invoke in uses if owner is None)]), self.rest)
        assert chosen is not None
        return chosen(args, kwargs)


_lock = renewed(threading.RLock())
_sites: weakref.WeakKeyDictionary[FunctionType, Site] = weakref.WeakKeyDictionary()


def kind_of(function: FunctionType) -> str:
    """``sync``, ``async``, ``generator`` or ``async_generator``.

    Raises:
        BoundaryError: a coroutine made of a generator by ``types.coroutine``.
    """
    flags = function.__code__.co_flags
    if flags & inspect.CO_ITERABLE_COROUTINE:
        raise BoundaryError(f"{function.__qualname__} is a generator-based coroutine; write it with async def")
    if flags & inspect.CO_COROUTINE:
        return "async"
    if flags & inspect.CO_ASYNC_GENERATOR:
        return "async_generator"
    return "generator" if flags & inspect.CO_GENERATOR else "sync"


def acquire(
    function: FunctionType,
    make: Callable[[Site], Invoke],
    *,
    owner: Any = None,
    caller: Callable[[], Any] | None = None,
) -> Site:
    """Patch ``function``, or count one more user of its patch.

    Args:
        function: a Python function.
        make: makes what this owner's calls go to. It may hold the site, and must not hold the function.
        owner: whose calls these are; everybody's if it is ``None``.
        caller: tells on whose behalf a call is made.
    """
    with _lock:
        site = _sites.get(function)
        if site is None:
            site = Site(weakref.ref(function), function.__code__)
            trampoline = _trampoline(function, site.invoke)
            site.trampoline = weakref.ref(trampoline)
            site.rest = make(site)
            if "__signature__" not in vars(function):
                function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
                site.signed = True
            site.uses.append((owner, site.rest))
            _sites[function] = site
            function.__code__ = trampoline
        else:
            site.uses.append((owner, make(site)))
        site.caller = caller or site.caller
        return site


def release(site: Site, *, owner: Any = None, stays: bool = False, rest: Invoke | None = None) -> None:
    """Undo one ``acquire``.

    Args:
        site: what it returned.
        owner: the same as then.
        stays: leave the function patched, from now on for nobody.
        rest: where calls go then; it must hold nothing of the function.

    Raises:
        BoundaryError: someone else has changed the function's code since; theirs is left in place.
    """
    with _lock:
        index = next(index for index, one in enumerate(site.owners) if one is owner)
        _, invoke = site.uses.pop(index)
        site.rest = rest or invoke
        site.stays = site.stays or stays
        function = site.reference()
        if function is None or site.uses:
            return
        is_ours = site.trampoline is not None and function.__code__ is site.trampoline()
        if is_ours and site.stays:
            return
        del _sites[function]
        if site.signed:
            vars(function).pop("__signature__", None)
        if not is_ours:
            raise BoundaryError(f"the code of {function.__qualname__} was replaced while it was being recorded")
        function.__code__ = site.code


def code_of(function: FunctionType) -> CodeType:
    """The code of a function's own, even while it is patched."""
    site = _sites.get(function)
    return function.__code__ if site is None else site.code


def unpatched(function: Any) -> Any:
    """What runs the original body of ``function`` even while it is patched."""
    site = _sites.get(function) if isinstance(function, FunctionType) else None
    return function if site is None else site.twin


def rerouted(function: FunctionType, invoke: Invoke) -> FunctionType:
    """A function that looks like ``function``, wraps it, and calls ``invoke``."""
    return _like(function, _trampoline(function, invoke))


def twin_of(function: FunctionType, code: CodeType | None = None) -> FunctionType:
    """A second function object with the same code (or its own), closure, globals and defaults."""
    twin = _like(function, code or function.__code__)
    del twin.__wrapped__  # type: ignore[attr-defined]  # it is no wrapper; the next line gives back what it wraps
    vars(twin).update(vars(function))
    return twin


def _like(function: FunctionType, code: CodeType) -> FunctionType:
    made = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    # Not by hand: it knows how each Python copies annotations that nobody has evaluated yet.
    functools.update_wrapper(made, function)
    return made


def _trampoline(function: FunctionType, invoke: Invoke) -> CodeType:
    original = function.__code__
    template = _compiled(kind_of(function), original.co_freevars, original.co_filename, original.co_firstlineno)
    constants = tuple(invoke if constant == _TARGET else constant for constant in template.co_consts)
    code = template.replace(co_consts=constants, co_name=original.co_name)
    if sys.version_info >= (3, 11):
        code = code.replace(co_qualname=original.co_qualname)
    assert len(code.co_freevars) == len(original.co_freevars)
    return code


@functools.lru_cache(maxsize=256)
def _compiled(kind: str, free: tuple[str, ...], filename: str, line: int) -> CodeType:
    """A template's code with the same free variables, all of it on the line of the original's ``def``."""
    names = [
        name if name.isidentifier() and not keyword.iskeyword(name) else f"_spanchain_free_{index}"
        for index, name in enumerate(free)
    ]
    head = "async " + _HEAD if kind.startswith("async") else _HEAD
    # Naming them where nothing runs is enough to make them free variables of the trampoline.
    mention = f"    if 0: ({', '.join(names)},)\n" if names else ""
    inner = "".join(f"    {line}\n" for line in (head + mention + _BODIES[kind]).splitlines())
    tree = ast.parse(f"def factory({', '.join(names)}):\n{inner}")
    nodes: Iterator[Any] = ast.walk(tree)
    for node in nodes:
        # One line for all: coverage and ``inspect.getsource`` then see the original's place, and no line of its body.
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = line
            node.col_offset = node.end_col_offset = 0
    module = compile(tree, filename, "exec", dont_inherit=True)
    return _code_in(_code_in(module))


def _code_in(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))
