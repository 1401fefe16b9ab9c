"""The canonical text: equal to RFC 8785 where that is enough, injective where it is not."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

import builders
from pytest_spanchain._canonical import MAX_SAFE_INTEGER, canonical, digest, digest_of_plain, value_of
from pytest_spanchain.errors import Unrecordable

SAFE = st.integers(min_value=-MAX_SAFE_INTEGER, max_value=MAX_SAFE_INTEGER)
UNLIFTED = st.recursive(
    st.one_of(st.none(), st.booleans(), SAFE, builders.texts()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(builders.texts().filter(lambda key: not key.startswith("$")), inner, max_size=5),
    ),
    max_leaves=20,
)


@given(UNLIFTED)
def test_is_rfc_8785_where_nothing_is_lifted(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


def test_orders_keys_by_utf_16() -> None:
    # U+10000 is a surrogate pair in UTF-16, and so sorts before U+FFFF there.
    assert canonical({"\uffff": 1, "\U00010000": 2}) == '{"\U00010000":2,"\uffff":1}'.encode()


LOOKALIKES: tuple[Any, ...] = (
    *(
        None,
        "null",
        "nil",
        "",
        0,
        False,
        "0",
        0.0,
        -0.0,
        "-0.0",
        1,
        True,
        1.0,
        "1",
        "1.0",
        2**53,
        2**53 + 1,
        float(2**53),
    ),
    *({"$float": "1.0"}, {"$int": str(2**53)}, {"$esc": {"$float": "1.0"}}, {"$esc": 1.0}, {"$": 1}, {"$bytes": ""}),
    *([], {}, [[]], [{}], {"a": None}, {"a": 1}, {"a": 1.0}, {"a": {"b": 1}}, {"a.b": 1}, ["a", "b"], ["a:b"], ["ab"]),
    *("e\u0301", "\xe9", "A", "a", "a ", " a"),
)


def test_lookalikes_stay_apart() -> None:
    for one, other in itertools.combinations(LOOKALIKES, 2):
        assert canonical(one) != canonical(other), (one, other)


@given(builders.plain_values(max_leaves=4), builders.plain_values(max_leaves=4))
def test_is_injective(one: Any, other: Any) -> None:
    # repr tells apart every type and sign of zero; the order of keys is the one thing that it must not see.
    assert (canonical(one) == canonical(other)) == (repr(_ordered(one)) == repr(_ordered(other)))


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def test_a_hash_of_one_purpose_serves_no_other() -> None:
    assert digest("spanchain/header/v1", {}) != digest("spanchain/entry/v1", {})


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        b"bytes",
        (1,),
        {1},
        pytest.param(object(), id="object"),
    ],
    ids=repr,
)
def test_what_has_no_json_form_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(Unrecordable, match=r"^\$\.here\[1\]"):
        canonical({"here": [0, value]})


@given(builders.plain_values())
def test_the_digest_of_what_is_known_to_be_plain_is_the_same(value: Any) -> None:
    assert digest_of_plain("test/v1", value) == digest("test/v1", value)


@pytest.mark.parametrize(
    "value", [1e16, 5e-324, -0.0, 2**53, {"$int": "1"}, {"\ue000": 1, "\U0001f600": 2}, [1.0, 1, True]]
)
def test_and_where_sorted_json_says_it_otherwise(value: Any) -> None:
    assert digest_of_plain("test/v1", value) == digest("test/v1", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"a": {1}}, [object()]])
def test_what_is_plainly_not_plain_is_refused_there_too(value: Any) -> None:
    with pytest.raises(Unrecordable):
        digest_of_plain("test/v1", value)


TAGS = st.recursive(
    st.sampled_from([1.5, -0.0, 1e22, 2**60, 1, True, None, "1.0", "1, ", "}", '"}', '{"$float":"1.0"}', "\\"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["$float", "$int", "$esc", ":", "b", '"}']), inner, max_size=3),
    ),
    max_leaves=8,
)


def exactly(value: Any) -> str:
    """What tells values apart that are equal only by ``==``."""
    if isinstance(value, dict):
        return repr({key: exactly(value[key]) for key in sorted(value)})
    return repr([exactly(item) for item in value]) if isinstance(value, list) else repr(value)


@settings(max_examples=1000)
@given(TAGS)
@example({"a": {"$float": "1, ", ":": ""}})
@example({"$float": "1.0", "unit": "x"})
def test_the_value_of_a_canonical_text_is_the_one_it_was_made_of(value: Any) -> None:
    assert exactly(value_of(canonical(value).decode())) == exactly(value)
