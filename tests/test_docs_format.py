"""docs/format.md against the code: its cassette is one, its verifier verifies, its tables name what there is."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import outsider
from documents import FORMAT, ROOT, block, checks, code, prose, table
from pytest_spanchain import _canonical, _chain, _codec, _fold, _layout, _ledger, _store, _summary
from pytest_spanchain._codec import limits
from pytest_spanchain._ledger import form, streams
from pytest_spanchain._values.decoder import _READERS
from pytest_spanchain._values.encoder import _CONTAINERS
from pytest_spanchain._values.objects import NAMED_SECTIONS
from pytest_spanchain.errors import CassetteUnreadable

EXAMPLE = block(FORMAT, "cassette: test_price-bfe7c92db530.yaml")
COMMITTED = sorted((ROOT / "cassettes").rglob("*.yaml"))
VERIFIER: dict[str, Any] = {"__name__": "verifier"}
exec(block(FORMAT, "verifier").text, VERIFIER)

PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 - 1, 2**53, -(2**53) + 1, -(2**53), 1e16, 1e15, 1e-5, 1e-4, -0.0, 5e-324])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("$a\u00e9\ue000\U0001f600", max_size=3), inner, max_size=3),
)


@checks(FORMAT, EXAMPLE.mark)
def test_the_cassette_is_what_the_recorder_writes() -> None:
    parsed = _codec.loads(EXAMPLE.text.encode())
    cassette = _chain.verify(parsed, nodeid="tests/test_shop.py::test_price")
    assert _codec.dumps(parsed.document).decode() == EXAMPLE.text
    path = _store.cassette_path(Path("cassettes"), cassette.header.nodeid)
    assert path.name == EXAMPLE.mark.removeprefix("cassette: ")
    assert path.parent == Path("cassettes/tests/test_shop")
    assert VERIFIER["verify"](EXAMPLE.text) == cassette.head


@checks(FORMAT, "folded")
def test_a_folded_stream_stands_for_its_events() -> None:
    events = yaml.safe_load(block(FORMAT, "folded").text)["events"]
    words = ["The refund ", "is on ", "its way"]
    chunks = [
        f'{{"id":"chatcmpl-1","choices":[{{"index":0,"delta":{{"content":"{word}"}},"finish_reason":null}}]}}'
        for word in words
    ]
    text = "".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]"))
    assert _fold.unfold(events, size=len(text)) == text
    assert events[0]["frame"].count(_fold.HOLE) == 1
    assert f"{_fold.MAX_SIZE:,} characters" in prose(FORMAT)
    assert f"{streams.MAX_UNFOLDED:,} bytes of all folded streams" in prose(FORMAT)


@checks(FORMAT, "verifier")
def test_the_verifier_accepts_every_committed_cassette(tmp_path: Path) -> None:
    assert len(COMMITTED) >= 7
    script = tmp_path / "verify.py"
    script.write_text(block(FORMAT, "verifier").text)
    told = subprocess.run(
        [sys.executable, script, *COMMITTED], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert told == [f"{_store.load(path).head} {path}" for path in COMMITTED]
    text = COMMITTED[0].read_text(encoding="utf-8")
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace('"code": "unset"', '"code": "ok"', 1), encoding="utf-8")
    assert broken.read_text(encoding="utf-8") != text
    refused = subprocess.run([sys.executable, "-O", script, broken], capture_output=True, text=True, timeout=60)
    assert (refused.returncode, refused.stdout, refused.stderr[:8]) == (1, "", "refused:")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the leaves are; an empty collection is one."""
    if isinstance(value, (dict, list)) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))
    else:
        yield path


def edited(document: Any, path: tuple[Any, ...]) -> Any:
    """A copy in which one leaf is another, as like the old one as can be."""
    changed = copy.deepcopy(document)
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    others = {bool: not old, int: old + 1 if isinstance(old, int) else None, str: f"{old}x", type(None): "null"}
    holder[path[-1]] = others.get(type(old), 1)
    return changed


def refuses(document: Any) -> bool:
    try:
        VERIFIER["verify"](yaml.safe_dump(document))
    except SystemExit as refusal:
        return str(refusal).startswith("refused: ")
    return False


def test_the_verifier_refuses_every_edit_of_the_example() -> None:
    document = _codec.loads(EXAMPLE.text.encode()).document
    assert not refuses(document)
    leaves = list(places(document))
    assert len(leaves) > 100
    assert [path for path in leaves if not refuses(edited(document, path))] == []
    entries = document["entries"]
    for seq in range(len(entries)):
        assert refuses({**document, "entries": entries[:seq] + entries[seq + 1 :]}), f"entry {seq} was dropped"
        assert refuses({**document, "entries": [*entries[:seq], entries[seq], *entries[seq:]]}), f"{seq} was doubled"
    assert refuses({**document, "entries": entries[::-1]})
    assert refuses({**document, "more": 1})


