"""Who runs an ``async def`` test, and in whose context.

Invariants:

* whichever plugin runs it keeps it: pytest-asyncio, anyio and those that we have never heard of are asked first;
* with our marker and no other runner it runs by itself, so that a marked test is never skipped for want of a plugin;
* its body belongs to its run, also in a task that was there before: anyio runs tests in one that its widest fixture
  started.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

_RUNNERS = frozenset({"anyio", "asyncio", "asyncio_cooperative", "trio", "twisted"})
"""Markers that ask for a runner."""

_OURS = "pytest_spanchain._hooks"
_KNOWN = frozenset({"_pytest.python", "anyio.pytest_plugin", "pytest_asyncio.plugin", _OURS})
"""Modules that implement ``pytest_pyfunc_call`` and take no coroutine that nothing asks them to."""

Entered = Callable[[], AbstractContextManager[None]]


def wants_asyncio(item: pytest.Item) -> bool:
    """Whether to mark a test for pytest-asyncio, which without its auto mode leaves unmarked tests alone.

    Args:
        item: a test that is being collected.
    """
    function = getattr(item, "obj", None)
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return (
        inspect.iscoroutinefunction(inner)
        and "pytest_asyncio.plugin" in map(_name, item.config.pluginmanager.get_plugins())
        and not is_spoken_for(item)
        and _KNOWN.issuperset(map(_name, _callers(item)))
    )


def is_spoken_for(item: pytest.Item) -> bool:
    """Whether a test asks for a runner by a marker, a fixture or the ini file."""
    if any(item.get_closest_marker(name) for name in _RUNNERS) or "anyio_backend" in getattr(item, "fixturenames", ()):
        return True
    try:
        return item.config.getini("trio_mode") in (True, "true")
    except (KeyError, ValueError):  # pytest-trio is not there
        return False


def runs_alone(item: pytest.Item) -> bool:
    """Let whoever runs async tests run this one, or else run it here.

    Args:
        item: a test function whose turn it is.

    Returns:
        Whether it was run; if not, it is pytest's own business, which will say that nobody runs it.
    """
    body = item.obj  # type: ignore[attr-defined]
    if not inspect.iscoroutinefunction(body):
        return False
    manager = item.config.pluginmanager
    pytest_itself = manager.get_plugin("python")
    others = [plugin for plugin in _callers(item) if plugin is not pytest_itself and _name(plugin) != _OURS]
    silent = [plugin for plugin in manager.get_plugins() if plugin not in others]
    if manager.subset_hook_caller("pytest_pyfunc_call", silent)(pyfuncitem=item) is not None:
        return True
    if pytest_itself is None or any(item.get_closest_marker(name) for name in _RUNNERS - {"asyncio"}):
        return False

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        import asyncio

        return asyncio.run(body(*args, **kwargs))

    with _replaced(item, run):
        pytest_itself.pytest_pyfunc_call(pyfuncitem=item)
    return True


@contextmanager
def body_in(item: pytest.Item, entered: Entered) -> Iterator[None]:
    """Let an async body enter its run itself, in whichever task it is run.

    Args:
        item: a test.
        entered: enters its run.
    """
    body = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(body):
        yield
        return

    @functools.wraps(body)
    async def inside(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with entered():
            return await body(*args, **kwargs)

    with _replaced(item, inside):
        yield


def fixture_in(fixturedef: pytest.FixtureDef[Any], instance: object, entered: Entered) -> AbstractContextManager[None]:
    """Let an async fixture of one test enter its run itself, when it is set up and when it is torn down.

    Args:
        fixturedef: the fixture, which is about to be set up.
        instance: the instance of the test's class.
        entered: enters the run; or, when that is over, what its teardown is in.
    """
    function: Any = fixturedef.func
    if inspect.ismethod(function) and type(function.__self__) is type(instance):
        function = function.__func__.__get__(instance)  # what is collected belongs to another instance

    @functools.wraps(function)
    async def value_inside(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        with entered():
            return await function(*args, **kwargs)

    @functools.wraps(function)
    async def values_inside(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        __tracebackhide__ = True
        values = function(*args, **kwargs)
        try:
            while True:
                with entered():
                    try:
                        value = await values.asend(None)
                    except StopAsyncIteration:
                        return
                yield value
        finally:
            await values.aclose()

    return _swapped(fixturedef, values_inside if inspect.isasyncgenfunction(function) else value_inside)


def is_async(function: Any) -> bool:
    """Whether a fixture's function is one that needs a runner."""
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def is_never_awaited(item: pytest.Item) -> bool:
    """Whether unittest would take the coroutine of a test for its result, and pass: nothing would have run."""
    from unittest import TestCase

    kind = getattr(item, "cls", None)
    return (
        isinstance(kind, type)
        and issubclass(kind, TestCase)
        and inspect.iscoroutinefunction(getattr(item, "obj", None))
        and all(  # subclasses that know better have their own: IsolatedAsyncioTestCase, Django's, Twisted's
            getattr(kind, name) is getattr(TestCase, name, None) for name in ("run", "__call__", "_callTestMethod")
        )
    )


def _callers(item: pytest.Item) -> list[object]:
    """The plugins that may run a test function, wrappers aside."""
    found = item.ihook.pytest_pyfunc_call.get_hookimpls()
    return [impl.plugin for impl in found if not (impl.wrapper or impl.hookwrapper)]


def _name(plugin: object) -> str:
    return str(getattr(plugin, "__name__", ""))


def _replaced(item: Any, body: Callable[..., Any]) -> AbstractContextManager[None]:
    return _put(item, "obj", body)


def _swapped(fixturedef: Any, function: Callable[..., Any]) -> AbstractContextManager[None]:
    return _put(fixturedef, "func", function)


@contextmanager
def _put(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
