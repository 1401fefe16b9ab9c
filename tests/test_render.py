"""Reports and outlines: readable on one screen, exact where one copies, harmless whatever the payload."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_spanchain._compare import compare
from pytest_spanchain._model import MISSING, Deviation, DeviationKind, FieldChange, SpanTree
from pytest_spanchain._render import report, tree
from pytest_spanchain._render.terminal import columns, cut, escape
from pytest_spanchain._render.textdiff import change_lines, offer_lines
from trees import Spec, agent, build, chat, together, tool

ACCEPT = "pytest 'tests/test_refund.py::test_refund' --record-mode=rewrite"
CLOSER = "pytest 'tests/test_refund.py::test_refund' -vv"
CASSETTE = "cassettes/tests/test_refund/test-refund-0123456789ab.yaml"


def told(golden: Spec, live: Spec, *, excuse: bool = False, **more: Any) -> list[str]:
    one, other = build(golden), build(live, ids=70_000, start_ns=3)
    deviations = compare(one, other, durations=more.pop("durations", False))
    if excuse:
        deviations = tuple(Deviation(**{**vars(d), "failing": d.consequence}) for d in deviations)
    options: dict[str, Any] = {"cassette": CASSETTE, "commands": [("accept", ACCEPT)], "closer": CLOSER, **more}
    return report(deviations, golden=one, live=other, **options)


def run(*below: Any) -> Spec:
    return agent("test_refund", *below)


GOLDEN = run(
    *(tool(f"t{n}") for n in range(12)),
    agent("invoke_agent refunds", chat("hi"), tool("look", {"id": 1}), chat("a\nb\nc\nd"), tool("pay", {"eur": 5})),
)
LIVE = run(
    *(tool(f"t{n}") for n in range(12)),
    agent("invoke_agent refunds", chat("hi"), tool("look", {"id": 1}), chat("a\nb!\nc\nd"), tool("pay", {"eur": 6})),
)


def test_a_whole_report() -> None:
    assert told(GOLDEN, LIVE, extra=["1 live call was refused: api.openai.com"]) == [
        "spanchain: 1 deviation from the golden trace: input_changed at chat gpt-4o",
        "  test_refund",
        "    … 10 unchanged spans",
        "    execute_tool t10",
        "    execute_tool t11",
        "    invoke_agent refunds",
        "      chat gpt-4o",
        "      execute_tool look",
        "~     chat gpt-4o  input_changed  ◀ deviation point",
        "~     execute_tool pay  input_changed  (follows)",
        "  … and 1 later difference that follows from it (-vv shows it)",
        "  request.body.json.messages[0].content",
        "    a",
        "  - b",
        "  + b!",
        "    c",
        "1 live call was refused: api.openai.com",
        f"  cassette:    {CASSETTE}",
        f"  accept:      {ACCEPT}",
        f"  look closer: {CLOSER}",
    ]


def test_all_of_it_with_vv() -> None:
    lines = told(GOLDEN, LIVE, verbosity=2)
    assert "  execute_tool pay: request.arguments.eur" in lines
    assert {"  - 5", "  + 6"} <= set(lines)
    assert not any("-vv shows" in line for line in lines)
    assert "-vv shows" in "\n".join(told(GOLDEN, LIVE, verbosity=1))


def a_trace() -> st.SearchStrategy[Spec]:
    """Calls that differ in a word, in a long text, in their number and in their order, some of them below another."""
    texts = st.sampled_from(["hi", "a\nb\nc", "\n".join("abcdefghijklmnop"), "x" * 300])
    calls = st.one_of(texts.map(chat), texts.map(lambda text: tool("look", {"q": text, "n": [len(text)] * 12})))
    below = st.lists(
        st.one_of(calls, st.lists(calls, max_size=4).map(lambda inner: agent("inner", *inner))), max_size=9
    )
    return below.map(lambda specs: run(*specs))


@given(a_trace(), a_trace(), st.sampled_from([0, 1]))
@settings(max_examples=200, deadline=None)
def test_a_closer_look_is_offered_where_it_shows_more(golden: Spec, live: Spec, verbosity: int) -> None:
    lines = told(golden, live, verbosity=verbosity)
    everything = told(golden, live, verbosity=2, closer="")
    offer = [line for line in lines if CLOSER in line]
    assert bool(offer) or lines == everything
    if not any("…" in line for line in everything):  # of a tree, the parts that do not differ are never shown
        assert bool(offer) == (lines != everything)


def test_what_every_later_request_says_again_is_told_once() -> None:
    def turns(prompt: str, word: str) -> Spec:
        history = [{"role": "system", "content": prompt}, {"role": "user", "content": "hi"}]
        more = [{"role": "assistant", "content": word}]
        return run(*(chat(history + more * count) for count in range(6)))

    for verbosity in (0, 1, 2):
        lines = told(turns("old", "a"), turns("new", "a"), verbosity=verbosity)
        assert sum('"old"' in line for line in lines) == 1
    assert "    (and the same 5 more times)" in lines
    both = told(turns("old", "a"), turns("new", "b"), verbosity=2)
    assert sum('"old"' in line for line in both) == 1
    assert [line for line in both if line.endswith(('- "a"', '+ "b"'))] == ['  - "a"', '  + "b"'] * 5, "at five places"


def test_equal_changes_at_different_places_are_two() -> None:
    lines = told(run(tool("t", {"a": 1, "b": 1})), run(tool("t", {"a": 2, "b": 2})), verbosity=2)
    assert [line for line in lines if "arguments" in line] == ["  request.arguments.a", "  request.arguments.b"]


def test_marks() -> None:
    golden = run(tool("a"), tool("b"), tool("c"), tool("gone", {"q": 1}), chat("x"), chat("end"))
    live = run(tool("b"), tool("a"), tool("c"), chat("y"), tool("new", {"z": 2}), chat("end"))
    text = "\n".join(told(golden, live, verbosity=2))
    assert re.search(r"^>   execute_tool [ab]  span_moved \(place \d among its siblings, now \d\)", text, re.M)
    assert "\n-   execute_tool gone  span_removed" in text
    assert "\n+   execute_tool new  span_added" in text
    assert "\n~   chat gpt-4o  input_changed" in text
    assert '\n  - execute_tool gone: {"q": 1}' in text
    assert '\n  + execute_tool new: {"z": 2}' in text


def test_trees_are_drawn_as_they_were_compared() -> None:
    """The comparison pairs the agents without the attribute; with it, the excerpt would pair the other two."""
    golden = build(run(agent("a", chat("p"), attributes={"build": "1"})))
    live = build(
        run(agent("a", chat("q"), attributes={"build": "2"}), agent("a", chat("r"), attributes={"build": "1"})),
        ids=7000,
    )
    ignored = frozenset({"build"})
    deviations = compare(golden, live, ignored_attributes=ignored)
    told = report(deviations, golden=golden, live=live, cassette="", commands=[], ignored_attributes=ignored)
    assert told[1:5] == [
        "  test_refund",
        "    a",
        "~     chat gpt-4o  input_changed  ◀ deviation point",
        "+   a  span_added (and 1 span below it)  ◀ deviation point",
    ]


def test_a_deviation_that_a_hook_added_is_marked_on_either_side() -> None:
    golden, live = build(run(tool("t"))), build(run(tool("t")), ids=70_000)
    for one, other in ((golden.spans[1], None), (None, live.spans[1])):
        added = Deviation(DeviationKind.ATTRIBUTE_CHANGED, one, other, path=("test_refund", "execute_tool t"))
        told = report([added], golden=golden, live=live, cassette="", commands=[])
        assert "~   execute_tool t  attribute_changed" in told


def test_a_renamed_span_shows_both_names() -> None:
    assert "~   chat a → chat b  input_changed  ◀ deviation point" in told(
        run(chat("x", model="a")), run(chat("x", model="b"))
    )


def test_several_causes_are_counted_and_named() -> None:
    names = "abc"
    golden = run(*(agent(n, chat(n)) for n in names))
    lines = told(golden, run(*(agent(n, chat(n + "!")) for n in names)))
    assert lines[0] == "spanchain: 3 deviations from the golden trace: first input_changed at chat gpt-4o"
    assert sum("◀ deviation point" in line for line in lines) == 3
    assert "  chat gpt-4o: request.body.json.messages[0].content" in lines


def test_without_deviations() -> None:
    lines = told(GOLDEN, GOLDEN, extra=["2 recorded calls were not made"])
    assert lines[:2] == ["spanchain: no deviation from the golden trace", "2 recorded calls were not made"]
    assert len(lines) == 4, "there is nothing to look closer at"
    assert told(GOLDEN, GOLDEN, color=True)[0].startswith("\x1b[1;32m")
    assert not told(GOLDEN, GOLDEN, color=True, extra=["error: a miss"])[0].startswith("\x1b")
    assert report((), golden=SpanTree(), live=SpanTree(), cassette="", commands=()) == [lines[0]]


def test_what_does_not_fail_is_a_note() -> None:
    lines = told(run(tool("t", ms=10)), run(tool("t", ms=99)), durations=True)
    assert lines[0] == "spanchain: no deviation from the golden trace (2 differences noted)"
    assert lines[1] == "  note: duration_changed at execute_tool t: duration_ns 10000000 -> 99000000"


def test_an_excused_cause_leaves_its_consequences_to_tell() -> None:
    lines = told(GOLDEN, LIVE, excuse=True)
    assert lines[0] == "spanchain: 1 deviation from the golden trace: input_changed at execute_tool pay"
    assert any("note: input_changed at chat gpt-4o" in line for line in lines)


@pytest.mark.parametrize("count", [30, 1_000])
def test_one_screen_whatever_happens(count: int) -> None:
    golden = run(together(*(chat(f"p{n}\nline\n" * 9, model="m" * 300) for n in range(count))))
    live = run(together(*(chat(f"q{n}\nother\n" * 9, model="m" * 300) for n in range(count))))
    extra = [f"live call {n}" for n in range(50)]
    commands = [(f"label {n}", "x" * 200) for n in range(8)]
    lines = told(golden, live, extra=extra, commands=commands)
    assert len(lines) <= 40
    assert "  … 46 more lines (-vv shows them)" in lines
    assert any("more deviations (-vv shows them)" in line for line in lines)
    assert all(columns(line) <= 100 for line in lines if "label" not in line)
    assert sum("x" * 200 in line for line in lines) == 8


def test_deep_trees_keep_the_point_on_the_screen() -> None:
    def nested(prompt: str) -> Spec:
        spec: Spec = chat(prompt)
        for n in range(60):
            spec = agent(f"level {n}", spec)
        return run(spec)

    lines = told(nested("a"), nested("b"))
    assert len(lines) <= 24
    assert any("◀ deviation point" in line for line in lines)
    assert "    … more levels …" in lines


def test_colour_only_if_asked() -> None:
    assert "\x1b" not in "".join(told(GOLDEN, LIVE))
    lines = told(GOLDEN, LIVE, color=True)
    assert lines[0].startswith("\x1b[1;31m")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert plain == told(GOLDEN, LIVE)


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x00\x7f\x9b\u202e\u2066\u200b\ud800\U000e0041\r\n\tend"


@pytest.mark.parametrize("verbosity", [0, 1, 2])
@pytest.mark.parametrize("color", [False, True])
def test_hostile_text_is_shown_as_text(verbosity: int, color: bool) -> None:
    bad = {"status": "error", "status_message": HOSTILE}
    golden = run(tool(HOSTILE, {HOSTILE: HOSTILE, "s": HOSTILE}), agent(HOSTILE), chat("x"))
    live = run(tool(HOSTILE, {HOSTILE: 1, "s": HOSTILE + "!"}), agent(HOSTILE, **bad), chat(HOSTILE), tool(HOSTILE))
    lines = told(
        golden,
        live,
        verbosity=verbosity,
        color=color,
        cassette=HOSTILE,
        commands=[(HOSTILE, HOSTILE)],
        extra=[HOSTILE],
    )
    lines += report((), golden=SpanTree(), live=SpanTree(), cassette=HOSTILE, commands=[], extra=[HOSTILE])
    for line in lines:
        assert re.sub(r"\x1b\[[0-9;]*m", "", line).isprintable() if color else line.isprintable()
    assert "\\x1b]0;owned" in "".join(lines)


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from([0, 2]))
@settings(max_examples=80, deadline=None)
def test_any_text_is_printable_and_its_difference_is_visible(golden: str, live: str, verbosity: int) -> None:
    lines = told(run(tool("t", {"s": golden})), run(tool("t", {"s": live})), verbosity=verbosity)
    assert all(line.isprintable() for line in lines)
    if golden != live:
        removed = [line[4:] for line in lines if line.startswith("  - ")]
        added = [line[4:] for line in lines if line.startswith("  + ")]
        assert removed != added


def shown(golden: Any, live: Any, **more: Any) -> list[str]:
    lines = change_lines(FieldChange("f", golden, live), width=60, **more)
    return [line.render(color=False, width=60) for line in lines[1:]]


@pytest.mark.parametrize(
    ("path", "golden", "live", "words"),
    [
        ("request.body.json.tools[0]", {"function": {"name": "pay"}}, MISSING, "  - tool pay is no longer offered"),
        ("request.body.json.tools[0]", MISSING, {"name": "pay"}, "  + tool pay is now offered"),
        ("request.body.json.tools[0]", MISSING, {"type": "web_search"}, "  + tool web_search is now offered"),
        ("request.body.json.toolConfig.tools[0]", {"toolSpec": {"name": "pay"}}, MISSING, "  - tool pay is no longer"),
        ("request.body.json.tools[0].functionDeclarations[1]", {"name": "pay"}, MISSING, "  - tool pay is no longer"),
        ("request.body.json.tools[0]", "pay", MISSING, ""),
        ("request.body.json.tools[0]", {"name": "a"}, {"name": "b"}, ""),
        ("request.body.json.shops[0]", {"name": "pay"}, MISSING, ""),
        ("response.body.json.tools[0]", {"name": "pay"}, MISSING, ""),
    ],
)
def test_tools_that_are_offered(path: str, golden: Any, live: Any, words: str) -> None:
    lines = [line.render(color=False, width=100) for line in offer_lines(FieldChange(path, golden, live))]
    if words:
        assert lines[0] == f"  {path}"
        assert lines[1].startswith(words)
    else:
        assert lines == []


def test_values_tell_their_type() -> None:
    assert shown(1, "1") == ["  - 1", '  + "1"']
    assert shown(True, 1.0) == ["  - true", "  + 1.0"]
    assert shown(MISSING, None) == ["  - (absent)", "  + null"]


def test_long_texts_are_windows_around_the_first_difference() -> None:
    golden, live = "a" * 500 + "X" + "b" * 500, "a" * 500 + "Y" + "b" * 500
    removed, added = shown(golden, live)
    assert re.fullmatch(r'  - "…a+Xb+…"', removed)
    assert re.fullmatch(r'  \+ "…a+Yb+…"', added)
    assert len(removed) <= 60
    assert golden in shown(golden, live, full=True)[0]
    assert "X" in shown([golden], [live])[0]


def test_look_alikes_are_told_apart() -> None:
    assert shown("caf\u00e9", "cafe\u0301") == ['  - "caf\\u00e9"', '  + "cafe\\u0301"']
    assert shown("a\ncaf\u00e9", "a\ncafe\u0301")[-2:] == ['  - "caf\\u00e9"', '  + "cafe\\u0301"']
    assert shown("a\nb ", "a\nb")[-2:] == ["  - b\\x20", "  + b"]
    assert shown("a\r\nb", "a\nb")[-4:] != []


def test_multi_line_texts_are_a_small_diff() -> None:
    golden = "".join(f"line {n}\n" for n in range(50))
    assert shown(golden, golden.replace("line 30\n", "line thirty\n")) == [
        "  @@ line 31 @@",
        "    line 29",
        "  - line 30",
        "  + line thirty",
        "    line 31",
    ]
    many, others = "a\n" * 999, "b\n" * 999
    assert len(shown(many, others)) == 2


def test_cut_counts_columns() -> None:
    assert cut("漢字漢字", 5) == "漢字…"
    assert columns("漢e\u0301") == 3
    assert cut("abc", 3) == "abc"
    assert escape("a\u00a0b") == "a\\xa0b"


def test_outline() -> None:
    usage = {"gen_ai.usage.input_tokens": 1_204, "gen_ai.usage.output_tokens": 56}
    spec = run(
        agent("invoke_agent x", chat("hi", attributes=usage, ms=1_500)),
        tool("t", {"a": 1}, status="error", status_message="no \x1b money"),
    )
    lines = tree(build(spec))
    assert lines[0].split() == ["test_refund", "span", "+0.00", "s", "1.51", "s"]
    assert re.search(r"^    chat gpt-4o +model +1,204 -> 56 tokens .* 1\.50 s +\d+ B -> \d+ B$", lines[2])
    assert re.search(r"^  execute_tool t +tool +\+1\.50 s +10\.0 ms +21 B -> 15 B$", lines[3])
    assert lines[4] == "    error: no \\x1b money"
    assert all(len(line) <= 100 for line in lines)
    assert tree(build(spec), color=True)[3].startswith("\x1b[31m")
    assert tree(SpanTree()) == ["(no spans)"]
    assert max(map(len, tree(build(run(tool("n" * 500)))))) <= 100
