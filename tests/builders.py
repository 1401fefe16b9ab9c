"""Small builders of spans, headers and documents, and hypothesis strategies for them, shared by the tests."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

from pytest_spanchain import _chain, _model

NODEID = "tests/test_shop.py::test_refund[eu]"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
EPOCH_NS = 1_795_000_000_123_456_789

SYSTEM = 'You are a shop\'s "refund" agent.\n\n  - be kind\n  - never promise what you cannot keep\n'
TOOL = {
    "type": "function",
    "name": "refund",
    "description": "Give the money back.\nOnly once per order.",
    "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]},
}
POST = {"method": "POST", "url": "https://shop.test/refunds", "headers": {"content-type": "application/json"}}


def span_id(number: int) -> str:
    """A span id that is a number in hex."""
    return f"{number:016x}"


def sample_header(**changes: Any) -> _model.Header:
    """A header as a recorder writes it."""
    values: dict[str, Any] = {
        "nodeid": NODEID,
        "eval_id": "nightly",
        "recorded_at": "2026-11-21T09:50:49Z",
        "recorder": {
            "pytest-spanchain": "0.1.0",
            "python": "3.12.1",
            "packages": {"openai": "3.52"},
            "scopes": ["pytest_spanchain"],
        },
        "redaction": {"rules": "default", "digest": "ab" * 32},
        "provenance": {"source": "live", "mode": "once"},
        "supersedes": None,
        **changes,
    }
    return _model.Header(**values)


def sample_tree() -> _model.SpanTree:
    """An agent that asks a model, uses a tool, and asks again with the history; one branch fails."""
    history = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Refund order 1412 😀 "}]
    called = {"role": "assistant", "tool_calls": [{"id": "call_1", "name": "refund", "arguments": '{"order": 1412}'}]}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "ok\r\n\tdone \n"}
    return _model.SpanTree(
        (
            span(1, None, "invoke_agent refund", attributes={"gen_ai.agent.name": "refund", "temperature": 0.1}),
            _model_span(2, 1, history, called),
            span(
                3,
                1,
                "execute_tool refund",
                exchange=_model.Exchange(
                    "tool", {"arguments": {"order": 1412, "big": 2**70}}, {"result": ["refunded", None, True, -0.0]}
                ),
            ),
            span(
                4,
                3,
                "POST /refunds",
                span_kind="client",
                status="error",
                status_message="timed out\x1b[31m",
                exchange=_model.Exchange("http", {**POST, "body": {"json": {"order": 1412}}}, None),
            ),
            _model_span(5, 1, [*history, called, answer], {"role": "assistant", "content": "Refunded."}),
        )
    )


def sample_document(**changes: Any) -> dict[str, Any]:
    """The sealed plain document of ``sample_tree``; changes go to the header."""
    return _chain.seal(sample_header(**changes), sample_tree(), trace_id=TRACE_ID, outcome="passed")


def document_holding(value: Any) -> dict[str, Any]:
    """A sealed document of one span that carries a value as the result of a tool."""
    exchange = _model.Exchange("tool", {"arguments": {}}, {"result": value})
    tree = _model.SpanTree((span(1, None, "execute_tool x", exchange=exchange),))
    return _chain.seal(sample_header(), tree, trace_id=TRACE_ID, outcome="passed")


def span(number: int, parent: int | None, name: str, **more: Any) -> _model.Span:
    """A span of which its number says the rest."""
    return _model.Span(
        span_id=span_id(number),
        parent_span_id=None if parent is None else span_id(parent),
        name=name,
        start_ns=EPOCH_NS + number * 1_000_000,
        duration_ns=more.pop("duration_ns", 2_500_000),
        **more,
    )


def _model_span(number: int, parent: int, messages: list[Any], message: dict[str, Any]) -> _model.Span:
    url = "https://api.openai.com/v1/chat/completions"
    body = {"json": {"model": "gpt-5", "messages": messages, "tools": [TOOL]}}
    text = 'data: {"delta": "Re"}\n\ndata: {"delta": "funded."}\n\ndata: [DONE]\n\n'
    return span(
        number,
        parent,
        "chat gpt-5",
        span_kind="client",
        attributes={"gen_ai.usage.input_tokens": 812 + number, "gen_ai.usage.output_tokens": 31},
        events=({"name": "gen_ai.choice", "offset_ns": 5, "attributes": {"index": 0}},),
        exchange=_model.Exchange(
            "model",
            {"method": "POST", "url": url, "headers": {"content-type": "application/json"}, "body": body},
            {
                "status": 200,
                "headers": {"content-type": "text/event-stream"},
                "body": {"text": text, "chunks": [23, 28, 14], "message": message},
                "end": "complete",
                "error": None,
            },
        ),
    )


NAUGHTY = (
    *("", " ", "\n", "\n\n", "\t", "\r", "\r\n", " a", "a ", "a\n", "a\n\n", "\na", "\n a", " \na", "a \nb", "a\n b\n"),
    *(
        "\ta\nb",
        "a\n\tb",
        "a\n \nb",
        "a\r\nb",
        "a\rb\n",
        "no",
        "yes",
        "on",
        "y",
        "null",
        "~",
        "true",
        "True",
        "1",
        "-0",
    ),
    *(
        "1_000",
        "0x1f",
        "0o17",
        "012",
        "1e7",
        "1.5",
        ".inf",
        "-.INF",
        ".nan",
        "12:30:45",
        "2024-01-01",
        "2024-01-01 10:00",
    ),
    *(
        "=",
        "<<",
        "*a",
        "&a",
        "!a",
        "!!str a",
        "%a",
        "@a",
        "`a",
        "- a",
        "-",
        "--- a",
        "---",
        "...",
        "? a",
        ": a",
        "a: b",
    ),
    *(
        "a #b",
        "#a",
        "{a}",
        "[a",
        "a,b",
        "'a'",
        '"a"',
        'a "b" \\n',
        "\\",
        "a\\",
        'a\\\nb"',
        "a\nb\\",
        "|",
        ">",
        "|2-\n a",
    ),
    *(
        "\x00",
        "\x07a",
        "\x1b[31m",
        "\x7f",
        "\x80",
        "\x85",
        "a\x85b\n",
        "\xa0",
        "\xad",
        "\u2028",
        "a\n\u2029b",
        "\ufeff",
    ),
    *(
        "\ufeffa\nb",
        "\ufffe",
        "\uffff",
        "\ue000",
        "😀",
        "a\n😀 \n",
        "\U0010ffff",
        "e\u0301",
        "\xe9",
        "# | a\nb",
        "e5",
        "_",
    ),
    *(
        "<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n",
        "a" * 130,
        "word " * 60,
        'say "hi" ' * 30,
        "x\n" * 50,
        "ab" * 32,
    ),
)
"""Text that breaks naive writers of YAML."""


def texts() -> st.SearchStrategy[str]:
    """Any text that UTF-8 can hold, with the naughty ones often."""
    free = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    lines = st.text(st.sampled_from('ab "\\\n\n\t\r #:-|😀\x85\u2028'), max_size=30)
    return st.one_of(st.sampled_from(NAUGHTY), lines, free)


def scalars() -> st.SearchStrategy[Any]:
    """Any plain scalar."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=-(10**60), max_value=10**60),
        st.floats(allow_nan=False, allow_infinity=False),
        texts(),
    )


