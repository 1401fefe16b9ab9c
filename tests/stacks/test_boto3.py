"""boto3 against a Bedrock runtime on loopback: Converse, ConverseStream in binary events, throttling, S3's bodies."""

from __future__ import annotations

import io
import json
import re
import struct
import threading
import time
import urllib.request
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from wire import CLOSE, OnWire, Seen, whole
from wire import on_wire as on_wire

from proof import Proof, Stack
from recording import record, replay, run

boto3 = pytest.importorskip("boto3")
config = pytest.importorskip("botocore.config")
exceptions = pytest.importorskip("botocore.exceptions")

STACK = Stack(
    name="boto3, botocore",
    dists=("boto3", "botocore", "urllib3"),
    records="HTTP and model calls, each attempt, at urllib3's pools (boto3 1.34.116 or newer)",
    limits=(
        "of an answer's headers replay has only those that cassettes keep: ResponseMetadata has no RequestId",
        "botocore's CRT client and the AWS CLI do not use urllib3; they are refused in replay or not seen",
    ),
)

MODEL = "anthropic.claude-test-v1:0"
KEY = "AKIAQ7Z5EXAMPLE5TEST"


@pytest.fixture(scope="module")
def session() -> Any:
    """One session: it reads the descriptions of services only once."""
    return boto3.session.Session(aws_access_key_id=KEY, aws_secret_access_key="fJ9v" * 10, region_name="eu-central-1")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


CHECKSUMS = ("request_checksum_calculation", "response_checksum_validation")
WHEN_REQUIRED = {name: "when_required" for name in CHECKSUMS if name in config.Config.OPTION_DEFAULTS}
"""No checksums that nobody asked for; older releases make none."""


def client(session: Any, url: str, service: str = "bedrock-runtime", **options: Any) -> Any:
    return session.client(service, endpoint_url=url, config=config.Config(**options))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"text": text}]}


def frame(kind: str, payload: dict[str, Any], *, message: str = "event") -> bytes:
    """One message of an event stream: two lengths and their CRC, headers, payload, the CRC of all."""
    head = b""
    names = {":event-type": kind} if message == "event" else {":exception-type": kind}
    for name, value in {**names, ":content-type": "application/json", ":message-type": message}.items():
        head += struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
    body = json.dumps(payload).encode()
    prelude = struct.pack("!II", 16 + len(head) + len(body), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    return prelude + head + body + struct.pack("!I", zlib.crc32(prelude + head + body))


def said(text: str) -> dict[str, Any]:
    """A whole answer of Converse."""
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
        "metrics": {"latencyMs": 12},
    }


def streamed(*texts: str) -> list[bytes]:
    """The events of ConverseStream."""
    return [
        frame("messageStart", {"role": "assistant"}),
        *(frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in texts),
        frame("contentBlockStop", {"contentBlockIndex": 0}),
        frame("messageStop", {"stopReason": "end_turn"}),
        frame(
            "metadata", {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}, "metrics": {"latencyMs": 1}}
        ),
    ]


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\ntransfer-encoding: chunked\r\n\r\n"


