"""The layout gives back the very text, and nothing but the value it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders
import recording
from pytest_spanchain import _codec
from pytest_spanchain._layout import MAX_DEPTH, LayoutError, join, order_of, relayout, reorder, split
from pytest_spanchain.errors import Unrecordable
from servers import ModelServer, Raw

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
KEYS = st.sampled_from("abcde") | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=15)
WRITERS: dict[str, dict[str, Any]] = {
    "default": {},
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "compact ascii": {"separators": (",", ":")},
    "indent 2": {"indent": 2, "ensure_ascii": False},
    "indent 4 ascii": {"indent": 4},
    "tab": {"indent": "\t"},
}

OPENAI = (
    '{\n  "id": "chatcmpl-9",\n  "object": "chat.completion",\n  "created": 1763700000,\n  "model": "gpt-5",\n'
    '  "choices": [\n    {\n      "index": 0,\n      "message": {\n        "role": "assistant",\n'
    '        "content": "It is 3\\u00b0 \\"now\\".",\n        "refusal": null,\n        "annotations": []\n      },\n'
    '      "logprobs": {\n        "content": [\n          {\n            "token": "It",\n'
    '            "logprob": -3.1281633e-07,\n            "bytes": [\n              73\n            ]\n          }\n'
    '        ]\n      },\n      "finish_reason": "stop"\n    }\n  ],\n  "usage": {\n    "prompt_tokens": 9,\n'
    '    "completion_tokens": 1.5,\n    "total_tokens": 12\n  }\n}\n'
)
ANTHROPIC = (
    '{"model":"claude-x","id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"é/ü"},'
    '{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Köln","at":{"lon":6.9,"lat":50.9}}},'
    '{"type":"tool_use","id":"toolu_2","name":"weather","input":{"city":"Bonn","at":{"lon":7.1,"lat":50.7}}}],'
    '"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":5,"output_tokens":7}}'
)


def shuffled(value: Any) -> Any:
    """As a cassette gives it back: other key order, same value."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in sorted(value, key=lambda key: key[::-1])}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def taken(text: str) -> tuple[Any, str]:
    found = split(text)
    assert found is not None
    return found


@given(writer=st.sampled_from(list(WRITERS)), end=st.sampled_from(["", "\n", "\r\n"]), value=VALUES)
def test_every_usual_text_comes_back(writer: str, end: str, value: Any) -> None:
    text = json.dumps(value, **WRITERS[writer]) + end
    found, layout = taken(text)
    assert found == value
    assert join(shuffled(found), layout) == text
    assert layout.isascii()
    assert "\n" not in layout


@given(VALUES)
def test_order_survives_sorting(value: Any) -> None:
    again = reorder(shuffled(value), order_of(value))
    assert json.dumps(again) == json.dumps(value)


@given(VALUES, st.text("0123ab-;|@.* ", max_size=12))
def test_a_forged_layout_permutes_or_is_refused(value: Any, order: str) -> None:
    try:
        text = join(value, f"compact {order}")
    except LayoutError:
        return
    assert json.loads(text) == value
    assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(value, sort_keys=True)


@given(st.text('{}[]",:\\u0123aeE+-. \n', max_size=20) | st.text(max_size=10))
def test_any_text_is_split_faithfully_or_not_at_all(text: str) -> None:
    found = split(text)
    if found is not None:
        assert join(*found) == text
        assert found[0] == json.loads(text)


@pytest.mark.parametrize(
    ("text", "style"),
    [
        (OPENAI, "indent2+ascii+newline"),
        (ANTHROPIC, "compact"),
        (json.dumps(json.loads(ANTHROPIC)), "spaced+ascii"),
        (r'{"html":"\u003ca href\u003d\u0026"}'.replace(r"\u003d", "="), "compact+ascii+html"),
        (r'{"html":"\u003cä"}', "compact+html"),
        (r'{"url":"https:\/\/x\/y"}', "compact+slash"),
        (r'{"e":"\u00E9\\u00e9"}', "compact+ascii+upper"),
        ('{"control":"\\u001f"}', "compact+ascii"),
        ("[]", "compact"),
        ('"text"', "compact"),
        ("[1, 2]", "spaced"),
        (r'["\u0007A\u009a"]', "compact+ascii"),
        (r'["\\u00AB\u00ab"]', "compact+ascii"),
        (r'["\\/", "/"]', "spaced"),
        (r'["\\u003c", "<"]', "spaced+ascii"),
    ],
)
def test_real_texts(text: str, style: str) -> None:
    value, layout = taken(text)
    assert layout.split(" ")[0] == style
    assert join(shuffled(value), layout) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        '{"a":1,"a":1}',
        '{"a":1,"a":2}',
        "1e5",
        "1E400",
        "-0",
        "0.10",
        "NaN",
        "[Infinity]",
        '"\\ud800"',
        '"\ud800"',
        '{"a" : 1}',
        "[\n]",
        '{"a":1, "b":2}',
        ' {"a":1}',
        '["\\u0061"]',
        "[" * 102 + "]" * 102,
        "[" * 100_000,
        "9" * 5_000,
    ],
)
def test_texts_that_stay_texts(text: str) -> None:
    assert split(text) is None


