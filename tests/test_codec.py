"""The file: everything plain survives it, people and other YAML readers see the same, and attacks end in one error."""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

import builders
from pytest_spanchain import _chain, _codec, _model, _summary
from pytest_spanchain._codec import limits as _yaml_limits
from pytest_spanchain._codec import reader as _yaml_reader
from pytest_spanchain._codec import writer as _yaml_writer
from pytest_spanchain._codec.splice import splice
from pytest_spanchain.errors import CassetteError, CassetteUnreadable, Unrecordable


@pytest.fixture(params=["C parser", "pure parser"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML; the pure one is used where libyaml is absent."""
    if request.param == "pure parser":
        monkeypatch.delattr(yaml, "CLoader")


def result_of(document: dict[str, Any]) -> Any:
    return document["entries"][0]["payload"]["response"]["result"]


@given(builders.plain_values())
@settings(max_examples=80, deadline=None)
def test_anything_plain_survives(value: Any) -> None:
    document = builders.document_holding(value)
    data = _codec.dumps(document)
    parsed = _codec.loads(data)
    assert repr(result_of(parsed.document)) == repr(_sorted(value))
    assert parsed.document == document
    assert _chain.verify(parsed).head == document["entries"][-1]["sha256_hash"]
    assert _codec.dumps(parsed.document) == data


@given(builders.plain_values())
@settings(max_examples=50, deadline=None)
def test_every_yaml_reader_sees_the_same(value: Any) -> None:
    # The hash proves what *our* reader saw; a reviewer's tool must see nothing else.
    document = builders.document_holding(value)
    theirs = yaml.load(_codec.dumps(document), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert repr(_sorted(theirs)) == repr(_sorted(document))


@given(builders.plain_values())
@settings(max_examples=50, deadline=None)
def test_a_generic_yaml_dumper_breaks_nothing(value: Any) -> None:
    document = builders.document_holding(value)
    text = yaml.dump(
        document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), indent=4, width=60, allow_unicode=True
    )
    if repr(_sorted(yaml.safe_load(text))) != repr(_sorted(document)):
        return  # PyYAML itself loses some control characters
    try:
        assert _chain.verify(_codec.loads(text.encode())).header.nodeid == builders.NODEID
    except CassetteUnreadable as error:
        # PyYAML writes some text plain that YAML 1.2 takes for a number: unclear, so refused, never misread.
        assert "disagree" in error.reason  # noqa: PT017


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.usefixtures("parser")
def test_naughty_text_survives_in_every_place() -> None:
    for text in builders.NAUGHTY:
        value = [text, {text: text}, [[text]], {"a": {"b": [text, {"c": text}]}}, "z" * 60, "z" * 60]
        document = builders.document_holding(value)
        assert _codec.loads(_codec.dumps(document)).document == document, ascii(text)


@pytest.mark.parametrize(
    "number", [0.1, 1e-7, 1e22, 5e-324, 1.7976931348623157e308, -0.0, 100.0, 1e16, 2**53, -(10**3000)]
)
def test_numbers_survive_with_their_type(number: float) -> None:
    back = result_of(_codec.loads(_codec.dumps(builders.document_holding(number))).document)
    assert (type(back), repr(back) if isinstance(back, float) else back) == (
        type(number),
        repr(number) if isinstance(number, float) else number,
    )


# How it looks


def test_the_file_reads_well() -> None:
    text = _codec.dumps(builders.sample_document()).decode()
    assert text.startswith(
        """\
# | tests/test_shop.py::test_refund[eu]
# | 5 spans (2 model, 1 tool, 1 http); passed
# | invoke_agent refund
# | ├─ chat gpt-5  [model]  814 input tokens, 31 output tokens
# | ├─ execute_tool refund  [tool]
# | │  └─ POST /refunds  [http]  ERROR: timed out\\x1b[31m
# | └─ chat gpt-5  [model]  817 input tokens, 31 output tokens

header:
  format: spanchain/1
  nodeid: "tests/test_shop.py::test_refund[eu]"
"""
    )
    assert (
        """
              content: |
                You are a shop's "refund" agent.

                  - be kind
                  - never promise what you cannot keep
              role: system
"""
        in text
    )
    assert "        chunks: [23, 28, 14]\n" in text
    assert "        text: *e1-6\n" in text
    assert '            - content: "ok\\r\\n\\\n                \\tdone \\n"\n' in text
    assert max(len(line) for line in text.splitlines()) <= 130
    assert [line.strip().split(":")[0] for line in text.splitlines() if re.match(r"(- |  )[a-z]", line)][-10:] == [
        *("- seq", "kind", "span_id", "parent_span_id", "trace_id"),
        *("eval_id", "timestamp_ns", "payload", "prev_hash", "sha256_hash"),
    ]


def test_what_was_written_is_not_written_again() -> None:
    history = [{"role": "user", "content": f"turn {number}: " + "words " * 40} for number in range(20)]
    growing = [history[: number + 1] for number in range(20)]
    text = _codec.dumps(builders.document_holding(growing)).decode()
    for number in range(20):
        assert text.count(f"turn {number}: ") == 1
    assert _codec.loads(text.encode()).document["entries"][0]["payload"]["response"]["result"] == growing


def test_hashes_and_ids_are_never_aliases() -> None:
    document = builders.sample_document(nodeid="n" * 100, eval_id="n" * 100)
    text = _codec.dumps(document).decode()
    assert text.count("n" * 100) == 3 + len(document["entries"])
    assert not re.search(r"_hash: [*&]", text)


def test_an_edit_of_one_entry_renames_no_anchor_of_another() -> None:
    before = builders.sample_document()
    after = builders.sample_document()
    extra = "new text that is long enough to be shared, twice"
    after["entries"][1]["payload"]["attributes"] = {"a": extra, "b": [extra, "x" * 130]}
    old, new = (_yaml_writer.emit(document).splitlines() for document in (before, after))
    changed = set(new) - set(old)
    assert all("e1-" in line or "e2-" not in line for line in changed)


def test_an_alias_is_a_copy() -> None:
    shared = {"text": "long enough to be written only once, surely so"}
    parsed = _codec.loads(_codec.dumps(builders.document_holding([shared, {"again": shared}])))
    first, second = result_of(parsed.document)
    first["text"] = "changed"
    assert second == {"again": shared}


def test_the_summary_hides_and_forges_nothing() -> None:
    name = "a\nb\u202ec\x1b[2J\\\u2028" + "x" * 200
    tree = _model.SpanTree((_model.Span("0" * 16, None, name, attributes={"gen_ai.usage.input_tokens": True}),))
    document = _chain.seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
    line = _summary.lines(document)[2]
    assert line.startswith("a\\x0ab\\u202ec\\x1b[2J\\\\\\u2028xxx")
    assert line.endswith("x…")
    assert len(line) < 140
    assert _chain.verify(_codec.loads(_codec.dumps(document)))


# What a formatter may do


def _without_comments(text: str) -> str:
    return "".join(line + "\n" for line in text.splitlines() if not line.startswith("#"))


def _without_aliases(text: str) -> str:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return str(yaml.dump(yaml.safe_load(text), Dumper=Dumper, sort_keys=False, default_flow_style=True))


BENIGN: dict[str, Any] = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: "\ufeff" + text,
    "no final line end": lambda text: text.rstrip("\n"),
    "more final line ends": lambda text: text + "\n\n",
    "document marks": lambda text: "---\n" + text + "...\n",
    "comments dropped": _without_comments,
    "licence on top": lambda text: "# Copyright | nobody\n\n" + text,
    "comments at the end": lambda text: text + "# vim: ft=yaml\n",
    "comments stuck to the margin": lambda text: text.replace("# | ", "#| "),
    "trailing blanks stripped": lambda text: re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE),
    "dumped in blocks": lambda text: yaml.safe_dump(yaml.safe_load(text), indent=4, width=1000),
    "dumped in flow": lambda text: yaml.safe_dump(yaml.safe_load(text), default_flow_style=True, allow_unicode=True),
    "dumped quoted": lambda text: yaml.safe_dump(yaml.safe_load(text), default_style='"'),
    "keys reordered": lambda text: yaml.safe_dump(yaml.safe_load(text), sort_keys=True),
    "aliases written out": _without_aliases,
}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("formatter", BENIGN)
def test_benign_reformatting_still_verifies(formatter: str) -> None:
    text = BENIGN[formatter](_codec.dumps(builders.sample_document()).decode())
    if formatter == "dumped quoted":
        text = re.sub(r'!!\w+ "([^"]*)"', r"\1", text)
    parsed = _codec.loads(text.encode())
    assert _chain.verify(parsed).tree == builders.sample_tree()
    assert len(parsed.entry_lines) == 6


# Attacks on the reader

DEEP = 100_000
LAUGHS = "a: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{level}: &a{level + 1} [{', '.join([f'*a{level}'] * 9)}]\n" for level in range(30)
)
TALL = "a: &a0 [x]\n" + "".join(f"b{level}: &a{level + 1} [*a{level}]\n" for level in range(70))
WIDE_TEXT = f"a: &a0 {'x' * 1000}\n" + "".join(
    f"b{level}: &a{level + 1} [{', '.join([f'*a{level}'] * 10)}]\n" for level in range(6)
)

ATTACKS: dict[str, tuple[str, str]] = {
    "deep block list": ("- " * DEEP + "a", "nested deeper"),
    "deep flow list": ("[" * DEEP, "nested deeper"),
    "deep flow map": ("{a: " * DEEP, "nested deeper"),
    "deep explicit keys": ("? " * DEEP + "a", "not text"),
    "deep block map": ("\n".join(" " * depth + "a:" for depth in range(100)), "nested deeper"),
    "billion laughs": (LAUGHS, "grows beyond"),
    "much text": (WIDE_TEXT + "c: [" + "*a6, " * 300 + "]", "grows beyond"),
    "tall aliases": (TALL, "grows beyond"),
    "alias of itself": ("a: &x [*x]", "no finished anchor"),
    "alias of its parent": ("a: &x {b: {c: *x}}", "no finished anchor"),
    "alias before its anchor": ("a: *x\nb: &x 1", "no finished anchor"),
    "anchor twice": ("a: &x 1\nb: &x 2\nc: *x", "anchor twice"),
    "alias as a key": ("a: &x k\n*x : 1", "alias as a mapping key"),
    "anchor on a key": ("&x a: 1", "not text"),
    "python object": ("a: !!python/object/apply:os.system ['touch CANARY']", "tag"),
    "python name": ("!!python/name:os.system", "tag"),
    "standard tag": ("a: !!str 5", "tag"),
    "local tag": ("a: !secret x", "tag"),
    "non-specific tag": ("a: ! 5", "tag"),
    "tagged map": ("a: !!set {x, y}", "tag"),
    "version directive": ("%YAML 1.1\n---\na: 1", "directive"),
    "tag directive": ("%TAG ! tag:x,2026:\n---\na: 1", "directive"),
    "merge key": ("a: &x {b: 1}\nc:\n  <<: *x", "disagree"),
    "same key twice": ("a: 1\na: 2", "key twice"),
    "same key, other quotes": ('a: 1\n"\\u0061": 2', "key twice"),
    "number as a key": ("1: a", "not text"),
    "null as a key": ("null: a", "not text"),
    "list as a key": ("[a]: 1", "not text"),
    "map as a key": ("? {a: 1}\n: 1", "not text"),
    "two documents": ("a: 1\n---\nb: 2", "more than one"),
    "nothing": ("", "empty"),
    "comments only": ("# | a\n", "empty"),
    "a word": ("word", "not a mapping"),
    "a list": ("[a]", "not a mapping"),
    "tab as indentation": ("a:\n\tb: 1", "not YAML"),
    "open quote": ('a: "b', "not YAML"),
    "open bracket": ("a: [b", "not YAML"),
    "NUL": ("a: \x00", "does not allow"),
    "escape character": ("# ok\na: '\x1b'", "does not allow"),
    "escaped surrogate": ('a: "\\ud800"', "character"),
    "escape beyond Unicode": ('a: "\\U00110000"', "character"),
    "long integer": ("a: " + "9" * 5000, "integer of more than"),
    "number beyond a double": ("a: 1.0e+999", "beyond the range"),
    "conflict": ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> theirs\n", "conflict markers"),
    "conflict, CRLF": ("a: 1\r\n<<<<<<< HEAD\r\nb: 2\r\n=======\r\n>>>>>>>\r\n", "conflict markers"),
}


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_in_one_clear_error(attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, words = ATTACKS[attack]
    with pytest.raises(CassetteUnreadable, match=words) as caught:
        _codec.loads(text.encode("utf-8", "surrogatepass"), path="x.yaml")
    assert caught.value.path == "x.yaml"
    assert caught.value.line is not None
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


DISPUTED = (
    *("no", "No", "NO", "yes", "on", "off", "ON", "~", "Null", "NULL", "TRUE"),
    *("False", "=", "1_000", "0x1f", "0b11", "0o17", "012", "+1", "1.", ".5", "1e7"),
    *(
        "1E7",
        "1e+7",
        ".inf",
        "-.INF",
        ".NaN",
        "12:30:45",
        "1:2",
        "190:20:30.15",
        "2024-01-01",
        "2001-12-14t21:59:43.10-05:00",
        "00",
    ),
)


@pytest.mark.usefixtures("parser")
def test_what_readers_disagree_on_is_refused_bare_and_taken_quoted() -> None:
    for scalar in (*DISPUTED, "", "2024-01-01 10:00:00"):
        for text in (f"a: {scalar}", f"b:\n- [x]\n- {scalar}", f"? {scalar}\n: 1"):
            with pytest.raises(CassetteUnreadable, match="disagree"):
                _codec.loads(text.encode())
        assert _codec.loads(f"a: '{scalar}'".encode()).document == {"a": scalar}


def test_what_every_reader_takes_for_text_is_text() -> None:
    for scalar in ("e5", "_", "y", "nope", "1.2.3", "2024-01-01x", "v1_000", "a:b", "-1x", "12:x", "hello world"):
        assert yaml.safe_load(f"a: {scalar}") == {"a": scalar}
        assert _codec.loads(f"a: {scalar}".encode()).document == {"a": scalar}


def test_bytes_that_are_no_text() -> None:
    for data, line in ((b"a: 1\nb: \xff", 2), ("a: 1".encode("utf-16"), 1), (b"\xed\xa0\x80", 1)):
        with pytest.raises(CassetteUnreadable, match="UTF-8") as caught:
            _codec.loads(data)
        assert caught.value.line == line
    with pytest.raises(CassetteUnreadable, match="64 MiB"):
        _codec.loads(b" " * (_yaml_limits.MAX_BYTES + 1))


def test_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_yaml_reader, "MAX_NODES", 1000)
    assert _codec.loads(b"a: [" + b"x, " * 990 + b"]")
    with pytest.raises(CassetteUnreadable, match="more than 1000 values"):
        _codec.loads(b"a: [" + b"x, " * 1000 + b"]")


def test_the_writer_keeps_the_bounds_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def nested(depth: int) -> Any:
        value: Any = "x" * 60
        for _ in range(depth):
            value = [value, value]
        return value

    room = _yaml_limits.MAX_DEPTH - 5  # document, entries, entry, payload, response
    slim: Any = 1
    for _ in range(room):
        slim = {"k": slim}
    assert _codec.loads(_codec.dumps(builders.document_holding(slim)))
    wide = builders.document_holding(nested(12))
    assert _codec.loads(_codec.dumps(wide)).document == wide
    for value, words in (
        ({"k": slim}, "nested deeper"),
        ({"k" * 1025: 1}, "mapping key"),
        ({"\x00" * 200: 1}, "mapping key"),
        (10**4001, "integer"),
    ):
        with pytest.raises(Unrecordable, match=words):
            _codec.dumps(builders.document_holding(value))
    for bound, limit, words in (
        ("MAX_NODES", 4000, "values"),
        ("MAX_TEXT", 9000, "text"),
        ("MAX_BYTES", 900, "larger"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(_yaml_writer, bound, limit)
            with pytest.raises(Unrecordable, match=words):
                _codec.dumps(wide)


@pytest.mark.parametrize("value", [None, {"a": {"b": [1, "x", {}]}}, [{"k": "v" * 60}] * 9, list(builders.NAUGHTY)])
def test_the_writer_counts_what_the_reader_counts(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    document = builders.document_holding(value)
    text = _codec.dumps(document).decode()

    def is_written(bound: int) -> bool:
        monkeypatch.setattr(_yaml_writer, "MAX_NODES", bound)
        try:
            return _codec.dumps(document).decode() == text
        except Unrecordable:
            return False

    def is_read(bound: int) -> bool:
        monkeypatch.setattr(_yaml_reader, "MAX_NODES", bound)
        try:
            return bool(_yaml_reader.read(text).value == document)
        except _yaml_reader.NotStrictError:
            return False

    def is_spliced(bound: int) -> bool:
        monkeypatch.setattr(sys.modules[splice.__module__], "MAX_NODES", bound)
        return splice(text.encode()) is not None

    bounds = range(2_000)
    fewest = bisect_left(bounds, True, key=is_read)
    assert bisect_left(bounds, True, key=is_written) == fewest
    assert fewest <= bisect_left(bounds, True, key=is_spliced) < bounds[-1]


def test_the_longest_key_survives() -> None:
    for value in ({"k" * 1024: [1, "a\nb"]}, {"k k" + "k" * 1019: 1}):
        document = builders.document_holding(value)
        assert _codec.loads(_codec.dumps(document)).document == document


def test_reading_needs_no_chain() -> None:
    # Unreadable and broken are two errors; the codec judges only the form.
    assert _codec.loads(b"header: {}\nentries: []\n").document == {"header": {}, "entries": []}
    with pytest.raises(CassetteError, match="at least one entry"):
        _chain.verify(_codec.loads(b"header: {}\nentries: []\n"))


def test_repeated_items_count_each_time_they_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"role": "user", "content": ["x", 1, 1.0, True, -0.0, 0.0, {"a": "b"}]}
    document = builders.document_holding([item, [item, {"again": [item]}]] * 30)
    data = _codec.dumps(document)
    assert _codec.loads(data).document == document
    for bound, limit, words in (("MAX_NODES", 1000, "values"), ("MAX_TEXT", 3000, "text")):
        with monkeypatch.context() as patch:
            patch.setattr(_yaml_writer, bound, limit)
            with pytest.raises(Unrecordable, match=words):
                _codec.dumps(document)


def test_a_repeated_item_is_refused_where_it_stands_too_deep() -> None:
    item: Any = {"a": {"b": ["c"]}}
    room = _yaml_limits.MAX_DEPTH - 5  # document, entries, entry, payload, response
    deep: Any = [item]
    for _ in range(room - 5):
        deep = [deep]
    assert _codec.loads(_codec.dumps(builders.document_holding([[item], deep])))
    with pytest.raises(Unrecordable, match="nested deeper"):
        _codec.dumps(builders.document_holding([[item], [[deep]]]))


def test_alike_items_of_other_types_stay_apart() -> None:
    items: list[Any] = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": 0.0}, {"a": -0.0}, {"a": None}, {"a": 1}]
    found = _codec.loads(_codec.dumps(builders.document_holding(items))).document
    held = found["entries"][0]["payload"]["response"]["result"]
    assert list(map(repr, held)) == list(map(repr, items))
