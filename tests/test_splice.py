"""The fast reader reads what the strict one reads, or leaves it to it: of what we write, and of what becomes of it."""

from __future__ import annotations

import random
import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

import builders
from pytest_spanchain import _codec
from pytest_spanchain._canonical import canonical
from pytest_spanchain._chain import seal, verify
from pytest_spanchain._codec import reader
from pytest_spanchain._codec.limits import MAX_DEPTH
from pytest_spanchain._codec.splice import Spliced, memory, splice
from pytest_spanchain._model import Exchange, SpanTree
from pytest_spanchain.errors import CassetteBroken

CASSETTES = sorted((Path(__file__).parents[1] / "cassettes").rglob("*.yaml"))


def agreed(data: bytes) -> Spliced | None:
    """What the fast reader makes of a file, which is what the strict one makes of it."""
    memory.clear()
    found = splice(data)
    assert splice(data) == found  # what is remembered of it changes nothing
    if found is None:
        return None
    strict = reader.read(data.decode())
    header, entries = strict.value["header"], strict.value["entries"]
    assert found.header == canonical(header)
    assert tuple(entry.line for entry in found.entries) == strict.entry_lines
    assert len(found.entries) == len(entries)
    for fast, slow in zip(found.entries, entries, strict=True):
        hashed = {key: value for key, value in slow.items() if key != "sha256_hash"}
        assert fast.text == canonical(hashed)
        assert fast.sha256_hash == slow["sha256_hash"]
        payload = dict(slow["payload"]) if fast.apart else slow["payload"]
        for key, (start, end) in fast.apart.items():
            assert fast.text[start:end] == canonical(payload.pop(key))
        assert fast.rest == canonical({**hashed, "payload": payload})
    return found


def repeating() -> dict[str, Any]:
    """A document with every spelling of the writer, aliases of blocks, lines and texts among them."""
    prompt = 'You are "kind".\n\n  - never\n  - lie\n'
    tool = {"name": "refund", "schema": {"type": "object", "enum": ["a b", "c", "d: e"], "deep": [[1, 2], [3.5, -0.0]]}}
    value = {
        "history": [{"role": "system", "content": prompt}, {"role": "user", "content": "x" * 70}],
        "again": [{"role": "system", "content": prompt}, {"role": "user", "content": "x" * 70}, [["y" * 60]]],
        "tools": [tool, {"tools": [tool, tool]}],
        "texts": list(builders.NAUGHTY),
        "numbers": [0, -1, 10**20, 1.5, 1e-7, 1e22, 2**53],
        "times": {"nanoseconds": 1760000000000000000, "before": -(2**60), "words": "x" * 150},
        "tags": [{"$date": "2026-01-01"}, {"$tuple": ["a" * 60, "b" * 60]}, {"$a": 1, "$b": "c" * 120}],
        "empty": [{}, [], "", {"a": {}}, [[]], None, True, False],
        "caf\u00e9": {"\u4e2d b": "z" * 120, "a-b/c.d": 'say "hi"'},
    }
    return builders.document_holding(value)


@pytest.fixture(params=["small payloads at once", "all apart"], autouse=True)
def _small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "all apart":
        monkeypatch.setattr(sys.modules[splice.__module__], "_SMALL", 0)


@given(builders.plain_values())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_alike(value: Any) -> None:
    agreed(_codec.dumps(builders.document_holding(value)))


@pytest.mark.parametrize("document", [builders.sample_document(), repeating()], ids=["sample", "every spelling"])
def test_what_is_written_is_read_the_fast_way(document: dict[str, Any]) -> None:
    assert agreed(_codec.dumps(document)) is not None


def twins() -> dict[str, Any]:
    """A document in which whole payloads repeat, and what has the keys of an exchange without being one."""
    posing = {"request": "x" * 60, "response": "y" * 60, "scope": "z" * 60}
    exchange = Exchange("tool", {"arguments": {"note": "n" * 2_000}}, {"result": posing})
    deep = Exchange("tool", {"arguments": {"aaa": "n" * 2_000, "request": {"response": posing, "scope": "s"}}}, None)
    spans = [
        builders.span(1, None, "root", attributes={"posing": posing, "again": posing}),
        builders.span(4, 1, "execute_tool deep", exchange=deep),
        *(builders.span(number, 1, "execute_tool twin", exchange=exchange, attributes=posing) for number in (2, 3)),
    ]
    return seal(builders.sample_header(), SpanTree(tuple(spans)), trace_id=builders.TRACE_ID, outcome="passed")


def test_what_repeats_whole_is_read_the_fast_way() -> None:
    data = _codec.dumps(twins())
    assert b"payload: &e2-" in data
    assert b"payload: *e2-" in data
    assert agreed(data) is not None


