"""Sealing and the checklist of verify: each check has an attack that only it can see."""

from __future__ import annotations

import ast
import copy
import math
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

import builders
import pytest_spanchain
from pytest_spanchain import _chain, _codec, _ledger, _model, _recorder, _store, _summary
from pytest_spanchain._codec.splice import splice
from pytest_spanchain._redact import Redactor
from pytest_spanchain._volatile import Context
from pytest_spanchain.errors import CassetteBroken, CassetteError, CassetteIncomplete, RecordingError, Unrecordable

Change = Callable[[dict[str, Any]], object]


def test_seal_and_verify_give_back_the_nouns() -> None:
    cassette = _chain.verify(_ledger.Parsed(builders.sample_document()), path="x.yaml", nodeid=builders.NODEID)
    assert cassette.tree == builders.sample_tree()
    assert cassette.header == builders.sample_header()
    assert (cassette.path, cassette.trace_id, cassette.outcome) == ("x.yaml", builders.TRACE_ID, "passed")
    assert cassette.head == builders.sample_document()["entries"][-1]["sha256_hash"]


@given(builders.trees())
@settings(max_examples=20, deadline=None)
def test_any_well_formed_tree_survives_the_file(tree: _model.SpanTree) -> None:
    document = _chain.seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
    assert _chain.verify(_codec.loads(_codec.dumps(document))).tree == tree


def test_the_chain_is_what_the_format_says() -> None:
    # Spelt out once without the package's own canonical form, so that a change of the format cannot go unnoticed.
    document = _chain.seal(
        _model.Header("n", "e", "t", {}, {}, {}),
        _model.SpanTree((_model.Span("0" * 16, None, "a", start_ns=5),)),
        trace_id="1" * 32,
        outcome="passed",
    )
    assert document["entries"][0]["prev_hash"] == _sha(
        "spanchain/header/v1",
        '{"eval_id":"e","format":"spanchain/1","nodeid":"n","provenance":{},"recorded_at":"t","recorder":{},'
        '"redaction":{},"supersedes":null}',
    )
    assert document["entries"][0]["sha256_hash"] == _sha(
        "spanchain/entry/v1",
        '{"eval_id":"e","kind":"span","parent_span_id":null,"payload":{"attributes":{},"duration_ns":0,"events":[],'
        '"name":"a","scope":"pytest_spanchain","span_kind":"internal","status":{"code":"unset","message":""}},'
        f'"prev_hash":"{document["entries"][0]["prev_hash"]}","seq":0,"span_id":"0000000000000000",'
        f'"timestamp_ns":"5","trace_id":"{"1" * 32}"}}',
    )


def _sha(domain: str, text: str) -> str:
    import hashlib

    return hashlib.sha256(f"{domain}\n{text}".encode()).hexdigest()


def test_the_close_entry_ends_with_the_last_span() -> None:
    close = builders.sample_document()["entries"][-1]
    assert close["timestamp_ns"] == str(max(span.end_ns for span in builders.sample_tree()))
    assert close["payload"] == {
        "declared_entries": 5,
        "by_kind": {"span": 1, "model": 2, "tool": 1, "http": 1},
        "in_flight": 0,
        "outcome": "passed",
    }


def _span(number: int, parent: int | None, **more: Any) -> _model.Span:
    parent_id = None if parent is None else builders.span_id(parent)
    return _model.Span(builders.span_id(number), parent_id, "s", **more)