@given(PLAIN)
def test_the_verifier_hashes_like_the_recorder(value: Any) -> None:
    expected = _canonical.digest(_chain.ENTRY_DOMAIN, value)
    assert VERIFIER["digest"](b"spanchain/entry/v1", value) == expected
    assert outsider.digest("spanchain/entry/v1", value) == expected


# --- an outsider's strict verifier -----------------------------------------------------------------------------------


def test_the_outsider_shares_nothing_with_us() -> None:
    source = (ROOT / "tests/outsider.py").read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:from|import) (\S+)", source, re.MULTILINE))
    assert imported <= sys.stdlib_module_names | {"collections.abc", "yaml"}
    assert "import" not in re.sub(r"^(?:from|import) .*$", "", source, flags=re.MULTILINE)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_the_outsider_accepts_every_committed_cassette_and_no_edit(path: Path) -> None:
    data = path.read_bytes()
    assert outsider.head(data) == _store.load(path).head
    text = data.decode()
    lines = text.splitlines(keepends=True)
    for number in range(0, len(lines), max(1, len(lines) // 25)):
        left = "".join(lines[:number] + lines[number + 1 :]).encode()
        assert same_verdict(left) != "accepted" or not lines[number].strip(), f"without line {number + 1}"
    document = outsider.read(text)
    leaves = list(places(document))
    for place in leaves[:: max(1, len(leaves) // 40)]:
        assert verdict_of(edited(document, place)) == "broken", place


def same_verdict(data: bytes) -> str:
    """What the outsider says of a file; where both can read it, we say the same."""
    try:
        outsider.head(data)
        said = "accepted"
    except outsider.Refused as refused:
        said = refused.verdict
    except yaml.YAMLError:
        said = "unreadable"
    try:
        ours = our_verdict(_codec.loads(data))
    except CassetteUnreadable:
        ours = "unreadable"
    assert said == ours
    return said


def verdict_of(document: Any) -> str:
    """What the outsider says of a document; we say the same."""
    try:
        outsider.judge(document)
        said = "accepted"
    except outsider.Refused as refused:
        said = refused.verdict
    assert said == our_verdict(_ledger.Parsed(document))
    return said


def our_verdict(parsed: _ledger.Parsed) -> str:
    verdicts = _chain.judge(parsed)
    return "broken" if verdicts.integrity else "incomplete" if verdicts.completeness else "accepted"


def chained(document: Any) -> Any:
    """A document whose hashes were computed again by somebody who knows how."""
    document = copy.deepcopy(document)
    link = outsider.digest("spanchain/header/v1", document["header"])
    for entry in document["entries"]:
        entry.pop("sha256_hash", None)
        entry["prev_hash"] = link
        link = entry["sha256_hash"] = outsider.digest("spanchain/entry/v1", entry)
    return document


def test_both_judge_alike_what_a_forger_has_chained_again() -> None:
    """Only shapes, ids, the tree and the counts are left to tell; the page names them all."""
    document = _codec.loads(EXAMPLE.text.encode()).document
    assert verdict_of(chained(document)) == "accepted"
    said = Counter[str]()
    for place in places(document):
        for other in (None, True, 0, -1, 1.5, "", "x", "0" * 16, "1" * 32, [], {}, {"a": 1}, ["a"]):
            changed = copy.deepcopy(document)
            holder = changed
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = other
            said[verdict_of(chained(changed))] += 1
    for inner in {place[:depth] for place in places(document) for depth in range(1, len(place))}:
        changed = copy.deepcopy(document)
        holder = changed
        for key in inner:
            holder = holder[key]
        if isinstance(holder, dict):
            holder["more"] = 1
            said[verdict_of(chained(changed))] += 1
            del holder["more"], holder[next(iter(holder))]
            said[verdict_of(chained(changed))] += 1
    entries = document["entries"]
    for seq in range(len(entries)):
        for left in (entries[:seq] + entries[seq + 1 :], [*entries[: seq + 1], *entries[seq:]], entries[: seq + 1]):
            renumbered = [{**entry, "seq": number} for number, entry in enumerate(left)]
            if renumbered:
                said[verdict_of(chained({**document, "entries": renumbered}))] += 1
    assert min(said[verdict] for verdict in ("accepted", "broken", "incomplete")) > 5


DECEPTIVE = st.text(
    st.sampled_from("ab \\\t\n\x85\xa0\xad\u061c\u200b\u202e\ufeff\uffa0\u3164\U000e0041\U0001f600│#|"), max_size=8
)


@given(st.lists(st.tuples(DECEPTIVE, st.integers(0, 3), st.sampled_from(["span", "tool", "model", "http"]))), DECEPTIVE)
def test_both_draw_the_same_summary(drawn: list[tuple[str, int, str]], more: str) -> None:
    document = copy.deepcopy(_codec.loads(EXAMPLE.text.encode()).document)
    root, close = document["entries"][0], document["entries"][-1]
    root["payload"]["name"] = more * 20
    document["header"]["nodeid"] = more * 70
    close["payload"]["outcome"] = more
    spans = [root]
    for number, (name, up, kind) in enumerate(drawn):
        attributes = {
            "gen_ai.usage.input_tokens": 10**up if up else True,
            "gen_ai.usage.output_tokens": 10 ** (up + 13),
        }
        status = {"code": ("unset", "ok", "error", "error")[up], "message": name * 13}
        payload = {"name": name * 13, "attributes": attributes, "status": status}
        parent = spans[max(0, len(spans) - 1 - up)]["span_id"]
        spans.append({"kind": kind, "span_id": f"{number:016x}", "parent_span_id": parent, "payload": payload})
    for entries in (spans, [*spans, close]):
        document["entries"] = entries
        assert outsider.summary(document) == _summary.lines(document)


@checks(FORMAT, "formulas")
def test_the_formulas_name_the_domains() -> None:
    assert re.findall(r'SHA256\("(.*?)"', block(FORMAT, "formulas").text) == [_chain.HEADER_DOMAIN, _chain.ENTRY_DOMAIN]


def keys(number: int) -> list[str]:
    return [key for row in table(FORMAT, "key", number=number) for key in code(row[0])]


def test_tables_have_the_keys_of_the_code() -> None:
    header, entry, span, close, http, tool, mcp, agent, callback, process = (keys(number) for number in range(10))
    assert header == list(_ledger.HEADER_KEYS)
    assert entry == list(_ledger.ENTRY_KEYS)
    assert set(span) == set(form._EXCHANGE)
    assert set(close) == set(form._CLOSE)
    exchanges = [one["payload"] for path in COMMITTED for one in _codec.loads(path.read_bytes()).document["entries"]]
    for named, key in ((http, "method"), (tool, "arguments")):
        of_kind = [payload for payload in exchanges if key in payload.get("request", {})]
        assert of_kind
        for payload in of_kind:
            used = {f"{part}.{name}" for part in ("request", "response") for name in payload[part]}
            assert used <= set(named)
    for named, shapes in (
        (mcp, (outsider.MCP_REQUEST, outsider.MCP_RESPONSE)),
        (agent, (outsider.MCP_REQUEST, outsider.MCP_RESPONSE)),
        (callback, (outsider.CALLBACK_REQUEST, outsider.CALLBACK_RESPONSE)),
        (process, (outsider.PROCESS_REQUEST, outsider.PROCESS_RESPONSE)),
    ):
        of_shapes = {
            f"{part}.{key}" for part, shape in zip(("request", "response"), shapes, strict=True) for key in shape
        }
        may_be_absent = {"response.order", *(["response.stderr"] if named is mcp else [])}
        assert set(named) - may_be_absent == of_shapes


def test_lists_of_words_are_those_of_the_code() -> None:
    rows = {code(row[0])[0]: code(row[1]) for number in (1, 2) for row in table(FORMAT, "key", number=number)}
    assert rows["kind"] == list(form.ENTRY_KINDS)
    assert rows["span_kind"] == list(form.SPAN_KINDS)
    assert rows["status"][1:4] == list(form.STATUSES)
    text = prose(FORMAT)
    styles = re.search(r"STYLE is (.*?), and then any of (.*?), in this order", text, re.DOTALL)
    assert styles is not None
    assert code(styles[1]) == list(_layout._BASES)
    assert [flag[1:] for flag in code(styles[2]) if flag.startswith("+")] == list(_layout._FLAGS)
    for number in (limits.MAX_NODES, limits.MAX_TEXT, limits.MAX_DIGITS, limits.MAX_KEY):
        assert f"{number:,}" in text
    assert f"nesting of {limits.MAX_DEPTH} collections" in text
    assert f"at most {limits.MAX_BYTES // 2**20} MiB" in text


def test_the_table_of_tags_has_every_tag() -> None:
    tags = [tag for row in table(FORMAT, "tag") for tag in code(row[0])]
    untabled = {"$esc", "$map", "$enum", "$object", "$exception", "$opaque"}
    assert len(tags) == len(set(tags))
    assert set(tags) == {*_READERS, *_CONTAINERS.values(), *untabled} - {"$list"}
    assert set(code(table(FORMAT, "tag")[-2][1])) > NAMED_SECTIONS


def test_the_layout_that_is_explained_reads_as_explained() -> None:
    value = {
        "choices": [{"finish_reason": "stop", "index": 0, "message": 1}],
        **dict.fromkeys(("created", "id", "model", "object", "usage"), 1),
    }
    assert "`spanchain/1`" in prose(FORMAT)
    assert "`spaced 2413;12` says" in prose(FORMAT)
    assert re.findall(r'"(\w+)":', _layout.join(value, "spaced 2413;12")) == [
        *("id", "object", "created", "model", "choices"),
        *("index", "message", "finish_reason"),
        "usage",
    ]


@pytest.mark.parametrize("shown", re.findall(r"`(-?\d[\d.e+-]*)`", "".join(prose(FORMAT).split("### Lift")[1:])[:900]))
def test_numbers_in_the_text_are_written_as_it_says(shown: str) -> None:
    value = float(shown) if "." in shown or "e" in shown else int(shown)
    assert str(value) == shown or (shown == "1.0" and value == 1)