def test_many_levels_are_fine_even_deep_in_the_stack() -> None:
    text = "[" * (MAX_DEPTH - 1) + '{"b":1,"a":2}' + "]" * (MAX_DEPTH - 1)
    value, layout = taken(text)

    def deep(levels: int) -> str:
        return deep(levels - 1) if levels else join(value, layout)

    assert deep(500) == text


def test_what_is_taken_apart_fits_into_a_cassette() -> None:
    for inner in ("", "1", "{}"):
        levels = MAX_DEPTH - (inner == "{}")
        value, _ = taken("[" * levels + inner + "]" * levels)
        document = builders.document_holding({"json": value})
        assert _codec.loads(_codec.dumps(document)).document == document
        assert split("[" * (levels + 1) + inner + "]" * (levels + 1)) is None
        with pytest.raises(Unrecordable):
            _codec.dumps(builders.document_holding({"json": [value]}))


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, 70, 99, 500])
def test_a_deep_answer_is_recorded_and_replayed(server: ModelServer, tmp_path: Path, levels: int) -> None:
    text = '{"a": ' + "[" * levels + "]" * levels + "}"

    def agent() -> str:
        return httpx.get(f"{server.url}/deep").text

    server.script(lambda request: Raw(text.encode(), content_type="application/json"))
    assert recording.record(tmp_path / "deep.yaml", agent).value == text
    assert recording.replay(tmp_path / "deep.yaml", agent).value == text


def test_like_objects_are_described_once() -> None:
    rows = [{"name": str(n), "id": n, "at": {"y": 1, "x": 2}} for n in range(1000)]
    layout = taken(json.dumps(rows))[1]
    assert layout == "spaced 21;1"
    rows[500] = {"at": {"y": 1, "x": 2}, "id": 0, "name": ""}
    layout = taken(json.dumps(rows))[1]
    assert layout == "spaced 21|-@0*500.1.0*499;1"
    assert join(shuffled(rows), layout) == json.dumps(rows)


def test_sorted_keys_need_no_order() -> None:
    assert order_of({"a": 1, "b": [{"c": 1, "d": 2}]}) == ""
    assert order_of([{"c": 1, "d": 2}, {"f": 1, "e": 2}]) == "-;1"


def test_many_keys() -> None:
    value = {f"k{n:03}": n for n in reversed(range(100))}
    order = order_of(value)
    assert order.startswith("99.98.")
    assert list(reorder(shuffled(value), order)) == list(value)


def test_order_of_a_permutation_leaves_out_the_ascending_tail() -> None:
    assert order_of(dict.fromkeys("cabd")) == "2"
    assert list(reorder(dict.fromkeys("abcd"), "2")) == list("cabd")


@pytest.mark.parametrize(
    "layout",
    [
        "",
        "pretty",
        "indent9",
        "compact+",
        "compact+ascii+ascii",
        "compact+slash+ascii",
        "compact+newline+crlf",
        "compact ",
        "compact 9",
        "compact 00",
        "compact 1;1",
        "compact 1 1",
        "compact 1@0",
        "compact 1|-",
        "compact 1|-@0",
        "compact 1|-@0*3",
        "compact 1|-@0.1.1",
        "compact 1|-@0.2",
        "compact 1|-@0*0.1*x",
        "compact 1|-@0*1000000000",
        "compact ²",
        "compact |",
        "compact ;",
    ],
)
def test_forged_layouts_are_refused(layout: str) -> None:
    with pytest.raises(LayoutError, match="layout"):
        join([{"a": 1, "b": 2}, {"a": 1, "b": 2}], layout)


def test_a_layout_of_another_value_is_refused() -> None:
    _, layout = taken('{"c":1,"b":2,"a":{"y":1,"x":2}}')
    with pytest.raises(LayoutError, match="2 shapes, the value has 1"):
        join({"a": 1, "b": 2, "c": 3}, layout)


def test_relayout_after_a_change_of_the_value() -> None:
    value, layout = taken('{"token": {"b": 1, "a": 2}, "id": 7}')
    value["token"] = "***"
    assert join(shuffled(value), relayout(value, layout)) == '{"token": "***", "id": 7}'
    with pytest.raises(LayoutError):
        relayout(value, "nonsense")
