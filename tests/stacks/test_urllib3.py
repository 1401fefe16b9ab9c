"""urllib3: pools of any age, streams, retries, redirects and failures, with its own responses and exceptions."""

from __future__ import annotations

import functools
import gzip
import io
import json
import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import pytest
from wire import CLOSE, PATIENCE, OnWire, Seen, WireServer, chunked, failure, whole
from wire import on_wire as on_wire

import ready_first
from proof import Proof, Stack
from recording import record, replay, run
from servers import Hang, Json, Raw, Reply, Request, Reset, Stream, closed_port, in_turn

urllib3 = pytest.importorskip("urllib3")

STACK = Stack(
    name="urllib3",
    dists=("urllib3",),
    records="HTTP exchanges, each attempt of a pool (urllib3 1.26.20, 2 or newer)",
    limits=(
        "an answer comes back decoded, with the headers that cassettes keep and the usual reason phrase;"
        " cookies are not among them",
        "HTTP/2 connections (urllib3.http2) are left to urllib3, and refused in replay",
    ),
)


def post(pool: Any, url: str, question: str) -> Any:
    return _posted(pool, f"{url}/ask", {"question": question})


def _posted(pool: Any, url: str, body: Any) -> Any:
    sent = {"body": json.dumps(body), "headers": {"content-type": "application/json"}}
    return json.loads(pool.request("POST", url, **sent).data)


def echo(request: Request) -> Reply:
    return Json({"you said": request.body, "path": request.path})


def test_threads_that_ask_side_by_side(proof: Proof) -> None:
    def agent() -> list[int]:
        with urllib3.PoolManager(maxsize=ready_first.COUNT) as pool:
            return ready_first.in_threads(lambda n: int(_posted(pool, f"{proof.server.url}/ask", {"n": n})["n"]))

    proof.server.script(ready_first.last_first)
    assert proof.holds(agent).value == ready_first.LAST_FIRST


def test_two_questions_and_a_changed_one(proof: Proof) -> None:
    def agent(first: str = "a") -> Any:
        with urllib3.PoolManager() as pool:
            return [post(pool, proof.server.url, first), post(pool, proof.server.url, "b")]

    proof.server.script(echo)
    recorded = proof.holds(agent)
    assert recorded.value[0] == {"you said": {"question": "a"}, "path": "/ask"}
    (cause,) = proof.breaks(lambda: agent("other"))
    assert cause.kind == "input_changed"


def test_a_question_too_many_is_a_miss_that_is_not_retried(proof: Proof) -> None:
    def agent(count: int) -> Any:
        with urllib3.PoolManager(retries=urllib3.Retry(total=5, backoff_factor=1)) as pool:
            return [post(pool, proof.server.url, str(number)) for number in range(count)]

    proof.server.script(echo)
    proof.holds(lambda: agent(1))
    changed = run(proof.cassette, lambda: agent(2))
    assert type(changed.raised).__name__ == "MissError"
    assert len(changed.verdict.deviations) == 1


@pytest.mark.parametrize("amount", [None, 4, 65536])
def test_a_stream_comes_chunk_by_chunk(proof: Proof, amount: int | None) -> None:
    events = [b"data: 1\n\n", b"data: two\n\n", b"data: [DONE]\n\n"]

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            response = pool.request("GET", f"{proof.server.url}/stream", preload_content=False)
            return list(response.stream(amount)), response.read(), response.closed

    proof.server.script(lambda request: Stream(events))
    recorded = proof.holds(agent)
    assert b"".join(recorded.value[0]) == b"".join(events)
    if amount != 4:
        assert recorded.value[0] == events


def test_a_stream_is_not_held_back_while_it_is_recorded(proof: Proof) -> None:
    gate = threading.Event()

    def agent() -> Any:
        seen = []
        with urllib3.PoolManager() as pool:
            response = pool.request("GET", f"{proof.server.url}/stream", preload_content=False)
            for chunk in response.stream():
                seen.append(chunk)
                gate.set()
        return seen

    proof.server.script(lambda request: Stream([b"data: 1\n\n", b"data: 2\n\n"], gates={1: gate}))
    assert proof.holds(agent).value == [b"data: 1\n\n", b"data: 2\n\n"]


