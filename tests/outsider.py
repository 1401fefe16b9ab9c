"""A strict verifier of cassettes written from docs/format.md alone.

It shares no code with the package and must not: where the two disagree, the page is wrong or one of them is. Sections
of the page are named where they are followed. Refusals are ``Refused`` with one of three verdicts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import yaml

Check = Callable[[Any], bool]


class Refused(Exception):
    """The file is not a cassette that may be replayed.

    Args:
        verdict: ``unreadable``, ``broken`` or ``incomplete``.
        reason: what does not hold.
    """

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(verdict, reason)
        self.verdict = verdict


def head(data: bytes) -> str:
    """Verify the bytes of a file; its head."""
    text = data.decode("utf-8-sig")
    document = read(text)
    judge(document, found_summary(text))
    return str(document["entries"][-1]["sha256_hash"])


def judge(document: Any, found: list[str] | None = None) -> None:
    """Section *Verification*: integrity, then completeness."""
    for verdict, faults in (("broken", _integrity), ("incomplete", _completeness)):
        for reason in faults(document):
            raise Refused(verdict, reason)
        if verdict == "broken" and found is not None and levelled(found) != levelled(summary(document)):
            raise Refused(verdict, "the summary is another's")


# --- YAML --------------------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+([eE][-+][0-9]+)?")
_RESOLVER: Any = yaml.SafeLoader("")
_WORDS = {"null": None, "true": True, "false": False}


def read(text: str) -> Any:
    """Section *YAML*; what PyYAML's resolver would not take for text, and the page does not name, is refused."""
    events = [*yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    _must_read(sum(isinstance(event, yaml.DocumentStartEvent) for event in events) == 1, "one document")
    _must_read(not any(getattr(event, "tag", None) for event in events), "no tags")
    _must_read(
        not any(getattr(event, "version", None) or getattr(event, "tags", None) for event in events), "directive"
    )
    stream = iter(events[2:-2])
    return _value(next(stream), stream, {}, depth=0)


def _value(event: Any, stream: Iterator[Any], anchors: dict[str, Any], *, depth: int) -> Any:
    _must_read(depth <= 64, "not nested too deeply")
    if isinstance(event, yaml.AliasEvent):
        _must_read(str(event.anchor) in anchors, "an alias leads back to a finished anchor")
        return anchors[str(event.anchor)]
    value: Any
    if isinstance(event, yaml.ScalarEvent):
        value = _scalar(event)
    elif isinstance(event, yaml.SequenceStartEvent):
        value = []
        while not isinstance(item := next(stream), yaml.SequenceEndEvent):
            value.append(_value(item, stream, anchors, depth=depth + 1))
    else:
        value = {}
        while not isinstance(key := next(stream), yaml.MappingEndEvent):
            _must_read(isinstance(key, yaml.ScalarEvent) and not key.anchor, "a key is text")
            name = _scalar(key)
            _must_read(type(name) is str and name not in value, "text keys, none twice")
            value[name] = _value(next(stream), stream, anchors, depth=depth + 1)
    if event.anchor:
        _must_read(event.anchor not in anchors, "an anchor has a name of its own")
        anchors[event.anchor] = value
    return value


def _scalar(event: Any) -> Any:
    text = event.value
    if event.style:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    _must_read(tag == "tag:yaml.org,2002:str" and not re.fullmatch(r"[-+]?[0-9]+[eE][0-9]+", text), "doubtful, quoted")
    return text


def _must_read(holds: bool, rule: str) -> None:
    if not holds:
        raise Refused("unreadable", rule)


# --- hashes ------------------------------------------------------------------------------------------------------


def digest(domain: str, value: Any) -> str:
    """Section *Chain*: LF between domain and text, lower-case hex."""
    return hashlib.sha256(f"{domain}\n{canonical(lift(value))}".encode()).hexdigest()


def lift(value: Any) -> Any:
    """Section *Lift*."""
    if type(value) is float:
        return {"$float": repr(value)}
    if type(value) is int and abs(value) > 9007199254740991:
        return {"$int": str(value)}
    if type(value) is list:
        return [lift(item) for item in value]
    if type(value) is dict:
        lifted = {key: lift(item) for key, item in value.items()}
        return {"$esc": lifted} if len(lifted) == 1 and next(iter(lifted)).startswith("$") else lifted
    return value


def canonical(value: Any) -> str:
    """Section *Canonical form*, for lifted values: the numbers of RFC 8785 that are left are small integers."""
    if type(value) is list:
        return f"[{','.join(map(canonical, value))}]"
    if type(value) is dict:
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    return json.dumps(value, ensure_ascii=False)


# --- integrity and completeness ----------------------------------------------------------------------------------


def _matching(pattern: str) -> Check:
    return lambda value: type(value) is str and re.fullmatch(pattern, value) is not None


def _of(*kinds: type) -> Check:
    return lambda value: type(value) in kinds


def _one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


_FILLED: Check = _matching(r"[\s\S]+")
_HASH, _ID, _COUNT = _matching("[0-9a-f]{64}"), _matching("[0-9a-f]{16}"), lambda v: type(v) is int and v >= 0

# Section *Header*.
HEADER: dict[str, Check] = {
    "format": _one_of("spanchain/1"),
    "nodeid": _FILLED,
    "eval_id": _of(str),
    "recorded_at": _FILLED,
    "recorder": _of(dict),
    "redaction": _of(dict),
    "provenance": _of(dict),
    "supersedes": _or_null(_HASH),
}
# Section *Entries*.
KINDS = ("model", "tool", "http", "mcp", "process", "callback", "agent")
ENTRY: dict[str, Check] = {
    "seq": _COUNT,
    "kind": _one_of(*KINDS, "span", "close"),
    "span_id": _or_null(_ID),
    "parent_span_id": _or_null(_ID),
    "trace_id": _matching("[0-9a-f]{32}"),
    "eval_id": _of(str),
    "timestamp_ns": _matching("0|[1-9][0-9]{0,19}"),
    "payload": _of(dict),
    "prev_hash": _HASH,
    "sha256_hash": _HASH,
}
# Section *Payloads*.
SPAN: dict[str, Check] = {
    "name": _of(str),
    "span_kind": _one_of("internal", "client", "server", "producer", "consumer"),
    "scope": _of(str),
    "attributes": _of(dict),
    "events": _of(list),
    "status": _of(dict),
    "duration_ns": _of(int),
}
EXCHANGE: dict[str, Check] = {**SPAN, "request": _of(dict), "response": _or_null(_of(dict))}
STATUS: dict[str, Check] = {"code": _one_of("unset", "ok", "error"), "message": _of(str)}
EVENT: dict[str, Check] = {"name": _of(str), "offset_ns": _of(int), "attributes": _of(dict)}
CLOSE: dict[str, Check] = {
    "declared_entries": _COUNT,
    "by_kind": lambda v: type(v) is dict and all(type(count) is int and count > 0 for count in v.values()),
    "in_flight": _COUNT,
    "outcome": _FILLED,
}
# What a request and a response hold.
_TEXTS: Check = lambda v: type(v) is dict and all(type(text) is str for text in v.values())  # noqa: E731
HTTP_REQUEST: dict[str, Check] = {
    "method": _of(str),
    "url": _of(str),
    "headers": _TEXTS,
    "body": lambda v: v is None or _body_shaped(v, {}),
}
HTTP_RESPONSE: dict[str, Check] = {
    "status": _or_null(_of(int)),
    "headers": _TEXTS,
    "body": lambda v: v is None or _body_shaped(v, {"layout": _of(str)}),
    "end": _one_of("complete", "closed", "cancelled", "error"),
    "error": lambda v: v is None or _shaped(v, ERROR),
}
ERROR: dict[str, Check] = {"type": _of(str), "message": _of(str)}
TOOL_REQUEST: dict[str, Check] = {"arguments": _of(dict)}
TOOL_RESPONSE: dict[str, Check] = {
    "result": lambda v: True,
    "items": _of(list),
    "end": _one_of("complete", "closed", "error"),
    "error": _of(dict),
    "sent": lambda v: type(v) is list and all(map(_sent_shaped, v)),
    "returned": _one_of("awaitable", "generator", "async_generator"),
    "order": _of(str),
}
MCP_REQUEST: dict[str, Check] = {"server": _of(str), "method": _of(str), "params": _or_null(_of(dict))}


def _stderr_shaped(value: Any) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"text", "bytes"}
        and type(value["text"]) is str
        and type(value["bytes"]) is int
        and value["bytes"] >= 0
    )


