"""Bodies of model APIs as attributes of OpenTelemetry's GenAI semantic conventions.

Invariant: a value of another type than the conventions give is left out, so that no attribute ever changes its type.

Source: the ``gen_ai``, ``openai``, ``server`` and ``error`` registries of opentelemetry-semantic-conventions 0.66b2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import _sse

CHAT, RESPONSES, EMBEDDINGS, MESSAGES = "openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages"

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
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


def deployment(path: str) -> str:
    """Azure puts the model into the path: ``/openai/deployments/NAME/chat/completions``."""
    parts = path.split("/")
    return parts[parts.index("deployments") + 1] if "deployments" in parts[:-1] else ""


def provider(host: str, api: str) -> str:
    """The provider by the host; a host that is nobody's is named after the dialect that it speaks."""
    for end, name in _PROVIDERS:
        if host == end or host.endswith(end if end.startswith(".") else f".{end}"):
            return name
        if host.endswith(f"-{end}"):  # us-central1-aiplatform.googleapis.com
            return name
    return "anthropic" if api == MESSAGES else "openai"


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _integer(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_or_none(value: Any) -> Any:
    """The value if it is a text with content."""
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, list) and value and all(isinstance(item, str) for item in value) else None


# Attribute -> body fields, the first present one counts; how to read it.
_REQUEST_FIELDS: tuple[tuple[str, tuple[str, ...], Callable[[Any], Any]], ...] = (
    (REQUEST_TEMPERATURE, ("temperature",), _number),
    (REQUEST_TOP_P, ("top_p",), _number),
    (REQUEST_TOP_K, ("top_k",), _number),
    (REQUEST_MAX_TOKENS, ("max_completion_tokens", "max_output_tokens", "max_tokens"), _integer),
    (REQUEST_STOP_SEQUENCES, ("stop_sequences", "stop"), _texts),
    (REQUEST_SEED, ("seed",), _integer),
    (REQUEST_FREQUENCY_PENALTY, ("frequency_penalty",), _number),
    (REQUEST_PRESENCE_PENALTY, ("presence_penalty",), _number),
)


def request_attributes(api: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What a request body says of the wanted answer."""
    found: dict[str, Any] = {}
    if api == EMBEDDINGS:
        _put(found, REQUEST_ENCODING_FORMATS, body.get("encoding_format"), _texts)
        _put(found, DIMENSION_COUNT, body.get("dimensions"), _integer)
        return found
    for attribute, names, read in _REQUEST_FIELDS:
        _put(found, attribute, next((body[name] for name in names if body.get(name) is not None), None), read)
    if _integer(body.get("n")) not in (None, 1):  # the conventions leave out the usual one choice
        found[REQUEST_CHOICE_COUNT] = body["n"]
    if body.get("stream") is True:
        found[REQUEST_STREAM] = True
    _put(found, OUTPUT_TYPE, _output_type(body), text_or_none)
    if api == RESPONSES:
        conversation = body.get("conversation")
        _put(found, CONVERSATION_ID, first(conversation, "id") or conversation, text_or_none)
    if api != MESSAGES:
        found[OPENAI_API_TYPE] = "responses" if api == RESPONSES else "chat_completions"
        if body.get("service_tier") != "auto":
            _put(found, OPENAI_REQUEST_SERVICE_TIER, body.get("service_tier"), text_or_none)
    return found


_OUTPUT_TYPES = {"text": "text", "json_object": "json", "json_schema": "json"}


def _output_type(body: Mapping[str, Any]) -> str | None:
    """Chat's ``response_format``, Responses' ``text.format``, Anthropic's ``output_config.format``."""
    modalities = body.get("modalities")
    if isinstance(modalities, list) and "audio" in modalities:
        return "speech"
    forms = (
        body.get("response_format"),
        first(body.get("text"), "format"),
        first(body.get("output_config"), "format"),
        body.get("output_format"),
    )
    kinds = (first(form, "type") for form in forms)
    return next((_OUTPUT_TYPES[kind] for kind in kinds if isinstance(kind, str) and kind in _OUTPUT_TYPES), None)


def response_attributes(api: str, message: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer, streamed or not, says of itself."""
    found: dict[str, Any] = {}
    _put(found, RESPONSE_ID, message.get("id"), text_or_none)
    _put(found, RESPONSE_MODEL, message.get("model"), text_or_none)
    reasons = _finish_reasons(api, message)
    if reasons:
        found[RESPONSE_FINISH_REASONS] = reasons
    found.update(_usage(api, message.get("usage")))
    if api != MESSAGES:
        _put(found, OPENAI_RESPONSE_SERVICE_TIER, message.get("service_tier"), text_or_none)
        _put(found, OPENAI_SYSTEM_FINGERPRINT, message.get("system_fingerprint"), text_or_none)
    return found


def _finish_reasons(api: str, message: Mapping[str, Any]) -> list[str]:
    if api == CHAT:
        reasons = [choice.get("finish_reason") for choice in mappings(message.get("choices"))]
    elif api == RESPONSES:
        reasons = [first(message.get("incomplete_details"), "reason") or message.get("status")]
    else:
        reasons = [message.get("stop_reason")]
    return [reason for reason in reasons if isinstance(reason, str)]


def _usage(api: str, usage: Any) -> dict[str, Any]:
    if not isinstance(usage, Mapping):
        return {}
    inputs = first(usage, "input_tokens", "prompt_tokens")
    details = first(usage, "input_tokens_details", "prompt_tokens_details")
    outputs = first(usage, "output_tokens_details", "completion_tokens_details")
    read, written = first(details, "cached_tokens"), first(details, "cache_write_tokens")
    if api == MESSAGES:
        read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
        # The conventions count cached tokens as input; Anthropic counts them beside it.
        if _integer(inputs) is not None:
            inputs += (_integer(read) or 0) + (_integer(written) or 0)
    found: dict[str, Any] = {}
    _put(found, USAGE_INPUT_TOKENS, inputs, _integer)
    _put(found, USAGE_OUTPUT_TOKENS, first(usage, "output_tokens", "completion_tokens"), _integer)
    _put(found, USAGE_CACHE_READ, read, _integer)
    _put(found, USAGE_CACHE_CREATION, written, _integer)
    _put(found, USAGE_REASONING, first(outputs, "reasoning_tokens", "thinking_tokens"), _integer)
    return found


def error_type(response: Mapping[str, Any], message: Mapping[str, Any] | None) -> str | None:
    """The exception's name, else the status code, else what the provider says inside a successful answer."""
    name, status = first(response.get("error"), "type"), response.get("status")
    if isinstance(name, str) and name:
        return name
    if isinstance(status, int) and status >= 400:
        return str(status)
    if message is not None and message.get("status") == "failed":
        return text_or_none(first(message.get("error"), "code")) or "failed"
    text = first(response.get("body"), "text")
    if isinstance(text, str) and '"error"' in text:
        for event_name, event in _sse.objects(text):
            error = event.get("error")
            if isinstance(error, Mapping) or event_name == "error" or event.get("type") == "error":
                return text_or_none(first(error, "type", "code") or event.get("code")) or "error"
    return None


def _put(found: dict[str, Any], name: str, value: Any, read: Callable[[Any], Any]) -> None:
    value = read(value)
    if value is not None:
        found[name] = value


def first(value: Any, *names: str) -> Any:
    """The first of these members that is there, if the value is a mapping."""
    if not isinstance(value, Mapping):
        return None
    return next((value[name] for name in names if value.get(name) is not None), None)


def mappings(values: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; none if it is no list."""
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []
