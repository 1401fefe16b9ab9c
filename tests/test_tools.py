"""Tools are recorded when they run and served without running, through whichever door and reference they are called."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import threading
import types
import typing
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from pytest_spanchain import DeviationError, RecordingError, _chain, _codec, _patch, _store, register_type, use_cassette
from pytest_spanchain._call import Call
from pytest_spanchain._calls import Calls
from pytest_spanchain._model import CONCURRENT, SpanTree
from pytest_spanchain._values import trust as _trust
from pytest_spanchain._values.encoder import ROOM
from pytest_spanchain.boundaries import _wait
from pytest_spanchain.boundaries.tools import install, tool
from pytest_spanchain.errors import BoundaryError, CassetteBroken, MissError, UsageError

# --- recording and replaying ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    span_id: str
    name: str
    request: Mapping[str, Any]
    parent: str | None
    attributes: Mapping[str, Any]
    response: Mapping[str, Any] | None


class Tape:
    """One run of ours: its cassette, and what it saw of tools."""

    def __init__(self, path: Path | None = None, *, mode: str = "rewrite") -> None:
        self.path = path or WHERE[0] / f"{next(NUMBERS)}.yaml"
        self.failure = ""
        self.block = use_cassette(self.path, mode=mode)

    def __enter__(self) -> Tape:
        self.run = self.block.__enter__()._run
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self.block.__exit__(*raised)
        except (DeviationError, RecordingError) as error:
            self.failure = str(error)

    @property
    def errors(self) -> tuple[str, ...]:
        assert self.block.verdict is not None
        return self.block.verdict.errors

    @property
    def entries(self) -> list[Entry]:
        tree = self.run.live
        return [
            Entry(
                span.span_id,
                span.name,
                span.exchange.request,
                None if span.parent_span_id == tree.roots[0].span_id else span.parent_span_id,
                {key: value for key, value in span.attributes.items() if key != CONCURRENT},
                span.exchange.response,
            )
            for span in tree
            if span.exchange is not None
        ]

    @property
    def only(self) -> Entry:
        (entry,) = self.entries
        return entry

    def response(self) -> dict[str, Any]:
        assert self.only.response is not None
        return dict(self.only.response)

    def replay(self) -> Tape:
        """A run that is served what this one recorded."""
        assert self.failure == ""
        return Tape(self.path, mode="none")

    def answering(self, response: Mapping[str, Any]) -> Tape:
        """A run whose only recorded answer is another."""
        cassette = _store.load(self.path, nodeid=self.path.name)
        spans = [
            span if span.exchange is None else replace(span, exchange=replace(span.exchange, response=response))
            for span in cassette.tree
        ]
        document = _chain.seal(
            cassette.header, SpanTree(tuple(spans)), trace_id=cassette.trace_id, outcome="passed", in_flight=0
        )
        _store.save(self.path, _codec.dumps(document))
        return self.replay()


WHERE: list[Path] = []
NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place for tapes; and no call may be finished twice, whatever the test is about."""
    finish, finished = Calls.finish, set()

    def once(self: Calls, call: Call, *args: Any, **kwargs: Any) -> None:
        assert call not in finished, "finished twice"
        finished.add(call)
        finish(self, call, *args, **kwargs)

    monkeypatch.setattr(Calls, "finish", once)
    WHERE[:] = [tmp_path]
    # Replays of other tests leave theirs, for nobody; frameworks are patched for good.
    before = {site: site.owners for site in _patch._sites.values() if site.owners}
    yield
    ran.clear()
    assert {site: site.owners for site in _patch._sites.values() if site.owners} == before, "a patch was left behind"


def both(act: Callable[[], Any]) -> tuple[Any, Any, Tape]:
    """Record, then replay: both outcomes and the recording run. Nothing may run in replay, which must be green."""
    with Tape() as recording:
        live = act()
    before = list(ran)
    with recording.replay() as replaying:
        served = act()
    assert ran == before, "a tool's body ran in replay"
    assert replaying.failure == ""
    return live, served, recording


# --- the tools of a small shop --------------------------------------------------------------------------------------

ran: list[Any] = []


@dataclass
class Receipt:
    order: int
    amount: Decimal


@dataclass
class Box:
    content: Any


class OutOfStock(Exception):
    def __init__(self, *, sku: str) -> None:
        super().__init__(f"no {sku}")
        self.sku = sku


def refund(order: int, *, amount: Decimal = Decimal(5)) -> Receipt:
    ran.append(order)
    if order < 0:
        raise OutOfStock(sku="s1")
    return Receipt(order, amount)