@pytest.mark.parametrize(
    "spans",
    [
        (),
        (_span(1, None), _span(2, None)),
        (_span(1, None), _span(1, 1)),
        (_span(2, 1), _span(1, None)),
        (_span(1, None), _span(2, 9)),
        (_span(1, None, span_kind="weird"),),
        (_span(1, None, status="weird"),),
        (_span(1, None, start_ns=-1),),
        (_span(1, None, events=({"name": "n"},)),),
        (_model.Span("XYZ", None, "s"),),
    ],
    ids=["empty", "two roots", "twins", "child first", "orphan", "kind", "status", "time", "event", "id"],
)
def test_what_would_not_verify_is_not_written(spans: tuple[_model.Span, ...], tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="this recording could not be replayed: "):
        save(tmp_path / "x.yaml", _model.SpanTree(spans))
    assert not list(tmp_path.iterdir())


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    exchange = _model.Exchange("tool", {"arguments": {}}, {"results": 1})
    with pytest.raises(RecordingError) as caught:
        save(tmp_path / "x.yaml", _model.SpanTree((_span(1, None), _span(2, 1, exchange=exchange))))
    assert str(caught.value) == (
        "this recording could not be replayed: entry 1 ('s'): payload.response.result: is missing"
    )


@given(builders.trees())
@settings(max_examples=20, deadline=None)
def test_any_well_formed_tree_is_written(tree: _model.SpanTree) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder, "x.yaml"), tree)
        assert _store.load(Path(folder, "x.yaml")).tree == tree


def save(path: Path, tree: _model.SpanTree) -> None:
    recording = _recorder.Recording(
        nodeid="n",
        eval_id="e",
        mode="once",
        scopes=frozenset(),
        context=Context(),
        supersedes=None,
        tree=tree,
        outcome="passed",
        in_flight=0,
    )
    _recorder.save(path, recording, redactor=Redactor({}))


def test_a_value_without_a_plain_form_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (math.nan, "\ud800", b"x", object(), loop):
        with pytest.raises(Unrecordable, match="execute_tool x"):
            builders.document_holding(value)


def test_sealed_and_verified_share_nothing_with_their_source() -> None:
    attributes: dict[str, Any] = {"list": [1]}
    tree = _model.SpanTree((_span(1, None, attributes=attributes),))
    document = _chain.seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
    attributes["list"].append(2)
    assert document["entries"][0]["payload"]["attributes"] == {"list": [1]}


# Each item: what the attacker does before making every hash right again, and the field that must be named.
RECHAINED: dict[str, tuple[Change, str]] = {
    "foreign format": (lambda d: d["header"].update(format="spanchain/2"), "format"),
    "unknown header key": (lambda d: d["header"].update(extra=1), "extra"),
    "missing header key": (lambda d: d["header"].pop("supersedes"), "supersedes"),
    "untyped header key": (lambda d: d["header"].update(supersedes="abc"), "supersedes"),
    "nodeid of another type": (lambda d: d["header"].update(nodeid=5), "nodeid"),
    "unknown entry key": (lambda d: d["entries"][1].update(extra=1), "extra"),
    "missing entry key": (lambda d: d["entries"][1].pop("eval_id"), "eval_id"),
    "unknown kind": (lambda d: d["entries"][1].update(kind="event"), "kind"),
    "numeric timestamp": (lambda d: d["entries"][1].update(timestamp_ns=5), "timestamp_ns"),
    "signed timestamp": (lambda d: d["entries"][1].update(timestamp_ns="+5"), "timestamp_ns"),
    "boolean seq": (lambda d: d["entries"][1].update(seq=True), "seq"),
    "unknown payload key": (lambda d: d["entries"][1]["payload"].update(extra=1), "payload.extra"),
    "span with a request": (lambda d: d["entries"][0]["payload"].update(request={}), "payload.request"),
    "exchange without one": (lambda d: d["entries"][1]["payload"].pop("request"), "payload.request"),
    "response as text": (lambda d: d["entries"][1]["payload"].update(response="x"), "payload.response"),
    "float duration": (lambda d: d["entries"][1]["payload"].update(duration_ns=1.0), "payload.duration_ns"),
    "status code": (lambda d: d["entries"][1]["payload"]["status"].update(code="fine"), "payload.status.code"),
    "event key": (lambda d: d["entries"][1]["payload"]["events"][0].update(x=1), "payload.events[0].x"),
    "close with an id": (lambda d: d["entries"][-1].update(span_id="0" * 16), "span_id"),
    "span without an id": (lambda d: d["entries"][1].update(span_id=None), "span_id"),
    "gap in seq": (lambda d: d["entries"][2].update(seq=7), "seq"),
    "second trace": (lambda d: d["entries"][2].update(trace_id="0" * 32), "trace_id"),
    "second evaluation": (lambda d: d["entries"][2].update(eval_id="other"), "eval_id"),
    "evaluation of the header": (lambda d: d["header"].update(eval_id="other"), "eval_id"),
    "twin ids": (lambda d: d["entries"][2].update(span_id=d["entries"][1]["span_id"]), "span_id"),
    "own parent": (lambda d: d["entries"][2].update(parent_span_id=d["entries"][2]["span_id"]), "parent_span_id"),
    "later parent": (lambda d: d["entries"][1].update(parent_span_id=builders.span_id(5)), "parent_span_id"),
    "second root": (lambda d: d["entries"][1].update(parent_span_id=None), "parent_span_id"),
    "no root": (lambda d: d["entries"][0].update(parent_span_id=builders.span_id(9)), "parent_span_id"),
    "dropped entry": (lambda d: d["entries"].pop(1), "seq"),
    "moved entry": (lambda d: d["entries"].insert(3, d["entries"].pop(1)), "seq"),
    "doubled entry": (lambda d: d["entries"].insert(1, copy.deepcopy(d["entries"][1])), "seq"),
    "no entries": (lambda d: d["entries"].clear(), "entries"),
    "extra top-level key": (lambda d: d.update(extra=1), "header"),
    "no header": (lambda d: d.pop("header"), "header"),
    "header as a list": (lambda d: d.update(header=[]), "header"),
    "entry as text": (lambda d: d["entries"].__setitem__(1, "x"), ""),
}

