"""Values come back with their types; what cannot is refused or, as an argument, marked."""

from __future__ import annotations

import array
import asyncio
import builtins
import datetime as dt
import functools
import io
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import threading
import types
import typing
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_spanchain._canonical import canonical
from pytest_spanchain._values import Receiver, check_round_trip, decode, encode, register_type, trusted_types
from pytest_spanchain._values import trust as _trust
from pytest_spanchain._values.encoder import MAX_OBJECTS
from pytest_spanchain.errors import CassetteBroken, Unrecordable, UsageError

T = TypeVar("T")


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Right(Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: int = 0


Pair = namedtuple("Pair", "left right")


@dataclass(frozen=True)
class Item:
    sku: str
    price: Decimal


@dataclass
class Order:
    id: int
    items: list[Item]
    note: str | None = None
    total: Decimal = field(init=False, default=Decimal(0))

    def __post_init__(self) -> None:
        raised.append("constructor ran")
        self.total = sum((item.price for item in self.items), Decimal(0))

    @cached_property
    def heavy(self) -> str:
        return "computed"


@dataclass
class Box(Generic[T]):
    content: T


class Slotted:
    __slots__ = ("__hidden", "seen")

    def __init__(self) -> None:
        self.seen = 1
        self.__hidden = (2,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and (self.seen, self.__hidden) == (other.seen, other.__hidden)

    __hash__ = None  # type: ignore[assignment]


class Plain:
    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Money(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "hidden"


class Bag(dict[str, int]):
    pass


@attrs.define
class Tag:
    name: str


class Model(pydantic.BaseModel):
    name: str
    at: dt.datetime | None = None
    _cache: dict[str, int] = pydantic.PrivateAttr(default_factory=dict)


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    id: int


class Names(pydantic.RootModel[list[str]]):
    pass


class ShopError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"failed with {code}")
        self.code = code


raised: list[str] = []


def shop() -> None: ...


TYPES = trusted_types(shop)


def same(value: Any) -> Any:
    plain = encode(value)
    # As the cassette gives it back.
    again = decode(json.loads(json.dumps(plain)), types=TYPES)
    assert type(again) is type(value)
    check_round_trip(plain, types=TYPES)
    return again


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(dt.timezone.utc))
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([Color.RED, Level.LOW, Right.READ | Right.WRITE])
)
HASHABLE = st.recursive(
    LEAVES, lambda inner: st.lists(inner).map(tuple) | st.frozensets(inner, max_size=4), max_leaves=8
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(HASHABLE | st.sampled_from(["$tuple", "$esc", "$x", "$"]), inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$tuple", "$esc", "$opaque", "$object"]), inner, max_size=1)
        | st.sets(HASHABLE, max_size=4)
        | inner.map(Box)
    ),
    max_leaves=15,
)


@given(VALUES)
def test_values_come_back(value: Any) -> None:
    again = same(value)
    assert again == value
    assert canonical(encode(again)) == canonical(encode(value))
    assert canonical(without_enum_values(encode(value, opaque=True))) == canonical(encode(value))


