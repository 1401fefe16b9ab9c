"""Names of OpenTelemetry's GenAI semantic conventions, and how a field of a JSON body becomes a value of one.

Invariant: a value of another type than the conventions give is left out, so that no attribute ever changes its type.

Source: the ``gen_ai``, ``openai``, ``server`` and ``error`` registries of opentelemetry-semantic-conventions 0.66b2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .api import Event, first, text_or_none

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
AGENT_ID = "gen_ai.agent.id"
CONVERSATION_ID = "gen_ai.conversation.id"
OUTPUT_TYPE = "gen_ai.output.type"
DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"
REQUEST_TOP_K = "gen_ai.request.top_k"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_CREATION = "gen_ai.usage.cache_creation.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
OPENAI_API_TYPE = "openai.api.type"
OPENAI_REQUEST_SERVICE_TIER = "openai.request.service_tier"
OPENAI_RESPONSE_SERVICE_TIER = "openai.response.service_tier"
OPENAI_SYSTEM_FINGERPRINT = "openai.response.system_fingerprint"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"

# Ends of host names -> provider as the conventions spell it. Other hosts are named after the dialect they speak.
_PROVIDERS = (
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    (".cognitiveservices.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    (".amazonaws.com", "aws.bedrock"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
)

Reader = Callable[[Any], Any]
Fields = Iterable[tuple[str, tuple[str, ...], Reader]]
"""Attribute, the members of which the first present one counts, and how to read it."""


def provider(host: str) -> str | None:
    """The provider by the host; ``None`` if the host is nobody's."""
    for end, name in _PROVIDERS:
        if host == end or host.endswith(end if end.startswith(".") else f".{end}"):
            return name
        if host.endswith(f"-{end}"):  # us-central1-aiplatform.googleapis.com
            return name
    return None


def number(value: Any) -> Any:
    """The value if it is a number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def integer(value: Any) -> Any:
    """The value if it is an integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts(value: Any) -> Any:
    """The value as a list of texts, if it is one, or one text."""
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) and value and all(isinstance(item, str) for item in value) else None


def several(value: Any) -> Any:
    """The value if it is a count other than one: the conventions leave the usual one choice out."""
    return value if integer(value) not in (None, 1) else None


def true(value: Any) -> Any:
    """The value if it is ``true``; not asking for something is no attribute."""
    return True if value is True else None


SAMPLING: Fields = (
    (REQUEST_TEMPERATURE, ("temperature",), number),
    (REQUEST_TOP_P, ("top_p",), number),
    (REQUEST_TOP_K, ("top_k",), number),
    (REQUEST_MAX_TOKENS, ("max_completion_tokens", "max_output_tokens", "max_tokens"), integer),
    (REQUEST_STOP_SEQUENCES, ("stop_sequences", "stop"), texts),
    (REQUEST_SEED, ("seed", "random_seed"), integer),
    (REQUEST_FREQUENCY_PENALTY, ("frequency_penalty",), number),
    (REQUEST_PRESENCE_PENALTY, ("presence_penalty",), number),
    (REQUEST_CHOICE_COUNT, ("n",), several),
    (REQUEST_STREAM, ("stream",), true),
)
"""How OpenAI spells them, and with it nearly everybody."""

IDENTITY: Fields = (
    (RESPONSE_ID, ("id",), text_or_none),
    (RESPONSE_MODEL, ("model",), text_or_none),
)


def read(fields: Fields, source: Any) -> dict[str, Any]:
    """The attributes that a mapping has a value of the right type for."""
    found: dict[str, Any] = {}
    for attribute, names, reader in fields:
        put(found, attribute, reader(first(source, *names)))
    return found


def put(found: dict[str, Any], attribute: str, value: Any) -> None:
    """Add an attribute, unless there is no value."""
    if value is not None:
        found[attribute] = value


def finish(*reasons: Any) -> dict[str, Any]:
    """The attribute for why an answer's choices ended; what is no text is left out."""
    found = [reason for reason in reasons if isinstance(reason, str) and reason]
    return {RESPONSE_FINISH_REASONS: found} if found else {}


def total(*counts: Any) -> Any:
    """A count with the counts beside it that the conventions mean to be in it; ``None`` if the first is none."""
    if integer(counts[0]) is None:
        return None
    return sum(integer(count) or 0 for count in counts)


def usage(
    *, inputs: Any = None, outputs: Any = None, read: Any = None, written: Any = None, reasoning: Any = None
) -> dict[str, Any]:
    """The attributes for token counts; the conventions count cached and reasoning tokens as input and output."""
    found: dict[str, Any] = {}
    put(found, USAGE_INPUT_TOKENS, integer(inputs))
    put(found, USAGE_OUTPUT_TOKENS, integer(outputs))
    put(found, USAGE_CACHE_READ, integer(read))
    put(found, USAGE_CACHE_CREATION, integer(written))
    put(found, USAGE_REASONING, integer(reasoning))
    return found


def output_type(*forms: Any) -> dict[str, Any]:
    """The attribute for the form of answer that is asked for: mappings whose ``type`` says it, the first known one."""
    for form in forms:
        kind = first(form, "type")
        if isinstance(kind, str) and kind in _OUTPUT_TYPES:
            return {OUTPUT_TYPE: _OUTPUT_TYPES[kind]}
    return {}


_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}


def error_type(response: Mapping[str, Any], message: Any, events: Iterable[Event]) -> str | None:
    """The exception's name, else the status code, else what the provider says inside a successful answer."""
    name, status = first(response.get("error"), "type"), response.get("status")
    if isinstance(name, str) and name:
        return name
    if isinstance(status, int) and status >= 400:
        return str(status)
    if first(message, "status") == "failed":
        return text_or_none(first(first(message, "error"), "code")) or "failed"
    for event in events:
        error = event.data.get("error")
        if (isinstance(error, (Mapping, str)) and error) or "error" in (event.name, event.data.get("type")):
            said = first(error, "type", "code", "status") or event.data.get("code")
            return text_or_none(said) or (str(said) if integer(said) is not None else "error")
        if event.name.endswith("Exception"):  # AWS names what broke a stream instead of its next event
            return event.name
    return None