MCP_RESPONSE: dict[str, Check] = {
    "result": lambda v: True,
    "error": lambda v: v is None or _refusal_shaped(v),
    "end": _one_of("complete", "closed", "cancelled", "error"),
    "arrived": lambda v: type(v) is list and all(map(_message_shaped, v)),
}
CALLBACK_REQUEST: dict[str, Check] = {"method": _of(str), "params": _or_null(_of(dict))}
CALLBACK_RESPONSE: dict[str, Check] = {
    "result": lambda v: True,
    "error": lambda v: v is None or _refusal_shaped(v),
}
PROCESS_REQUEST: dict[str, Check] = {
    "argv": lambda v: type(v) is list and all(type(text) is str for text in v),
    "cwd": _or_null(_of(str)),
    "env": _TEXTS,
    "stdin": lambda v: v is None or _body_shaped(v, {}),
}
PROCESS_RESPONSE: dict[str, Check] = {
    "exit": _or_null(_of(int)),
    "stdout": lambda v: v is None or _body_shaped(v, {"layout": _of(str)}),
    "stderr": lambda v: v is None or _body_shaped(v, {"layout": _of(str)}),
    "turns": _of(str),
    "end": _one_of("complete", "closed", "cancelled", "error"),
    "error": lambda v: v is None or _shaped(v, ERROR),
}
OTHERS = {
    "mcp": (MCP_REQUEST, MCP_RESPONSE),
    "callback": (CALLBACK_REQUEST, CALLBACK_RESPONSE),
    "process": (PROCESS_REQUEST, PROCESS_RESPONSE),
    "agent": (MCP_REQUEST, MCP_RESPONSE),
}


def _refusal_shaped(error: Any) -> bool:
    refusal: dict[str, Check] = {"code": _of(int), "message": _of(str), "data": lambda v: True}
    return _shaped(error, refusal) or _shaped(error, ERROR)


def _message_shaped(message: Any) -> bool:
    needed: dict[str, Check] = {"method": _of(str), "params": _or_null(_of(dict))}
    marks: dict[str, Check] = {key: lambda v: v is True for key in ("asks", "late", "withdrawn") if key in message}
    return _shaped(message, {**needed, **marks})


def _sent_shaped(item: Any) -> bool:
    return type(item) is list and len(item) == 3 and type(item[0]) is int and item[1] in ("send", "throw")


def _body_shaped(body: Any, layout: dict[str, Check]) -> bool:
    """Section *Bodies*."""
    if type(body) is not dict:
        return False
    if "json" in body:
        return _shaped(body, {"json": lambda v: True, **layout})
    key = "text" if "text" in body else "base64"
    stream: dict[str, Check] = {"chunks": lambda v: type(v) is list and all(map(_COUNT, v)), "message": lambda v: True}
    if not _shaped(body, {key: _of(str), **(stream if "chunks" in body else {})}):
        return False
    try:
        data = body[key].encode() if key == "text" else base64.b64decode(body[key], validate=True)
    except ValueError:
        return False
    return "chunks" not in body or sum(body["chunks"]) == len(data)


def _exchange_shaped(kind: str, request: Any, response: Any) -> bool:
    if kind in OTHERS:
        asked, answered = OTHERS[kind]
        if kind in ("mcp", "agent") and type(response) is dict and "order" in response:
            answered = {**answered, "order": _of(str)}
        if kind == "mcp" and type(response) is dict and "stderr" in response:
            answered = {**answered, "stderr": _stderr_shaped}
        return _shaped(request, asked) and (response is None or _shaped(response, answered))
    if kind != "tool":
        return _shaped(request, HTTP_REQUEST) and (response is None or _shaped(response, HTTP_RESPONSE))
    if not _shaped(request, TOOL_REQUEST):
        return False
    if response is None:
        return True
    needed = {key: check for key, check in TOOL_RESPONSE.items() if key == "result" or key in response}
    error = ERROR if response.get("end") == "closed" else {**ERROR, "value": lambda v: True}
    return _shaped(response, needed) and ("error" not in response or _shaped(response["error"], error))


def _shaped(value: Any, shape: dict[str, Check]) -> bool:
    return type(value) is dict and set(value) == set(shape) and all(check(value[key]) for key, check in shape.items())


def _entry_shaped(entry: Any) -> bool:
    if not _shaped(entry, ENTRY):
        return False
    payload, kind = entry["payload"], entry["kind"]
    if kind == "close":
        return _shaped(payload, CLOSE) and entry["span_id"] is entry["parent_span_id"] is None
    return (
        entry["span_id"] is not None
        and _shaped(payload, SPAN if kind == "span" else EXCHANGE)
        and _shaped(payload["status"], STATUS)
        and all(_shaped(event, EVENT) for event in payload["events"])
        and (kind == "span" or _exchange_shaped(kind, payload["request"], payload["response"]))
    )


def _integrity(document: Any) -> Iterator[str]:
    shaped = type(document) is dict and set(document) == {"header", "entries"} and type(document["entries"]) is list
    if not shaped or not document["entries"] or not _shaped(document["header"], HEADER):
        yield "1. the header or the document"
        return
    header, entries = document["header"], document["entries"]
    link, known = digest("spanchain/header/v1", header), set[str]()
    for seq, entry in enumerate(entries):
        if not _entry_shaped(entry) or entry["seq"] != seq:
            yield f"2. the shape of entry {seq}"
            return
        bare = {key: value for key, value in entry.items() if key != "sha256_hash"}
        if entry["sha256_hash"] != digest("spanchain/entry/v1", bare):
            yield f"3. the hash of entry {seq}"
        if entry["prev_hash"] != link:
            yield f"4. the link of entry {seq}"
        link = entry["sha256_hash"]
        if (entry["trace_id"], entry["eval_id"]) != (entries[0]["trace_id"], header["eval_id"]):
            yield f"5. the ids of entry {seq}"
        if entry["kind"] == "close":
            continue
        parent = entry["parent_span_id"]
        if entry["span_id"] in known or (parent is None) != (seq == 0) or (parent is not None and parent not in known):
            yield f"6. the place of entry {seq}"
        known.add(entry["span_id"])


def _completeness(document: Any) -> Iterator[str]:
    *spans, close = document["entries"]
    kinds = Counter(entry["kind"] for entry in spans)
    if close["kind"] != "close" or "close" in kinds or not spans:
        yield "the close entry"
    elif (close["payload"]["declared_entries"], close["payload"]["by_kind"]) != (len(spans), dict(kinds)):
        yield "the counts"


# --- summary -----------------------------------------------------------------------------------------------------

_ESCAPED = (
    *((0x00, 0x1F), (0x5C, 0x5C), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x115F, 0x1160), (0x180E, 0x180E)),
    *((0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
    *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFFF), (0xE0000, 0xE0FFF)),
)


def found_summary(text: str) -> list[str] | None:
    """The summary of a file, if it has one."""
    found = []
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#") and line.strip() != "---":
            break
        if match := re.match(r"#\s*\|(.*)", line.strip()):
            found.append(match[1])
    return found or None


def levelled(lines: list[str]) -> list[str]:
    """Lines with white space apart."""
    return [" ".join(line.split()) for line in lines if line.strip()]


def summary(document: Any) -> list[str]:
    """Section *Summary*: what it must say."""
    spans = [entry for entry in document["entries"] if entry["kind"] != "close"]
    closes = [entry for entry in document["entries"] if entry["kind"] == "close"]
    counts = Counter(span["kind"] for span in spans)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    outcome = _shown(closes[-1]["payload"]["outcome"], 100) if closes else "no close entry"
    total = f"{len(spans)} span{'' if len(spans) == 1 else 's'}{f' ({kinds})' if kinds else ''}; {outcome}"

    def below(parent: str | None, lead: str) -> Iterator[str]:
        inner = [span for span in spans if span["parent_span_id"] == parent]
        for number, span in enumerate(inner, start=1):
            mine, theirs = ("└─ ", "   ") if number == len(inner) else ("├─ ", "│  ")
            if parent is None:
                mine = theirs = ""
            yield lead + mine + _line(span)
            yield from below(span["span_id"], lead + theirs)

    return [_shown(document["header"]["nodeid"], 400), total, *below(None, "")]


def _line(span: Any) -> str:
    payload, parts = span["payload"], []
    parts.append(_shown(payload["name"], 100) or "(no name)")
    if span["kind"] != "span":
        parts.append(f"[{span['kind']}]")
    used = [(payload["attributes"].get(f"gen_ai.usage.{way}_tokens"), way) for way in ("input", "output")]
    if tokens := ", ".join(f"{n} {way} tokens" for n, way in used if type(n) is int and abs(n) < 10**15):
        parts.append(tokens)
    if payload["status"]["code"] == "error":
        message = _shown(payload["status"]["message"], 100)
        parts.append(f"ERROR: {message}" if message else "ERROR")
    return "  ".join(parts)


def _shown(text: str, most: int) -> str:
    cut = text if len(text) <= most else text[: most - 1]
    shown = "".join(_escape(ord(char)) if _is_escaped(char) else char for char in cut)
    return shown if cut is text else f"{shown}…"


def _is_escaped(char: str) -> bool:
    return any(first <= ord(char) <= last for first, last in _ESCAPED)


def _escape(code: int) -> str:
    if code == 0x5C:
        return "\\\\"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
