"""A client whose insides have changed is refused by what is missing, before any of it is patched."""

from __future__ import annotations

import http.client
import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_spanchain import BoundaryError


def without(of: Any, *names: str, **others: Any) -> Any:
    """What looks like a module, but for some of its names."""
    return SimpleNamespace(**{name: value for name, value in vars(of).items() if name not in names} | others)


def refused(boundary: str, lib: Any, *, patched: Any, name: str, says: str) -> None:
    """Installing says what is missing, and leaves a method of the library as it is."""
    before = vars(patched)[name]
    with pytest.raises(BoundaryError, match=f"is not recognised.*{says}"):
        importlib.import_module(f"pytest_spanchain.boundaries.clients.{boundary}").install(lib)
    assert vars(patched)[name] is before


@pytest.mark.parametrize("attribute", ["_middlewares", "_base_url", "_read_bufsize"])
def test_attributes_of_aiohttps_session(attribute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    monkeypatch.setattr(aiohttp.ClientSession, "ATTRS", aiohttp.ClientSession.ATTRS - {attribute})
    says = f"ClientSession has no {attribute}"
    refused("aiohttp", aiohttp, patched=aiohttp.ClientSession, name="_request", says=says)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("StreamReader", "readchunk"),
        ("StreamReader", "get_read_buffer_limits"),
        ("ClientRequest", "connection_key"),
        ("ClientRequest", "skip_auto_headers"),
    ],
)
def test_what_aiohttps_reader_and_request_have(where: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    for kind in getattr(aiohttp, where).__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    says = f"{where} has no {name}"
    refused("aiohttp", aiohttp, patched=aiohttp.ClientSession, name="_request", says=says)


def test_parts_of_aiohttp() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    lib = without(aiohttp, "base_protocol")
    refused("aiohttp", lib, patched=aiohttp.ClientSession, name="_request", says="aiohttp has no base_protocol")


def test_urllib3s_way_to_raise_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = pytest.importorskip("urllib3.connectionpool")
    monkeypatch.delattr(pools.HTTPConnectionPool, "_raise_timeout")
    says = "HTTPConnectionPool has no _raise_timeout"
    refused("urllib3", pools, patched=pools.HTTPConnectionPool, name="_make_request", says=says)


def test_how_urllib3_knows_its_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, connection = (pytest.importorskip(f"urllib3.{name}") for name in ("connectionpool", "connection"))
    if not hasattr(connection.HTTPConnection, "has_connected_to_proxy"):
        pytest.skip("urllib3 1.26 does not ask whether it has reached its proxy")
    monkeypatch.delitem(connection.HTTPConnection.__annotations__, "_has_connected_to_proxy")
    says = "HTTPConnection has no _has_connected_to_proxy"
    refused("urllib3", pools, patched=pools.HTTPConnectionPool, name="_make_request", says=says)


def test_urllib3s_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, response = (pytest.importorskip(f"urllib3.{name}") for name in ("connectionpool", "response"))
    monkeypatch.delattr(response, "_get_decoder")
    says = "urllib3.response has no _get_decoder"
    refused("urllib3", pools, patched=pools.HTTPConnectionPool, name="_make_request", says=says)


def test_what_urllib3_no_longer_lets_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, connection = (pytest.importorskip(f"urllib3.{name}") for name in ("connectionpool", "connection"))
    monkeypatch.setattr(connection.HTTPConnection, "is_verified", property(lambda self: True))
    says = "is_verified cannot be set"
    refused("urllib3", pools, patched=pools.HTTPConnectionPool, name="_make_request", says=says)


@pytest.mark.parametrize("attribute", ["_status", "_initial_metadata"])
def test_attributes_of_grpcs_calls(attribute: str) -> None:
    lib = pytest.importorskip("grpc.aio._channel")
    call = type(
        "_AioCall", (), {name: None for name in dir(lib.cygrpc._AioCall) if name != attribute and name[1] != "_"}
    )
    changed = without(lib, cygrpc=without(lib.cygrpc, _AioCall=call))
    says = f"_AioCall has no {attribute}"
    refused("grpc", changed, patched=lib.UnaryUnaryCall, name="__init__", says=says)


@pytest.mark.parametrize("name", ["_Metadatum", "SendMessageOperation"])
def test_what_grpcs_core_has(name: str) -> None:
    lib = pytest.importorskip("grpc._channel")
    changed = without(lib, cygrpc=without(lib.cygrpc, name))
    refused("grpc", changed, patched=lib._UnaryUnaryMultiCallable, name="_blocking", says=f"has no {name}")


@pytest.mark.parametrize("name", ["TransportError", "AsyncByteStream", "AsyncHTTPTransport"])
@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_what_httpx_has(library: str, name: str) -> None:
    lib = pytest.importorskip(library)
    refused("httpx", without(lib, name), patched=lib.HTTPTransport, name="handle_request", says=name)


@pytest.mark.parametrize("missing", ["_tunnel_host", "_buffer", "getresponse"])
def test_what_connections_of_the_standard_library_have(missing: str) -> None:
    class HTTPConnection:
        blocksize = sock = _tunnel_port = None

        def __init__(self, host: str) -> None:
            self._buffer = self._tunnel_host = None
            if missing in vars(self):
                delattr(self, missing)

        endheaders = send = connect = getresponse = lambda self: None

    if missing == "getresponse":
        del HTTPConnection.getresponse
    lib = without(http.client, HTTPConnection=HTTPConnection)
    refused("http_client", lib, patched=HTTPConnection, name="endheaders", says=missing)


@pytest.mark.parametrize("module", ["openai._base_client", "anthropic._base_client"])
def test_how_sdks_retry(module: str) -> None:
    lib = importlib.import_module(module)
    with pytest.raises(BoundaryError, match=f"{module} has no BaseClient._calculate_retry_timeout"):
        importlib.import_module("pytest_spanchain.boundaries.clients.retries").install(without(lib, "BaseClient"))