def in_chunks(*chunks: bytes) -> list[bytes]:
    """Chunks of an event stream, whose borders are not those of events."""
    return [EVENTS, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


def throttled(kind: str = "ThrottlingException", status: str = "429 Too Many Requests") -> list[bytes]:
    """An error as Bedrock words it: its name is in a header."""
    body = json.dumps({"message": "Too many requests, slow down."}).encode()
    return whole(body, "content-type: application/json", f"x-amzn-ErrorType: {kind}:http://internal/", status=status)


def reply(value: Any) -> list[bytes]:
    return whole(json.dumps(value).encode(), "content-type: application/json", "x-amzn-RequestId: 7f0c-11")


def test_converse(proof: Proof, session: Any, on_wire: OnWire) -> None:
    server = on_wire(lambda seen: reply(said("It is sunny.")))
    bedrock = client(session, server.url)

    def agent(question: str = "Weather?") -> Any:
        answer = bedrock.converse(modelId=MODEL, messages=[user(question)], system=[{"text": "Be brief."}])
        return answer["output"], answer["usage"], answer["ResponseMetadata"]["HTTPStatusCode"]

    recorded = proof.holds(agent)
    assert recorded.value[0]["message"]["content"] == [{"text": "It is sunny."}]
    kept = proof.cassette.read_text()
    assert "It is sunny." in kept
    assert KEY not in kept
    assert "AWS4-HMAC" not in kept
    (cause,) = proof.breaks(lambda: agent("Rain?"))
    assert cause.kind == "input_changed"


def test_converse_stream_is_exact_to_the_chunk(proof: Proof, session: Any, on_wire: OnWire) -> None:
    data = b"".join(streamed("It ", "is ", "☀."))
    cuts = [0, 5, 100, 101, 230, len(data)]
    chunks = [data[start:stop] for start, stop in pairwise(cuts)]
    server = on_wire(lambda seen: in_chunks(*chunks))
    bedrock = client(session, server.url)

    def agent() -> Any:
        return list(bedrock.converse_stream(modelId=MODEL, messages=[user("Weather?")])["stream"])

    def raw() -> Any:
        stream = bedrock.converse_stream(modelId=MODEL, messages=[user("Weather?")])["stream"]
        return list(stream._raw_stream.stream())

    recorded = proof.holds(agent)
    assert [event["contentBlockDelta"]["delta"]["text"] for event in recorded.value[1:4]] == ["It ", "is ", "☀."]
    assert replay(proof.cassette, raw).value == chunks


def test_a_stream_is_not_held_back_and_may_be_left(proof: Proof, session: Any, on_wire: OnWire) -> None:
    gate = threading.Event()
    start, *middle, end = in_chunks(*streamed("a", "b", "c"))
    server = on_wire(lambda seen: [start, middle[0], middle[1], gate, *middle[2:], end])
    bedrock = client(session, server.url)

    def agent(count: int) -> Any:
        stream = bedrock.converse_stream(modelId=MODEL, messages=[user("Count.")])["stream"]
        found = []
        for event in stream:
            found.append(event)
            gate.set()
            if len(found) == count:
                stream.close()
                break
        return found

    assert len(proof.holds(lambda: agent(3)).value) == 3
    assert proof.breaks(lambda: agent(2))


def test_errors_in_a_stream(proof: Proof, session: Any, on_wire: OnWire) -> None:
    events = [*streamed("a")[:2], frame("throttlingException", {"message": "slow down"}, message="exception")]
    server = on_wire(lambda seen: in_chunks(*events))
    bedrock = client(session, server.url)

    def agent() -> Any:
        with closing(bedrock.converse_stream(modelId=MODEL, messages=[user("a")])["stream"]) as stream:
            return list(stream)

    recorded = proof.holds(agent)
    assert isinstance(recorded.raised, exceptions.EventStreamError)
    assert "slow down" in str(recorded.raised)


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_throttling_is_retried_as_recorded_without_the_wait(
    proof: Proof, session: Any, on_wire: OnWire, mode: str
) -> None:
    left: list[list[Any]] = [throttled(), [CLOSE], reply(said("At last."))]
    server = on_wire(lambda seen: left.pop(0))
    bedrock = client(session, server.url, retries={"mode": mode, "total_max_attempts": 4})

    def agent() -> Any:
        answer = bedrock.converse(modelId=MODEL, messages=[user("Weather?")])
        return answer["output"], answer["ResponseMetadata"]["RetryAttempts"]

    recorded = record(proof.cassette, agent)
    assert recorded.value[1] == 2
    assert recorded.verdict.live_calls == 3
    proof.take_down()
    began = time.monotonic()
    for _ in range(3):
        assert replay(proof.cassette, agent).value == recorded.value
    assert time.monotonic() - began < 1.5
    proof.stays_untouched()


def test_errors_are_the_services_own(proof: Proof, session: Any, on_wire: OnWire) -> None:
    replies: dict[str, list[Any]] = {
        "throttled": throttled(),
        "denied": throttled("AccessDeniedException", "403 Forbidden"),
        "lost": [CLOSE],
        "hang": [threading.Event()],
    }
    server = on_wire(lambda seen: replies[json.loads(seen.body)["messages"][0]["content"][0]["text"]])
    bedrock = client(session, server.url, retries={"total_max_attempts": 1}, read_timeout=0.3)

    def agent() -> Any:
        found = []
        for what in replies:
            try:
                bedrock.converse(modelId=MODEL, messages=[user(what)])
            except bedrock.exceptions.ThrottlingException as error:
                found.append(f"throttled: {error.response['Error']}")
            except Exception as error:  # noqa: BLE001 - compared below
                found.append(f"{type(error).__name__}: {error}")
        replies["hang"][0].set()
        return found

    recorded = proof.holds(agent)
    assert recorded.value[0].startswith("throttled: ")
    assert recorded.value[1].startswith("AccessDeniedException: ")
    kinds = [found.partition(":")[0] for found in recorded.value[2:]]
    assert kinds == ["ConnectionClosedError", "ReadTimeoutError"]


def test_a_miss_reaches_the_agent_and_is_not_retried(proof: Proof, session: Any, on_wire: OnWire) -> None:
    server = on_wire(lambda seen: reply(said("Fine.")))
    bedrock = client(session, server.url, retries={"mode": "standard", "total_max_attempts": 5})

    def agent(*questions: str) -> Any:
        return [bedrock.converse(modelId=MODEL, messages=[user(question)])["usage"] for question in questions]

    proof.holds(lambda: agent("a"))
    changed = run(proof.cassette, lambda: agent("a", "b"))
    assert type(changed.raised).__name__ == "MissError"
    assert len(changed.causes) == 1


def test_threads_share_a_client(proof: Proof, session: Any, on_wire: OnWire) -> None:
    def echo(seen: Seen) -> list[bytes]:
        return reply(said(json.loads(seen.body)["messages"][0]["content"][0]["text"]))

    server = on_wire(echo)
    bedrock = client(session, server.url)

    def ask(word: str) -> Any:
        answer = bedrock.converse(modelId=MODEL, messages=[user(word)])
        return answer["output"]["message"]["content"][0]["text"]

    def agent() -> Any:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(ask, "abcdefgh"))

    assert proof.holds(agent).value == list("abcdefgh")