async def search(query: str, *more: str, **options: Any) -> dict[str, Any]:
    ran.append(query)
    await asyncio.sleep(0)
    return {"query": query, "hits": [{"id": 1, "at": (1, 2)}], "count": len(more) + len(options)}


def countdown(start: int) -> Generator[int, None, str]:
    """Counts down."""
    ran.append(start)
    yield from range(start, 0, -1)
    return "lift-off"  # a generator's result is part of what is recorded


async def stream(text: str) -> AsyncIterator[str]:
    ran.append(text)
    for word in text.split():
        await asyncio.sleep(0)
        yield word


def accumulate() -> Generator[Any, Any, None]:
    total = 0
    while True:
        try:
            got = yield total
            total += got or 0
        except ValueError as error:
            total = -int(error.args[0])


def factorial(n: int) -> int:
    ran.append(n)
    return n * factorial(n - 1) if n else 1


def make_scaled(factor: int) -> tuple[Callable[[int], int], Callable[[int], None]]:
    def scaled(n: int) -> int:
        ran.append(n)
        return n * factor

    def set_factor(value: int) -> None:
        nonlocal factor
        factor = value

    return scaled, set_factor


class Shop:
    def __init__(self, name: str = "main") -> None:
        self.name = name

    def sell(self, sku: str) -> str:
        ran.append(sku)
        return f"{self.name} sold {sku}"

    @classmethod
    def open(cls, where: str) -> str:
        ran.append(where)
        return f"{cls.__name__} in {where}"

    @staticmethod
    def price(sku: str) -> int:
        ran.append(sku)
        return len(sku)

    def _private(self) -> None: ...


class Branch(Shop):
    def sell(self, sku: str) -> str:
        return "branch: " + super().sell(sku)


early: dict[str, Any] = {"refund": refund, "factorial": factorial}
REFUND = f"{__name__}:refund"


# --- through either door ----------------------------------------------------------------------------------------------


def decorated(function: Callable[..., Any]) -> AbstractContextManager[Any]:
    return contextlib.nullcontext(tool(function))


@contextlib.contextmanager
def installed(function: Any) -> Iterator[Any]:
    with install([function]):
        yield function


DOORS = pytest.mark.parametrize("door", [decorated, installed])
Door = Callable[[Any], AbstractContextManager[Any]]


@DOORS
def test_a_result_comes_back_with_its_types_and_the_body_does_not_run(door: Door) -> None:
    with door(refund) as patched:
        live, served, run = both(lambda: patched(7))
    assert live == served == Receipt(7, Decimal(5))
    assert ran == [7]
    assert run.only.name == "execute_tool refund"
    assert run.only.request == {"arguments": {"order": 7, "amount": {"$decimal": "5"}}}
    assert run.only.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "refund",
        "gen_ai.tool.type": "function",
    }


@DOORS
def test_an_exception_comes_back_with_its_class_and_data(door: Door) -> None:
    def act() -> OutOfStock:
        with pytest.raises(OutOfStock) as info:
            patched(-1)
        return info.value

    with door(refund) as patched:
        live, served, run = both(act)
    assert (served.sku, str(served), served.args) == (live.sku, str(live), live.args)
    assert run.response()["error"]["type"] == f"{__name__}:OutOfStock"
    assert run.response()["error"]["message"] == "no s1"


@DOORS
def test_async_results_come_back_with_the_order_of_their_keys(door: Door) -> None:
    with door(search) as patched:
        assert inspect.iscoroutinefunction(patched)
        live, served, run = both(lambda: asyncio.run(patched("q", "a", limit=3)))
    assert json.dumps(live) == json.dumps(served)
    assert list(served) == ["query", "hits", "count"]
    assert served["hits"][0]["at"] == (1, 2)
    assert run.only.request == {"arguments": {"query": "q", "more": ["a"], "options": {"limit": 3}}}


@DOORS
def test_parallel_calls_get_their_own_answers(door: Door) -> None:
    async def act() -> list[Any]:
        return await asyncio.gather(*(patched(query) for query in queries))

    with door(search) as patched:
        queries = ["a", "b", "c"]
        with Tape() as recording:
            asyncio.run(act())
        queries.reverse()
        with recording.replay():
            served = asyncio.run(act())
    assert [found["query"] for found in served] == ["c", "b", "a"]


@DOORS
def test_threads(door: Door) -> None:
    with door(refund) as patched, ThreadPoolExecutor(4) as pool:
        live, served, _ = both(lambda: list(pool.map(patched, range(20))))
    assert live == served == [Receipt(n, Decimal(5)) for n in range(20)]


