"""The screen between boundaries and everything that remembers: what passes here is redacted and of the final shape.

It stands before matching, hashing, logging and storing, and nothing goes round it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from . import _eventstream, _genai, _rules
from ._layout import LayoutError, ordered, relayout
from ._model import HTTP_KINDS, OWN_SCOPE, Span, SpanTree
from ._redact import Redactor
from ._settings import Settings
from ._shape import Fault, request_fault, response_fault
from .errors import RecordingError

RedactHook = Callable[[str, Any], Any]

URL_ATTRIBUTES = ("url.full", "http.url")
_BODIES = ("body", "stdout", "stderr")


class Screen:
    """Redacts what one run sees.

    Args:
        settings: of the run; ``redact`` adds to the built-in rules.
        hook: called last with an exchange's kind and its request or response; returns what to use.
        note: told of what fails the run, whatever the agent makes of the error that it gets.
    """

    def __init__(self, settings: Settings, *, hook: RedactHook | None, note: Callable[[str], None]) -> None:
        self.redactor = _redactor(settings)
        self._hook = hook
        self._note = note

    def text(self, text: str) -> str:
        """A name or a message."""
        return self.redactor.text(text)

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Span attributes."""
        return self.redactor.attributes(dict(attributes))

    def request(self, kind: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request; see ``_model`` for its shape.

        Raises:
            RecordingError: the user's rules or hook left something of another shape.
        """
        if kind == "process":
            environment = self.redactor.environment(request["env"])
            request = {**request, "argv": self.redactor.arguments(request["argv"]), "env": environment}
        return self._part(kind, request, fault=request_fault)

    def http_request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """An HTTP request as a boundary brings it: its headers, a list of pairs, become the mapping worth keeping."""
        return {
            **request,
            "url": self.redactor.url(request["url"]),
            "headers": self.redactor.request_headers(request["headers"]),
        }

    def response(self, kind: str, operation: _genai.Operation | None, response: Mapping[str, Any]) -> Mapping[str, Any]:
        """A response as a boundary brings it. A streamed one gets its assembled message, made of the redacted text.

        Raises:
            RecordingError: the user's rules or hook left something of another shape.
        """
        if kind in HTTP_KINDS:
            body = response["body"]
            if body is not None and "chunks" in body:
                body = self._streamed(operation, body)
            headers = self.redactor.response_headers(response["headers"])
            response = {**response, "headers": headers, "body": body}
        elif kind == "process":
            response = {**response, **{name: self._output(response[name]) for name in ("stdout", "stderr")}}
        return self._part(kind, response, fault=response_fault)

    def _streamed(self, operation: _genai.Operation | None, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if "text" in body:
            text, chunks = self.redactor.stream(body["text"], body["chunks"])
            return {**body, "text": text, "chunks": list(chunks), "message": _genai.assemble(operation, text)}
        frames = _eventstream.text_of(body)
        if frames is None:
            return body
        text, _ = self.redactor.stream(frames, ())
        # What cannot be put back stays as it is: the search of the packed bytes refuses it.
        edited = body if text == frames else _eventstream.with_text(body, text) or body
        return {**edited, "message": _genai.assemble(operation, text)}

    def _output(self, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """What came out of a child, its chunks counted anew where something was taken out of them."""
        if body is None or "chunks" not in body:
            return body
        if "text" in body:
            text, chunks = self.redactor.stream(body["text"], body["chunks"])
            return {**body, "text": text, "chunks": list(chunks)}
        # Where in packed bytes the borders are now is not known.
        clean: Mapping[str, Any] = self.redactor.value({"base64": body["base64"]})
        return body if clean["base64"] == body["base64"] else clean

    def tree(self, tree: SpanTree) -> SpanTree:
        """A tree whose foreign spans are redacted; ours were when they were made."""
        return SpanTree(tuple(span if span.scope == OWN_SCOPE else self._foreign(span) for span in tree))

    def told(self, tree: SpanTree) -> SpanTree:
        """A tree that another process tells of: it was redacted there, by what was known there.

        Raises:
            RecordingError: the user's rules or hook left something of another shape.
        """
        return SpanTree(tuple(self._told(span) for span in tree))

    def _told(self, span: Span) -> Span:
        exchange = span.exchange
        if exchange is not None:
            request, response = exchange.request, exchange.response
            if response is not None:
                outputs = {name: self._output(response[name]) for name in _BODIES if name in response}
                response = self._part(exchange.kind, {**response, **outputs}, fault=response_fault)
            exchange = replace(
                exchange, request=self._part(exchange.kind, request, fault=request_fault), response=response
            )
        return replace(self._foreign(span), exchange=exchange)

    def _part(
        self, kind: str, part: Mapping[str, Any], *, fault: Callable[[str, Any], Fault | None]
    ) -> Mapping[str, Any]:
        given = dict(part)
        value: Mapping[str, Any] = self.redactor.value(given)
        if self._hook:
            value = self._hook(kind, value)
        if value is given:
            return value
        found = fault(kind, value)
        if found is None:
            try:
                return _laid_out_anew(value)
            except LayoutError as error:
                found = Fault("body.layout", f"cannot be read: {error}")
        what = f"the {'request' if fault is request_fault else 'response'} of a {kind} call"
        text = (
            f"redaction (rules of the setting redact, or the hook pytest_spanchain_redact) left {what} that could not"
            f" be replayed: {found.field or 'it'} {found.reason}"
        )
        self._note(text)
        raise RecordingError(text)

    def _foreign(self, span: Span) -> Span:
        attributes = {
            key: self.redactor.url(value) if key in URL_ATTRIBUTES and isinstance(value, str) else value
            for key, value in span.attributes.items()
        }
        return replace(
            span,
            name=self.text(span.name),
            attributes=self.attributes(attributes),
            events=tuple(self.redactor.value(dict(event)) for event in span.events),
            status_message=self.text(span.status_message),
        )


def _laid_out_anew(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part whose key orders describe what redaction left of it, not what was there before."""
    for name in _BODIES:
        body = part.get(name)
        if isinstance(body, Mapping) and "layout" in body:
            part = {**part, name: {**body, "layout": relayout(body["json"], body["layout"])}}
    return ordered(part) if "order" in part else part


def _redactor(settings: Settings) -> Redactor:
    rules = _rules.sort_out(settings.redact, names=True)
    return Redactor(os.environ, keys=rules.names, patterns=rules.patterns, paths=rules.paths)
