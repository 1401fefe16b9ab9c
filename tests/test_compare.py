"""The comparator: every deviation type, alignment, concurrency, blame, and its worst cases."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_spanchain._canonical import digest
from pytest_spanchain._compare import compare
from pytest_spanchain._compare.align import groups
from pytest_spanchain._compare.fields import MOST_CHANGES, field_changes
from pytest_spanchain._compare.likeness import Ignored, Printer, same
from pytest_spanchain._compare.sequence import common, longest_rise
from pytest_spanchain._model import MISSING, Deviation, DeviationKind, Exchange, Span, SpanTree
from trees import Spec, Together, agent, build, chat, together, tool

K = DeviationKind


def judge(golden: Spec, live: Spec, **more: Any) -> tuple[Deviation, ...]:
    """Compare two specs; ids and times of the live tree are its own."""
    return compare(build(golden), build(live, ids=70_000, start_ns=5), **more)


def causes(deviations: tuple[Deviation, ...]) -> list[tuple[str, str]]:
    return [(d.kind.value, d.path[-1]) for d in deviations if not d.consequence]


def run(*below: Spec | Together) -> Spec:
    return agent("test_it", *below)


# --- the deviation types -------------------------------------------------------------------------------------------


def test_equal_trees_do_not_deviate() -> None:
    spec = run(chat("a"), agent("invoke_agent x", tool("t", {"n": 1}), together(tool("u"), tool("v"))))
    assert judge(spec, spec) == ()
    assert compare(SpanTree(), SpanTree()) == ()


def test_the_name_of_the_run_is_never_blamed() -> None:
    assert judge(agent("test_a", chat("x")), agent("test_b", chat("x"))) == ()
    assert causes(judge(agent("test_a", chat("x")), agent("test_b", chat("y")))) == [("input_changed", "chat gpt-4o")]


def test_input_changed_names_the_field() -> None:
    (deviation,) = judge(run(chat("one"), tool("t")), run(chat("two"), tool("t")))
    assert deviation.kind is K.INPUT_CHANGED
    assert deviation.deviation_point
    assert deviation.failing
    assert deviation.path == ("test_it", "chat gpt-4o")
    (change,) = deviation.changes
    assert (change.path, change.golden, change.live) == ("request.body.json.messages[0].content", "one", "two")


def test_output_changed() -> None:
    (deviation,) = judge(run(tool("t", result={"sum": 1})), run(tool("t", result={"sum": 2})))
    assert (deviation.kind, deviation.changes[0].path) == (K.OUTPUT_CHANGED, "response.result.sum")


@pytest.mark.parametrize(
    ("golden", "live"), [(1, True), (1, 1.0), (0, False), ([1], [True]), ({"a": [1]}, {"a": [1.0]})]
)
def test_values_of_another_type_are_not_equal(golden: Any, live: Any) -> None:
    (deviation,) = judge(run(tool("t", {"n": golden})), run(tool("t", {"n": live})))
    assert deviation.kind is K.INPUT_CHANGED
    assert deviation.changes


def test_key_order_layout_and_chunks_are_no_content() -> None:
    def streamed(chunks: list[int], layout: str, body: dict[str, Any]) -> Spec:
        request = {"method": "POST", "url": "u", "headers": {}, "body": {"json": body}}
        streamed = {"status": 200, "headers": {}, "body": {"text": "abc", "chunks": chunks}, "end": "complete"}
        plain = {**streamed, "body": {"json": body, "layout": layout}}
        calls = [Spec("chat m", exchange=Exchange("model", request, response)) for response in (streamed, plain)]
        return agent("a", *calls)

    golden = run(streamed([1, 2], "compact", {"a": 1, "b": 2}), tool("t"))
    assert judge(golden, run(streamed([3], "spaced", {"b": 2, "a": 1}), tool("t"))) == ()
    # Also on the long way round, once something else differs.
    found = judge(golden, run(streamed([3], "spaced", {"b": 2, "a": 1}), tool("t", {"x": 1})))
    assert causes(found) == [("input_changed", "execute_tool t")]


def test_status_changed_by_code_and_by_message() -> None:
    (by_code,) = judge(run(tool("t")), run(tool("t", status="error", status_message="boom")))
    assert by_code.kind is K.STATUS_CHANGED
    assert [c.path for c in by_code.changes] == ["status", "status_message"]
    failed = tool("t", status="error", status_message="boom")
    assert causes(judge(run(failed), run(failed.but(status_message="bang")))) == [("status_changed", "execute_tool t")]


def test_attributes_go_by_their_role() -> None:
    def with_attributes(**attributes: Any) -> Spec:
        return run(agent("invoke_agent x", attributes={k.replace("__", "."): v for k, v in attributes.items()}))

    asked = judge(with_attributes(gen_ai__request__model="a"), with_attributes(gen_ai__request__model="b"))
    assert [(d.kind, d.changes[0].path) for d in asked] == [(K.INPUT_CHANGED, "attributes.gen_ai.request.model")]
    answered = judge(with_attributes(output__value="a"), with_attributes(output__value="b"))
    assert [d.kind for d in answered] == [K.OUTPUT_CHANGED]
    (told,) = judge(with_attributes(step=1), with_attributes())
    assert (told.kind, told.changes[0].live) == (K.ATTRIBUTE_CHANGED, MISSING)


def test_span_kind_and_events_are_attributes() -> None:
    event = {"name": "picked", "offset_ns": 5, "attributes": {"what": 1}}
    golden = run(agent("a", events=(event,)))
    assert judge(golden, run(agent("a", events=({**event, "offset_ns": 99},)))) == ()
    (deviation,) = judge(golden, run(agent("a", events=({**event, "attributes": {"what": 2}},))))
    assert (deviation.kind, deviation.changes[0].path) == (K.ATTRIBUTE_CHANGED, "events[0].attributes.what")
    assert [d.kind for d in judge(golden, run(agent("a", events=(event,), span_kind="client")))] == [
        K.ATTRIBUTE_CHANGED
    ]


def test_ignored_attributes_and_their_prefixes() -> None:
    golden = run(agent("a", attributes={"thread.id": 1, "code.lineno": 3, "mine.x": 1}))
    live = run(agent("a", attributes={"thread.id": 2, "mine.x": 2}))
    assert [c.path for d in judge(golden, live) for c in d.changes] == ["attributes.mine.x"]
    assert judge(golden, live, ignored_attributes=frozenset({"thread.id", "code.*", "mine.*"})) == ()
    assert judge(golden, live, ignored_attributes=frozenset({"thread.id", "code.lineno"})) != ()


def test_durations_only_when_asked_and_never_failing() -> None:
    golden, live = run(tool("t", ms=100), tool("u")), run(tool("t", ms=200), tool("u", ms=11))
    assert judge(golden, live) == ()
    found = judge(golden, live, durations=True)
    assert [(d.kind.value, d.path[-1]) for d in found] == [
        ("duration_changed", "execute_tool t"),
        ("duration_changed", "test_it"),
    ]
    assert not any(d.failing or d.deviation_point or d.consequence for d in found)
    assert found[0].changes[0].golden == 100_000_000


def test_added_and_removed_subtrees_count_once() -> None:
    more = agent("invoke_agent y", chat("q"), tool("t"))
    (added,) = judge(run(chat("a")), run(chat("a"), more))
    assert (added.kind, added.golden, added.path[-1], added.note) == (
        K.SPAN_ADDED,
        None,
        "invoke_agent y",
        "and 2 spans below it",
    )
    (removed,) = judge(run(chat("a"), more), run(chat("a")))
    assert (removed.kind, removed.live, removed.deviation_point) == (K.SPAN_REMOVED, None, True)


def test_one_side_empty() -> None:
    tree = build(run(chat("a")))
    assert [d.kind for d in compare(SpanTree(), tree)] == [K.SPAN_ADDED]
    assert [d.kind for d in compare(tree, SpanTree())] == [K.SPAN_REMOVED]


def test_a_span_with_an_unknown_parent_is_still_compared() -> None:
    tree = build(run(chat("a")))
    stray = Span("f" * 16, "e" * 16, "stray", start_ns=1)
    assert [d.kind for d in compare(tree, SpanTree((*tree.spans, stray)))] == [K.SPAN_ADDED]


# --- alignment of siblings -----------------------------------------------------------------------------------------


def test_an_inserted_twin_does_not_blame_its_neighbours() -> None:
    golden = run(chat("a"), chat("b"), chat("c"))
    for place in range(4):
        below = list(golden.below)
        below.insert(place, chat("new"))
        (deviation,) = judge(golden, golden.but(below=tuple(below)))
        assert deviation.kind is K.SPAN_ADDED
        assert deviation.live is not None
        assert deviation.live.exchange is not None
        assert "new" in str(deviation.live.exchange.request)


def test_an_equal_twin_is_one_addition() -> None:
    assert causes(judge(run(chat("a"), chat("a")), run(chat("a"), chat("a"), chat("a")))) == [
        ("span_added", "chat gpt-4o")
    ]


def test_a_twin_without_requests_is_known_by_what_is_below() -> None:
    one, two, new = (agent("step", tool("t", {"n": n})) for n in (1, 2, 3))
    (deviation,) = judge(run(one, two), run(one, new, two))
    assert deviation.kind is K.SPAN_ADDED
    assert deviation.note == "and 1 span below it"


def test_changed_spans_pair_though_one_is_inserted_among_them() -> None:
    golden = run(chat("alpha alpha alpha"), chat("beta beta beta"))
    live = run(chat("alpha alpha alphA"), chat("quite another thing"), chat("beta beta betA"))
    assert sorted(d.kind.value for d in judge(golden, live)) == ["input_changed", "input_changed", "span_added"]
    added = next(d for d in judge(golden, live) if d.kind is K.SPAN_ADDED)
    assert "quite" in str(added.live)


def test_swap_is_one_move() -> None:
    calls = [tool(name) for name in "abcd"]
    (deviation,) = judge(run(*calls), run(calls[0], calls[2], calls[1], calls[3]))
    assert deviation.kind is K.SPAN_MOVED
    assert deviation.path[-1] in ("execute_tool b", "execute_tool c")
    (rotated,) = judge(run(*calls), run(calls[3], *calls[:3]))
    assert (rotated.path[-1], rotated.note) == ("execute_tool d", "place 4 among its siblings, now 1")


def test_what_moved_is_compared_too() -> None:
    golden = run(tool("a", result=1), tool("b"), tool("c"))
    found = judge(golden, run(tool("b"), tool("c"), tool("a", result=2)))
    assert [d.kind for d in found] == [K.SPAN_MOVED, K.OUTPUT_CHANGED]


def test_another_model_is_a_changed_input() -> None:
    (deviation,) = judge(run(chat("a"), tool("t")), run(chat("a", model="gpt-4o-mini"), tool("t")))
    assert (deviation.kind, [c.path for c in deviation.changes]) == (K.INPUT_CHANGED, ["request.body.json.model"])


def test_a_renamed_step() -> None:
    golden = run(agent("invoke_agent x", chat("a"), tool("t")), tool("same", {"n": 1}))
    (agent_renamed,) = judge(golden, run(agent("invoke_agent y", chat("a"), tool("t")), tool("same", {"n": 1})))
    assert (agent_renamed.kind, agent_renamed.changes[0].path) == (K.INPUT_CHANGED, "name")
    (tool_renamed,) = judge(golden, run(golden.below[0], tool("other", {"n": 1})))
    assert (tool_renamed.kind, tool_renamed.changes[0].live) == (K.INPUT_CHANGED, "execute_tool other")


def test_another_tool_is_another_call() -> None:
    found = judge(run(tool("a", {"n": 1})), run(tool("b", {"q": 2})))
    assert [(d.kind, d.consequence) for d in found] == [(K.SPAN_REMOVED, False), (K.SPAN_ADDED, True)]


def test_kept_names_are_worth_more_than_new_ones() -> None:
    golden = run(chat("x", model="a"), chat("y", model="b"))
    found = judge(golden, run(chat("y2", model="b"), chat("z", model="c")))
    assert [(d.kind.value, d.path[-1]) for d in found] == [
        ("span_removed", "chat a"),
        ("input_changed", "chat b"),
        ("span_added", "chat c"),
    ]


# --- as strict as matching -----------------------------------------------------------------------------------------

NEARLY = st.recursive(
    st.sampled_from([0, 0.0, -0.0, False, 1, 1.0, True, "", "0", None, 2**60, float(2**60)]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@given(NEARLY, NEARLY)
@settings(max_examples=300)
def test_requests_are_the_same_if_they_match(one: Any, other: Any) -> None:
    """Otherwise a request that was never recorded could borrow an answer and pass."""
    requests = [{"arguments": {"x": value}} for value in (one, other)]
    match = digest("d", requests[0]) == digest("d", requests[1])
    assert same(*requests) == match
    assert (judge(run(tool("t", {"x": one})), run(tool("t", {"x": other}))) == ()) == match
    # On the long way round, too.
    found = judge(run(tool("t", {"x": one}), tool("u", {"n": 1})), run(tool("t", {"x": other}), tool("u", {"n": 2})))
    assert (len(found) == 1) == match


# --- concurrency ---------------------------------------------------------------------------------------------------


def test_groups_are_maximal_runs_that_overlap() -> None:
    tree = build(run(tool("a"), together(tool("b"), tool("c")), tool("d"), together(tool("e"), tool("f"), tool("g"))))
    root = Printer(Ignored()).members(tree)
    assert root is not None
    assert groups(root.children) == [0, 1, 1, 2, 3, 3, 3]


def test_concurrent_order_never_matters() -> None:
    a, b, c = agent("a", chat("1"), tool("t")), chat("2"), tool("u")
    assert judge(run(together(a, b, c)), run(c, a, b)) == ()
    assert causes(judge(run(a, b, c), run(c, a, b))) == [("span_moved", "execute_tool u")]


def test_concurrent_twins_with_other_answers_are_told_apart() -> None:
    one, two = tool("poll", result=1), tool("poll", result=2)
    assert judge(run(together(one, two)), run(two, one)) == ()
    assert judge(run(together(one, two), chat("x")), run(two, one, chat("y")))[0].kind is K.INPUT_CHANGED


def test_a_change_in_a_shuffled_group_pairs_with_its_counterpart() -> None:
    golden = run(tool("before"), together(chat("alpha"), chat("beta"), tool("t", {"city": "Oslo"})), tool("after"))
    live = run(tool("before"), tool("t", {"city": "Rome"}), chat("betA"), chat("alpha"), tool("after"))
    found = judge(golden, live)
    assert [(d.kind, d.changes[0].golden, d.changes[0].live) for d in found] == [
        (K.INPUT_CHANGED, "beta", "betA"),
        (K.INPUT_CHANGED, "Oslo", "Rome"),
    ]


def test_like_calls_of_neighbouring_groups_are_not_taken_for_each_other() -> None:
    def calls(names: str) -> list[Spec]:
        return [tool(name) for name in names]

    golden = run(together(*calls("ab")), together(*calls("ta")))
    assert judge(golden, run(*calls("baat"))) == ()
    golden = run(*calls("a"), together(*calls("ba")), together(*calls("cab")), together(*calls("bcc")))
    assert causes(judge(golden, run(*calls("ababbcacbc")))) == [("span_added", "execute_tool b")]


def test_equal_calls_that_moved_keep_their_answers() -> None:
    golden = run(tool("poll", result=1), tool("x"), tool("poll", result=2), tool("y"), tool("z"))
    found = judge(golden, run(tool("x"), tool("y"), tool("z"), tool("poll", result=2)))
    assert [(d.kind.value, d.path[-1]) for d in found] == [
        ("span_removed", "execute_tool poll"),
        ("span_moved", "execute_tool poll"),
    ]


def test_what_moved_is_known_though_something_below_it_changed() -> None:
    def ordered(*below: Spec) -> Spec:
        return tool("a", {"n": 1}, below=below)

    found = judge(run(ordered(tool("u")), tool("b"), tool("c")), run(tool("b"), tool("c"), ordered(tool("v"))))
    assert [(d.kind.value, d.consequence) for d in found] == [("span_moved", False), ("input_changed", True)]
    inner = [tool("t1"), tool("t2")]
    shuffled = judge(
        run(agent("a", together(*inner)), tool("b"), tool("c")), run(tool("b"), tool("c"), agent("a", *inner[::-1]))
    )
    assert [d.kind for d in shuffled] == [K.SPAN_MOVED]


def test_leaving_the_group_is_a_move() -> None:
    a, b, c = tool("a"), tool("b"), tool("c")
    assert causes(judge(run(together(a, b), c), run(b, c, a)))[0][0] == "span_moved"


# --- causes and consequences ---------------------------------------------------------------------------------------


def test_consequences_are_folded_under_the_first_cause() -> None:
    golden = run(agent("invoke_agent x", chat("p"), tool("t", {"n": 1}), chat("q"), attributes={"output.value": "1"}))
    live = run(agent("invoke_agent x", chat("P"), tool("t", {"n": 2}), chat("Q"), attributes={"output.value": "2"}))
    found = judge(golden, live)
    assert [(d.kind.value, d.consequence, d.deviation_point) for d in found] == [
        ("input_changed", False, True),
        ("input_changed", True, False),
        ("input_changed", True, False),
        ("output_changed", True, False),
    ]
    assert found[-1].path == ("test_it", "invoke_agent x")


def test_a_childs_error_is_the_cause_of_its_parents() -> None:
    bad: dict[str, Any] = {"status": "error", "status_message": "boom"}
    found = judge(run(agent("x", tool("t"))), run(agent("x", tool("t", **bad), **bad)))
    assert [(d.path[-1], d.consequence) for d in found] == [("execute_tool t", False), ("x", True)]


def test_each_root_branch_has_its_point() -> None:
    golden = run(chat("flow"), agent("x", chat("1")), agent("y", chat("2")), tool("end", {"n": 1}))
    live = run(chat("flOw"), agent("x", chat("1!")), agent("y", chat("2!")), tool("end", {"n": 2}))
    found = judge(golden, live)
    assert [d.deviation_point for d in found] == [True, True, True, False]
    assert [d.consequence for d in found] == [False, False, False, True]


def test_concurrent_siblings_are_independent_but_not_what_follows_them() -> None:
    golden = run(agent("x", together(chat("1"), chat("2")), chat("3")))
    found = judge(golden, run(agent("x", together(chat("1!"), chat("2!")), chat("3!"))))
    assert [(d.consequence, d.deviation_point) for d in found] == [(False, True), (False, False), (True, False)]


def test_parallel_sub_agents_are_independent_wherever_in_them_it_happens() -> None:
    def both(mark: str) -> Spec:
        one = agent("one", chat("a" + mark), ms=100)
        two = agent("two", chat("b"), chat("c" + mark), tool("t", {"m": mark}), ms=100)
        return run(agent("boss", together(one, two)))

    found = judge(both(""), both("!"))
    assert [(d.path[-1], d.consequence) for d in found] == [
        ("chat gpt-4o", False),
        ("chat gpt-4o", False),
        ("execute_tool t", True),
    ]


def test_what_was_added_at_the_same_time_is_independent_on_the_live_clock() -> None:
    golden = run(agent("x", together(chat("a"), chat("b"))))
    live = run(agent("x", together(chat("a!"), chat("b"), tool("new"))))
    assert causes(judge(golden, live)) == [("input_changed", "chat gpt-4o"), ("span_added", "execute_tool new")]
    late = run(agent("x", together(chat("a!"), chat("b")), tool("new")))
    assert causes(judge(golden, late)) == [("input_changed", "chat gpt-4o")]


def test_what_a_changed_span_does_follows_even_if_nothing_else_differs() -> None:
    asked = {"input.value": "a"}, {"input.value": "b"}
    golden = run(agent("x", chat("1"), attributes=asked[0]))
    found = judge(golden, run(agent("x", chat("2"), attributes=asked[1])))
    assert [(d.path[-1], d.consequence) for d in found] == [("x", False), ("chat gpt-4o", True)]


def test_what_comes_after_an_added_call_follows_from_it() -> None:
    found = judge(run(agent("x", chat("1"))), run(agent("x", tool("new"), chat("2"))))
    assert [(d.kind.value, d.consequence) for d in found] == [("span_added", False), ("input_changed", True)]


def test_the_end_of_a_span_is_told_in_one_order() -> None:
    golden = run(tool("t", result=1, attributes={"a": 1}))
    found = judge(golden, run(tool("t", result=2, status="error", attributes={"a": 2})))
    assert [d.kind for d in found] == [K.OUTPUT_CHANGED, K.STATUS_CHANGED, K.ATTRIBUTE_CHANGED]
    assert [d.consequence for d in found] == [False, True, True]


# --- fields --------------------------------------------------------------------------------------------------------


def paths(golden: Any, live: Any, **more: Any) -> list[str]:
    return [change.path for change in field_changes(golden, live, path="r", **more)]


def test_field_paths() -> None:
    assert paths({"a": {"b c": 1}}, {"a": {"b c": 2}}) == ['r.a["b c"]']
    assert paths([1, 2, 3], [1, 3]) == ["r[1]"]
    assert paths([{"a": 1}, {"b": 1}, 5], [{"a": 2}, {"b": 2}, 5]) == ["r[0].a", "r[1].b"]
    assert paths([0, {"a": 1}, {"b": 1}], [0, {"a": 2}, {"b": 2}]) == ["r[1].a", "r[2].b"]
    assert paths({"x": 1}, {"y": 1}) == ["r.x", "r.y"]
    assert paths([1, 2], [True, 2.0]) == ["r[0]", "r[1]"]
    assert paths({"a": {"b": 1, "c": 1}}, {"a": {"b": 2, "c": 2}}, thorough=False) == ["r.a.b", "r.a.c"]
    assert paths({"a": [1, 2]}, {"a": [2, 1]}, thorough=False) == ["r.a"]


def test_three_pairs_are_compared_to_the_leaves() -> None:
    golden, live = run(*(chat(f"{n}") for n in range(5))), run(*(chat(f"{n}!") for n in range(5)))
    found = judge(golden, live)
    assert ["content" in d.changes[0].path for d in found] == [True, True, True, False, False]
    assert all(d.changes for d in found)
    # Causes come first: of the three agents' first calls here, not of the first agents' two calls.
    golden, live = (run(*(agent(n, chat("1" + m), chat("2" + m)) for n in "xyz")) for m in ("", "!"))
    depths = ["content" in d.changes[0].path for d in judge(golden, live)]
    assert depths == [True, False, True, False, True, False]


def test_changes_are_bounded_and_it_is_said() -> None:
    golden, live = run(tool("t", {f"k{n}": 0 for n in range(99)})), run(tool("t", {f"k{n}": 1 for n in range(99)}))
    (deviation,) = judge(golden, live)
    assert len(deviation.changes) == MOST_CHANGES
    assert "more fields" in deviation.note


def test_deepdiff_is_imported_on_a_difference_only() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from trees import *; from pytest_spanchain._compare import compare\n"
        "t = build(agent('t', tool('a', {'l': [1, 2, 3]}))); assert not compare(t, t)\n"
        "assert 'deepdiff' not in sys.modules, 'imported though nothing differs'\n"
        "u = build(agent('t', tool('a', {'l': [4, 5, 6]}))); assert compare(t, u)\n"
        "assert 'deepdiff' in sys.modules, 'not asked'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, width=16) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(plain, plain)
@settings(max_examples=50, deadline=None)
def test_differing_values_always_yield_a_field(golden: Any, live: Any) -> None:
    assert same(golden, golden)
    assert same(golden, pickle.loads(pickle.dumps(golden)))
    assert bool(field_changes(golden, live, path="r")) == (not same(golden, live))
    assert bool(field_changes(golden, live, path="r", thorough=False)) or same(golden, live)


# --- sequences -----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), max_size=12), st.lists(st.integers(0, 5), max_size=12))
def test_common_is_a_longest_common_subsequence(one: list[int], other: list[int]) -> None:
    found = common(one, other)
    assert all(one[i] == other[j] for i, j in found)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(found))
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else max(table[i][j + 1], table[i + 1][j])
    assert len(found) == table[-1][-1]


def test_common_of_very_many_repeats_is_near_the_longest() -> None:
    assert len(common([1] * 1_000 + [2], [1] * 1_003 + [2])) == 1_001


@given(st.lists(st.integers(0, 6), max_size=9))
def test_longest_rise(values: list[int]) -> None:
    found = longest_rise(values)
    assert found == sorted(set(found))
    rise = [values[k] for k in found]
    assert rise == sorted(rise)
    best = [1] * len(values)
    for k, value in enumerate(values):
        best[k] = 1 + max((best[j] for j in range(k) if values[j] <= value), default=0)
    assert len(found) == max(best, default=0)


# --- properties ----------------------------------------------------------------------------------------------------


@st.composite
def flows(draw: st.DrawFn) -> Spec:
    """Agents with sequential calls, each call with a request of its own."""
    number = iter(range(1_000))

    def call() -> Spec:
        n = next(number)
        return chat(f"prompt {n}") if draw(st.booleans()) else tool(draw(st.sampled_from("abc")), {"n": n, "also": [n]})

    def calls() -> tuple[Spec, ...]:
        return tuple(call() for _ in range(draw(st.integers(1, 5))))

    agents = [agent(f"invoke_agent {k}", *calls()) for k in range(draw(st.integers(1, 3)))]
    return run(*calls(), *agents)


def sites(spec: Spec) -> list[tuple[int, int]]:
    """Places of exchanges: (child of the root or -1, child of that)."""
    found: list[tuple[int, int]] = []
    for index, child in enumerate(spec.below):
        assert isinstance(child, Spec)
        found += [(-1, index)] if child.exchange else [(index, k) for k in range(len(child.below))]
    return found


def edit(spec: Spec, site: tuple[int, int], edited: Any) -> Spec:
    """Replace the siblings list at a site by what ``edited(list, index)`` returns."""
    outer, index = site
    if outer < 0:
        return spec.but(below=tuple(edited(list(spec.below), index)))
    child = spec.below[outer]
    assert isinstance(child, Spec)
    below = list(spec.below)
    below[outer] = child.but(below=tuple(edited(list(child.below), index)))
    return spec.but(below=tuple(below))


def at(spec: Spec, site: tuple[int, int]) -> Spec:
    outer, index = site
    holder = spec if outer < 0 else spec.below[outer]
    assert isinstance(holder, Spec)
    found = holder.below[index]
    assert isinstance(found, Spec)
    return found


def touched(call: Spec) -> Spec:
    """The call with one leaf of its request changed."""
    assert call.exchange is not None
    request: Any = pickle.loads(pickle.dumps(call.exchange.request))
    if call.exchange.kind == "tool":
        request["arguments"]["n"] = -1
    else:
        request["body"]["json"]["messages"][0]["content"] += " please"
    return call.but(exchange=replace(call.exchange, request=request))


@given(flows())
@settings(max_examples=30)
def test_no_tree_deviates_from_itself_nor_by_ids_and_times(spec: Spec) -> None:
    golden = build(spec)
    assert compare(golden, golden) == ()
    assert compare(golden, build(spec, ids=900, start_ns=1)) == ()
    slower = SpanTree(tuple(replace(span, duration_ns=span.duration_ns * 7) for span in golden))
    assert compare(golden, slower) == ()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_mutation_is_one_cause_that_names_its_span(data: st.DataObject) -> None:
    spec = data.draw(flows())
    site = data.draw(st.sampled_from(sites(spec)))
    call = at(spec, site)
    how = data.draw(st.sampled_from(["change", "drop", "twin", "rename", "answer"]))
    renamed = call.but(name=call.name.split(" ", maxsplit=1)[0] + " renamed")
    assert call.exchange is not None
    answered = call.but(exchange=replace(call.exchange, response={"result": "other"}))
    new: dict[str, list[Spec]] = {
        "change": [touched(call)],
        "drop": [],
        "twin": [call, touched(call)],
        "rename": [renamed],
        "answer": [answered],
    }
    live = edit(spec, site, lambda below, k: [*below[:k], *new[how], *below[k + 1 :]])
    found = judge(spec, live)
    kind = {
        "change": K.INPUT_CHANGED,
        "drop": K.SPAN_REMOVED,
        "twin": K.SPAN_ADDED,
        "rename": K.INPUT_CHANGED,
        "answer": K.OUTPUT_CHANGED,
    }[how]
    assert [d.kind for d in found] == [kind]
    (deviation,) = found
    assert deviation.deviation_point
    if deviation.golden is not None:
        assert deviation.golden.exchange == call.exchange
    else:
        assert deviation.live is not None
        assert deviation.live.exchange == touched(call).exchange
    assert pickle.loads(pickle.dumps(found)) == found


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_swap_is_one_move_and_a_concurrent_shuffle_is_none(data: st.DataObject) -> None:
    calls = [
        chat(f"p{n}") if n % 2 else agent(f"a{n}", tool("t", {"n": n})) for n in range(data.draw(st.integers(2, 7)))
    ]
    first, second = sorted(data.draw(st.sets(st.integers(0, len(calls) - 1), min_size=2, max_size=2)))
    swapped = list(calls)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    found = judge(run(agent("x", *calls)), run(agent("x", *swapped)))
    assert {d.kind for d in found} == {K.SPAN_MOVED}
    assert len(found) == (1 if second - first == 1 else 2)
    shuffled = data.draw(st.permutations(calls))
    around = tool("before"), tool("after")
    assert judge(run(around[0], together(*calls), around[1]), run(around[0], *shuffled, around[1])) == ()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_change_within_a_shuffle_is_the_only_thing_told(data: st.DataObject) -> None:
    calls = [tool(f"t{n % 2}", {"n": n, "long": "x" * 20}) for n in range(data.draw(st.integers(2, 6)))]
    shuffled = list(data.draw(st.permutations(calls)))
    index = data.draw(st.integers(0, len(calls) - 1))
    shuffled[index] = touched(shuffled[index])
    (deviation,) = judge(run(together(*calls)), run(*shuffled))
    assert [c.path for c in deviation.changes] == ["request.arguments.n"]


@st.composite
def small(draw: st.DrawFn, depth: int = 2) -> Spec:
    """Trees of few names and values, so that two drawn ones are often alike."""
    below: list[Spec | Together] = []
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        if draw(st.booleans()):
            below.append(draw(small(depth=depth - 1)))
        else:
            below.append(together(*(draw(small(depth=0)) for _ in range(draw(st.integers(2, 3))))))
    if not below and draw(st.booleans()):
        return tool("t", {"n": draw(st.sampled_from([1, True, 2]))}, result=draw(st.integers(0, 1)))
    return agent(draw(st.sampled_from("ab")), *below, status=draw(st.sampled_from(["unset", "ok"])))


def alike(golden: Spec, live: Spec, *, root: bool = True) -> bool:
    """Say by brute force whether two specs are equal but for the order within groups."""
    own = [(root or s.name, s.status, repr(s.exchange)) for s in (golden, live)]
    there = [spec for item in live.below for spec in (item.specs if isinstance(item, Together) else (item,))]
    if own[0] != own[1]:
        return False
    for item in golden.below:
        group = item.specs if isinstance(item, Together) else (item,)
        here, there = there[: len(group)], there[len(group) :]
        if len(here) != len(group) or not any(
            all(alike(one, other, root=False) for one, other in zip(group, order, strict=True))
            for order in permutations(here)
        ):
            return False
    return not there


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_green_if_and_only_if_alike(data: st.DataObject) -> None:
    golden = run(*data.draw(small()).below)
    live = data.draw(st.one_of(small().map(lambda s: run(*s.below)), shuffles(golden)))
    found = judge(golden, live)
    assert (found == ()) == alike(golden, live)
    trees = build(golden), build(live)
    pairs = len(trees[0]) - sum(_size(d) for d in found if d.kind is K.SPAN_REMOVED)
    assert pairs == len(trees[1]) - sum(_size(d) for d in found if d.kind is K.SPAN_ADDED)
    if found:
        assert not found[0].consequence
        assert found[0].deviation_point


def _size(deviation: Deviation) -> int:
    """Spans of an added or removed subtree, as its note counts them."""
    return 1 + int(deviation.note.split()[1]) if deviation.note else 1


@st.composite
def shuffles(draw: st.DrawFn, golden: Spec) -> Spec:
    """The same spec with every group in another order; sometimes two neighbours swapped as well."""
    below: list[Spec | Together] = []
    for item in golden.below:
        if isinstance(item, Together):
            below += draw(st.permutations(item.specs))
        else:
            below.append(draw(shuffles(item)))
    if len(below) > 1 and draw(st.booleans()):
        below[:2] = below[1], below[0]
    return golden.but(below=tuple(below))


# --- worst cases ---------------------------------------------------------------------------------------------------


def seconds(golden: Spec, live: Spec) -> tuple[float, tuple[Deviation, ...]]:
    one, other = build(golden), build(live, ids=10**6)
    start = time.perf_counter()
    found = compare(one, other)
    return time.perf_counter() - start, found


def test_ten_thousand_equal_spans_are_fast() -> None:
    calls = [chat(f"p{n}") for n in range(10_000)]
    taken, found = seconds(run(*calls), run(*calls))
    assert found == ()
    assert taken < 0.5


@pytest.mark.parametrize("case", ["changed", "one less", "renamed", "at once", "same request", "backwards"])
def test_a_thousand_differing_siblings(case: str) -> None:
    golden = [chat(f"p{n}") for n in range(1_000)]
    changed = [chat(f"q{n}") for n in range(1_000)]
    trees: dict[str, tuple[Spec, Spec]] = {
        "changed": (run(*golden), run(*changed)),
        "one less": (run(*golden), run(*changed[1:])),
        "renamed": (run(*golden), run(*(chat(f"q{n}", model=f"m{n}") for n in range(1_000)))),
        "at once": (run(together(*golden)), run(together(*changed))),
        "same request": (run(*(chat("p", f"{n}") for n in range(1_000))), run(*(chat("p") for n in range(1_003)))),
        "backwards": (run(*golden), run(*golden[::-1])),
    }
    taken, found = seconds(*trees[case])
    assert 999 <= len(found) <= 1_003
    assert taken < 2


def offering(*names: str, city: str = "string", key: str = "tools") -> Spec:
    tools = [{"type": "function", "function": {"name": name, "parameters": {"city": city}}} for name in names]
    spec = chat("hi")
    assert spec.exchange is not None
    request = {**spec.exchange.request, "body": {"json": {key: tools} if names else {}}}
    return run(spec.but(exchange=Exchange("model", request, spec.exchange.response)))


@pytest.mark.parametrize("key", ["tools", "functions", "functionDeclarations"])
def test_offered_tools_are_told_apart_by_name(key: str) -> None:
    def paths(golden: Spec, live: Spec) -> list[tuple[str, bool, bool]]:
        (found,) = compare(build(golden), build(live, ids=7000))
        return [
            (change.path.partition(key)[2], change.golden is MISSING, change.live is MISSING)
            for change in found.changes
        ]

    three = offering("a", "b", "c", key=key)
    assert paths(three, offering("b", "c", key=key)) == [("[0]", False, True)]
    assert paths(offering("b", "c", key=key), three) == [("[0]", True, False)]
    assert paths(three, offering("a", "x", "c", key=key)) == [("[1]", False, True), ("[1]", True, False)]
    assert paths(three, offering(key=key)) == [(f"[{place}]", False, True) for place in range(3)]
    changed = paths(three, offering("c", "d", city="number", key=key))
    assert ("[2].function.parameters.city", False, False) in changed
    assert paths(three, offering("c", "b", "a", key=key)), "another order is a difference"
    assert paths(offering("a", "a", key=key), offering("a", key=key)), "names that are not their own"


def test_a_thousand_changed_list_items_in_one_request() -> None:
    golden, live = ([{"role": "user", "content": f"{mark}{n}"} for n in range(1_000)] for mark in "ab")
    taken, (deviation,) = seconds(run(chat(golden)), run(chat(live)))
    assert deviation.changes[0].path == "request.body.json.messages[0].content"
    assert taken < 2


def test_nesting_deeper_than_pythons() -> None:
    def chain(last: str) -> SpanTree:
        spans = [Span("0" * 16, None, "run")]
        for n in range(1, 3_000):
            spans.append(Span(f"{n:016x}", f"{n - 1:016x}", "step", attributes={"x": last if n == 2_999 else ""}))
        return SpanTree(tuple(spans))

    assert compare(chain("a"), chain("a")) == ()
    (deviation,) = compare(chain("a"), chain("b"))
    assert len(deviation.path) == 3_000
