"""http.client and urllib.request: what the standard library sends, however early its names were taken."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import io
import json
import threading
import time
import types
import urllib.error
import urllib.parse
import urllib.request
import xmlrpc.client
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from wire import CLOSE, OnWire, chunked, failure, whole
from wire import on_wire as on_wire

import model_replies
import ready_first
from model_replies import ToolCall, answer
from proof import Proof, Stack
from pytest_spanchain import BoundaryError
from pytest_spanchain._run import OWNERSHIP
from recording import record, replay, run
from servers import Hang, Json, Raw, Reply, Request, Reset, Stream, closed_port

STACK = Stack(
    name="http.client, urllib.request",
    dists=("pytest-spanchain",),
    records="HTTP and model calls, at http.client's connections",
    limits=(
        "answers come back decoded, without their content-encoding",
        "a connection that is opened ahead of its request opens when that goes out, as does a body sent piece by piece"
        " when its answer is asked for: failures to connect come then",
    ),
)


def test_threads_that_ask_side_by_side(proof: Proof) -> None:
    def ask(n: int) -> int:
        request = urllib.request.Request(
            f"{proof.server.url}/x", data=json.dumps({"n": n}).encode(), headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(json.load(response)["n"])

    proof.server.script(ready_first.last_first)
    assert proof.holds(lambda: ready_first.in_threads(ask)).value == ready_first.LAST_FIRST


def test_a_model_asked_by_hand(proof: Proof) -> None:
    def agent(question: str = "Where is order 1412?") -> Any:
        body = {"model": "gpt-test", "messages": [{"role": "user", "content": question}]}
        request = urllib.request.Request(
            f"{proof.server.url}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", "authorization": "Bearer sk-none"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["choices"][0]["message"]["content"]

    proof.server.script(lambda request: answer(request, "On its way."))
    recorded = proof.holds(agent)
    assert recorded.value == "On its way."
    assert [span.kind for span in recorded.verdict.live] == ["span", "model"]
    assert "sk-none" not in proof.cassette.read_text()
    (cause,) = proof.breaks(lambda: agent("Where is order 1413?"))
    assert cause.kind == "input_changed"


READS: dict[str, Callable[[Any], Any]] = {
    "all": lambda response: [response.read(), response.read(), response.isclosed()],
    "pieces": lambda response: [response.read(4), response.read(4), response.read(), response.read(1)],
    "lines": list,
    "text": lambda response: io.TextIOWrapper(response).readlines(),
    "read1": lambda response: [response.read1(3), response.read1(), response.read()],
    "peek": lambda response: [response.peek(1)[:2], response.readline(2), response.readline()],
    "into a buffer": lambda response: [response.readinto(bytearray(6)), response.read()],
    "left early": lambda response: [response.read(3), response.close(), response.read()],
    "about it": lambda response: [
        response.status,
        response.reason,
        response.getheader("Content-Type"),
        response.read(),
    ],
}


@pytest.mark.parametrize("path", ["/whole", "/chunks"])
def test_every_way_to_read(proof: Proof, path: str) -> None:
    def agent() -> Any:
        found = {}
        for name, read in READS.items():
            with closing(HTTPConnection("127.0.0.1", proof.server.port)) as conn:
                conn.request("GET", path)
                found[name] = read(conn.getresponse())
        return found

    text = b"data: one\n\ndata: two\n\n"

    def script(request: Request) -> Reply:
        if request.path == "/whole":
            return Raw(text, content_type="text/plain")
        return Stream([text[:11], text[11:]])

    proof.server.script(script)
    proof.holds(agent)


def test_reading_on_where_the_recorded_agent_stopped_is_red(proof: Proof) -> None:
    def agent(amount: int | None) -> Any:
        with urllib.request.urlopen(proof.server.url) as response:
            return response.read(amount)

    proof.server.script(lambda request: Raw(b"0123456789", content_type="text/plain"))
    record(proof.cassette, lambda: agent(4))
    assert replay(proof.cassette, lambda: agent(4)).value == b"0123"
    further = run(proof.cassette, lambda: agent(None))
    assert type(further.raised).__name__ == "MissError"
    assert further.failure is not None


def test_one_connection_many_requests_made_before(proof: Proof) -> None:
    def agent(conn: HTTPConnection) -> Any:
        found = []
        for number in range(3):
            conn.request(
                "POST", f"/{number}", body=json.dumps({"n": number}), headers={"content-type": "application/json"}
            )
            found.append(json.loads(conn.getresponse().read()))
        return found

    proof.server.script(lambda request: Json(request.body))
    with closing(HTTPConnection("127.0.0.1", proof.server.port)) as conn:
        agent(conn)
        recorded = record(proof.cassette, lambda: agent(conn))
        asked = len(proof.server.requests)
        assert replay(proof.cassette, lambda: agent(conn)).value == recorded.value == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert len(proof.server.requests) == asked == 6
        agent(conn)
        assert proof.server.connections == 1, "the warm connection was lost"


def test_redirects_and_errors_of_the_server(proof: Proof) -> None:
    def agent() -> Any:
        with urllib.request.urlopen(f"{proof.server.url}/old") as response:
            found = [response.url.rpartition("/")[2], response.read()]
        try:
            urllib.request.urlopen(f"{proof.server.url}/missing")
        except urllib.error.HTTPError as error:
            with error:
                return [*found, str(error), error.code, error.headers["content-type"], error.read()]

    def script(request: Request) -> Reply:
        if request.path == "/old":
            return Raw(b"", status=307, headers={"location": f"{proof.server.url}/new"})
        return Json({"at": request.path}, status=404 if request.path == "/missing" else 200)

    proof.server.script(script)
    assert proof.holds(agent).value == [
        "new",
        b'{"at": "/new"}',
        "HTTP Error 404: Not Found",
        404,
        "application/json",
        b'{"at": "/missing"}',
    ]


def test_failures_are_the_standard_librarys_own(proof: Proof) -> None:
    def opened(url: str) -> str:
        return failure(lambda: urllib.request.urlopen(url, timeout=0.2))

    def agent() -> Any:
        refused_too = HTTPConnection("127.0.0.1", refused)
        return [
            opened(f"http://127.0.0.1:{refused}/"),
            failure(lambda: refused_too.request("GET", "/")),
            opened("http://nowhere.invalid/"),
            opened(f"{proof.server.url}/reset"),
            opened(f"{proof.server.url}/hang"),
        ]

    refused = closed_port()
    proof.server.script(lambda request: Reset() if request.path == "/reset" else Hang())
    recorded = proof.holds(agent)
    kinds = [found.partition(">")[0].partition("(")[0] for found in recorded.value]
    assert kinds == ["URLError", "ConnectionRefusedError", "URLError", "ConnectionResetError", "TimeoutError"]


def test_a_connection_that_times_out_while_it_is_made(proof: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error from two steps: urllib wraps the one, not the other."""
    proof.server.script(lambda request: Hang())

    def agent() -> Any:
        return failure(lambda: urllib.request.urlopen(proof.server.url, timeout=0.2))

    with monkeypatch.context() as patched:
        patched.setattr("socket.create_connection", _never_connects)
        recorded = record(proof.cassette, agent)
    assert recorded.value.startswith("URLError(TimeoutError('timed out'))")
    assert replay(proof.cassette, agent).value == recorded.value