# The shape of what an exchange holds: entry 1 is a model's, 2 a tool's, 3 another HTTP request.
HELD: dict[str, tuple[int, Change, str]] = {
    "no url": (1, lambda p: p["request"].pop("url"), "request.url"),
    "more in a request": (1, lambda p: p["request"].update(extra=1), "request.extra"),
    "headers as a list": (1, lambda p: p["request"].update(headers=[]), "request.headers"),
    "header as a number": (1, lambda p: p["request"]["headers"].update(accept=1), "request.headers"),
    "layout in a request": (1, lambda p: p["request"]["body"].update(layout="compact"), "request.body.layout"),
    "empty body": (3, lambda p: p["request"].update(body={}), "request.body"),
    "two bodies in one": (3, lambda p: p["request"]["body"].update(text="x"), "request.body"),
    "no end": (1, lambda p: p["response"].pop("end"), "response.end"),
    "another end": (1, lambda p: p["response"].update(end="done"), "response.end"),
    "status as text": (1, lambda p: p["response"].update(status="200"), "response.status"),
    "error as text": (1, lambda p: p["response"].update(error="x"), "response.error"),
    "error without a message": (1, lambda p: p["response"].update(error={"type": "x"}), "response.error.message"),
    "json without layout": (1, lambda p: p["response"].update(body={"json": 1}), "response.body.layout"),
    "no message": (1, lambda p: p["response"]["body"].pop("message"), "response.body.message"),
    "chunks of another text": (1, lambda p: p["response"]["body"].update(text="x"), "response.body.chunks"),
    "chunks as texts": (1, lambda p: p["response"]["body"].update(chunks=["a"]), "response.body.chunks"),
    "no base64": (1, lambda p: p["response"].update(body={"base64": "x"}), "response.body.base64"),
    "no arguments": (2, lambda p: p["request"].clear(), "request.arguments"),
    "arguments as a list": (2, lambda p: p["request"].update(arguments=[]), "request.arguments"),
    "no result": (2, lambda p: p["response"].clear(), "response.result"),
    "more in a response": (2, lambda p: p["response"].update(extra=1), "response.extra"),
    "no exception": (2, lambda p: p["response"].update(error={"type": "x", "message": ""}), "response.error.value"),
    "item as text": (2, lambda p: p["response"].update(items="x"), "response.items"),
    "sent nowhere": (2, lambda p: p["response"].update(sent=[["a", "send", 1]]), "response.sent"),
    "returned something": (2, lambda p: p["response"].update(returned="list"), "response.returned"),
}