@DOORS
def test_generators(door: Door) -> None:
    def act() -> tuple[list[int], Any]:
        items, running = [], patched(3)
        try:
            while True:
                items.append(next(running))
        except StopIteration as stop:
            return items, stop.value

    with door(countdown) as patched:
        assert inspect.isgeneratorfunction(patched)
        live, served, run = both(act)
    assert live == served == ([3, 2, 1], "lift-off")
    assert run.response() == {"end": "complete", "items": [3, 2, 1], "result": "lift-off"}


@DOORS
def test_async_generators(door: Door) -> None:
    async def act() -> list[str]:
        return [word async for word in patched("a b c")]

    with door(stream) as patched:
        assert inspect.isasyncgenfunction(patched)
        live, served, run = both(lambda: asyncio.run(act()))
    assert live == served == ["a", "b", "c"]
    assert run.response() == {"end": "complete", "items": ["a", "b", "c"], "result": None}


@DOORS
def test_what_is_sent_into_a_generator_is_compared(door: Door) -> None:
    def act(second: Any = 2) -> list[Any]:
        running = patched()
        seen = [next(running), running.send(5), running.throw(ValueError(7)), running.send(second)]
        running.close()
        return seen

    with door(accumulate) as patched:
        live, served, run = both(act)
        assert live == served == [0, 5, -7, -5]
        assert [how for _, how, _ in run.response()["sent"]] == ["send", "throw", "send"]
        with run.replay() as replaying, pytest.raises(MissError, match="after item 2"):
            act(second=3)
    assert replaying.failure


@DOORS
def test_a_generator_that_is_closed_early(door: Door) -> None:
    def act(count: int = 1) -> list[int]:
        running = patched(3)
        seen = [next(running) for _ in range(count)]
        running.close()
        return seen

    with door(countdown) as patched:
        _, served, run = both(act)
        assert served == [3]
        assert run.response() == {"end": "closed", "items": [3], "result": None}
        with run.replay() as replaying, pytest.raises(MissError, match="goes on after 1 items, where it stopped"):
            act(2)
        assert replaying.failure
        with Tape() as recording:
            list(patched(3))
        with recording.replay() as replaying:
            act(2)
    assert replaying.response() == {"end": "closed", "items": [3, 2], "result": None}


@DOORS
async def test_an_async_generator_that_is_closed_early(door: Door) -> None:
    async def act() -> str:
        running = patched("a b c")
        try:
            return str(await running.__anext__())
        finally:
            await running.aclose()

    with door(stream) as patched:
        with Tape() as recording:
            assert await act() == "a"
        with recording.replay() as replaying:
            assert await act() == "a"
    assert replaying.response() == recording.response() == {"end": "closed", "items": ["a"], "result": None}


@pytest.mark.parametrize("count", [0, 1, 3])
@DOORS
def test_a_generator_that_outlives_the_run_is_over_where_it_was_read_to(door: Door, count: int) -> None:
    kept: list[Any] = []

    def act() -> list[int]:
        running = patched(3)
        kept.append(running)
        return [next(running) for _ in range(count)]

    def handed_out(n: int) -> Iterator[int]:
        return countdown(n)

    for tool_function in (countdown, handed_out):
        with door(tool_function) as patched:
            live, served, run = both(act)
        assert live == served == [3, 2, 1][:count]
        if count or tool_function is handed_out:
            closed = {"end": "closed", "items": live, "result": None}
            assert {key: value for key, value in run.response().items() if key != "returned"} == closed
        kept.clear()  # closing it now says nothing more


@DOORS
def test_an_async_generator_that_is_left_behind(door: Door) -> None:
    # The loop is over before the generator is: its cancelled ``aclose`` throws, and replay must not wait for more.
    async def act() -> str:
        async for word in patched("a b c"):
            return str(word)
        raise AssertionError("there is a word")

    async def inside(tape: Tape) -> str:
        with tape:
            return await act()

    with door(stream) as patched:
        live, served, run = both(lambda: asyncio.run(act()))
        assert live == served == "a"
        assert run.response() == {"end": "closed", "items": ["a"], "result": None}
        recording = Tape()
        asyncio.run(inside(recording))
        replaying = recording.replay()
        asyncio.run(inside(replaying))
    assert replaying.failure == ""
    assert replaying.response() == recording.response() == run.response()