def test_what_others_said_changes_nothing() -> None:
    texts = [_codec.dumps(document) for document in (repeating(), twins(), builders.sample_document())]
    texts += [path.read_bytes() for path in CASSETTES]
    alone = []
    for data in texts:
        memory.clear()
        alone.append(splice(data))
    assert None not in alone
    memory.clear()
    for _ in range(2):
        assert [splice(data) for data in texts] == alone


def test_a_text_of_many_lines_takes_room_for_its_own_text_only() -> None:
    """Nothing is kept of each line, and nothing at all is read of a text that the writer does not write."""
    head, _, tail = _codec.dumps(builders.document_holding(None)).decode().partition("    attributes: {}\n")
    lines = "\n" * 2**21
    for lead, most in (("|2-", 24 * 2**20), ("|9-", 12 * 2**20)):
        data = f"{head}    attributes:\n      a: {lead}\n{lines}        x\n{tail}".encode()
        tracemalloc.start()
        try:
            splice(data)
            assert tracemalloc.get_traced_memory()[1] < most
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "block",
    [
        "".join(f"{' ' * column}a:\n" for column in range(6, 1_800, 2)),
        f"      a:\n        {'- ' * 900}x\n",
        "".join(f"{' ' * column}$a:\n" for column in range(6, 1_800, 2)).replace("$a", '"$a"'),
    ],
    ids=["keys", "dashes", "keys like tags"],
)
def test_what_is_too_deep_is_neither_gone_through_nor_remembered(block: str) -> None:
    memory.clear()
    head, _, tail = _codec.dumps(builders.document_holding(None)).decode().partition("    attributes: {}\n")
    assert splice(f"{head}    attributes:\n{block}{tail}".encode()) is None
    assert len(memory.states) < 4 * MAX_DEPTH
    assert all(len(blocks) <= MAX_DEPTH for blocks in memory.states)


AFTER_A_STRETCH = {
    "an alias": ("*e0-1", True),
    "an unknown alias": ("*e9-9", False),
    "an anchor": ('&e2-1 {"fresh": 1}', True),
    "an anchor of a block": ("&e2-1\n          b: 1", True),
    "a name that is taken": ('&e0-1 {"fresh": 1}', False),
    "an anchor in itself": ('&e2-1\n          b: &e2-1 {"c": 1}', False),
    "lines": ("|-\n          one\n          two", True),
    "lines that begin with a blank": ("|2-\n           one", True),
    "lines that do not, against what is said": ("|2-\n          one", False),
    "quoted lines": ('"one\\n\\\n          two\\t"', True),
    "an empty mapping": ("{}", True),
    "a blank": ("", False),
    "a blank item": ("\n          - \n            b: 1", False),
    "an item": ("- x", False),
    "a key": ("b: x", False),
    "a comment": ("one # two", False),
}


@pytest.mark.parametrize(("value", "known"), AFTER_A_STRETCH.values(), ids=AFTER_A_STRETCH)
def test_any_value_after_a_stretch(value: str, known: bool) -> None:
    turns = [{"fixed": "as ever", "own": f"value {number} of many", "wide": f"{number:0130d}"} for number in range(12)]
    lead = [{"long": "l" * 60}, {"long": "l" * 60}]
    data = _codec.dumps(builders.document_holding([lead, *({"turn": turn} for turn in turns)])).decode()
    assert "&e0-1" in data
    marked = 'own: "value 9 of many"'
    assert data.count(marked) == 1
    column = len(data.split(marked)[0].rpartition("\n")[2])
    changed = data.replace(marked, f"own: {value}".replace("\n" + " " * 10, "\n" + " " * (column + 2)))
    assert (agreed(changed.encode()) is not None) is known


@pytest.mark.parametrize("answer", [None, {"result": "r" * 2_000}], ids=["no answer", "an answer"])
@pytest.mark.parametrize("key", ["aaa", "requesta", "result", "sa", "zzz"])
def test_a_key_too_many_is_seen_whatever_it_stands_beside(key: str, answer: Any) -> None:
    exchange = Exchange("tool", {"arguments": {"note": "n" * 2_000}}, answer)
    tree = SpanTree((builders.span(1, None, "execute_tool x", exchange=exchange),))
    document = seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
    document["entries"][0]["payload"][key] = {"b": 1}
    builders.rechained(document)
    data = _codec.dumps(document)
    agreed(data)
    for deferred in (False, True):
        with pytest.raises(CassetteBroken, match="is not a key of this format"):
            verify(_codec.loads(data, deferred=deferred))


@pytest.mark.parametrize("path", CASSETTES, ids=lambda path: path.stem)
def test_our_own_cassettes_are_read_the_fast_way(path: Path) -> None:
    assert agreed(path.read_bytes()) is not None


