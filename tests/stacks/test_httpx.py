"""httpx and httpx2: requests of any kind, model calls among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from proof import Proof, Stack
from servers import Json, Raw, Reply, Request, Stream

STACK = Stack(
    name="httpx, httpx2",
    dists=("httpx", "httpx2"),
    records="HTTP and model calls, at the transports",
    limits=(
        "In-process transports (ASGI, WSGI, mocks) are not a network and not recorded.",
        "In replay a response has no network stream and the standard reason phrase.",
    ),
)


def service(request: Request) -> Reply:
    """JSON, bytes, a stream, and an error."""
    replies: dict[str, Reply] = {
        "/json": Json({"said": request.body}),
        "/zip": Json({"said": "much " * 100}, gzip=True),
        "/bytes": Raw(bytes(range(256))),
        "/stream": Stream([b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]),
    }
    return replies.get(request.path, Json({"error": "no such thing"}, status=404))


def sync(lib: ModuleType, url: str, word: str) -> list[Any]:
    with lib.Client(base_url=url) as client:
        answers = [
            client.post("/json", json={"word": word}),
            client.get("/zip"),
            client.get("/bytes"),
            client.get("/x"),
        ]
        with client.stream("GET", "/stream") as response:
            chunks = list(response.iter_raw())
    return [(one.status_code, one.content) for one in answers] + chunks


def with_loop(lib: ModuleType, url: str, word: str) -> list[Any]:
    async def main() -> list[Any]:
        async with lib.AsyncClient(base_url=url) as client:
            posted, zipped = await asyncio.gather(client.post("/json", json={"word": word}), client.get("/zip"))
            async with client.stream("GET", "/stream") as response:
                return [posted.json(), zipped.json(), *[chunk async for chunk in response.aiter_raw()]]

    return asyncio.run(main())


@pytest.mark.parametrize("lib", [httpx, httpx2], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("agent", [sync, with_loop])
def test_requests(agent: Callable[..., list[Any]], lib: ModuleType, proof: Proof) -> None:
    proof.server.script(service)
    outcome = proof.holds(lambda: agent(lib, proof.server.url, "one"))
    assert outcome.value[-3:] == [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]
    (cause,) = proof.breaks(lambda: agent(lib, proof.server.url, "two"))
    assert cause.kind == "input_changed"
