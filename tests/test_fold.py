"""Streams in which much comes again are written once, and come back byte for byte, or are refused."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders
from pytest_spanchain import _codec, _ledger
from pytest_spanchain._chain import seal, verify
from pytest_spanchain._fold import HOLE, MAX_SIZE, WORD, fold, unfold
from pytest_spanchain._ledger import streams
from pytest_spanchain._model import Exchange, SpanTree
from pytest_spanchain._redact import Redactor
from pytest_spanchain.errors import CassetteBroken, RecordingError, SecretFound
from recording import record, replay
from servers import ModelServer, Raw, Stream

WORDS = ["The ", 'said "no"', "caf\u00e9 ", "a\nb", "<b>", "24", "\\", "", "\U0001f600", "true"]


def openai(number: int, word: str) -> str:
    delta = {"index": 0, "delta": {"content": word}, "finish_reason": None}
    return f"data: {json.dumps({'id': 'chatcmpl-1', 'created': 1760000000, 'choices': [delta]})}\n\n"


def anthropic(number: int, word: str) -> str:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    return f"event: content_block_delta\ndata: {json.dumps(delta, ensure_ascii=False)}\n\n"


def responses(number: int, word: str) -> str:
    event = {"type": "response.output_text.delta", "sequence_number": number, "item_id": "msg_1", "delta": word}
    return f"event: response.output_text.delta\r\ndata: {json.dumps(event, separators=(',', ':'))}\r\n\r\n"


def ollama(number: int, word: str) -> str:
    return json.dumps({"model": "llama3.2", "message": {"role": "assistant", "content": word}, "done": False}) + "\n"


@pytest.mark.parametrize("event", [openai, anthropic, responses, ollama])
def test_what_the_model_said_stands_word_by_word(event: Any) -> None:
    text = "".join(event(number, word) for number, word in enumerate(WORDS))
    text += "" if event is ollama else "data: [DONE]\n\n"
    folded = fold(text)
    assert folded is not None
    runs = [item for item in folded if isinstance(item, dict)]
    assert len(runs) == 1
    rows = runs[0]["rows"].split("\n")
    assert len(rows) == len(WORDS)
    said = [row.partition(" ")[2] if event is responses else row for row in rows]
    assert list(map(json.loads, said)) == WORDS
    assert "msg_1" not in runs[0]["rows"]
    assert unfold(folded, size=len(text.encode())) == text
    assert len(json.dumps(folded)) < 0.7 * len(text)


PIECES = st.sampled_from(
    [
        '"a"',
        '"b\\""',
        "1",
        "-2.5e7",
        "true",
        "null",
        HOLE,
        '"',
        "\\",
        " ",
        ", ",
        "\n",
        "\r\n",
        "\n\n",
        "data: ",
        "{",
        "x",
    ]
)
EVENTS = st.sampled_from([openai, anthropic, responses, ollama])


@given(st.lists(st.lists(PIECES, min_size=1, max_size=6).map("".join), max_size=9), st.lists(PIECES, max_size=9))
def test_any_text_comes_back(skeleton: list[str], words: list[str]) -> None:
    text = "".join(word.join([*skeleton, "what comes again " * 9, "\n\n"]) for word in words)
    folded = fold(text)
    assert folded is None or unfold(folded, size=len(text.encode())) == text


def test_a_text_that_never_ends_is_looked_through_once() -> None:
    texts = [f"{{{'x' * 10}{chr(92)}{chr(34)}" * count for count in (1_000, 2_000)]
    assert [len(WORD.findall(f"{chr(34)}{text}")) for text in texts] == [0, 0]
    # Every failure begins at a quote of its own: of those behind a backslash none is tried.
    assert all(WORD.match(texts[0], found.start()) is None for found in re.finditer('"', texts[0]))


@given(EVENTS, st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=12), st.text(max_size=30))
def test_any_stream_comes_back(event: Any, words: list[str], rest: str) -> None:
    text = "".join(event(number, word) for number, word in enumerate(words)) + rest
    folded = fold(text)
    assert folded is None or unfold(folded, size=len(text.encode("utf-8", "surrogatepass"))) == text


def test_few_or_unlike_events_stay_as_they_are() -> None:
    assert fold("") is None
    assert fold("".join(openai(number, "word") for number in range(9))) is None  # nothing differs
    assert fold(openai(0, "The ") + openai(1, "end")) is None
    assert fold("".join(f"data: {number}\n\n" for number in range(20))) is None  # no gain
    holed = "".join(openai(number, f"w{number}").replace("chatcmpl-1", HOLE) for number in range(9))
    assert fold(holed) is None
    assert fold(holed.replace(HOLE, "*")) is not None
    assert fold("".join(openai(number, str(number)) for number in range(9)) + " " * MAX_SIZE) is None


RUN = {"frame": f"data: {HOLE}, {HOLE}\n\n", "rows": '1 "a"\n2 "b"'}
NOT_FOLDED: dict[str, Any] = {
    "no list": RUN,
    "a number": [1],
    "no rows": [{"frame": "x"}],
    "a key too many": [{**RUN, "more": ""}],
    "a frame without a hole": [{"frame": "data: 1\n\n", "rows": "1"}],
    "rows without a word": [{"frame": HOLE, "rows": ""}],
    "a word too few": [{**RUN, "rows": '1 "a"\n2'}],
    "a word too many": [{**RUN, "rows": '1 "a"\n2 "b" 3'}],
    "something between the words": [{**RUN, "rows": '1  "a"\n2 "b"'}],
    "something behind them": [{**RUN, "rows": '1 "a"\n2 "b"\n'}],
    "no JSON word": [{**RUN, "rows": '1 "a"\n2 b'}],
    "a number of no JSON": [{**RUN, "rows": '1 "a"\n07 "b"'}],
    "an escape of no JSON": [{**RUN, "rows": '1 "a"\n2 "\\x"'}],
    "a tab": [{**RUN, "rows": '1 "a"\n2 "\t"'}],
}


@pytest.mark.parametrize("folded", NOT_FOLDED.values(), ids=NOT_FOLDED)
def test_what_is_not_folded_is_refused(folded: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        unfold(folded, size=1000)


def test_a_kilobyte_does_not_become_gigabytes() -> None:
    bomb = [{"frame": "x" * 500 + HOLE, "rows": "\n".join("1" * 500)}] * 2
    assert len(unfold(bomb, size=501 * 1000)) == 501 * 1000
    with pytest.raises(ValueError, match="more than its chunks"):
        unfold(bomb, size=501 * 1000 - 1)
    large = {"frame": "x" * 20_000 + HOLE, "rows": "\n".join("1" * 2_000)}
    with pytest.raises(ValueError, match="more than its chunks"):
        unfold([large], size=2**60)


def test_rows_are_not_taken_apart_for_nothing() -> None:
    tracemalloc.start()
    try:
        for run in ({"frame": HOLE, "rows": "10 " * 200_000 + "1"}, {"frame": HOLE * 200_000, "rows": "1"}):
            with pytest.raises(ValueError, match="more than its chunks"):
                unfold([run], size=10)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("deferred", [False, True])
def test_many_small_streams_do_not_stand_for_gigabytes(deferred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _codec.dumps(streamed())
    size = sum(streamed()["entries"][0]["payload"]["response"]["body"]["chunks"])
    monkeypatch.setattr(streams, "MAX_UNFOLDED", size)
    verify(_codec.loads(data, deferred=deferred)).build()
    monkeypatch.setattr(streams, "MAX_UNFOLDED", size - 1)
    with pytest.raises(CassetteBroken, match="stands with the others for more than"):
        verify(_codec.loads(data, deferred=deferred)).build()


def test_two_threads_that_build_one_stream_take_its_room_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_UNFOLDED", sum(streamed()["entries"][0]["payload"]["response"]["body"]["chunks"]))
    (span,) = verify(_codec.loads(_codec.dumps(streamed()), deferred=True)).tree
    make = vars(span.exchange)["_make"]
    assert make("response") == make("response")  # as each of them does
    assert span.exchange is not None
    assert make("response") == span.exchange.response


def streamed(**body: Any) -> dict[str, Any]:
    """A sealed document with a streamed answer; what is given stands in its body."""
    text = "".join(openai(number, word) for number, word in enumerate(WORDS))
    answer = {"status": 200, "headers": {}, "end": "complete", "error": None}
    request: dict[str, Any] = {"method": "POST", "url": "http://loopback/", "headers": {}, "body": None}
    whole = {"text": text, "chunks": [len(text.encode())], "message": None}
    exchange = Exchange("http", request, {**answer, "body": whole})
    tree = SpanTree((builders.span(1, None, "POST", exchange=exchange),))
    document = seal(builders.sample_header(), tree, trace_id=builders.TRACE_ID, outcome="passed")
    document["entries"][0]["payload"]["response"]["body"].update(body)
    builders.rechained(document)
    return document


@pytest.mark.parametrize("deferred", [False, True])
def test_a_document_holds_it_folded_and_an_exchange_does_not(deferred: bool) -> None:
    document = streamed()
    body = document["entries"][0]["payload"]["response"]["body"]
    assert body.keys() == {"events", "chunks", "message"}
    (span,) = verify(_codec.loads(_codec.dumps(document), deferred=deferred)).tree
    assert span.exchange is not None
    assert span.exchange.response is not None
    found = span.exchange.response["body"]
    assert found == {
        "text": unfold(body["events"], size=sum(body["chunks"])),
        "chunks": body["chunks"],
        "message": None,
    }
    written = _ledger.written_out(document)["entries"]
    assert written[0]["payload"]["response"]["body"] == found
    assert written[1] == document["entries"][1]


WRONG: dict[str, dict[str, Any]] = {
    "too little for the chunks": {"chunks": [10_000]},
    "too much for them": {"chunks": [10]},
    "no counts": {"chunks": "all"},
    "a text beside it": {"text": "data: 1\n\n"},
    "no list": {"events": "data: 1\n\n"},
    "a row that is no word": {"events": [{"frame": f"data: {HOLE}\n\n", "rows": "one"}]},
}


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_folded_stream_of_another_shape_is_broken(body: dict[str, Any], deferred: bool) -> None:
    data = _codec.dumps(streamed(**body))
    with pytest.raises(CassetteBroken, match=r"payload\.response\.body") as broken:
        verify(_codec.loads(data, deferred=deferred)).build()
    assert "said" not in str(broken.value)


def stream(url: str) -> list[bytes]:
    with httpx.Client() as client, client.stream("GET", url) as response:
        return list(response.iter_raw())


def test_a_recorded_stream_is_read_word_by_word_and_replayed_chunk_by_chunk(tmp_path: Path) -> None:
    chunks = [openai(number, word).encode() for number, word in enumerate(WORDS)]
    cassette = tmp_path / "run.yaml"
    with ModelServer(lambda request: Stream([*chunks, b"data: [DONE]\n\n"])) as server:
        recorded = record(cassette, lambda: stream(server.url))
    assert b"".join(recorded.value) == b"".join(chunks) + b"data: [DONE]\n\n"
    text = cassette.read_text()
    assert text.count("chatcmpl-1") < len(WORDS)
    assert '              "The "\n' in text
    assert replay(cassette, lambda: stream(server.url)).value == recorded.value


def test_a_credential_spread_over_events_is_found_by_the_last_screen() -> None:
    secret = "sk-proj-" + "Ab3dEf6hIj9lMn2pQr5tUv8x" * 2
    parts = [secret[start : start + 4] for start in range(0, len(secret), 4)]
    text = "".join(openai(number, part) for number, part in enumerate(["The ", "key ", *parts, " it is"]))
    document = streamed(events=fold(text), chunks=[len(text)])
    assert secret not in str(document)
    with pytest.raises(SecretFound):
        Redactor({}).check(_ledger.written_out(document), where="run.yaml")


def test_a_credential_spread_over_events_is_not_written(tmp_path: Path) -> None:
    secret = "sk-proj-" + "Ab3dEf6hIj9lMn2pQr5tUv8x" * 2
    parts = [secret[start : start + 4] for start in range(0, len(secret), 4)]
    body = "".join(openai(number, part) for number, part in enumerate(["The ", "key ", *parts, " it is"]))
    cassette = tmp_path / "run.yaml"
    refused = pytest.raises(RecordingError, match=r"response\.body\.text: holds what looks like a credential")
    with ModelServer(lambda request: Raw(body.encode(), content_type="text/event-stream")) as server, refused:
        record(cassette, lambda: httpx.get(server.url).text)
    assert not cassette.exists()