def plain_values(*, max_leaves: int = 25) -> st.SearchStrategy[Any]:
    """Any plain value."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(texts(), inner, max_size=5)),
        max_leaves=max_leaves,
    )


def rechained(document: dict[str, Any]) -> dict[str, Any]:
    """The work of an attacker who knows the algorithm: every hash and link made right again."""
    link = _chain.genesis(document["header"])
    for entry in document["entries"]:
        entry["prev_hash"] = link
        link = entry["sha256_hash"] = _chain.entry_hash(entry)
    return document


@st.composite
def exchanges(draw: st.DrawFn, kind: str) -> _model.Exchange:
    """An exchange of a kind in any of its shapes."""
    values = plain_values(max_leaves=4)
    mapping = st.dictionaries(texts(), values, max_size=3)
    if kind == "tool":
        extra = {
            "items": st.lists(values, max_size=2),
            "sent": st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["send", "throw"]), values).map(list)),
            "end": st.sampled_from(["complete", "error"]),
            "error": st.fixed_dictionaries({"type": texts(), "message": texts(), "value": values}),
            "returned": st.sampled_from(["awaitable", "generator", "async_generator"]),
            "order": texts(),
        }
        response = st.fixed_dictionaries({"result": values}, optional=extra)
        return _model.Exchange(kind, {"arguments": draw(mapping)}, draw(st.none() | response))
    headers = st.dictionaries(texts(), texts(), max_size=2)
    text = draw(texts())
    data = text.encode()
    bodies: list[Any] = [
        None,
        {"text": text},
        {"base64": base64.b64encode(data).decode()},
        {"text": text, "chunks": [len(data), 0], "message": draw(values)},
    ]
    body = st.sampled_from(bodies)
    asked = body | st.fixed_dictionaries({"json": values})
    answered = body | st.fixed_dictionaries({"json": values, "layout": texts()})
    error = st.fixed_dictionaries({"type": texts(), "message": texts()})
    end = st.sampled_from(["complete", "closed", "cancelled", "error"])
    status = st.none() | st.integers(100, 599)
    response = st.fixed_dictionaries(
        {"status": status, "headers": headers, "body": answered, "end": end, "error": st.none() | error}
    )
    request = st.fixed_dictionaries({"method": texts(), "url": texts(), "headers": headers, "body": asked})
    return _model.Exchange(kind, draw(request), draw(st.none() | response))


@st.composite
def trees(draw: st.DrawFn, *, max_spans: int = 8) -> _model.SpanTree:
    """A well-formed span tree with arbitrary names, attributes and exchanges."""
    size = draw(st.integers(min_value=1, max_value=max_spans))
    mapping = st.dictionaries(texts(), plain_values(max_leaves=4), max_size=3)
    spans = []
    for number in range(1, size + 1):
        kind = draw(st.sampled_from(["span", "model", "tool", "http"]))
        exchange = draw(exchanges(kind)) if kind != "span" else None
        parent = None if number == 1 else draw(st.integers(min_value=1, max_value=number - 1))
        spans.append(
            span(
                number,
                parent,
                draw(texts()),
                attributes=draw(mapping),
                status=draw(st.sampled_from(["unset", "ok", "error"])),
                status_message=draw(texts()),
                duration_ns=draw(st.integers(min_value=-5, max_value=10**12)),
                exchange=exchange,
            )
        )
    return _model.SpanTree(tuple(spans))
