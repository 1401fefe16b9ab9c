"""httplib2: on http.client's connections, which it opens ahead of its requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wire import failure

from model_replies import answer
from proof import Proof, Stack
from servers import Hang, Json, Raw, Reply, Request, Reset, closed_port

httplib2 = pytest.importorskip("httplib2")

STACK = Stack(
    name="httplib2",
    dists=("httplib2",),
    records="HTTP and model calls, at http.client's connections (httplib2 0.22 or newer)",
    limits=("answers come back decoded, so the header -content-encoding is not there in replay",),
)


def test_a_model_asked_by_hand(proof: Proof) -> None:
    def agent(question: str = "Where is order 1412?") -> Any:
        body = f'{{"model": "gpt-test", "messages": [{{"role": "user", "content": "{question}"}}]}}'
        http = httplib2.Http()
        head, content = http.request(
            f"{proof.server.url}/v1/chat/completions", "POST", body=body, headers={"content-type": "application/json"}
        )
        http.close()
        return head.status, head["content-type"], content

    proof.server.script(lambda request: answer(request, "On its way."))
    recorded = proof.holds(agent)
    assert [span.kind for span in recorded.verdict.live] == ["span", "model"]
    assert recorded.verdict.notes == ()
    (cause,) = proof.breaks(lambda: agent("Where is order 1413?"))
    assert cause.kind == "input_changed"


def test_redirects_compression_errors_and_its_cache(proof: Proof, tmp_path: Path) -> None:
    def agent() -> Any:
        http = httplib2.Http(cache=str(tmp_path / "unused"))
        found = []
        for path in ("/old", "/missing", "/squeezed", "/binary"):
            head, content = http.request(proof.server.url + path, headers={"cache-control": "no-cache"})
            found.append((head.status, content, getattr(head.previous, "status", None)))
        http.close()
        return found

    def script(request: Request) -> Reply:
        replies: dict[str, Reply] = {
            "/old": Raw(b"", status=302, headers={"location": f"{proof.server.url}/new"}),
            "/new": Raw(b"new"),
            "/missing": Json({"error": "no"}, status=404),
            "/squeezed": Json({"word": "squeezed"}, gzip=True),
            "/binary": Raw(b"\x00\xff"),
        }
        return replies[request.path]

    proof.server.script(script)
    recorded = proof.holds(agent)
    assert recorded.value == [
        (200, b"new", 302),
        (404, b'{"error": "no"}', None),
        (200, b'{"word": "squeezed"}', None),
        (200, b"\x00\xff", None),
    ]


def test_failures_are_its_own(proof: Proof) -> None:
    def agent() -> Any:
        http = httplib2.Http(timeout=0.2)
        urls = [f"http://127.0.0.1:{refused}/", "http://nowhere.invalid/"]
        urls += [f"{proof.server.url}/reset", f"{proof.server.url}/hang"]
        return [failure(lambda url=url: http.request(url)) for url in urls]  # type: ignore[misc]

    refused = closed_port()
    proof.server.script(lambda request: Reset() if request.path == "/reset" else Hang())
    recorded = proof.holds(agent)
    kinds = [found.partition("(")[0] for found in recorded.value]
    assert kinds == ["ConnectionRefusedError", "ServerNotFoundError", "ConnectionResetError", "TimeoutError"]
