"""urllib3, and so requests and botocore: an attempt of a pool's ``urlopen`` is one call of its ``_make_request``.

Patched on the class, below retries and redirects, which go on as they are; pools and sessions made before the run are
met too. A recorded answer is read by urllib3's own connection (see ``_answers``), a recorded failure is raised where
urllib3 sorts its failures out. Recorded back-off is not slept through in replay.
"""

from __future__ import annotations

import functools
import http.client
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ..._run import Call, Run
from ...errors import BoundaryError
from .. import _http, _wait
from . import _answers, http_client
from ._needs import needs

_PROXY_REACHED = "proxy reached"
_TUNNEL = "_spanchain_tunnel"


def install(pools: ModuleType) -> None:
    """Patch the pools of urllib3.

    Args:
        pools: ``urllib3.connectionpool``, 1.26 or 2.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        plain, secure = pools.HTTPConnectionPool, pools.HTTPSConnectionPool
        make_request, prepare_proxy, sleep = plain._make_request, secure._prepare_proxy, pools.Retry.sleep
        _know(plain)
    except AttributeError as error:
        raise BoundaryError(f"urllib3 is not recognised, its calls would not be recorded: {error}") from None

    @functools.wraps(make_request)
    def _make_request(self: Any, conn: Any, method: str, url: str, **options: Any) -> Any:
        target = http_client.url_of(self.scheme, self.host, self.port, url)
        run = _run_for(conn, target)
        if run is None:
            if (tunnel := vars(conn).pop(_TUNNEL, None)) is not None:
                tunnel()
            return make_request(self, conn, method, url, **options)
        return _attempt(run, functools.partial(make_request, self, conn, method, url), conn, method, target, options)

    @functools.wraps(prepare_proxy)
    def _prepare_proxy(self: Any, conn: Any) -> None:
        if _http.watching(self.host, self.port, asks=False) is None:
            prepare_proxy(self, conn)
        else:
            # The request that follows opens the tunnel, if it goes out at all.
            vars(conn)[_TUNNEL] = functools.partial(_opened, self, conn, prepare_proxy)

    @functools.wraps(sleep)
    def without_waiting(self: Any, *args: Any, **kwargs: Any) -> None:
        if not _wait.skips():
            sleep(self, *args, **kwargs)

    plain._make_request = _make_request
    secure._prepare_proxy = _prepare_proxy
    pools.Retry.sleep = without_waiting


def _know(pool: Any) -> None:
    """Insist on what is used of the library later on.

    Raises:
        AttributeError: it is not there.
    """
    needs(pool, "_raise_timeout")
    connection, response = sys.modules["urllib3.connection"].HTTPConnection, sys.modules["urllib3.response"]
    if hasattr(connection, "has_connected_to_proxy"):  # 1.26 does not ask for it
        needs(connection, "_has_connected_to_proxy")
    if isinstance(getattr(connection, "is_verified", None), property):
        raise AttributeError("HTTPConnection.is_verified cannot be set")
    needs(response, "_get_decoder")
    needs(response.HTTPResponse, "CONTENT_DECODERS")


def _run_for(conn: Any, url: str) -> Run | None:
    parts = urlsplit(url)
    # Its connections are those of ``http.client``, where it is counted.
    run = _http.watching(parts.hostname or "", parts.port, path=parts.path, asks=False)
    if run is not None and not isinstance(conn, http.client.HTTPConnection):
        run.note(f"{type(conn).__module__} has replaced urllib3's connections: {url} was left to it")
        return None
    return run


def _attempt(
    run: Run, make_request: Callable[..., Any], conn: Any, method: str, url: str, options: dict[str, Any]
) -> Any:
    content, options["body"] = _content(options.get("body"), blocksize=conn.blocksize)
    headers = [(_text(name), _text(value)) for name, value in (options.get("headers") or {}).items()]
    call = http_client.begin(run, method=method, url=url, headers=headers, content=content)
    tunnel = vars(conn).pop(_TUNNEL, None)
    if call.recorded is not None:
        return _replayed(call, make_request, conn, method, options)
    exchange = http_client.Exchange(call, method, pooled=True)
    try:
        with call.active(), http_client.owned(conn, exchange):
            if tunnel is not None:
                tunnel()
            return make_request(**options)
    except BaseException as error:
        if exchange.answer is None:
            reached = getattr(conn, "has_connected_to_proxy", False)
            _http.no_answer(call, error, step=_PROXY_REACHED if reached else "")
        elif isinstance(error, Exception):  # it came while urllib3 read the body at once
            exchange.answer.over("error", error)
        else:
            exchange.answer.over("closed")
        raise


def _replayed(call: Call, make_request: Callable[..., Any], conn: Any, method: str, options: dict[str, Any]) -> Any:
    recorded = call.recorded
    assert recorded is not None
    if recorded["status"] is None:
        try:
            _answers.raise_recorded(call, library=sys.modules["urllib3.exceptions"])
        finally:
            # Pools blame a failure on the proxy while they have no connection to it: none yet, or it was closed.
            conn._has_connected_to_proxy = _http.step_of(recorded["error"]) == _PROXY_REACHED
    # botocore looks at its socket for leave to send the body.
    options["headers"] = _without(options.get("headers"), "expect")
    verified = getattr(conn, "is_verified", False)
    conn.is_verified = getattr(conn, "cert_reqs", None) not in (0, "CERT_NONE", "NONE")
    exchange = http_client.Exchange(call, method, pooled=True)
    try:
        with http_client.owned(conn, exchange), http_client.served(conn, call, method=method):
            return make_request(**options)
    finally:
        conn.is_verified = verified


def _opened(pool: Any, conn: Any, prepare_proxy: Callable[..., None]) -> None:
    """Open a tunnel, with the failures that ``urlopen`` makes of its own."""
    try:
        prepare_proxy(pool, conn)
    except OSError as error:
        pool._raise_timeout(err=error, url=pool.proxy.url, timeout_value=conn.timeout)
        raise


def _content(body: Any, *, blocksize: int) -> tuple[bytes, Any]:
    """The bytes of a body, and what to send instead of one that can be read only once."""
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode("utf-8"), body
    if hasattr(body, "read"):
        blocks = []
        while block := body.read(blocksize):
            blocks.append(block.encode("utf-8") if isinstance(block, str) else block)
        return b"".join(blocks), blocks
    try:
        return bytes(memoryview(body)), body
    except TypeError:
        blocks = [block.encode("utf-8") if isinstance(block, str) else bytes(block) for block in body]
        return b"".join(blocks), blocks


def _without(headers: Mapping[str, Any] | None, name: str) -> Any:
    if headers is None or all(_text(key).lower() != name for key in headers):
        return headers
    return {_text(key): value for key, value in headers.items() if _text(key).lower() != name}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