LEFT_TO_THE_STRICT_READER: dict[str, Callable[[bytes], bytes]] = {
    "line ends of Windows": lambda data: data.replace(b"\n", b"\r\n"),
    "a mark of byte order": lambda data: b"\xef\xbb\xbf" + data,
    "a comment within": lambda data: data.replace(b"\n  kind:", b"\n  # looked at\n  kind:", 1),
    "a comment behind": lambda data: data.replace(b"name: refund", b"name: refund # yes", 1),
    "a document's end": lambda data: data + b"...\n",
    "an empty line within": lambda data: data.replace(b"\n  payload:", b"\n\n  payload:", 1),
    "keys in another order": lambda data: data.replace(
        b"    duration_ns: 2500000\n    events: []\n", b"    events: []\n    duration_ns: 2500000\n"
    ),
    "single quotes": lambda data: data.replace(b'"nightly"', b"'nightly'").replace(b"nightly", b"'nightly'", 1),
    "a line of NEL": lambda data: data.replace(b"x" * 70, b"x" * 69 + "\x85".encode(), 1),
    "a colon alone": lambda data: data.replace(b'- "\\u0000', b'- : "\\u0000', 1),
    "a colon too many": lambda data: data.replace(b"\n    name: ", b"\n    name:: ", 1),
    "a colon too many before a block": lambda data: data.replace(b"\n        texts:\n", b"\n        texts::\n", 1),
    "a key without a colon": lambda data: data.replace(b"\n        texts:\n", b"\n        texts\n", 1),
    "an anchor within itself": lambda data: re.sub(
        rb"payload:\n    attributes: \{\}", b"payload: &e9-9\n    attributes: &e9-9 {}", data, count=1
    ),
    "no end of the last line": lambda data: data.rstrip(b"\n"),
}


@pytest.mark.parametrize("change", LEFT_TO_THE_STRICT_READER.values(), ids=LEFT_TO_THE_STRICT_READER)
def test_another_spelling_is_left_to_the_strict_reader(change: Callable[[bytes], bytes]) -> None:
    data = _codec.dumps(repeating())
    assert change(data) != data
    assert splice(change(data)) is None


PIECES = (
    *(" ", "  ", "\n", "\t", '"', "'", "\\", "#", " #", ":", ": ", "- ", "-", "|", "|2-", "|-", "|+", ">", "&a "),
    *("{", "}", "[", "]", ",", "0", "1e5", "1e-7", ".5", "null", "~", "no", "? ", "!", "!!str ", "%", "@", "`", "$"),
    *("\u00e9", "\U0001f600", "\u2028", "\x85", "\ufeff", "\r", "\x00", "{}", "[]", '""', "a: b\n", "- a\n", "*e1-1"),
    *('{"a": 1, "a": 2}', '{"$float": "1.0"}', '{"b": 1, "a": 2}', '{"$esc": {"$a": 1}}', "\\n", "\\ud83d"),
    *(
        "[NaN]",
        '{"a": Infinity}',
        "[-Infinity]",
        "---\n",
        "...\n",
        "<<: *e1-1\n",
        "%YAML 1.2\n",
        "1.0e-07",
        "9" * 17,
        "-0",
        "1_0",
        "0x1",
    ),
)


def mutations(text: str, *, count: int, seed: int) -> Iterator[str]:
    """Texts that differ from one in one or two places: characters, pieces of YAML, whole lines."""
    chance = random.Random(seed)
    for _ in range(count):
        changed = text
        for _ in range(chance.choice((1, 1, 1, 2))):
            changed = _mutated(changed, chance)
        yield changed


def _mutated(text: str, chance: random.Random) -> str:
    lines = text.split("\n")
    # Past the comments, where there is something to misread.
    here, there = (chance.randrange(text.count("\n# "), len(lines)) for _ in range(2))
    line, place = lines[here], chance.randrange(len(lines[here]) + 1)
    kind = chance.randrange(9)
    if kind == 0:
        lines[here] = line[:place] + chance.choice(PIECES) + line[place:]
    elif kind == 1:
        lines[here] = line[:place] + line[place + chance.randrange(1, 4) :]
    elif kind == 2:
        del lines[here]
    elif kind == 3:
        lines.insert(there, line)
    elif kind == 4:
        lines[here], lines[there] = lines[there], lines[here]
    elif kind == 5:
        lines[here] = " " * chance.randrange(1, 5) + line
    elif kind == 6:
        lines[here] = line[min(len(line) - len(line.lstrip()), chance.randrange(1, 5)) :]
    elif kind == 7:
        key, colon, _ = line.partition(": ")
        lines[here] = key + colon + chance.choice(PIECES)
    else:
        key, colon, _ = line.partition(": ")
        lines[here] = key + colon + lines[there].strip()
    return "\n".join(lines)


@pytest.mark.parametrize("document", [builders.sample_document(), repeating()], ids=["sample", "every spelling"])
def test_no_mutation_is_read_otherwise(document: dict[str, Any]) -> None:
    text = _codec.dumps(document).decode()
    changed = (one.encode() for one in mutations(text, count=1500, seed=7))
    accepted = sum(agreed(data) is not None for data in changed)
    # Some change only a word: a reader that accepts none has proven nothing.
    assert accepted > 50