WAYS: dict[str, Callable[[Any], Any]] = {
    "pieces": lambda response: [response.read(5), response.read(5), response.read(), response.read()],
    "lines": lambda response: list(io.TextIOWrapper(response)),
    "into a buffer": lambda response: [response.readinto(bytearray(4)), response.read()],
    "all": lambda response: [response.status, response.reason, response.headers["content-type"], response.data],
    "nothing": lambda response: [response.drain_conn(), response.release_conn(), response.read()],
}


if hasattr(urllib3.HTTPResponse, "read1"):  # not in 1.26
    WAYS["read1"] = lambda response: [response.read1(3), response.read()]


@pytest.mark.parametrize("media", ["text/plain", "text/event-stream"])
def test_every_way_to_read(proof: Proof, media: str) -> None:
    text = b"one\ntwo\nthree\n"

    def agent() -> Any:
        found = []
        with urllib3.PoolManager() as pool:
            for path in ("whole", "chunks"):
                for way, read in WAYS.items():
                    with closing(pool.request("GET", f"{proof.server.url}/{path}", preload_content=False)) as response:
                        response.auto_close = False
                        found.append((path, way, read(response)))
        return found

    def script(request: Request) -> Reply:
        if request.path == "/whole":
            return Raw(text, content_type=media)
        return Stream([text[:6], text[6:]], content_type=media)

    proof.server.script(script)
    assert len(proof.holds(agent).value) == 2 * len(WAYS)


def test_early_close_and_reading_on(proof: Proof) -> None:
    def agent(chunks: int) -> Any:
        with urllib3.PoolManager() as pool:
            response = pool.request("GET", f"{proof.server.url}/stream", preload_content=False)
            stream = response.stream()
            found = [next(stream) for _ in range(chunks)]
            response.close()
            return found

    proof.server.script(lambda request: Stream([b"data: %d\n\n" % number for number in range(5)]))
    assert proof.holds(lambda: agent(2)).value == [b"data: 0\n\n", b"data: 1\n\n"]
    assert proof.breaks(lambda: agent(1))
    further = run(proof.cassette, lambda: agent(3))
    assert type(further.raised).__name__ == "MissError"
    assert further.failure is not None


def test_compressed_answers_are_readable_in_the_cassette(proof: Proof, on_wire: OnWire) -> None:
    bodies = {
        "gzip": gzip.compress(b'{"word": "squeezed"}'),
        "deflate": zlib.compress(b'{"word": "deflated"}'),
        "Deflate": zlib.compress(b'{"word": "raw"}')[2:-4],
        "gzip, gzip": gzip.compress(gzip.compress(b'{"word": "twice"}')),
        "x-gzip": gzip.compress(b'{"word": "padded"}') + b"what follows is passed over",
    }
    if "x-gzip" not in urllib3.response.HTTPResponse.CONTENT_DECODERS:  # 1.26 hands it on as it came
        del bodies["x-gzip"]
    url = on_wire(
        lambda seen: whole(
            bodies[seen.headers["x-want"]],
            "content-type: application/json",
            f"content-encoding: {seen.headers['x-want']}",
        )
    ).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            return [
                json.loads(pool.request("GET", f"{url}/{number}", headers={"x-want": want}).data)
                for number, want in enumerate(bodies)
            ]

    recorded = proof.holds(agent)
    words = ["squeezed", "deflated", "raw", "twice", "padded"][: len(bodies)]
    assert [found["word"] for found in recorded.value] == words
    kept = proof.cassette.read_text()
    assert all(word in kept for word in words)


def test_a_compressed_stream_comes_in_the_same_pieces(proof: Proof, on_wire: OnWire) -> None:
    squeeze = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    events = [b"data: one\n\n", b"data: two\n\n"]
    pieces = [squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH) for event in events] + [squeeze.flush()]
    url = on_wire(
        lambda seen: chunked(*pieces, headers=["content-type: text/event-stream", "content-encoding: gzip"])
    ).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            return list(pool.request("GET", url, preload_content=False).stream(decode_content=True))

    assert proof.holds(agent).value == events