def without_enum_values(plain: Any) -> Any:
    if isinstance(plain, list):
        return [without_enum_values(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if (
        set(plain) == {"$enum"}
        and isinstance(plain["$enum"], dict)
        and set(plain["$enum"]) == {"type", "name", "value"}
    ):
        return {"$enum": {"type": plain["$enum"]["type"], "name": plain["$enum"]["name"]}}
    return {key: without_enum_values(item) for key, item in plain.items()}


@given(st.recursive(st.none() | st.text() | st.integers(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_any_plain_value_decodes_or_is_called_broken(plain: Any) -> None:
    """A forged cassette cannot crash the decoder, and nothing but a tag changes its type."""
    tags = [
        "$tuple",
        "$set",
        "$map",
        "$datetime",
        "$timedelta",
        "$object",
        "$enum",
        "$deque",
        "$range",
        "$complex",
        "$x",
    ]
    for forged in [plain, *({f"${tag}": plain} for tag in tags)]:
        try:
            decode(forged, types=TYPES)
        except (CassetteBroken, UsageError):
            continue


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"\x00\xff"),
        range(1, 9, 2),
        Fraction(1, 3),
        deque([1, 2], maxlen=3),
        OrderedDict([("b", 1), ("a", 2)]),
        Counter("hello"),
        defaultdict(list, {"a": [1]}),
        defaultdict(None, {1: 2}),
        pathlib.Path("/tmp/x"),
        pathlib.PurePosixPath("a/b"),
        pathlib.PureWindowsPath("C:\\x"),
        dt.datetime(2026, 11, 21, 3, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
        dt.time(1, 2, tzinfo=dt.timezone.utc),
        zoneinfo.ZoneInfo("Europe/Berlin"),
        "\ud800",
        {"\ud800": 1},
        {1: "int", "1": "text", None: 0},
        {"$esc": {"$esc": {"$tuple": []}}},
        (1, (2, [3, {4}])),
        Point(1),
        Pair([1], {2}),
        Item("a", Decimal("1.10")),
        Box(Box((1,))),
        Box[int](1),
        Slotted(),
        Plain("x"),
        Bag(a=1),
        Tag("t"),
        Model(name="n", at=dt.datetime(2026, 1, 1)),
        Loose.model_validate({"id": 1, "z": 2, "a": (3,)}),
        Names(["a"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_more_values_come_back(value: Any) -> None:
    again = same(value)
    assert again == value
    assert repr(again) == repr(value) or type(value) in (Slotted, Plain)


def test_not_a_number() -> None:
    assert encode([float("nan"), float("-inf")]) == [{"$float": "nan"}, {"$float": "-inf"}]
    again = same(float("nan"))
    assert again != again  # the test for NaN


def test_the_order_of_mappings_is_kept() -> None:
    assert list(same({"z": 1, "a": 2})) == ["z", "a"]


def test_no_constructor_runs_and_derived_values_are_left_out() -> None:
    order = Order(1, [Item("a", Decimal(2))])
    assert order.heavy == "computed"
    raised.clear()
    again = same(order)
    assert again == order
    assert raised == []
    assert "heavy" not in vars(again)
    assert again.total == Decimal(2)


def test_a_subclass_of_a_builtin_keeps_its_content_and_class() -> None:
    again = same(Money("5"))
    assert str.__str__(again) == "5"


def test_what_a_model_was_given_is_kept() -> None:
    model = Model(name="n")
    model._cache["hits"] = 3
    again = same(model)
    assert again.model_fields_set == {"name"}
    assert again._cache == {"hits": 3}


def caught(make: Callable[[], Any]) -> Exception:
    try:
        make()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what the test is about
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 1),
        KeyError(("a", 1)),
        caught(lambda: open("/does/not/exist")),  # noqa: SIM115  # it cannot be opened
        caught(lambda: b"\xff".decode()),
        caught(lambda: json.loads("{")),
        caught(lambda: compile("a b", "x", "exec")),
        caught(lambda: __import__("does_not_exist")),
        subprocess.CalledProcessError(2, ["x"], output=b"out"),
        asyncio.TimeoutError("late"),
        StopIteration(3),
        ShopError(code=7),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back(error: Exception) -> None:
    again = same(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    for name in ("errno", "filename", "start", "name", "lineno", "value", "code", "output"):
        assert getattr(again, name, None) == getattr(error, name, None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups and notes came with Python 3.11")
def test_groups_and_notes_come_back() -> None:
    group = vars(builtins)["ExceptionGroup"]("all", [ShopError(code=1), ValueError(2)])
    group.add_note("look here")
    again = same(group)
    assert [str(error) for error in again.exceptions] == ["failed with 1", "2"]
    assert again.__notes__ == ["look here"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        threading.Lock(),
        lambda: 1,
        iter([]),
        Order,
        type("Local", (Plain,), {})("x"),
        Box(threading.Lock()),
        Plain(threading.Lock()),  # type: ignore[arg-type]
        defaultdict(lambda: 1),
        KeyboardInterrupt(),
        pydantic.SecretStr("hush"),
        sys,
        memoryview(b"x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_plain_form_is_refused_while_recording(value: Any) -> None:
    with pytest.raises(Unrecordable, match="register_type"):
        check_round_trip(encode({"deep": [value]}), types=TYPES)


def test_the_refusal_names_place_type_and_remedy() -> None:
    with pytest.raises(Unrecordable) as info:
        encode({"rows": [1, Box(threading.Lock())]})
    assert str(info.value).startswith("$.rows[1].content: _thread:lock has no plain form; return plain data, or")


def test_cycles_are_refused_and_shared_parts_are_not() -> None:
    knot: list[Any] = []
    knot.append({"again": knot})
    with pytest.raises(Unrecordable, match="contains itself"):
        encode(knot)
    shared = [1]
    assert encode([shared, shared]) == [[1], [1]]
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(Unrecordable, match="nested deeper"):
        encode(deep)


@dataclass
class Context:
    client: Any
    user: str


class Client:
    key = "secret"


def test_arguments_mark_what_has_no_plain_form() -> None:
    knot: list[Any] = []
    knot.append(knot)
    plain = encode(
        {"ctx": Context(Client(), "ann"), "who": Context(1, "bob"), "fn": len, "all": [Client(), 2], "knot": knot},
        opaque=True,
    )
    here = __name__
    assert plain == {
        "ctx": {
            "$object": {"type": f"{here}:Context", "fields": {"client": {"$opaque": f"{here}:Client"}, "user": "ann"}}
        },
        "who": {"$object": {"type": f"{here}:Context", "fields": {"client": 1, "user": "bob"}}},
        "fn": {"$object": {"type": "builtins:builtin_function_or_method", "fields": {"name": "builtins:len"}}},
        "all": [{"$opaque": f"{here}:Client"}, 2],
        "knot": [{"$opaque": "builtins:list"}],
    }
    with pytest.raises(CassetteBroken, match="no plain form when it was recorded"):
        decode(plain["all"], types=TYPES)


class Basket:
    """Data of a plain class: public attributes, however they are stored."""

    __slots__ = ("__dict__", "owner")

    def __init__(self, owner: str, **more: Any) -> None:
        self.owner = owner
        self.__dict__.update(more)

    @property
    def total(self) -> int:
        raise AssertionError("an argument's property was read")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"an argument was asked for {name}")

    def __repr__(self) -> str:
        raise AssertionError("an argument was asked for its repr")

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("an argument was compared")


@dataclass
class Half:
    name: str
    hits: int = field(default=0, compare=False)


class Holder(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    order: str
    lock: Any = None


def made(value: int) -> Any:
    return Enum("Made", {"RED": value}, module=__name__)


def shout() -> None: ...


def whisper() -> None: ...


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (Basket, "ann", "bob"),
        (lambda x: Basket("ann", lines=[Basket(x)]), "tea", "milk"),
        (lambda x: Context(threading.Lock(), x), "ann", "bob"),
        (lambda x: Holder(order=x, lock=threading.Lock()), "1", "2"),
        (lambda x: types.SimpleNamespace(order=x, lock=threading.Lock()), 1, 2),
        (lambda x: types.MappingProxyType({"order": x}), 1, 2),
        (lambda x: {"order": x}.values(), 1, 2),
        (lambda x: {x: 1}.keys(), "a", "b"),
        (lambda x: {"order": x}.items(), 1, 2),
        (lambda x: deque([x, threading.Lock()]), 1, 2),
        (lambda x: array.array(x, [1]), "i", "l"),
        (lambda x: array.array("i", [x]), 1, 2),
        (lambda x: memoryview(x), b"a", b"b"),
        (io.BytesIO, b"a", b"b"),
        (io.StringIO, "a", "b"),
        (re.compile, "a", "b"),
        (lambda x: re.compile("a", x), 0, re.IGNORECASE),
        (lambda x: functools.partial(print, x), 1, 2),
        (lambda x: functools.partial(x), shout, whisper),
        (lambda x: x, shout, whisper),
        (lambda x: x, int, float),
        (lambda x: x, len, abs),
        (lambda x: x.append, [1], [2]),
        (lambda x: Teller(x, 1).greet, "ann", "bob"),
        (lambda x: x, json, sys),
        (lambda x: made(x)["RED"], 1, 2),
        (lambda x: ShopError(code=x), 1, 2),
    ],
)
def test_arguments_show_what_tells_them_apart(make: Any, one: Any, other: Any) -> None:
    plain = encode([make(one)], opaque=True)
    assert canonical(plain) == canonical(encode([make(one)], opaque=True))
    assert canonical(plain) != canonical(encode([make(other)], opaque=True))
    assert " at 0x" not in str(plain)


class Closeable:
    def __init__(self, count: int) -> None:
        self.count = count

    def close(self) -> None: ...


def closed_stream(content: bytes) -> io.BytesIO:
    stream = io.BytesIO(content)
    stream.close()
    return stream


def moved(content: bytes, position: int) -> io.BytesIO:
    stream = io.BytesIO(content)
    stream.seek(position)
    return stream


class Spying(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise AssertionError("a mapping behind a proxy was read")

    def __iter__(self) -> Any:
        raise AssertionError("a mapping behind a proxy was read")

    def __len__(self) -> int:
        raise AssertionError("a mapping behind a proxy was read")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Closeable(1), Closeable(2)),
        (iter([1]), iter([2])),
        ((n for n in [1]), (n for n in [2])),
        (pydantic.SecretStr("a"), pydantic.SecretStr("b")),
        ([Basket("a", _cache={"x": 1})], [Basket("a", _cache={})]),
        (Half("a", hits=1), Half("a", hits=2)),
        (closed_stream(b"a"), closed_stream(b"b")),
        (moved(b"ab", 0), moved(b"ab", 2)),
        (logging.getLogger("a"), logging.getLogger("b")),
        (types.MappingProxyType(Spying()), types.MappingProxyType(Spying())),
        (Box([Client(), dt.datetime(2026, 1, 1)]), Box([Client(), dt.datetime(2026, 1, 2)])),
        (Context([Client()], str(uuid.UUID(int=1))), Context([Client()], str(uuid.UUID(int=2)))),
        (types.SimpleNamespace(a=Client(), b=uuid.UUID(int=1)), types.SimpleNamespace(a=Client(), b=uuid.UUID(int=2))),
    ],
)
def test_arguments_do_not_show_what_differs_between_runs(one: Any, other: Any) -> None:
    assert canonical(encode([one], opaque=True)) == canonical(encode([other], opaque=True))


class Proxy:
    """Whatever is asked of an instance fails, even its class."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(f"an argument was asked for {name}")


class Silent(type):
    def __getattribute__(cls, name: str) -> Any:
        raise ZeroDivisionError(name)


def silenced() -> Any:
    made: Any = Silent("Silenced", (), {})
    return object.__new__(made)


@pytest.mark.parametrize("make", [Proxy, silenced])
def test_arguments_that_answer_nothing_are_marked(make: Any) -> None:
    for value in (make(), Receiver(make())):
        assert set(encode(value, opaque=True)) == {"$opaque"}


def test_times_and_uuids_count_outside_of_contexts() -> None:
    for one, other in ((dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 2)), (uuid.UUID(int=1), uuid.UUID(int=2))):
        plain = encode([Client(), Box(one)], opaque=True)
        assert canonical(plain) != canonical(encode([Client(), Box(other)], opaque=True))


def test_objects_that_lead_in_circles_or_to_many_are_written_with_an_end() -> None:
    order = Basket("ann")
    order.customer = Basket("bob", orders=[order])  # type: ignore[attr-defined]
    assert encode(order, opaque=True)["$object"]["fields"]["customer"]["$object"]["fields"]["orders"] == [
        {"$opaque": f"{__name__}:Basket"}
    ]
    wide = Basket("leaf")
    for _ in range(40):
        wide = Basket("node", left=wide, right=wide)
    assert str(encode(wide, opaque=True)).count("$object") <= MAX_OBJECTS


class Teller:
    """Its parameters: one that lasts, one that it changes, one that others change in place, one that it hides."""

    def __init__(self, owner: str, balance: int, log: Any = (), region: str = "eu", api_key: str = "") -> None:
        self.owner = owner
        self.balance = balance
        self.log = log
        self._region = region
        self.api_key = api_key
        self.made = object()

    def greet(self) -> str:
        return self.owner

    def pay(self, amount: int) -> None:
        def later() -> None:
            self.balance -= amount

        later()


@dataclass
class Desk:
    name: str
    limit: int = 5
    seen: list[str] = field(default_factory=list)
    day: str = field(default_factory=lambda: "monday")
    base_url: str = ""
    home: str = "x"
    where: str = "/tmp/x"


class Station(pydantic.BaseModel):
    name: str
    number: int = 0

    def count(self) -> None:
        self.number += 1


@pytest.mark.parametrize(
    ("receiver", "shown"),
    [
        (Teller("ann", 5, [1], api_key="sk"), {"owner": "ann", "_region": "eu"}),
        (Desk("a"), {"name": "a", "limit": 5}),
        (Station(name="a"), {"name": "a"}),
        (Tag("a"), {"name": "a"}),
    ],
)
def test_receivers_show_who_they_are(receiver: Any, shown: dict[str, Any]) -> None:
    plain = encode(Receiver(receiver), opaque=True)
    assert plain == {"$object": {"type": f"{__name__}:{type(receiver).__name__}", "fields": shown}}


def test_receivers_without_a_name_or_that_are_values() -> None:
    assert encode(Receiver(Closeable([])), opaque=True) == {"$opaque": f"{__name__}:Closeable"}  # type: ignore[arg-type]
    assert encode(Receiver(threading.Lock()), opaque=True) == encode(threading.Lock(), opaque=True)
    for value in (Color.RED, Money("5"), Point(1, 2), Teller):
        assert encode(Receiver(value), opaque=True) == encode(value, opaque=True)


def test_arguments_look_the_same_in_every_process() -> None:
    code = (
        f"import sys, re, functools, types; sys.path[:0] = {sys.path!r}; import test_values as t;"
        "from pytest_spanchain._values import encode, Receiver;"
        "value = [t.Basket('a', names=set('abcdef'), lock=object()), t.shout, functools.partial(print, 1),"
        " re.compile('a'), t.Teller('ann', 1).pay, types.SimpleNamespace(a={t.shout, t.whisper}), "
        " Receiver(t.Desk('a'))];"
        "print(encode(value, opaque=True))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_a_class_that_nobody_vouches_for_is_named() -> None:
    with pytest.raises(UsageError, match=r"\$\[0\]: .*shop\.models:Order.*spanchain\.register_type\(Order\)"):
        decode([{"$object": {"type": "shop.models:Order", "fields": {}}}], types=TYPES)


def test_nothing_named_by_the_file_is_imported() -> None:
    assert "antigravity" not in sys.modules
    for name in ("antigravity:fly", "os:system", "builtins:eval", "builtins:KeyboardInterrupt", "subprocess:Popen"):
        for tag in ("$object", "$enum", "$exception"):
            with pytest.raises(UsageError, match="register_type"):
                decode({tag: {"type": name, "args": [], "fields": {}}}, types={})
    assert "antigravity" not in sys.modules


HERE = __name__


@pytest.mark.parametrize(
    "plain",
    [
        {"$new": 1},
        {"$bytes": "***"},
        {"$bytes": 1},
        {"$float": "1.5"},
        {"$str": "YQ=="},
        {"$esc": {"a": 1}},
        {"$esc": {"$a": 1, "$b": 2}},
        {"$datetime": "yesterday"},
        {"$tuple": 3},
        {"$map": [[1]]},
        {"$map": [[1, 2], [1, 3]]},
        {"$map": [[[1], 2]]},
        {"$deque": {"items": []}},
        {"$defaultdict": {"factory": "eval", "items": []}},
        {"$zoneinfo": "../../etc/passwd"},
        {"$enum": {"type": f"{HERE}:Color", "name": "BLUE"}},
        {"$enum": {"type": f"{HERE}:Item", "name": "RED"}},
        {"$enum": {"type": f"{HERE}:Right", "value": 64}},
        {"$object": {"type": f"{HERE}:Color", "fields": {}}},
        {"$object": {"type": f"{HERE}:Item", "fields": {"sku": "a"}}},
        {"$object": {"type": f"{HERE}:Item", "fields": {"sku": "a", "price": 1}, "more": 1}},
        {"$object": {"type": f"{HERE}:Plain", "fields": {"__class__": 1}}},
        {"$object": {"type": f"{HERE}:Plain", "fields": {"__dict__": {"a": 1}}}},
        {"$object": {"type": f"{HERE}:Slotted", "fields": {"other": 1}}},
        {"$object": {"type": f"{HERE}:Point", "fields": {"x": 1}}},
        {"$object": {"type": f"{HERE}:Model", "fields": {"nam": 1}}},
        {"$object": {"type": f"{HERE}:Money", "base": [1]}},
        {"$object": {"type": f"{HERE}:Money", "fields": {}}},
        {"$object": {"type": f"{HERE}:ShopError", "args": []}},
        {"$exception": {"type": f"{HERE}:Plain", "args": []}},
        {"$exception": {"type": "builtins:UnicodeDecodeError", "args": [1]}},
        {"$object": {}},
        {"$object": []},
    ],
    ids=json.dumps,
)
def test_forged_tags_are_broken(plain: Any) -> None:
    with pytest.raises(CassetteBroken) as info:
        decode({"at": plain}, types=TYPES)
    assert info.value.field is not None
    assert info.value.field.startswith("$.at")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_trust, "_registry", {})


def test_a_registered_class_needs_no_annotation(registry: None) -> None:
    @register_type
    @dataclass
    class Local:
        id: int

    assert decode(encode(Local(3)), types={}) == Local(3)


def test_a_converter_makes_a_foreign_class_recordable(registry: None) -> None:
    register_type(memoryview, to_plain=bytes, from_plain=memoryview)
    plain = encode(memoryview(b"ab"))
    check_round_trip(plain, types={})
    assert decode(plain, types={}) == memoryview(b"ab")


def test_wrong_registrations(registry: None) -> None:
    with pytest.raises(UsageError, match="takes a class"):
        register_type(3)  # type: ignore[type-var]
    with pytest.raises(UsageError, match="come together"):
        register_type(Plain, to_plain=str)


Alias = typing.NewType("Alias", Plain)


def test_trust_reaches_through_annotations() -> None:
    # Classes that no module global names, so that only the annotations can lead to them.
    leaf: Any = dataclass(type("Leaf", (), {"__annotations__": {"n": int}, "__module__": "far.away"}))
    node: Any = type(
        "Node", (pydantic.BaseModel,), {"__annotations__": {"leaf": leaf | None}, "__module__": "far.away"}
    )

    def fn(a: Any, broken: Any) -> Any: ...

    fn.__annotations__ = {
        "return": dict[str, list[node | int]],
        "broken": "does.not.exist",
        "a": Callable[[leaf], Alias],
    }
    found = trusted_types(fn)
    assert found["far.away:Leaf"] is leaf
    assert found["far.away:Node"] is node
    assert found[f"{HERE}:Plain"] is Plain
    assert "far.away:Other" not in found


def test_trust_reaches_what_a_closure_names() -> None:
    class Local(Plain): ...

    def fn() -> Local:
        return Local("x")

    found = trusted_types(fn)
    assert found[f"{HERE}:{Local.__qualname__}"] is Local
    assert decode(encode(fn()), types=found).name == "x"


def test_a_converter_that_loses_something_fails_the_recording(registry: None) -> None:
    register_type(Plain, to_plain=lambda plain: plain.name, from_plain=lambda name: Plain(name.strip()))
    check_round_trip(encode(Plain("x")), types={})
    with pytest.raises(Unrecordable, match="does not survive"):
        check_round_trip(encode(Plain(" x")), types={})
