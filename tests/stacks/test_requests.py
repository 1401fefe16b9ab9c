"""requests: sessions of any age, streams, redirects, uploads, cookies and its own exceptions."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from wire import WireServer, failure, whole

from model_replies import answer
from proof import Proof, Stack
from recording import record, replay, run
from servers import Hang, Json, Raw, Reply, Request, Reset, Stream, closed_port, in_turn, too_many_requests

requests = pytest.importorskip("requests")
adapters = pytest.importorskip("requests.adapters")

STACK = Stack(
    name="requests",
    dists=("requests", "urllib3"),
    records="HTTP and model calls, at urllib3's pools (requests 2.32.3 or newer)",
    limits=(
        "answers come back decoded, so response.raw of a compressed answer reads differently in replay",
        "cookies that an answer sets are not in cassettes, so a session has none of them in replay",
    ),
)


def chat(url: str, question: str, *, stream: bool = False) -> Any:
    """A model asked by hand."""
    body = {"model": "gpt-test", "messages": [{"role": "user", "content": question}], "stream": stream}
    return requests.post(
        f"{url}/v1/chat/completions", json=body, stream=stream, headers={"authorization": "Bearer sk-none"}, timeout=10
    )


def test_a_model_asked_by_hand(proof: Proof) -> None:
    def agent(question: str = "Where is order 1412?") -> Any:
        return chat(proof.server.url, question).json()["choices"][0]["message"]["content"]

    proof.server.script(lambda request: answer(request, "On its way."))
    recorded = proof.holds(agent)
    assert recorded.value == "On its way."
    assert [span.kind for span in recorded.verdict.live] == ["span", "model"]
    assert "sk-none" not in proof.cassette.read_text()
    (cause,) = proof.breaks(lambda: agent("Where is order 1413?"))
    assert cause.kind == "input_changed"


@pytest.mark.parametrize(
    "way",
    [
        lambda response: list(response.iter_lines()),
        lambda response: list(response.iter_lines(chunk_size=1)),
        lambda response: list(response.iter_content(None)),
        lambda response: list(response.iter_content(7, decode_unicode=True)),
        lambda response: [response.text, response.content, response.encoding, response.ok],
        lambda response: [response.raw.read(10), response.raw.read()],
        lambda response: [next(response.iter_content(None)), response.close()],
    ],
    ids=["lines", "bytes", "chunks", "text", "whole", "raw", "left early"],
)
def test_a_streamed_model(proof: Proof, way: Callable[[Any], Any]) -> None:
    proof.server.script(lambda request: answer(request, "One two three."))
    proof.holds(lambda: way(chat(proof.server.url, "count", stream=True)))


def test_a_stream_is_not_held_back_while_it_is_recorded(proof: Proof) -> None:
    gate = threading.Event()

    def agent() -> Any:
        seen = []
        with requests.get(f"{proof.server.url}/stream", stream=True, timeout=10) as response:
            for line in response.iter_lines():
                seen.append(line)
                gate.set()
        return seen

    proof.server.script(lambda request: Stream([b"data: 1\n\n", b"data: 2\n\n"], gates={1: gate}))
    assert proof.holds(agent).value == [b"data: 1", b"", b"data: 2", b""]


def test_compressed_and_binary_answers(proof: Proof) -> None:
    def agent() -> Any:
        with requests.Session() as session:
            return [session.get(f"{proof.server.url}/{path}").content for path in ("squeezed", "binary", "nothing")]

    def script(request: Request) -> Reply:
        if request.path == "/squeezed":
            return Json({"word": "squeezed"}, gzip=True)
        return Raw(b"\x89PNG\x00\xff" if request.path == "/binary" else b"")

    proof.server.script(script)
    assert proof.holds(agent).value == [b'{"word": "squeezed"}', b"\x89PNG\x00\xff", b""]
    assert "squeezed" in proof.cassette.read_text()


def test_redirects_are_in_the_history(proof: Proof) -> None:
    def agent() -> Any:
        with requests.Session() as session:
            response = session.post(f"{proof.server.url}/old", data={"a": 1})
            return [one.status_code for one in response.history], response.request.method, response.json()

    def script(request: Request) -> Reply:
        target = {"/old": f"{proof.server.url}/newer", "/newer": "/newest"}.get(request.path)
        return Raw(b"", status=302, headers={"location": target}) if target else Json({"at": request.path})

    proof.server.script(script)
    assert proof.holds(agent).value == ([302, 302], "GET", {"at": "/newest"})


def test_errors_of_the_server_are_answers(proof: Proof) -> None:
    def agent() -> Any:
        response = requests.get(f"{proof.server.url}/missing", timeout=10)
        response.raise_for_status()

    proof.server.script(lambda request: Json({"error": "no such thing"}, status=404))
    # Its text names the URL, with the port of the run.
    recorded = proof.holds(agent)
    assert isinstance(recorded.raised, requests.HTTPError)
    assert "404 Client Error: Not Found" in str(recorded.raised)


def test_failures_are_requests_own(proof: Proof) -> None:
    def agent() -> Any:
        return [
            failure(functools.partial(requests.get, url, timeout=0.2))
            for url in (
                f"http://127.0.0.1:{refused}/",
                *(f"{proof.server.url}/{path}" for path in ("reset", "hang", "cut")),
            )
        ]

    def script(request: Request) -> Reply:
        replies: dict[str, Reply] = {
            "/reset": Reset(),
            "/hang": Hang(),
            "/cut": Stream([b"data: 1\n\n", b"data: 2\n\n"], cut_after=1),
        }
        return replies[request.path]

    refused = closed_port()
    proof.server.script(script)
    recorded = proof.holds(agent)
    kinds = [found.partition("(")[0] for found in recorded.value]
    assert kinds == ["ConnectionError", "ConnectionError", "ReadTimeout", "ChunkedEncodingError"]


def test_a_host_that_nobody_knows(proof: Proof) -> None:
    recorded = proof.holds(lambda: failure(lambda: requests.get("http://nowhere.invalid/", timeout=5)))
    assert recorded.value.startswith("ConnectionError(MaxRetryError(")
    assert "nowhere.invalid" in recorded.value


def test_an_adapter_that_retries(proof: Proof) -> None:
    def agent() -> Any:
        retry = adapters.Retry(total=3, backoff_factor=0.5, status_forcelist=[429], allowed_methods=None)
        with requests.Session() as session:
            session.mount("http://", adapters.HTTPAdapter(max_retries=retry))
            return session.post(f"{proof.server.url}/ask", json={"q": 1}).json()

    proof.server.script(in_turn(too_many_requests(retry_after="1"), Json({"ok": True})))
    recorded = record(proof.cassette, agent)
    assert recorded.verdict.live_calls == 2
    proof.take_down()
    began = time.monotonic()
    assert replay(proof.cassette, agent).value == {"ok": True}
    assert time.monotonic() - began < 0.9
    proof.stays_untouched()


def test_a_miss_is_not_tried_again(proof: Proof) -> None:
    def agent(*paths: str) -> Any:
        with requests.Session() as session:
            session.mount("http://", adapters.HTTPAdapter(max_retries=5))
            return [session.get(f"{proof.server.url}{path}").json() for path in paths]

    proof.server.script(lambda request: Json({}))
    proof.holds(lambda: agent("/a"))
    changed = run(proof.cassette, lambda: agent("/a", "/b"))
    assert type(changed.raised).__name__ == "MissError"
    assert len(changed.causes) == 1


def test_uploads(proof: Proof, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\x00\xff" * 1000)

    def pieces() -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    def agent(caption: str = "a cat") -> Any:
        url = proof.server.url
        with requests.Session() as session, picture.open("rb") as whole, picture.open("rb") as part:
            return [
                session.post(f"{url}/form", data={"caption": caption}, files={"file": part}).json(),
                session.put(f"{url}/file", data=whole).json(),
            ]

    proof.server.script(lambda request: Json({"path": request.path}))
    proof.holds(agent)
    (cause,) = proof.breaks(lambda: agent("a dog"))
    assert cause.kind == "input_changed"


def test_a_generated_upload(proof: Proof) -> None:
    with WireServer(lambda seen: whole(b"[%d]" % len(seen.body), "content-type: application/json")) as server:
        recorded = record(
            proof.cassette, lambda: requests.post(server.url, data=iter([b"one ", b"two"]), timeout=10).json()
        )
        assert recorded.value == [7]
        assert server.seen[0].headers["transfer-encoding"] == "chunked"
        url = server.url
    again = replay(proof.cassette, lambda: requests.post(url, data=iter([b"one ", b"two"]), timeout=10).json())
    assert again.value == [7]
    changed = run(proof.cassette, lambda: requests.post(url, data=iter([b"one ", b"three"]), timeout=10).json())
    assert changed.failure is not None


def test_cookies_go_out_and_stay_out_of_the_cassette(proof: Proof) -> None:
    def agent() -> Any:
        with requests.Session() as session:
            session.cookies.set("flavour", "chocolate-chip-1234567890")
            session.get(f"{proof.server.url}/login")
            return session.get(f"{proof.server.url}/me").json()

    def script(request: Request) -> Reply:
        cookies = request.headers.get("cookie", "")
        return Json({"known": "session=" in cookies}, headers={"set-cookie": "session=q8Zt51LmP0aQ; HttpOnly"})

    proof.server.script(script)
    assert proof.holds(agent).value == {"known": True}
    kept = proof.cassette.read_text()
    assert "q8Zt51LmP0aQ" not in kept
    assert "chocolate" not in kept


def test_a_session_made_before_and_its_warm_connection(proof: Proof) -> None:
    proof.server.script(lambda request: Json({"path": request.path}))
    with requests.Session() as session:
        session.get(f"{proof.server.url}/before")
        recorded = record(proof.cassette, lambda: session.get(f"{proof.server.url}/a").json())
        asked = len(proof.server.requests)
        assert replay(proof.cassette, lambda: session.get(f"{proof.server.url}/a").json()).value == recorded.value
        assert len(proof.server.requests) == asked
        assert session.get(f"{proof.server.url}/after").json() == {"path": "/after"}


def test_threads_share_a_session(proof: Proof) -> None:
    def agent() -> Any:
        with requests.Session() as session, ThreadPoolExecutor(6) as threads:

            def ask(number: int) -> Any:
                return session.post(f"{proof.server.url}/ask", json={"number": number}).json()

            return list(threads.map(ask, range(12)))

    proof.server.script(lambda request: Json(request.body))
    assert proof.holds(agent).value == [{"number": number} for number in range(12)]


def test_a_mock_above_it_is_left_alone(proof: Proof) -> None:
    """What never reaches urllib3 is no call to the outside."""

    class Canned(adapters.BaseAdapter):  # type: ignore[misc, name-defined]
        def send(self, request: Any, **options: Any) -> Any:
            response = requests.Response()
            response.status_code, response.url, response.request = 200, request.url, request
            response._content = b"canned"
            return response

        def close(self) -> None:
            """Nothing is open."""

    def agent() -> Any:
        with requests.Session() as session:
            session.mount("http://canned.test", Canned())
            return session.get("http://canned.test/").text, session.get(f"{proof.server.url}/a").text

    proof.server.script(lambda request: Raw(b"real"))
    recorded = proof.holds(agent)
    assert recorded.value == ("canned", "real")
    assert recorded.verdict.live_calls == 1


@pytest.mark.parametrize(
    ("header", "value", "changed"),
    [
        ("X-Amz-Target", "DynamoDB_20120810.GetItem", "DynamoDB_20120810.DeleteItem"),
        ("SOAPAction", "urn:Read", "urn:Remove"),
        ("X-HTTP-Method-Override", "PATCH", "DELETE"),
        ("Range", "bytes=0-9", "bytes=10-19"),
    ],
)
def test_a_header_that_says_what_is_asked_for(header: str, value: str, changed: str, proof: Proof) -> None:
    proof.server.script(lambda request: Json({"ok": True}))

    def agent(value: str) -> Any:
        return requests.post(proof.server.url, json={"Key": {"id": {"S": "1412"}}}, headers={header: value}).json()

    proof.holds(lambda: agent(value))
    (cause,) = proof.breaks(lambda: agent(changed))
    assert cause.kind == "input_changed"


def test_digest_authentication_goes_the_same_way_again(proof: Proof) -> None:
    def script(request: Request) -> Reply:
        if "authorization" in request.headers:
            return Json({"ok": True})
        return Json({}, status=401, headers={"www-authenticate": 'Digest realm="shop", nonce="n1", qop="auth"'})

    proof.server.script(script)
    auth = requests.auth.HTTPDigestAuth("me", "correct horse battery")
    assert proof.holds(lambda: requests.get(proof.server.url, auth=auth).json()).value == {"ok": True}
    assert "battery" not in proof.cassette.read_text(encoding="utf-8")