def test_what_is_no_gzip_fails_the_recording(proof: Proof, on_wire: OnWire) -> None:
    url = on_wire(lambda seen: whole(b"not squeezed", "content-encoding: gzip")).url
    pool = urllib3.PoolManager(retries=False)
    outcome = run(proof.cassette, lambda: pool.request("GET", url), mode="rewrite")
    pool.clear()
    assert type(outcome.raised).__name__ == "DecodeError"
    assert "cannot be recorded: not gzip" in str(outcome.failure)


ENDS: dict[str, list[Any]] = {
    "nothing": [CLOSE],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n", CLOSE],
    "cut": [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", CLOSE],
    "cut between chunks": [*chunked(b"data: 1\n\n")[:-1], CLOSE],
    "cut in a chunk": [chunked()[0], b"a\r\nhello", CLOSE],
    "cut before a chunk": [chunked()[0], b"5\r\nhello\r\na\r\n", CLOSE],
    "no size of a chunk": [chunked()[0], b"5\r\nhello\r\nsize\r\n", CLOSE],
    "cut in the second chunk of text": [
        chunked(headers=["content-type: text/plain"])[0],
        b"5\r\nhello\r\na\r\nwor",
        CLOSE,
    ],
    "cut in JSON in chunks": [chunked(headers=["content-type: application/json"])[0], b'a\r\n{"a":', CLOSE],
}


@pytest.mark.parametrize("preload", [True, False])
def test_broken_answers_break_in_the_same_way(proof: Proof, on_wire: OnWire, preload: bool) -> None:
    url = on_wire(lambda seen: ENDS[seen.headers["x-end"]]).url

    def ask(pool: Any, end: str) -> Any:
        target = f"{url}/{end.replace(' ', '-')}"
        with closing(pool.request("GET", target, headers={"x-end": end}, preload_content=preload)) as response:
            return response.read()

    def agent() -> Any:
        with urllib3.PoolManager(retries=False) as pool:
            return {end: failure(functools.partial(ask, pool, end)) for end in ENDS}

    proof.holds(agent)


def test_a_body_without_length_ends_with_its_connection(proof: Proof, on_wire: OnWire) -> None:
    url = on_wire(lambda seen: [b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nto the ", b"end", CLOSE]).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            return [pool.request("GET", url).data for _ in range(2)]

    assert proof.holds(agent).value == [b"to the end"] * 2


def test_failures_before_an_answer_are_urllib3s_own(proof: Proof) -> None:
    def agent() -> Any:
        with urllib3.PoolManager(timeout=0.2) as pool:
            return [
                failure(functools.partial(pool.request, "GET", url, retries=retries))
                for url in (f"http://127.0.0.1:{refused}/", f"{proof.server.url}/reset", f"{proof.server.url}/hang")
                for retries in (False, 1)
            ]

    refused = closed_port()
    proof.server.script(lambda request: Reset() if request.path == "/reset" else Hang())
    recorded = proof.holds(agent)
    assert [found.partition("(")[0] for found in recorded.value] == [
        "NewConnectionError",
        "MaxRetryError",
        "ProtocolError",
        "MaxRetryError",
        "ReadTimeoutError",
        "MaxRetryError",
    ]


def test_a_timeout_within_a_body(proof: Proof) -> None:
    def agent() -> Any:
        with urllib3.PoolManager(timeout=0.2, retries=False) as pool:
            response = pool.request("GET", f"{proof.server.url}/stream", preload_content=False)
            stream = response.stream()
            return next(stream), failure(lambda: next(stream))

    never = threading.Event()
    proof.server.script(lambda request: Stream([b"data: 1\n\n", b"data: 2\n\n"], gates={1: never}))
    first, error = proof.holds(agent).value
    assert first == b"data: 1\n\n"
    assert error.startswith("ReadTimeoutError(")


def test_retries_are_exchanges_and_nobody_waits_again(proof: Proof) -> None:
    def agent() -> Any:
        retry = urllib3.Retry(total=3, backoff_factor=0.3, status_forcelist=[503], allowed_methods=None)
        with urllib3.PoolManager(retries=retry) as pool:
            response = pool.request("POST", f"{proof.server.url}/ask", body=b"x")
            return json.loads(response.data), len(response.retries.history)

    busy = Json({"error": "busy"}, status=503, headers={"retry-after": "1"})
    proof.server.script(in_turn(busy, Reset(), Json({"ok": True})))
    recorded = record(proof.cassette, agent)
    assert recorded.value == ({"ok": True}, 2)
    assert [
        span.exchange.response["status"] for span in recorded.verdict.live if span.exchange and span.exchange.response
    ] == [503, None, 200]
    proof.take_down()
    began = time.monotonic()
    assert replay(proof.cassette, agent).value == recorded.value
    assert time.monotonic() - began < 0.9
    proof.stays_untouched()


def test_redirects_are_followed_to_where_they_led(proof: Proof) -> None:
    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            response = pool.request("POST", f"{proof.server.url}/old", body=b"x")
            return response.data, len(response.retries.history)

    def script(request: Request) -> Reply:
        if request.path == "/old":
            return Raw(b"gone", status=303, headers={"location": f"{proof.server.url}/new"})
        return Raw(f"{request.method} {request.path}".encode())

    proof.server.script(script)
    assert proof.holds(agent).value == (b"GET /new", 1)


def test_answers_without_a_body(proof: Proof, on_wire: OnWire) -> None:
    heads = {
        "HEAD": b"HTTP/1.1 200 OK\r\netag: v1\r\ncontent-length: 900\r\n\r\n",
        "DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        "GET": b"HTTP/1.1 304 Not Modified\r\netag: v1\r\n\r\n",
        "PUT": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    }
    url = on_wire(lambda seen: [heads[seen.method]]).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            found = [pool.request(method, url) for method in heads]
            return [(one.status, one.data, one.headers.get("etag")) for one in found]

    expected = [(200, b"", "v1"), (204, b"", None), (304, b"", "v1"), (200, b"", None)]
    assert proof.holds(agent).value == expected


def test_a_repeated_header_and_one_that_spans(proof: Proof, on_wire: OnWire) -> None:
    url = on_wire(lambda seen: whole(b"x", "link: <a>; rel=next", "Link: <b>; rel=last")).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            return pool.request("GET", url).headers["LINK"]

    assert proof.holds(agent).value == "<a>; rel=next, <b>; rel=last"


def test_a_pool_made_before_with_a_warm_connection(proof: Proof) -> None:
    proof.server.script(echo)
    with urllib3.PoolManager() as pool:
        post(pool, proof.server.url, "before")
        recorded = record(proof.cassette, lambda: post(pool, proof.server.url, "a"))
        post(pool, proof.server.url, "between")
        asked, opened = len(proof.server.requests), proof.server.connections
        assert replay(proof.cassette, lambda: post(pool, proof.server.url, "a")).value == recorded.value
        assert len(proof.server.requests) == asked
        post(pool, proof.server.url, "after")
        assert proof.server.connections == opened == 1, "the warm connection was lost"


def test_bodies_of_every_kind(proof: Proof, on_wire: OnWire) -> None:
    url = on_wire(lambda seen: whole(seen.target.encode())).url

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            bodies: list[Any] = [
                b"bytes",
                "text",
                bytearray(b"array"),
                io.BytesIO(b"file"),
                io.StringIO("text file"),
                iter([b"ge", "nerated"]),
                b"\x00\xff",
                None,
            ]
            asked = [pool.request("POST", f"{url}/{number}", body=body).data for number, body in enumerate(bodies)]
            fields = {"word": "yes", "file": ("a.bin", b"\x00\xff", "application/octet-stream")}
            return [*asked, pool.request("POST", f"{url}/form", fields=fields).data]

    proof.holds(agent)
    bodies = [seen.body for seen in cast("WireServer", proof.server).seen]
    assert bodies[:8] == [b"bytes", b"text", b"array", b"file", b"text file", b"generated", b"\x00\xff", b""]
    assert b"a.bin" in bodies[8]


def test_threads_share_a_pool(proof: Proof) -> None:
    def agent() -> Any:
        with urllib3.PoolManager(maxsize=4) as pool, ThreadPoolExecutor(8) as threads:
            return list(threads.map(lambda word: post(pool, proof.server.url, word)["you said"], "abcdefgh" * 2))

    proof.server.script(echo)
    assert proof.holds(agent).value == [{"question": word} for word in "abcdefgh" * 2]


def test_a_proxy_is_asked_for_the_whole_url(proof: Proof, on_wire: OnWire) -> None:
    proxy = on_wire(lambda seen: whole(seen.target.encode()) if "fine" in seen.target else [CLOSE]).url

    def agent() -> Any:
        with urllib3.ProxyManager(proxy, retries=False) as pool:
            fine = pool.request("GET", "http://models.test/fine").data
            return fine, failure(lambda: pool.request("GET", "http://models.test/lost"))

    assert proof.holds(agent).value[0] == b"http://models.test/fine"
    assert "http://models.test/fine" in proof.cassette.read_text()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography to make a certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("models.test")]),
        critical=False,
    )
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = tmp_path / "loopback.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signed = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(key.private_bytes(*form) + signed)
    return path


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_tls_trusted_or_not_and_through_a_tunnel(proof: Proof, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def agent() -> Any:
        found = []
        for options in ({"ca_certs": str(certificate)}, {"cert_reqs": "CERT_NONE"}, {"ca_certs": None}):
            with urllib3.PoolManager(retries=False, **options) as pool:
                try:
                    found.append(pool.request("GET", f"{secure.url}/a").data)
                except urllib3.exceptions.SSLError as error:
                    found.append(f"{error!r}")
        with urllib3.ProxyManager(tunnel.url, retries=False, ca_certs=str(certificate)) as pool:
            found.append(pool.request("GET", "https://models.test/b").data)
            found.append(failure(lambda: pool.request("GET", "https://refused.test/")))
        return found

    with WireServer(lambda seen: whole(seen.target.encode()), tls=context) as secure, Tunnel(secure.port) as tunnel:
        recorded = record(proof.cassette, agent)
        assert recorded.value[:2] == [b"/a", b"/a"]
        assert "CERTIFICATE_VERIFY_FAILED" in recorded.value[2]
        assert recorded.value[3] == b"/b"
        assert "Tunnel connection failed: 403" in recorded.value[4]
        connections = secure.connections, tunnel.connections
        assert replay(proof.cassette, agent).value == recorded.value
        assert (secure.connections, tunnel.connections) == connections
    assert "https://models.test/b" in proof.cassette.read_text()


class Tunnel(WireServer):
    """A proxy that lets one name through, to a port of this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(lambda seen: [b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", CLOSE])
        self._to = port

    def _answer(self, talking: socket.socket, seen: Seen) -> bool:
        if not seen.target.startswith("models.test"):
            return super()._answer(talking, seen)
        talking.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self._to)) as onward:
            ends = {talking: onward, onward: talking}
            while True:
                for end in select.select(list(ends), [], [], PATIENCE)[0]:
                    data = end.recv(65536)
                    if not data:
                        return False
                    ends[end].sendall(data)


def test_a_connection_used_without_a_pool(proof: Proof) -> None:
    """As other copies of urllib3 appear, for one in pip: met at http.client."""

    def agent() -> Any:
        found = []
        for body in (None, b'{"a": 1}'):
            conn = urllib3.connection.HTTPConnection("127.0.0.1", proof.server.port)
            conn.request("POST", "/ask", body=body, headers={"content-type": "application/json"})
            response = conn.getresponse()
            # urllib3 1.26 hands http.client's own response on.
            found.append(response.data if hasattr(response, "data") else response.read())
            conn.close()
        return found

    proof.server.script(echo)
    assert proof.holds(agent).value == [
        b'{"you said": null, "path": "/ask"}',
        b'{"you said": {"a": 1}, "path": "/ask"}',
    ]


def test_whoever_replaces_the_connections_is_named(proof: Proof) -> None:
    vcr = pytest.importorskip("vcr", reason="needs vcrpy, which replaces the connections")
    proof.server.script(echo)

    def agent() -> Any:
        with urllib3.PoolManager() as pool:
            ours = post(pool, proof.server.url, "ours")
            with vcr.use_cassette(str(proof.cassette.with_suffix(".vcr"))), urllib3.PoolManager() as other:
                return [ours, post(other, proof.server.url, "theirs")]

    recorded = record(proof.cassette, agent)
    (note,) = recorded.verdict.notes
    assert "vcr.patch has replaced urllib3's connections" in note