def _never_connects(*args: Any, **kwargs: Any) -> Any:
    raise TimeoutError("timed out")


ENDS: dict[str, list[Any]] = {
    "nothing": [CLOSE],
    "no HTTP": [b"SSH-2.0-OpenSSH\r\n", CLOSE],
    "cut": [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", CLOSE],
    "cut between chunks": [*chunked(b"data: 1\n\n")[:-1], CLOSE],
    "cut in a chunk": [chunked()[0], b"a\r\nhello", CLOSE],
    "without length": [b"HTTP/1.0 200 OK\r\n\r\nto the end", CLOSE],
    "trailers": [*chunked(b"data: 1\n\n")[:-1], b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"],
    "extensions": [chunked()[0], b"5;name=value\r\nhello\r\n0\r\n\r\n"],
}


def test_answers_end_in_the_same_way(proof: Proof, on_wire: OnWire) -> None:
    server = on_wire(lambda seen: ENDS[seen.headers["x-end"]])

    def ask(end: str) -> Any:
        request = urllib.request.Request(f"{server.url}/{end.replace(' ', '-')}", headers={"x-end": end})
        try:
            with urllib.request.urlopen(request) as response:
                return response.read()
        except http.client.IncompleteRead as error:
            return repr(error), error.partial, error.expected
        except http.client.HTTPException as error:
            return repr(error)

    recorded = proof.holds(lambda: {end: ask(end) for end in ENDS})
    assert recorded.value["cut"] == ("IncompleteRead(5 bytes read, 5 more expected)", b"hello", 5)
    assert recorded.value["nothing"].startswith("RemoteDisconnected(")
    assert recorded.value["extensions"] == b"hello"


def test_answers_without_a_body(proof: Proof, on_wire: OnWire) -> None:
    heads = {
        "HEAD": b"HTTP/1.1 200 OK\r\netag: v1\r\ncontent-length: 900\r\n\r\n",
        "DELETE": b"HTTP/1.1 204 No Content\r\n\r\n",
        "GET": b"HTTP/1.1 304 Not Modified\r\netag: v1\r\n\r\n",
    }
    server = on_wire(lambda seen: [heads[seen.method]])

    def agent() -> Any:
        found = []
        with closing(HTTPConnection("127.0.0.1", server.port)) as conn:
            for method in heads:
                conn.request(method, "/")
                response = conn.getresponse()
                found.append((response.status, response.getheader("etag"), response.read()))
        return found

    assert proof.holds(agent).value == [(200, "v1", b""), (204, None, b""), (304, "v1", b"")]


def test_bodies_of_every_kind(proof: Proof, on_wire: OnWire) -> None:
    server = on_wire(lambda seen: whole(seen.body))

    def agent(last: bytes = b"pieces") -> Any:
        found = []
        with closing(HTTPConnection("127.0.0.1", server.port)) as conn:
            bodies: list[Any] = [
                b"bytes",
                "text",
                io.BytesIO(b"file"),
                io.StringIO("text file"),
                iter([b"gene", b"rated"]),
            ]
            for body in bodies:
                conn.request("POST", "/", body=body)
                found.append(conn.getresponse().read())
            conn.request(
                "PUT", "/", body=iter([b"5\r\nhello\r\n", b"0\r\n\r\n"]), headers={"transfer-encoding": "chunked"}
            )
            found.append(conn.getresponse().read())
            conn.putrequest("POST", "/pieces")
            conn.putheader("content-length", str(len(last) + 4))
            conn.endheaders()
            conn.send(b"the ")
            conn.send(io.BytesIO(last))
            found.append(conn.getresponse().read())
        return found

    expected = [b"bytes", b"text", b"file", b"text file", b"generated", b"hello", b"the pieces"]
    assert proof.holds(agent).value == expected
    assert [seen.body for seen in server.seen] == expected
    (cause,) = proof.breaks(lambda: agent(b"crumbs"))
    assert cause.kind == "input_changed"


def test_connecting_ahead_connects_nobody_in_replay(proof: Proof) -> None:
    def agent() -> Any:
        with closing(HTTPConnection("127.0.0.1", proof.server.port)) as conn:
            conn.connect()
            conn.sock.settimeout(5)
            conn.request("GET", "/a")
            return conn.getresponse().read()

    proof.server.script(lambda request: Raw(b"there"))
    recorded = proof.holds(agent)
    assert recorded.value == b"there"
    assert recorded.verdict.notes == ()


def test_a_call_whose_answer_nobody_asks_for(proof: Proof) -> None:
    def agent() -> Any:
        conn = HTTPConnection("127.0.0.1", proof.server.port)
        conn.request("GET", "/forgotten")
        conn.close()
        conn.request("GET", "/a")
        with closing(conn):
            return conn.getresponse().read()

    proof.server.script(lambda request: Raw(request.path.encode()))
    recorded = proof.holds(agent)
    assert recorded.value == b"/a"
    assert recorded.verdict.live_calls == 2


def test_asking_for_an_answer_that_nobody_had_asked_for_is_red(proof: Proof) -> None:
    def agent(*, asks: bool) -> Any:
        with closing(HTTPConnection("127.0.0.1", proof.server.port)) as conn:
            conn.request("GET", "/forgotten")
            with contextlib.suppress(Exception):
                return conn.getresponse().read() if asks else None

    proof.server.script(lambda request: Raw(b"live"))
    proof.holds(lambda: agent(asks=False))
    changed = run(proof.cassette, lambda: agent(asks=True))
    assert changed.value is None
    assert "had not waited for" in str(changed.failure)


def test_a_thread_that_still_waits_when_the_run_ends(proof: Proof) -> None:
    """It waits again in replay, and is told when the run is over."""
    ended: list[str] = []
    asked = threading.Event()

    def ask(url: str) -> None:
        ended.append(failure(lambda: urllib.request.urlopen(url)))

    def script(request: Request) -> Reply:
        asked.set()
        return Hang()

    def agent() -> Any:
        threads.append(threading.Thread(target=ask, args=(proof.server.url,)))
        threads[-1].start()
        asked.wait(5)
        until = time.monotonic() + 5
        while not watched() and time.monotonic() < until:  # in replay no server tells that it was asked
            time.sleep(0.01)
        return "done"

    def watched() -> bool:
        (observed,) = OWNERSHIP.active
        return any(span.kind == "http" for span in observed.live)

    threads: list[threading.Thread] = []
    proof.server.script(script)
    recorded = run(proof.cassette, agent, mode="rewrite")
    assert recorded.verdict.recorded
    proof.take_down()
    for _ in range(2):
        again = run(proof.cassette, agent)
        threads[-1].join(5)
        assert not threads[-1].is_alive()
        assert again.failure is None
    assert "given up before it was answered" in ended[-1]
    proof.stays_untouched()
    threads[0].join(5)


def test_compressed_answers(proof: Proof) -> None:
    def agent() -> Any:
        request = urllib.request.Request(proof.server.url, headers={"accept-encoding": "gzip"})
        with urllib.request.urlopen(request) as response:
            data = response.read()
            if response.headers.get("content-encoding") == "gzip":
                import gzip

                data = gzip.decompress(data)
            return data

    proof.server.script(lambda request: Json({"word": "squeezed"}, gzip=True))
    assert proof.holds(agent).value == b'{"word": "squeezed"}'
    assert "squeezed" in proof.cassette.read_text()


def test_xmlrpc_stands_on_it(proof: Proof, on_wire: OnWire) -> None:
    said = xmlrpc.client.dumps((42,), methodresponse=True).encode()
    server = on_wire(lambda seen: whole(said, "content-type: text/xml"))

    def agent() -> Any:
        with xmlrpc.client.ServerProxy(server.url) as proxy:
            return proxy.answer("everything")

    assert proof.holds(agent).value == 42


def test_threads(proof: Proof) -> None:
    def ask(number: int) -> Any:
        data = urllib.parse.urlencode({"n": number}).encode()
        with urllib.request.urlopen(proof.server.url, data=data) as response:
            return response.read()

    def agent() -> Any:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(ask, range(8)))

    proof.server.script(lambda request: Raw(str(request.body).encode()))
    assert proof.holds(agent).value == [f"n={number}".encode() for number in range(8)]


def test_after_the_run_connections_are_as_before(proof: Proof) -> None:
    proof.server.script(lambda request: Raw(b"live"))
    conn = HTTPConnection("127.0.0.1", proof.server.port)

    def agent() -> Any:
        conn.request("GET", "/a")
        found = conn.getresponse().read()
        conn.connect()
        return found

    record(proof.cassette, agent)
    replay(proof.cassette, agent)
    with closing(conn):
        conn.request("GET", "/a")
        assert conn.getresponse().read() == b"live"


def test_a_tool_loop_by_hand(proof: Proof) -> None:
    """Tools and the model, with nothing but the standard library."""
    import agents

    def shop(request: Request) -> Reply:
        results = model_replies.tool_results(request)
        return (
            answer(request, f"Done: {results[-1]}.")
            if results
            else answer(request, tools=[ToolCall("lookup", {"order": "7"})])
        )

    def ask(messages: list[Any]) -> Any:
        body = json.dumps({"model": "m", "messages": messages, "tools": model_tools}).encode()
        request = urllib.request.Request(
            f"{proof.server.url}/v1/chat/completions", data=body, headers={"content-type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)["choices"][0]["message"]

    model_tools = [{"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}]

    def agent() -> Any:
        messages: list[Any] = [{"role": "user", "content": "Where is 7?"}]
        said = ask(messages)
        for call in said["tool_calls"]:
            result = agents.lookup(**json.loads(call["function"]["arguments"]))
            messages += [said, {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}]
        return ask(messages)["content"]

    proof.server.script(shop)
    proof.settings["tools"] = ["agents:lookup"]
    proof.holds(agent, ran=["lookup 7"])


def test_a_replay_takes_no_time(proof: Proof) -> None:
    proof.server.script(lambda request: Stream([b"data: 1\n\n", b"data: 2\n\n"], delay=0.5))

    def agent() -> Any:
        with urllib.request.urlopen(proof.server.url) as response:
            return list(response)

    recorded = record(proof.cassette, agent)
    proof.take_down()
    began = time.monotonic()
    assert replay(proof.cassette, agent).value == recorded.value
    assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("name", ["http_client", "urllib3", "httplib2", "botocore"])
def test_a_library_that_looks_different_is_named(name: str) -> None:
    boundary = importlib.import_module(f"pytest_spanchain.boundaries.clients.{name}")
    with pytest.raises(BoundaryError, match="is not recognised"):
        boundary.install(types.SimpleNamespace(__name__=name, HTTPConnection=object))