async def test_a_reader_that_still_waits_when_the_run_ends_waits_again() -> None:
    @tool
    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async def read() -> None:
        async for item in slow():
            seen.append(item)

    async def act(tape: Tape) -> None:
        with tape:
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0.02)
            assert not reading.done()
        reading.cancel()
        await asyncio.wait([reading])

    seen: list[int] = []
    recording = Tape()
    await act(recording)
    replaying = recording.replay()
    await act(replaying)
    assert seen == [1, 1]
    assert replaying.failure == ""
    assert replaying.response() == recording.response()
    assert recording.response()["error"]["type"] == "pytest_spanchain.errors:RunClosedError"


async def test_a_coroutine_that_is_never_awaited_to_its_end() -> None:
    @tool
    def begin() -> Awaitable[None]:
        return asyncio.sleep(60)

    recording = Tape()
    for tape in (recording, None):
        running = tape or recording.replay()
        with running:
            pending = asyncio.ensure_future(begin())
            await asyncio.sleep(0)
        pending.cancel()
        await asyncio.wait([pending])
        assert running.failure == ""


def test_what_was_sent_later_is_no_part_of_a_shorter_reading() -> None:
    counting = tool(accumulate)

    def act(sends: int) -> None:
        running = counting()
        next(running)
        for _ in range(sends):
            running.send(1)
        running.close()

    with Tape() as recording:
        act(2)
    with recording.replay() as replaying:
        act(1)
    assert replaying.response() == {"end": "closed", "items": [0, 1], "result": None, "sent": [[0, "send", 1]]}


def test_a_failing_generator_gives_its_items_first() -> None:
    @tool
    def rows() -> Iterator[int]:
        yield 1
        raise OutOfStock(sku="x")

    def act() -> list[int]:
        running, seen = rows(), []
        seen.append(next(running))
        with pytest.raises(OutOfStock, match="no x"):
            next(running)
        return seen

    live, served, run = both(act)
    assert live == served == [1]
    assert run.response()["end"] == "error"


def test_items_are_not_held_back_and_the_span_is_not_current_between_them() -> None:
    with install([countdown]), Tape() as run:
        outside = trace.get_current_span()
        running = countdown(2)
        assert ran == []
        assert next(running) == 2
        assert ran == [2]
        assert trace.get_current_span() is outside
        refunding = tool(refund)
        refunding(1)
        list(running)
    assert [entry.parent for entry in run.entries] == [None, None]


# --- methods ----------------------------------------------------------------------------------------------------------


def test_methods_are_recorded_with_what_lasts_of_their_receiver() -> None:
    bound = Shop("side").sell
    with install([f"{__name__}:Shop.*"]):
        live, served, run = both(lambda: [bound("x"), Shop.open("Rome"), Shop.price("abc"), Shop().price("abcd")])
    assert live == served == ["side sold x", "Shop in Rome", 3, 4]
    assert [(entry.name, entry.request["arguments"]) for entry in run.entries] == [
        ("execute_tool Shop.sell", {"self": shop_named("side"), "sku": "x"}),
        ("execute_tool Shop.open", {"cls": the_class("Shop"), "where": "Rome"}),
        ("execute_tool Shop.price", {"sku": "abc"}),
        ("execute_tool Shop.price", {"sku": "abcd"}),
    ]


def test_a_method_that_calls_super_keeps_its_class_cell() -> None:
    with install([f"{__name__}:Branch.sell"]):
        live, served, _ = both(lambda: Branch("b").sell("x"))
    assert live == served == "branch: b sold x"


class Decorated:
    @tool
    def above(self, n: int) -> int:
        ran.append(n)
        return n + 1

    @tool
    @staticmethod
    def static(n: int) -> int:
        ran.append(n)
        return n + 2

    @classmethod
    @tool(name="klass")
    def cls_below(cls, n: int) -> int:
        ran.append(n)
        return n + 3


def test_decorated_methods() -> None:
    live, served, run = both(lambda: [Decorated().above(1), Decorated.static(1), Decorated.cls_below(1)])
    assert live == served == [2, 3, 4]
    assert [(entry.name, entry.request["arguments"]) for entry in run.entries] == [
        ("execute_tool Decorated.above", {"self": {"$opaque": f"{__name__}:Decorated"}, "n": 1}),
        ("execute_tool Decorated.static", {"n": 1}),
        ("execute_tool klass", {"cls": the_class("Decorated"), "n": 1}),
    ]


def shop_named(name: str) -> dict[str, Any]:
    return {"$object": {"type": f"{__name__}:Shop", "fields": {"name": name}}}


def the_class(name: str) -> dict[str, Any]:
    return {"$object": {"type": "builtins:type", "fields": {"name": f"{__name__}:{name}"}}}


