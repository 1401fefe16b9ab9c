"""What is a frame of the Claude Agent SDK, how it is called in a trace, and what its span says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...._genai import anthropic
from ...._genai import attributes as names

TOOLS_CALL = "tools/call"


@dataclass(frozen=True)
class Said:
    """A frame, as its exchange tells it.

    Args:
        name: of the span.
        method: what sort of frame.
        params: the rest of it.
        is_prompt: whether it begins a turn of the agent.
        request_id: under which the SDK waits for a response.
    """

    name: str
    method: str
    params: Mapping[str, Any]
    is_prompt: bool = False
    request_id: str | None = None


def sent_as(frame: Mapping[str, Any]) -> Said:
    """What the SDK sends of its own accord."""
    kind = str(frame.get("type"))
    request = frame.get("request")
    if kind == "control_request" and isinstance(request, Mapping):
        subtype = str(request.get("subtype"))
        return Said(subtype, subtype, _without(request, "subtype"), request_id=str(frame.get("request_id")))
    rest = _without(frame, "type")
    return Said("invoke_agent claude", kind, rest, is_prompt=True) if kind == "user" else Said(kind, kind, rest)


def asked_as(request: Mapping[str, Any]) -> Said | None:
    """What the command line asks; ``None`` for calls of tools, and for what has no answer."""
    subtype, rest = str(request.get("subtype")), _without(request, "subtype")
    if subtype == "can_use_tool":
        return Said(f"{subtype} {request.get('tool_name')}", subtype, rest)
    if subtype == "hook_callback":
        given = request.get("input")
        event = given.get("hook_event_name") if isinstance(given, Mapping) else request.get("callback_id")
        return Said(f"{subtype} {event}", subtype, rest)
    message = request.get("message")
    if subtype == "mcp_message" and isinstance(message, Mapping):
        method = str(message.get("method"))
        if method == TOOLS_CALL or "id" not in message:
            return None
        return Said(f"{method} {request.get('server_name')}", subtype, rest)
    return Said(subtype, subtype, rest)


def prompt_attributes(model: str | None) -> dict[str, Any]:
    """What the span of a prompt says from the start."""
    asked = {} if model is None else {names.REQUEST_MODEL: model}
    return {
        names.OPERATION_NAME: "invoke_agent",
        names.PROVIDER_NAME: "anthropic",
        "gen_ai.agent.name": "claude",
        **asked,
    }


def result_attributes(result: Any) -> dict[str, Any]:
    """What the result of a turn adds; nothing for what is none."""
    if not isinstance(result, Mapping) or "usage" not in result:
        return {}
    found = anthropic.said({"usage": result["usage"]})
    for key, kinds in (("total_cost_usd", (int, float)), ("num_turns", (int,))):
        if type(result.get(key)) in kinds:
            found[f"claude_agent_sdk.{key}"] = result[key]
    if result.get("is_error") is True:
        found[names.ERROR_TYPE] = str(result.get("subtype"))
    return found


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def frame_of(text: str) -> dict[str, Any] | None:
    """A line as a frame; ``None`` for what is none, or could not be made again."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        frame = json.loads(text, parse_constant=_refuse)
        json.dumps(frame, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) and isinstance(frame.get("type"), str) else None


def _refuse(name: str) -> None:
    raise ValueError(name)
