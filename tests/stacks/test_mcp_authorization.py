"""Who an MCP client says it is: credentials in the URL of a server, and OAuth as the SDK's own client does it."""

# Two releases of one library: what is not there in the one is there in the other.
# mypy: disable-error-code="import-not-found, import-untyped, attr-defined, no-redef, unused-ignore, arg-type, call-arg"
# mypy: disable-error-code="no-any-return, misc"

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from pydantic import AnyUrl

from proof import Stack
from recording import record, replay, run
from servers import CountingListener

pytest.importorskip("mcp", reason="mcp is not installed")

import mcp_everything
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from mcp_bad_http import HttpServer, Peer

FIRST = mcp_everything.FIRST

if FIRST:
    import httpx
else:
    import httpx2 as httpx
    from mcp.shared.auth import AuthorizationCodeResult

STACK = Stack(
    name="mcp, authorization",
    dists=("mcp",),
    records="a server's URL without user, password and credential parameters; OAuth is part of how a connection is"
    " carried: replay asks nobody for a token",
    limits=(
        "What is in the path of a server's URL is recorded, and names the server: a key there is only redacted if it"
        " looks like one, or if a rule of yours names it.",
        "The handlers of an OAuth client, which show the user a page and wait for the code, are not called in replay.",
    ),
)

pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated.*")

ACCESS, REFRESH = "mcp-access-5e1c7a90b34d28f6", "mcp-refresh-77d0c2e9514ab83f"
CODE, CLIENT_SECRET = "mcp-code-c04d8831f7ae9256", "mcp-client-1f0e6b9d38c7a542"


class Guard(Peer):
    """A server that wants a token, and the authorization server that gives it."""

    server: Guarded

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def do_GET(self) -> None:  # noqa: N802  # the base class looks for this name
        """Metadata, or the page that asks the user."""
        where = urlsplit(self.path)
        if where.path.startswith("/.well-known/oauth-protected-resource"):
            self.json({"resource": f"{self.url}/mcp", "authorization_servers": [self.url]})
        elif where.path.startswith("/.well-known/"):
            paths = {
                "authorization_endpoint": "authorize",
                "token_endpoint": "token",
                "registration_endpoint": "register",
            }
            self.json(
                {
                    "issuer": self.url,
                    **{name: f"{self.url}/{path}" for name, path in paths.items()},
                    "response_types_supported": ["code"],
                    "code_challenge_methods_supported": ["S256"],
                }
            )
        elif where.path == "/authorize":
            asked = {name: values[0] for name, values in parse_qs(where.query).items()}
            self.server.heard.append("authorize")
            self.send_response(302)
            self.send_header(
                "location", f"{asked['redirect_uri']}?{urlencode({'code': CODE, 'state': asked['state']})}"
            )
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            super().do_GET()

    def do_POST(self) -> None:  # noqa: N802  # the base class looks for this name
        """A registration, a token, or a message with one."""
        if self.path == "/mcp":
            if self.headers.get("authorization") == f"Bearer {ACCESS}":
                super().do_POST()
                return
            self.rfile.read(int(self.headers["content-length"]))
            self.json({"error": "who are you"}, status=401)
            return
        given = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.heard.append(self.path.strip("/"))
        if self.path == "/register":
            self.json({**json.loads(given), "client_id": "shop", "client_secret": CLIENT_SECRET}, status=201)
        elif self.server.grants and f"code={CODE}" in given:
            self.json({"access_token": ACCESS, "token_type": "Bearer", "expires_in": 3600, "refresh_token": REFRESH})
        else:
            self.json({"error": "invalid_grant"}, status=400)


class Guarded(HttpServer):
    """Serves ``Guard``.

    Args:
        grants: whether it gives tokens.
    """

    def __init__(self, *, grants: bool = True) -> None:
        super().__init__("works")
        self.grants = grants
        self.RequestHandlerClass = Guard


class Storage:
    """Keeps what the client was given, for as long as one agent runs."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


def provider(url: str) -> Any:
    """The SDK's OAuth client, with a user who agrees at once."""
    back: list[str] = []

    async def goes_there(page: str) -> None:
        async with httpx.AsyncClient() as browser:
            back.append((await browser.get(page)).headers["location"])

    async def comes_back() -> Any:
        told = {name: values[0] for name, values in parse_qs(urlsplit(back[-1]).query).items()}
        return (told["code"], told["state"]) if FIRST else AuthorizationCodeResult(**told)

    about = OAuthClientMetadata(
        client_name="shop",
        redirect_uris=[AnyUrl("http://localhost:3030/back")],
        token_endpoint_auth_method="client_secret_post",
    )
    return OAuthClientProvider(url, about, Storage(), goes_there, comes_back)