class Account:
    """What its tools change is another value in replay, where they do not run."""

    def __init__(self, owner: str, balance: int, *history: str) -> None:
        self.owner = owner
        self.balance = balance
        self.history = list(history)
        self.calls = 0

    def withdraw(self, amount: int) -> str:
        self.balance -= amount
        self.history.append(f"-{amount}")
        self.calls += 1
        return f"{self.owner} got {amount}"

    @tool
    def deposit(self, amount: int) -> str:
        self.balance += amount
        return f"{self.owner} gave {amount}"

    def rename(*args: Any) -> str:
        return f"{args[0].owner} is now {args[1]}"

    @classmethod
    def wipe(cls) -> str:
        return cls.__name__


class Savings(Account): ...


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Account("ann", 10).withdraw(5), lambda: Account("bob", 10).withdraw(5)),
        (lambda: Account("ann", 10).deposit(5), lambda: Account("bob", 10).deposit(5)),
        (lambda: Account("ann", 10).withdraw(5), lambda: Savings("ann", 10).withdraw(5)),
        (lambda: Account("ann", 10).rename("x"), lambda: Account("bob", 10).rename("x")),
        (lambda: Account.wipe(), lambda: Savings.wipe()),
    ],
)
def test_a_method_called_on_another_receiver_is_a_deviation(one: Any, other: Any) -> None:
    with install([f"{__name__}:Account.*"]):
        _, _, recording = both(one)
        with recording.replay() as replaying:
            other()
    assert "arguments." in replaying.failure


def test_what_the_methods_of_a_receiver_change_does_not_disturb_matching() -> None:
    def act() -> list[str]:
        account = Account("ann", 10)
        return [account.withdraw(5), account.withdraw(5), account.deposit(1), account.deposit(1), account.withdraw(1)]

    with install([f"{__name__}:Account.withdraw"]):
        live, served, run = both(act)
    assert live == served
    assert len(run.entries) == 5


# --- the patch --------------------------------------------------------------------------------------------------------


def test_every_early_reference_is_reached_and_undone() -> None:
    scaled: Any = make_scaled(3)[0]
    kept: Any = scaled
    codes = [refund.__code__, scaled.__code__]
    patch = install([REFUND, scaled])
    live, served, run = both(lambda: [early["refund"](1), kept(2)])
    assert live == served == [Receipt(1, Decimal(5)), 6]
    assert len(run.entries) == 2
    patch.undo()
    patch.undo()
    assert [refund.__code__, scaled.__code__] == codes
    with Tape() as run:
        refund(1)
    assert run.entries == []


def test_the_original_sees_the_same_closure_and_defaults() -> None:
    scaled, set_factor = make_scaled(3)
    with install([scaled]), Tape():
        set_factor(10)
        assert scaled(2) == 20


@pytest.mark.parametrize("function", [refund, search, countdown, stream, Shop.sell], ids=lambda f: f.__name__)
def test_a_patched_function_looks_like_itself(function: Any) -> None:
    def looks() -> list[Any]:
        return [
            inspect.signature(function),
            inspect.signature(types.MethodType(function, object())),
            inspect.iscoroutinefunction(function),
            inspect.isgeneratorfunction(function),
            inspect.isasyncgenfunction(function),
            inspect.getsource(function),
            inspect.getdoc(function),
            function.__name__,
            function.__qualname__,
            function.__defaults__,
            function.__kwdefaults__,
            function.__code__.co_name,
            function.__code__.co_freevars,
            {line for _, _, line in function.__code__.co_lines() if line} <= {function.__code__.co_firstlineno},
        ]

    before, names = looks(), dict(vars(function))
    with install([function]):
        inside = looks()
    assert inside[:-1] == before[:-1]
    assert inside[-1], "a line of the body would count as covered"
    assert looks() == before
    assert vars(function) == names


@pytest.mark.parametrize("function", [refund, search, countdown, stream, Shop.sell], ids=lambda f: f.__name__)
def test_a_decorated_function_looks_like_the_original(function: Any) -> None:
    wrapper = tool(function)
    assert wrapper is not function
    assert wrapper.__wrapped__ is function
    looks: list[Callable[[Any], Any]] = [
        inspect.signature,
        typing.get_type_hints,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        inspect.getsource,
        inspect.getdoc,
        inspect.getmodule,
    ]
    for look in looks:
        assert look(wrapper) == look(function)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__", "__defaults__"):
        assert getattr(wrapper, name) == getattr(function, name)
    assert not hasattr(function, "__wrapped__")


