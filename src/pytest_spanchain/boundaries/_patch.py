"""Functions made to call elsewhere by a swap of their code object, so that every reference to them is reached.

``rerouted`` does the same to a copy, for decorators.

Invariants:

* A patched function keeps its identity, kind (plain, async, generator, async generator), closure, signature and place
  in the source; only its code is a trampoline. A second function object, the *twin*, holds the original code.
* Patches are counted: the first ``acquire`` swaps, the last ``release`` puts the old code back. Both are thread-safe.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType
from typing import Any

from ..errors import BoundaryError

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
        function: the function itself.
        code: its own code.
        twin: a function that still runs ``code``.
        owners: who acquired it, once per ``acquire``; ``None`` stands for everybody.
        signed: whether ``__signature__`` is ours to remove.
        stays: whether the patch outlives its owners.
    """

    function: FunctionType
    code: CodeType
    twin: FunctionType
    owners: list[Any] = field(default_factory=list)
    signed: bool = False
    stays: bool = False
    trampoline: CodeType | None = None

    def wanted_by(self, run: Any) -> bool:
        """Whether ``run`` is one of those for whom the function was patched."""
        return any(owner is None or owner is run for owner in self.owners)


_lock = threading.RLock()
_sites: dict[FunctionType, Site] = {}


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


def acquire(function: FunctionType, make: Callable[[Site], Invoke], *, owner: Any = None) -> Site:
    """Patch ``function``, or count one more user of its patch.

    Args:
        function: a Python function.
        make: makes the target of the trampoline; called only for the first user.
        owner: handed to ``Site.wanted_by``.
    """
    with _lock:
        site = _sites.get(function)
        if site is None:
            site = Site(function, function.__code__, twin_of(function))
            site.trampoline = _trampoline(function, make(site))
            if "__signature__" not in vars(function):
                function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
                site.signed = True
            _sites[function] = site
            function.__code__ = site.trampoline
        site.owners.append(owner)
        return site


def release(site: Site, *, owner: Any = None, stays: bool = False) -> None:
    """Undo one ``acquire``.

    Args:
        site: what it returned.
        owner: the same as then.
        stays: leave the function patched, from now on for nobody.

    Raises:
        BoundaryError: someone else has changed the function's code since; theirs is left in place.
    """
    with _lock:
        site.owners.remove(owner)
        site.stays = site.stays or stays
        is_ours = site.function.__code__ is site.trampoline
        if site.owners or (is_ours and site.stays):
            return
        del _sites[site.function]
        if site.signed:
            vars(site.function).pop("__signature__", None)
        if not is_ours:
            raise BoundaryError(f"the code of {site.function.__qualname__} was replaced while it was being recorded")
        site.function.__code__ = site.code


def unpatched(function: Any) -> Any:
    """What runs the original body of ``function`` even while it is patched."""
    site = _sites.get(function) if isinstance(function, FunctionType) else None
    return function if site is None else site.twin


def rerouted(function: FunctionType, invoke: Invoke) -> FunctionType:
    """A function that looks like ``function``, wraps it, and calls ``invoke``."""
    return _like(function, _trampoline(function, invoke))


def twin_of(function: FunctionType) -> FunctionType:
    """A second function object with the same code, closure, globals and defaults."""
    twin = _like(function, function.__code__)
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
    template = _compiled(kind_of(function), original)
    constants = tuple(invoke if constant == _TARGET else constant for constant in template.co_consts)
    code = template.replace(co_consts=constants, co_name=original.co_name)
    if sys.version_info >= (3, 11):
        code = code.replace(co_qualname=original.co_qualname)
    assert len(code.co_freevars) == len(original.co_freevars)
    return code


def _compiled(kind: str, original: CodeType) -> CodeType:
    """A template's code with the same free variables, all of it on the line of the original's ``def``."""
    names = [
        name if name.isidentifier() and not keyword.iskeyword(name) else f"_spanchain_free_{index}"
        for index, name in enumerate(original.co_freevars)
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
            node.lineno = node.end_lineno = original.co_firstlineno
            node.col_offset = node.end_col_offset = 0
    module = compile(tree, original.co_filename, "exec", dont_inherit=True)
    return _code_in(_code_in(module))


def _code_in(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))