@pytest.mark.parametrize("attack", HELD)
def test_what_an_exchange_holds_has_an_exact_shape(attack: str) -> None:
    seq, change, field = HELD[attack]
    document = builders.sample_document()
    change(document["entries"][seq]["payload"])
    with pytest.raises(CassetteBroken) as caught:
        _chain.verify(_ledger.Parsed(builders.rechained(document)))
    assert (caught.value.entry, caught.value.field) == (seq, f"payload.{field}")


@pytest.fixture
def _nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small payloads are built at once."""
    monkeypatch.setattr(sys.modules[splice.__module__], "_SMALL", 0)


@pytest.mark.usefixtures("_nothing_is_small")
@pytest.mark.parametrize("attack", HELD)
def test_and_it_is_judged_where_it_is_built_later(attack: str) -> None:
    seq, change, field = HELD[attack]
    document = builders.sample_document()
    change(document["entries"][seq]["payload"])
    parsed = _codec.loads(_codec.dumps(builders.rechained(document)), deferred=True)
    cassette = _chain.verify(parsed, path="x.yaml")
    for _ in range(2):
        with pytest.raises(CassetteBroken) as caught:
            cassette.build()
        assert (caught.value.path, caught.value.line) == ("x.yaml", parsed.entry_lines[seq])
        assert (caught.value.entry, caught.value.field) == (seq, f"payload.{field}")


@pytest.mark.usefixtures("_nothing_is_small")
def test_what_is_built_later_is_the_same() -> None:
    data = _codec.dumps(builders.sample_document())
    now, later = (_chain.verify(_codec.loads(data, deferred=deferred)) for deferred in (False, True))
    assert later.tree == now.tree
    assert pickle.loads(pickle.dumps(later)) == now
    assert not any(
        "_make" in vars(span.exchange) for span in later.tree if span.exchange
    )  # with the text it is made of
    with pytest.raises(AttributeError, match="no attribute 'answer'"):
        _ = later.tree.spans[1].exchange.answer  # type: ignore[union-attr]


@pytest.mark.usefixtures("_nothing_is_small")
@pytest.mark.usefixtures("_nothing_is_small")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda tree: pickle.loads(pickle.dumps(tree))])
def test_what_is_built_later_can_be_copied_before(copied: Callable[[Any], Any]) -> None:
    data = _codec.dumps(builders.sample_document())
    now, later = (_chain.verify(_codec.loads(data, deferred=deferred)).tree for deferred in (False, True))
    assert copied(tuple(later)) == tuple(now)


def test_exchanges_are_built_once_whoever_asks() -> None:
    cassette = _chain.verify(_codec.loads(_codec.dumps(builders.sample_document()), deferred=True))
    exchange = cassette.tree.spans[1].exchange
    assert exchange is not None
    barrier = threading.Barrier(8)

    def ask(_: int) -> Any:
        barrier.wait()
        return exchange.response

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert all(one is found[0] for one in found)


@pytest.mark.parametrize("attack", RECHAINED)
def test_a_recomputed_chain_does_not_hide_a_wrong_document(attack: str) -> None:
    change, field = RECHAINED[attack]
    document = builders.sample_document()
    change(document)
    # Some attacks leave no document that could be hashed; the rest get every hash right.
    if isinstance(document.get("header"), dict) and all(isinstance(entry, dict) for entry in document["entries"]):
        builders.rechained(document)
    with pytest.raises(CassetteBroken) as caught:
        _chain.verify(_ledger.Parsed(document), path="x.yaml")
    assert (caught.value.field or "") == field
    assert caught.value.remedy
    assert caught.value.path == "x.yaml"


INCOMPLETE: dict[str, tuple[Change, str]] = {
    "no close": (lambda d: d["entries"].pop(), "no close entry"),
    "close alone": (lambda d: d.update(entries=[{**d["entries"][-1], "seq": 0}]), "declares 5 entries"),
    "count": (lambda d: d["entries"][-1]["payload"].update(declared_entries=6), "declares 6 entries"),
    "kinds": (lambda d: d["entries"][-1]["payload"]["by_kind"].update(tool=2), "not what the file holds"),
    "after close": (
        lambda d: d["entries"].append({**d["entries"][1], "seq": 6, "span_id": "f" * 16}),
        "nothing after it",
    ),
    "two closes": (lambda d: d["entries"].append({**d["entries"][-1], "seq": 6}), "nothing after it"),
}


@pytest.mark.parametrize("attack", INCOMPLETE)
def test_completeness_is_a_verdict_of_its_own(attack: str) -> None:
    change, words = INCOMPLETE[attack]
    document = builders.sample_document()
    change(document)
    parsed = _ledger.Parsed(builders.rechained(document))
    verdicts = _chain.judge(parsed, path="x.yaml")
    assert verdicts.integrity is None
    assert verdicts.cassette is None
    with pytest.raises(CassetteIncomplete, match=words):
        _chain.verify(parsed)


def test_both_verdicts_are_given_when_both_fail() -> None:
    document = builders.sample_document()
    document["entries"].pop()
    document["entries"][1]["payload"]["name"] = "other"
    verdicts = _chain.judge(_ledger.Parsed(document))
    assert isinstance(verdicts.integrity, CassetteBroken)
    assert isinstance(verdicts.completeness, CassetteIncomplete)


def test_a_close_that_declares_nothing_is_incomplete() -> None:
    document = builders.sample_document()
    close = document["entries"][-1]
    close["seq"] = 0
    close["payload"].update(declared_entries=0, by_kind={})
    document["entries"] = [close]
    assert _chain.judge(_ledger.Parsed(builders.rechained(document))).completeness is not None


def test_a_swapped_cassette_says_whose_it_is() -> None:
    with pytest.raises(
        CassetteBroken, match=r"recorded for .*test_refund\[eu\], not for tests/b.py::test_x\\x1b"
    ) as caught:
        _chain.verify(_ledger.Parsed(builders.sample_document()), nodeid="tests/b.py::test_x\x1b")
    assert caught.value.field == "nodeid"


def test_errors_name_the_place_and_never_the_payload() -> None:
    document = builders.sample_document()
    parsed = _codec.loads(_codec.dumps(document))
    canary = "canary-7d1f"
    parsed.document["entries"][2]["payload"]["request"]["arguments"] = {canary: canary}
    parsed = replace(parsed, texts=())  # those of the file as it was
    with pytest.raises(CassetteError) as caught:
        _chain.verify(parsed, path="cassettes/x.yaml")
    text = str(caught.value)
    assert text.startswith(f"cassettes/x.yaml:{parsed.entry_lines[2]}: entry 2, field sha256_hash: ")
    assert "--record-mode=rewrite" in text
    assert canary not in text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_the_summary_must_be_the_one_of_the_data() -> None:
    document = builders.sample_document()
    honest = tuple(_summary.lines(document))
    for summary in (None, honest, tuple(f"   {line.replace(' ', '   ')} \r" for line in honest)):
        assert _chain.verify(_ledger.Parsed(document, summary=summary))
    for lie in (honest[:-1], honest[::-1], (*honest, "and more"), tuple(line.replace("31", "13") for line in honest)):
        with pytest.raises(CassetteBroken) as caught:
            _chain.verify(_ledger.Parsed(document, summary=lie))
        assert caught.value.field == "summary"


def test_only_the_chain_makes_a_cassette() -> None:
    package = Path(pytest_spanchain.__file__).parent
    makers = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "Cassette")
            or (isinstance(node.func, ast.Attribute) and node.func.attr == "Cassette")
        )
    }
    assert makers == {"_chain.py"}