def test_recursion_records_children_and_replays_the_outermost() -> None:
    with install([factorial]):
        live, served, run = both(lambda: factorial(3))
    assert live == served == 6
    parents = [entry.parent for entry in run.entries]
    assert parents == [None, *(entry.span_id for entry in run.entries[:3])]


def test_both_doors_record_once() -> None:
    both_ways = tool(refund)
    with install([both_ways, refund]):
        live, served, run = both(lambda: both_ways(4))
    assert live == served
    assert len(run.entries) == 1
    assert tool(both_ways) is both_ways


def test_without_a_run_the_original_runs() -> None:
    with install([refund, countdown, search, stream]):
        assert refund(1) == Receipt(1, Decimal(5))
        assert list(countdown(2)) == [2, 1]
        assert asyncio.run(search("q"))["count"] == 0
        running = countdown(1)
        next(running)
        running.close()

        async def words() -> list[str]:
            return [word async for word in stream("a b")]

        assert asyncio.run(words()) == ["a", "b"]


def test_installs_are_counted() -> None:
    first, second = install([REFUND]), install([refund])
    first.undo()
    with Tape() as run:
        refund(1)
    second.undo()
    assert len(run.entries) == 1
    assert "__signature__" not in vars(refund)


def test_a_function_is_recorded_only_for_the_runs_that_asked() -> None:
    asked, other = Tape(), Tape()
    with asked, install([refund], owner=asked.run):
        refund(1)
        with other:
            refund(1)
    assert (len(asked.entries), len(other.entries)) == (1, 0)


def test_concurrent_installs_and_calls() -> None:
    code = refund.__code__
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for n in range(100):
                with install([refund, REFUND]):
                    assert refund(n) == Receipt(n, Decimal(5))
        except BaseException as error:  # noqa: BLE001  # raised again in the test's own thread
            errors.append(error)

    with Tape():
        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert refund.__code__ is code


def test_a_failed_install_patches_nothing() -> None:
    code = refund.__code__
    with pytest.raises(UsageError):
        install([REFUND, f"{__name__}:nothing"])
    assert refund.__code__ is code


def test_undo_after_an_error_in_the_test() -> None:
    code = refund.__code__
    with pytest.raises(RuntimeError), install([refund]):
        raise RuntimeError
    assert refund.__code__ is code


def test_a_foreign_patch_on_top_is_left_alone_and_reported() -> None:
    mine, code = refund.__code__, countdown.__code__
    patch = install([countdown, refund])
    refund.__code__ = foreign = (lambda order: order).__code__
    try:
        with pytest.raises(BoundaryError, match="refund was replaced"):
            patch.undo()
        assert refund.__code__ is foreign
        assert countdown.__code__ is code
    finally:
        refund.__code__ = mine


def test_wrong_arguments_raise_what_python_raises() -> None:
    with install([refund]), Tape() as run, pytest.raises(TypeError, match="missing 1 required positional"):
        refund()  # type: ignore[call-arg]
    assert run.entries == []