@asynccontextmanager
async def session(url: str, **options: Any) -> AsyncIterator[Any]:
    async with (
        httpx.AsyncClient(**options) as client,
        streamable_http_client(url, http_client=client) as (read, write, *_),
        ClientSession(read, write) as opened,
    ):
        await opened.initialize()
        yield opened


async def call(opened: Any) -> str:
    return str((await opened.call_tool("tool", {})).content[0].text)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    server = Guarded()
    yield server
    server.close()


def test_oauth_without_the_servers(guarded: Guarded, tmp_path: Path) -> None:
    port = guarded.server_address[1]
    url = f"http://127.0.0.1:{port}/mcp"

    async def agent() -> list[str]:
        async with session(url, auth=provider(url)) as opened:
            return [await call(opened), await call(opened)]

    cassette = tmp_path / "run.yaml"
    recorded = record(cassette, agent)
    assert recorded.value == ["fine", "fine"]
    assert [heard for heard in guarded.heard if heard in ("register", "authorize", "token")] == [
        "register",
        "authorize",
        "token",
    ]
    names = [span.name for span in recorded.verdict.live]
    assert not [name for name in names if "token" in name or "authorize" in name or "register" in name], names
    written = cassette.read_text()
    for secret in (ACCESS, REFRESH, CODE, CLIENT_SECRET):
        assert secret not in written
    guarded.close()
    with CountingListener(port) as listener:
        for _ in range(3):
            assert replay(cassette, agent).value == recorded.value
        assert listener.connections == 0


def test_a_user_who_is_not_let_in(tmp_path: Path) -> None:
    def agent(url: str) -> Any:
        async def asks() -> str:
            async with session(url, auth=provider(url)) as opened:
                return await call(opened)

        return asks

    with ExitStack() as stack:
        server = Guarded(grants=False)
        stack.callback(server.close)
        port = server.server_address[1]
        asks = agent(f"http://127.0.0.1:{port}/mcp")
        cassette = tmp_path / "run.yaml"
        recorded = record(cassette, asks)
    assert recorded.raised is not None
    assert CODE not in cassette.read_text()
    assert CLIENT_SECRET not in cassette.read_text()
    with CountingListener(port) as listener:
        again = replay(cassette, asks)
        assert listener.connections == 0
    assert leaves(again.raised) == leaves(recorded.raised)


def leaves(error: BaseException | None) -> list[str]:
    """The errors in groups of groups, as they say themselves."""
    inner = getattr(error, "exceptions", None)
    return [repr(error)] if inner is None else [leaf for one in inner for leaf in leaves(one)]


def test_credentials_in_the_url_of_a_server(tmp_path: Path) -> None:
    def agent(url: str) -> Any:
        async def asks() -> str:
            async with session(url) as opened:
                return await call(opened)

        return asks

    server = HttpServer("works")
    where = f"127.0.0.1:{server.server_address[1]}"
    user, password, key = "shop", "pw-9f31c07e52ab", "0d6b41c98e7f2a35"

    def url(*, password: str = password, key: str = key, region: str = "eu", path: str = "mcp") -> str:
        return f"http://{user}:{password}@{where}/{path}?region={region}&api_key={key}"

    cassette = tmp_path / "run.yaml"
    try:
        assert record(cassette, agent(url())).value == "fine"
    finally:
        server.close()
    written = cassette.read_text()
    assert password not in written
    assert key not in written
    assert "region=eu" in written
    with CountingListener(server.server_address[1]) as listener:
        assert replay(cassette, agent(url())).value == "fine"
        assert replay(cassette, agent(url(password="pw-new-1b2c3d4e5f", key="fe11b0c27d9a6843"))).value == "fine"
        for changed in (url(region="us"), url(path="other")):
            causes = run(cassette, agent(changed)).causes
            assert [str(cause.kind) for cause in causes][:1] == ["input_changed"]
        assert listener.connections == 0
