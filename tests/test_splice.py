"""The fast reader reads what the strict one reads, or leaves it to it: of what we write, and of what becomes of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import builders
from pytest_spanchain import _codec
from pytest_spanchain._canonical import canonical
from pytest_spanchain._codec import reader
from pytest_spanchain._codec.splice import Spliced, splice

CASSETTES = sorted((Path(__file__).parents[1] / "cassettes").rglob("*.yaml"))


def agreed(data: bytes) -> Spliced | None:
    """What the fast reader makes of a file, which is what the strict one makes of it."""
    found = splice(data)
    if found is None:
        return None
    strict = reader.read(data.decode())
    header, entries = strict.value["header"], strict.value["entries"]
    assert found.header.encode() == canonical(header)
    assert tuple(entry.line for entry in found.entries) == strict.entry_lines
    assert len(found.entries) == len(entries)
    for fast, slow in zip(found.entries, entries, strict=True):
        hashed = {key: value for key, value in slow.items() if key != "sha256_hash"}
        assert fast.hashed().encode() == canonical(hashed)
        assert json.loads(fast.texts["sha256_hash"]) == slow["sha256_hash"]
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
        "tags": [{"$date": "2026-01-01"}, {"$tuple": ["a" * 60, "b" * 60]}, {"$a": 1, "$b": "c" * 120}],
        "empty": [{}, [], "", {"a": {}}, [[]], None, True, False],
        "caf\u00e9": {"\u4e2d b": "z" * 120, "a-b/c.d": 'say "hi"'},
    }
    return builders.document_holding(value)


@given(builders.plain_values())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_alike(value: Any) -> None:
    agreed(_codec.dumps(builders.document_holding(value)))


@pytest.mark.parametrize("document", [builders.sample_document(), repeating()], ids=["sample", "every spelling"])
def test_what_is_written_is_read_the_fast_way(document: dict[str, Any]) -> None:
    assert agreed(_codec.dumps(document)) is not None


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
    *("---\n", "...\n", "<<: *e1-1\n", "%YAML 1.2\n", "1.0e-07", "9" * 17, "-0", "1_0", "0x1"),
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