# --- targets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("refund", "write it as"),
        (f"{__name__}:refnd", "did you mean 'refund'"),
        (f"{__name__}:Shop.sel", "class Shop has no 'sel'; did you mean 'sell'"),
        (f"{__name__}:Shp.sell", "did you mean 'Shop'"),
        (f"{__name__}x:refund", f"no module {__name__}x; did you mean '{__name__}'"),
        ("json.decodr:x", "did you mean 'json.decoder'"),
        (f"{__name__}:zz*", "nothing public"),
        (f"{__name__}:Shop", "is a builtins.type, not a Python function"),
        ("math:sqrt", "is a builtins.builtin_function_or_method"),
        (len, "not a Python function"),
        (3, "not a Python function"),
    ],
)
def test_wrong_targets_are_named(target: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        install([target])


def test_a_module_that_fails_to_import(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_tools.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="importing broken_tools failed: No module named 'not_there_at_all'"):
        install(["broken_tools:x"])


def test_a_glob_takes_the_public_functions_defined_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from json import dumps\ndef one(): return 1\ndef two(): return 2\ndef _three(): return 3\nclass C: pass\n"
    (tmp_path / "globbed_tools.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    import globbed_tools  # type: ignore[import-not-found]  # written above

    with install(["globbed_tools:*"]), Tape() as run:
        globbed_tools.one(), globbed_tools.two(), globbed_tools._three(), globbed_tools.dumps(1)
    assert [entry.name for entry in run.entries] == ["execute_tool one", "execute_tool two"]


@pytest.mark.parametrize("thing", [len, Shop, Shop(), 3])
def test_only_functions_can_be_decorated(thing: Any) -> None:
    with pytest.raises(UsageError, match="not a Python function"):
        tool(thing)


# --- what cannot be recorded, and what was not ------------------------------------------------------------------------


def test_an_unrecordable_result_reaches_the_agent_and_fails_the_run() -> None:
    @tool
    def connect() -> Any:
        return lock

    lock = threading.Lock()
    with Tape() as run:
        assert connect() is lock
    (error,) = run.errors
    assert "connect: the result cannot be recorded: $: _thread" in str(error)
    assert "register_type" in str(error)
    assert run.response() == {"result": {"$opaque": f"_thread:{type(lock).__name__}"}}


def test_a_class_that_replay_could_not_name_fails_the_recording() -> None:
    foreign: Any = dataclass(type("Foreign", (), {"__annotations__": {"n": int}, "__module__": "else.where"}))

    def lookup() -> Any:
        return holder[0]

    holder = [foreign(1)]
    with install([lookup]), Tape() as run:
        lookup()
    assert "spanchain.register_type(Foreign)" in str(run.errors[0])


class Hostile:
    """Whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("hands off")

    def __hash__(self) -> int:
        return 1

    __dict__ = property(lambda self: self.refuse)
    __repr__ = __str__ = __eq__ = __bool__ = lambda self, *other: self.refuse


class Connection:
    """Its converter fails, as one that reads from a closed socket does."""


def closed(connection: Any) -> Any:
    raise RuntimeError("it is closed")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust, "_registry", {})
    register_type(Connection, to_plain=closed, from_plain=closed)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Hostile(), f": {__name__}:Hostile cannot be read (RuntimeError: hands off)"),
        ({"a": [Box(Hostile())]}, ".a[0].content: "),
        ({Hostile(): 1}, f"[{__name__}:Hostile]: "),
        ({"a": {1: Hostile()}}, ".a[1]: "),
        (Connection(), f": {__name__}:Connection cannot be recorded: its to_plain raised RuntimeError: it is closed"),
        ([Box(Connection())], "[0].content: "),
        (10**5000, ": builtins:int has too many digits"),
    ],
    ids=["object", "field", "key", "item", "converter", "converter inside", "digits"],
)
def test_what_the_values_own_code_raises_stays_with_us(connections: None, value: Any, why: str) -> None:
    @tool
    def give() -> Any:
        return value

    @tool
    def stream_of() -> Iterator[Any]:
        yield value

    @tool
    def fail() -> None:
        raise ValueError(value)

    def failing() -> Any:
        with pytest.raises(ValueError) as info:
            fail()
        return info.value.args[0]

    outcomes: list[tuple[Callable[[], Any], str]] = [
        (give, "give: the result"),
        (lambda: next(stream_of()), "stream_of: item 0"),
        (failing, "fail: the exception"),
    ]
    for act, what in outcomes:
        with Tape() as run:
            assert act() is value
        assert len(run.errors) == 1
        assert f"tool {what}" in run.errors[0]
        assert why in run.errors[0]
        assert not run.path.exists()


def test_arguments_whose_code_raises(connections: None) -> None:
    @tool
    def take(one: Any, *more: Any) -> int:
        return 1

    values = [Hostile(), Box(Hostile()), {Hostile(): Hostile()}, 10**5000]
    live, served, _ = both(lambda: [take(value) for value in values])
    assert live == served
    # The author of a converter meant the argument to be recorded.
    with Tape() as run:
        assert take(1, Box(Connection())) == 1
    (error,) = run.errors
    assert error.startswith(f"tool take: argument more cannot be recorded: $[0].content: {__name__}:Connection")


def test_a_value_that_cannot_be_rebuilt_fails_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust, "_registry", {})
    register_type(Connection, to_plain=lambda connection: 1, from_plain=closed)
    connection = Connection()
    with Tape() as run:
        assert tool(lambda: connection)() is connection
    assert "it is closed" in run.errors[0]


def nested(levels: int, last: Any = "x") -> Any:
    value: Any = last
    for _ in range(levels):
        value = [value]
    return value


@tool
def give(value: Any) -> Any:
    return value


@tool
def echo() -> Generator[Any, Any, None]:
    value = None
    while True:
        value = yield value


@tool
def fail_with(value: Any) -> None:
    raise ValueError(value)


def test_deep_values_are_recorded_or_named() -> None:
    for levels in (ROOM + 1, 200):
        with Tape() as run:
            give(nested(levels))
        assert "tool give: the result cannot be recorded: $[0][0]" in run.failure
        assert f"builtins:list is nested deeper than {ROOM} levels; return something flatter" in run.failure
    live, served, _ = both(lambda: give(nested(ROOM)))
    assert live == served


@pytest.mark.parametrize(
    "last", [defaultdict(int, {"a": 1}), {1: 2}, OrderedDict(a=1), Box(1), deque([1]), ("a",)], ids=repr
)
def test_the_deepest_value_fits_wherever_a_cassette_holds_it(last: Any) -> None:
    # The costliest containers at the last level, as an argument, a result, an item, what is sent and an exception.
    value = nested(ROOM - 1, last)

    def act() -> Any:
        running = echo()
        next(running)
        running.send(value)
        running.close()
        with pytest.raises(ValueError) as info:
            fail_with(nested(ROOM - 6, last))
        return give(value), info.value.args

    live, served, run = both(act)
    assert live == served
    assert "$opaque" not in str([entry.response for entry in run.entries])


def test_clients_as_arguments_do_not_disturb_matching() -> None:
    @tool
    def query(client: Any, sql: str) -> str:
        return sql.upper()

    live, served, run = both(lambda: query(object(), "select"))
    assert live == served == "SELECT"
    assert run.only.request == {"arguments": {"client": {"$opaque": "builtins:object"}, "sql": "select"}}


def test_arguments_are_recorded_as_they_were_before_the_call() -> None:
    @tool
    def drain(rows: list[int]) -> int:
        total = sum(rows)
        rows.clear()
        return total

    with Tape() as run:
        assert drain([1, 2]) == 3
    assert run.only.request == {"arguments": {"rows": [1, 2]}}


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        ({"result": {"$object": {"type": "else.where:X", "fields": {}}}}, UsageError),
        ({"result": {"$nonsense": 1}}, CassetteBroken),
        ({"result": {"b": 1, "a": 2}, "order": "1;1"}, CassetteBroken),
    ],
)
def test_a_recorded_value_that_cannot_be_decoded_fails_the_run_even_if_swallowed(
    response: dict[str, Any], kind: type[Exception]
) -> None:
    answering = tool(refund)
    with Tape() as recording:
        answering(1)
    with recording.answering(response) as run, pytest.raises(kind) as info:
        answering(1)
    assert str(info.value).startswith("tool refund: ")
    assert run.errors == (str(info.value),)
    assert ran == [1]


async def test_a_cancelled_call_is_cancelled_again() -> None:
    @tool
    async def slow() -> None:
        await asyncio.sleep(60)

    async def act() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(slow(), 0.02)

    with Tape() as recording:
        await act()
    assert recording.response()["end"] == "closed"
    assert recording.response()["error"]["type"] == "asyncio.exceptions:CancelledError"
    with recording.replay() as replaying:
        await act()
    assert replaying.failure == ""
    assert replaying.response() == recording.response()


async def test_a_call_that_is_not_cancelled_again_ends_as_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wait.HOLD_SECONDS >= 10
    monkeypatch.setattr(_wait, "HOLD_SECONDS", 0.01)
    answering = tool(search)
    with Tape() as recording:
        pending = asyncio.ensure_future(answering("q"))
        await asyncio.sleep(0)
    await pending
    assert recording.only.response is None
    with recording.replay() as run, pytest.raises(MissError, match="stopped before it had answered"):
        await answering("q")
    assert run.failure


def test_an_interrupt_is_not_swallowed() -> None:
    @tool
    def stuck() -> None:
        raise KeyboardInterrupt

    with Tape() as run, pytest.raises(KeyboardInterrupt):
        stuck()
    assert run.response()["end"] == "closed"


def test_a_miss_reaches_the_agent() -> None:
    with Tape() as recording:
        pass
    with install([refund]), recording.replay() as run, pytest.raises(MissError):
        refund(1)
    assert ran == []
    assert run.failure


# --- plain functions that hand out what has yet to run ----------------------------------------------------------------


def test_a_plain_function_may_return_a_coroutine_or_a_generator() -> None:
    def timed(*args: Any) -> Awaitable[Any]:
        return search(*args)

    def counting(n: int) -> Iterator[int]:
        return countdown(n)

    def streaming(text: str) -> AsyncIterator[str]:
        return stream(text)

    async def act() -> list[Any]:
        return [await timed("q"), list(counting(2)), [word async for word in streaming("a b")]]

    with install([timed, counting, streaming]):
        live, served, _ = both(lambda: asyncio.run(act()))
    assert live == served
    assert served[1:] == [[2, 1], ["a", "b"]]