def test_s3_sends_bodies_with_leave_and_reads_streams(proof: Proof, session: Any, on_wire: OnWire) -> None:
    stored: dict[str, bytes] = {}

    def script(seen: Seen) -> list[bytes]:
        path = seen.target.partition("?")[0]
        if seen.method == "PUT":
            stored[path] = seen.body
            return whole(b"", 'etag: "v1"')
        if path not in stored:
            fault = b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
            return whole(fault, "content-type: application/xml", status="404 Not Found")
        return whole(b"\x00\xffstored", "content-type: application/octet-stream", 'etag: "v1"')

    server = on_wire(script)
    s3 = client(
        session,
        server.url,
        "s3",
        s3={"addressing_style": "path"},
        retries={"total_max_attempts": 1},
        **WHEN_REQUIRED,
    )

    def agent() -> Any:
        tag = s3.put_object(Bucket="b", Key="k", Body=io.BytesIO(b"\x00\xffstored"))["ETag"]
        body = s3.get_object(Bucket="b", Key="k")["Body"]
        found = [tag, body.read(3), body.read()]
        try:
            s3.get_object(Bucket="b", Key="none")
        except s3.exceptions.NoSuchKey as error:
            found.append(str(error))
        return found

    began = time.monotonic()
    recorded = proof.holds(agent)
    assert recorded.value[:3] == ['"v1"', b"\x00\xffs", b"tored"]
    # The server gives no leave, for which botocore waits a second; replay does not.
    assert time.monotonic() - began < 3


def test_s3_transfers_ask_how_much_there_is(proof: Proof, session: Any, on_wire: OnWire, tmp_path: Path) -> None:
    def script(seen: Seen) -> Sequence[Any]:
        if seen.method == "HEAD":
            return [b'HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: "v1"\r\n\r\n']
        return whole(b"\xff\x00abc", 'etag: "v1"')

    storage = client(session, on_wire(script).url, "s3")
    place = tmp_path / "report"

    def agent() -> Any:
        storage.download_file("shelf", "report", str(place))
        return storage.head_object(Bucket="shelf", Key="report")["ContentLength"], place.read_bytes()

    assert proof.holds(agent).value == (5, b"\xff\x00abc")


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_a_presigned_url_is_the_same_whenever_it_was_signed(
    version: str,
    proof: Proof,
    session: Any,
    on_wire: OnWire,
) -> None:
    storage = client(session, on_wire(lambda seen: whole(b"report")).url, "s3", signature_version=version)
    days = iter(range(1, 9))

    def agent(key: str) -> Any:
        day = f"2026-11-{next(days):02}"
        signed = storage.generate_presigned_url("get_object", Params={"Bucket": "shelf", "Key": key})
        # As signed on another day.
        signed = re.sub(r"(X-Amz-Date=)\d{8}", rf"\g<1>{day.replace('-', '')}", signed)
        signed = re.sub(r"(Expires=)\d{10}", rf"\g<1>179{day[-2:]}00000", signed)
        return urllib.request.urlopen(signed, timeout=5).read()

    proof.holds(lambda: agent("report"))
    assert KEY not in proof.cassette.read_text(encoding="utf-8")
    assert proof.breaks(lambda: agent("another"))[0].kind == "input_changed"
