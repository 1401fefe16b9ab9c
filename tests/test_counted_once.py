"""What a fixture asks of the world is counted once, however many libraries stand on each other to ask it."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from pytest_spanchain import _session, boundaries
from pytest_spanchain._options import Said
from servers import Json, ModelServer


@pytest.fixture
def url(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that is taken to be elsewhere: what fixtures ask of this machine is not counted."""
    monkeypatch.setattr(_session, "is_loopback", lambda host: False)
    server.script(lambda request: Json({}))
    return server.url


@pytest.fixture
def session() -> Iterator[_session.Session]:
    """A session in which a fixture is being set up."""
    boundaries.install()
    session = _session.begin(Said())
    session.enter("facts")
    yield session
    _session.end(session)


def plain(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()


def opened(url: str) -> None:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as response:
        response.read()


def pooled(url: str) -> None:
    with pytest.importorskip("urllib3").PoolManager() as pool:
        pool.request("GET", url)


def requested(url: str) -> None:
    with pytest.importorskip("requests").Session() as session:
        session.trust_env = False
        session.get(url)


def proxied(url: str) -> None:
    with pytest.importorskip("requests").Session() as session:
        session.trust_env = False
        session.get("http://elsewhere.test/", proxies={"http": url})


def by_httplib2(url: str) -> None:
    client = pytest.importorskip("httplib2").Http(proxy_info=None)
    client.request(url)
    client.close()


def by_httpx(url: str) -> None:
    with pytest.importorskip("httpx").Client(trust_env=False) as client:
        client.get(url)


@pytest.mark.parametrize("ask", [plain, opened, pooled, requested, proxied, by_httplib2, by_httpx])
def test_each_request_is_counted_once(ask: Callable[[str], None], url: str, session: _session.Session) -> None:
    ask(url)
    assert [told["live"] for told in session.take()] == [1]
    ask(url)
    ask(url)
    assert [told["live"] for told in session.take()] == [2]


def test_grpc_counts_calls_and_no_looks_at_a_channel(session: _session.Session) -> None:
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel("nowhere.invalid:1") as channel:
        channel.subscribe(lambda state: None)
        assert session.take() == []
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/raw.Echo/Say")(b"")
        assert [told["live"] for told in session.take()] == [1]
