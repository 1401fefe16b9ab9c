"""aiohttp's exceptions, as a cassette tells of them and as replay raises them: the same class, the same words."""

from __future__ import annotations

import ast
import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ... import _http
from .. import _raised

_GIVEN_UP = {"type": "ClientConnectionError", "message": _http.GIVEN_UP}

_REFUSED = re.compile(r"Cannot connect to (?:host|unix socket) (.*) ssl:.*? \[(.*)\]", re.DOTALL)
_ANSWERED = re.compile(r"(\d+), message=(.*), url=.*", re.DOTALL)


def told(error: BaseException) -> str:
    """The words of an exception, with the error number that aiohttp's connector errors do not say."""
    text = str(error)
    number = getattr(getattr(error, "os_error", None), "errno", None)
    return text if number is None else f"[Errno {number}] {text}"


def made_anew(lib: ModuleType, error: Mapping[str, Any] | None, request: Any) -> Exception:
    """A recorded exception.

    Args:
        lib: aiohttp.
        error: a recorded ERROR; ``None`` if the agent gave up before there was an answer.
        request: the request that it answers.
    """
    kind, message = (error or _GIVEN_UP)["type"], (error or _GIVEN_UP)["message"]
    errors = lib.client_exceptions
    found = getattr(errors, kind, None)
    if kind == "TimeoutError":
        return asyncio.TimeoutError(*filter(None, [message]))
    made = None
    if isinstance(found, type) and issubclass(found, errors.ClientError):
        if issubclass(found, errors.ClientConnectorError):
            made = _connector_error(errors, found, message, request)
        elif issubclass(found, errors.ClientResponseError):
            made = _response_error(found, message, request)
        elif issubclass(found, OSError) and (numbered := _raised.numbered(message)):
            made = found(*numbered.args)
        elif found is not errors.ServerFingerprintMismatch:
            made = found(message)
    if not isinstance(made, Exception):
        made = errors.ClientConnectionError(f"{kind}: {message}")
    assert isinstance(made, Exception)
    return made


def _connector_error(errors: ModuleType, found: Any, message: str, request: Any) -> Any:
    numbered = _raised.numbered(message)
    number, text = (numbered.number, numbered.words) if numbered else (None, message)
    said = _REFUSED.fullmatch(text)
    if said is None:
        return None
    key = request.connection_key
    if issubclass(found, errors.ClientConnectorCertificateError):
        return found(key, ssl.SSLCertVerificationError(*_arguments(said[2])))
    cause_class: type[OSError] = OSError
    if issubclass(found, errors.ClientConnectorDNSError):
        cause_class = socket.gaierror
    elif issubclass(found, ssl.SSLError):
        cause_class = ssl.SSLError
    cause = cause_class(number, said[2])
    if issubclass(found, errors.UnixClientConnectorError):
        return found(said[1], key, cause)
    return found(key, cause)


def _response_error(found: Any, message: str, request: Any) -> Any:
    said = _ANSWERED.fullmatch(message)
    return said and found(request.request_info, (), status=int(said[1]), message=_literal(said[2]))


def _arguments(text: str) -> tuple[Any, ...]:
    """The arguments in ``Name: (1, 'words')``."""
    found = _literal(text.partition(": ")[2])
    return found if isinstance(found, tuple) else (text,)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
