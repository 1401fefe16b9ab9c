"""No edit of a cassette's text is taken for the cassette: it fails, or it changed nothing that the text says."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import builders
from pytest_spanchain import _chain, _codec
from pytest_spanchain._codec import writer as _yaml_writer
from pytest_spanchain.errors import CassetteBroken, CassetteError, CassetteUnreadable

DOCUMENT = builders.sample_document()
TEXT = _codec.dumps(DOCUMENT).decode()
LINES = TEXT.splitlines(keepends=True)

Place = tuple[Any, ...]


def scalar_places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Paths of all scalars and empty collections."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from scalar_places(item, (*place, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from scalar_places(item, (*place, index))
    else:
        yield place


def at(document: Any, place: Place) -> Any:
    """The value at a place."""
    for step in place:
        document = document[step]
    return document


def judged(document: dict[str, Any]) -> CassetteError | None:
    """Integrity of a document written without its summary, so that the chain alone has to see it."""
    parsed = _codec.loads(_yaml_writer.emit(document).encode(), path="x.yaml")
    error = _chain.judge(parsed, path="x.yaml").integrity
    if error is not None and error.entry is not None:
        assert error.line == parsed.entry_lines[error.entry]
    return error


def alternatives(value: Any) -> list[Any]:
    """Values that are near this one, and some that only a careless reader takes for the same."""
    near: list[Any] = [None, "", 0, True, [], {}, "x"]
    if isinstance(value, bool) or value is None:
        near += [str(value).lower(), not value]
    elif isinstance(value, (int, float)):
        near += [value + 1, -value, str(value), float(value) if isinstance(value, int) else int(value)]
    elif isinstance(value, str):
        near += [value + " ", value + "\n", " " + value, value[:-1], value.upper(), value.lower(), value.swapcase()]
        near += [value[:-1] + chr(ord(value[-1]) ^ 1)] if value else []
    return [other for other in near if (type(other), repr(other)) != (type(value), repr(value))]


PARTS = [
    *(("header", key) for key in DOCUMENT["header"]),
    *(("entries", seq) for seq in range(len(DOCUMENT["entries"]))),
]
per_part = pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part[0]} {part[1]}")


@per_part
def test_every_scalar_counts(part: Place) -> None:
    for place in scalar_places(at(DOCUMENT, part), part):
        check_scalar(place)


def check_scalar(place: Place) -> None:
    rng = random.Random(str(place))
    choices = alternatives(at(DOCUMENT, place))
    for other in rng.sample(choices, min(2, len(choices))):
        document = copy.deepcopy(DOCUMENT)
        at(document, place[:-1])[place[-1]] = other
        error = judged(document)
        assert isinstance(error, CassetteBroken), (place, other)
        assert error.path == "x.yaml"
        assert error.field
        if place[0] == "entries":
            assert error.entry == place[1]
        else:
            # A header that still looks like one is seen by the first link.
            assert error.field == place[1] or (error.entry, error.field) == (0, "prev_hash")


@per_part
def test_every_key_and_item_counts(part: Place) -> None:
    for place in scalar_places(at(DOCUMENT, part), part):
        check_key_or_item(place)


def check_key_or_item(place: Place) -> None:
    for change in ("drop", "add"):
        document = copy.deepcopy(DOCUMENT)
        parent, last = at(document, place[:-1]), place[-1]
        if change == "drop":
            del parent[last]
        elif isinstance(parent, list):
            parent.insert(last, copy.deepcopy(parent[last]))
        else:
            parent[f"{last} "] = parent[last]
        error = judged(document)
        assert isinstance(error, CassetteBroken), (place, change)
        assert error.entry == (place[1] if place[0] == "entries" else error.entry)


@pytest.mark.parametrize("seq", range(len(DOCUMENT["entries"])))
def test_every_entry_counts(seq: int) -> None:
    last = len(DOCUMENT["entries"]) - 1
    for change in ("drop", "double", "swap", "cut"):
        document = copy.deepcopy(DOCUMENT)
        entries = document["entries"]
        if change == "drop":
            del entries[seq]
        elif change == "double":
            entries.insert(seq, copy.deepcopy(entries[seq]))
        elif change == "swap":
            other = (seq + 1) % len(entries)
            entries[seq], entries[other] = entries[other], entries[seq]
        else:
            del entries[seq:]
        parsed = _codec.loads(_yaml_writer.emit(document).encode())
        verdicts = _chain.judge(parsed)
        assert verdicts.cassette is None, change
        if (change == "drop" and seq == last) or (change == "cut" and seq > 0):
            assert verdicts.integrity is None
            assert verdicts.completeness is not None
        elif entries:
            assert verdicts.integrity is not None
            expected = {"drop": seq, "double": seq + 1, "swap": 0 if seq == last else seq}[change]
            assert (verdicts.integrity.entry, verdicts.integrity.field) == (expected, "seq")
            assert verdicts.integrity.line == parsed.entry_lines[expected]


def test_an_entry_of_another_cassette_does_not_fit() -> None:
    donor = builders.sample_document(nodeid="tests/other.py::test_x")
    for seq in range(len(DOCUMENT["entries"])):
        document = copy.deepcopy(DOCUMENT)
        document["entries"][seq] = donor["entries"][seq]
        error = judged(document)
        assert error is not None
        assert (error.entry, error.field) == (seq, "prev_hash")
    assert judged({**DOCUMENT, "header": donor["header"]}) is not None


def says_the_same_or_fails(text: str) -> bool:
    """Whether a changed text verified; it must then say what the original says, summary and all."""
    try:
        parsed = _codec.loads(text.encode("utf-8", "surrogatepass"))
        _chain.verify(parsed, nodeid=builders.NODEID)
    except CassetteError:
        return False
    assert repr(_sorted(parsed.document)) == repr(_sorted(DOCUMENT))
    return True


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def test_every_line_counts() -> None:
    passed = []
    for number, line in enumerate(LINES):
        rest = LINES[:number] + LINES[number + 1 :]
        for change, lines in (
            ("lost", rest),
            ("doubled", LINES[: number + 1] + LINES[number:]),
            ("swapped", [*rest[: number + 1], line, *rest[number + 1 :]]),
        ):
            if says_the_same_or_fails("".join(lines)):
                passed.append((change, line.strip().split(":")[0]))
    # Keys of one mapping may change places, and a blank line before the data means nothing; no more.
    assert all(change == "swapped" or not line for change, line in passed), passed


def test_every_cut_counts() -> None:
    data = TEXT.encode()
    for end in range(0, len(data) - 1, 97):
        with pytest.raises(CassetteError):
            _chain.verify(_codec.loads(data[:end]))
    for end in range(len(data) - 70, len(data) - 1):
        with pytest.raises(CassetteError):
            _chain.verify(_codec.loads(data[:end]))


@given(
    place=st.integers(min_value=0, max_value=len(TEXT)),
    gone=st.integers(min_value=0, max_value=3),
    new=st.text(st.sampled_from("\n \t#|&*!%@-?:,[]{}'\"\\0123456789aefEn._~<>=\r\x85\u2028\ufeff😀\x00"), max_size=3),
)
@example(place=0, gone=0, new="")
@example(place=TEXT.index("data: {"), gone=1, new="\n")
@settings(max_examples=150, deadline=None)
def test_no_change_of_the_text_is_taken_for_something_else(place: int, gone: int, new: str) -> None:
    says_the_same_or_fails(TEXT[:place] + new + TEXT[place + gone :])


def test_silent_merges_are_seen() -> None:
    # merge=union keeps both sides; a clean merge may take one hunk of each.
    other = copy.deepcopy(DOCUMENT)
    other["entries"][2]["payload"]["duration_ns"] += 1
    link = other["entries"][1]["sha256_hash"]
    for entry in other["entries"][2:]:
        entry["prev_hash"] = link
        link = entry["sha256_hash"] = _chain.entry_hash(entry)
    theirs = _codec.dumps(other).decode().splitlines(keepends=True)
    assert len(theirs) == len(LINES)
    differing = [number for number, (one, two) in enumerate(zip(LINES, theirs, strict=True)) if one != two]
    for number in differing:
        for merged in (
            LINES[:number] + theirs[number:],
            theirs[:number] + LINES[number:],
            [*LINES[:number], theirs[number], *LINES[number:]],
        ):
            if merged not in (LINES, theirs):
                with pytest.raises(CassetteError):
                    _chain.verify(_codec.loads("".join(merged).encode()))
    marked = [
        *LINES[:50],
        "<<<<<<< ours\n",
        *LINES[50:60],
        "=======\n",
        *theirs[50:60],
        ">>>>>>> theirs\n",
        *LINES[60:],
    ]
    with pytest.raises(CassetteUnreadable, match="conflict markers") as caught:
        _codec.loads("".join(marked).encode())
    assert caught.value.line == 51
    assert "never merged" in caught.value.remedy
