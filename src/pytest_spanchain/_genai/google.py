"""Google's Gemini API and Vertex AI: generateContent, embeddings, and what Vertex calls predict.

A stream is server-sent events with ``alt=sse``, else one JSON array that grows. The model is in the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import attributes as words
from . import parts
from .api import Api, Body, Event, ToolCall, ToolDeclaration, first, mappings, text_or_none, tool_call
from .tools import declaration

_PATH = re.compile(r"/(?:models|tunedModels|endpoints)/([^/:]+):(\w+)\Z")


def _verb(path: str) -> str:
    found = _PATH.search(path)
    return found[2] if found else ""


def _model(path: str, body: Body) -> Any:
    found = _PATH.search(path)
    return found[1] if found else ""


def _provider(path: str) -> dict[str, Any]:
    """On a host that is nobody's, Vertex is told by its paths."""
    vertex = "/publishers/" in path or "/projects/" in path
    return {words.PROVIDER_NAME: "gcp.vertex_ai"} if vertex else {}


_SAMPLING: words.Fields = (
    (words.REQUEST_TEMPERATURE, ("temperature",), words.number),
    (words.REQUEST_TOP_P, ("topP", "top_p"), words.number),
    (words.REQUEST_TOP_K, ("topK", "top_k"), words.number),
    (words.REQUEST_MAX_TOKENS, ("maxOutputTokens", "max_output_tokens"), words.integer),
    (words.REQUEST_STOP_SEQUENCES, ("stopSequences", "stop_sequences"), words.texts),
    (words.REQUEST_SEED, ("seed",), words.integer),
    (words.REQUEST_FREQUENCY_PENALTY, ("frequencyPenalty", "frequency_penalty"), words.number),
    (words.REQUEST_PRESENCE_PENALTY, ("presencePenalty", "presence_penalty"), words.number),
    (words.REQUEST_CHOICE_COUNT, ("candidateCount", "candidate_count"), words.several),
)

# Requested media type or modality -> form of the answer.
_FORMS = {"application/json": "json", "text/plain": "text", "image": "image", "audio": "speech"}


def _asked(path: str, body: Body) -> dict[str, Any]:
    config = first(body, "generationConfig", "generation_config")
    found = {**_provider(path), **words.read(_SAMPLING, config)}
    wanted = [first(config, "responseMimeType", "response_mime_type")]
    modalities = first(config, "responseModalities", "response_modalities")
    wanted += modalities if isinstance(modalities, list) else []
    forms = [_FORMS[form.lower()] for form in wanted if isinstance(form, str) and form.lower() in _FORMS]
    if forms:
        found[words.OUTPUT_TYPE] = forms[-1]
    if _verb(path).startswith("stream"):
        found[words.REQUEST_STREAM] = True
    return found


def _tools(body: Body) -> Iterator[ToolDeclaration]:
    for tool in mappings(body.get("tools")):
        for key, value in tool.items():
            if key in ("functionDeclarations", "function_declarations"):
                for function in mappings(value):
                    if name := text_or_none(function.get("name")):
                        yield declaration(name, _schema(function))
            elif isinstance(value, Mapping):  # Google's own, e.g. googleSearch
                yield ToolDeclaration(key)


def _schema(function: Body) -> Any:
    schema = first(function, "parametersJsonSchema", "parameters_json_schema")
    return _json_schema(function.get("parameters")) if schema is None else schema


def _json_schema(schema: Any, *, depth: int = 0) -> Any:
    """Google's own schema as JSON schema: it shouts its types, and writes lengths as texts."""
    if isinstance(schema, list):
        return [_json_schema(item, depth=depth + 1) for item in schema]
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return schema
    found: dict[str, Any] = {
        key: {name: _json_schema(item, depth=depth + 2) for name, item in value.items()}
        if key == "properties" and isinstance(value, Mapping)
        else _json_schema(value, depth=depth + 1)
        if key in ("items", "anyOf", "additionalProperties")
        else value
        for key, value in schema.items()
    }
    kind = found.get("type")
    if isinstance(kind, str):
        nullable = found.pop("nullable", None) is True
        found["type"] = [kind.lower(), "null"] if nullable else kind.lower()
    return found


_DEEPEST = 60


def _said(message: Body) -> dict[str, Any]:
    counts = first(message, "usageMetadata", "usage_metadata")
    thoughts = first(counts, "thoughtsTokenCount")
    outputs = first(counts, "candidatesTokenCount")
    return {
        **words.read(_IDENTITY, message),
        **words.finish(*(candidate.get("finishReason") for candidate in mappings(message.get("candidates")))),
        **words.usage(
            inputs=words.total(first(counts, "promptTokenCount"), first(counts, "toolUsePromptTokenCount")),
            outputs=words.total(thoughts if outputs is None else outputs, None if outputs is None else thoughts),
            read=first(counts, "cachedContentTokenCount"),
            reasoning=thoughts,
        ),
    }


_IDENTITY: words.Fields = (
    (words.RESPONSE_ID, ("responseId",), text_or_none),
    (words.RESPONSE_MODEL, ("modelVersion",), text_or_none),
)


def _calls(message: Body) -> Iterator[ToolCall]:
    for candidate in mappings(message.get("candidates")):
        for part in mappings(first(candidate.get("content"), "parts")):
            call = first(part, "functionCall", "function_call")
            if isinstance(call, Mapping):
                arguments = call.get("args")
                # A call without arguments has no "args" at all.
                yield tool_call(call.get("id"), call.get("name"), {} if arguments is None else arguments)


def _assemble(events: Iterable[Event]) -> dict[str, Any] | None:
    """One GenerateContentResponse; ``None`` if nothing is one."""
    whole: dict[str, Any] = {}
    candidates: dict[Any, dict[str, Any]] = {}
    for chunk in (event.data for event in events):
        if not _is_chunk(chunk):
            continue
        whole.update({key: value for key, value in parts.present(chunk).items() if key != "candidates"})
        for candidate in mappings(chunk.get("candidates")):
            index = parts.position(candidate.get("index"))
            _add_candidate(candidates.setdefault(index, {}), candidate)
    if not whole and not candidates:
        return None
    return {**whole, **({"candidates": parts.in_order(candidates)} if candidates else {})}


def _is_chunk(chunk: Body) -> bool:
    return any(key in chunk for key in ("candidates", "usageMetadata", "promptFeedback"))


def _add_candidate(whole: dict[str, Any], candidate: Mapping[str, Any]) -> None:
    for key, value in parts.present(candidate).items():
        if key != "content":
            whole[key] = value
        elif isinstance(value, Mapping):
            content = whole.setdefault("content", {"parts": []})
            content.update({name: item for name, item in value.items() if name != "parts"})
            for part in mappings(value.get("parts")):
                _add_part(content["parts"], part)


_SPOKEN = frozenset({"text", "thought", "thoughtSignature"})


def _add_part(whole: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    """A text that goes on is one part; the signature of a thought closes it."""
    last = whole[-1] if whole else None
    if (
        last is not None
        and isinstance(part.get("text"), str)
        and isinstance(last.get("text"), str)
        and part.keys() <= _SPOKEN >= last.keys()
        and part.get("thought") == last.get("thought")
        and "thoughtSignature" not in last
    ):
        last.update({**part, "text": last["text"] + part["text"]})
        return
    copied = parts.copy(dict(part))
    for key in ("inlineData", "inline_data"):
        if isinstance(copied.get(key), dict):
            copied[key]["data"] = parts.short(copied[key].get("data"))
    whole.append(copied)


GENERATE = Api(
    name="google.generate_content",
    operation="generate_content",
    provider="gcp.gemini",
    speaks=lambda path, body: (
        _verb(path) in ("generateContent", "streamGenerateContent")
        and isinstance(body.get("contents"), (list, dict, str))
    ),
    model=_model,
    asked=_asked,
    tools=_tools,
    said=_said,
    calls=_calls,
    assemble=_assemble,
    opens=lambda event: isinstance(event.data.get("candidates"), list),
)


def _dimensions(path: str, body: Body) -> dict[str, Any]:
    requests = mappings(body.get("requests"))
    places = [body, body.get("parameters"), body.get("embedContentConfig"), requests[0] if requests else None]
    sizes = (first(place, "outputDimensionality", "output_dimensionality") for place in places)
    size = next((size for size in sizes if words.integer(size) is not None), None)
    return {**_provider(path), **({} if size is None else {words.DIMENSION_COUNT: size})}


def _embedded(message: Body) -> dict[str, Any]:
    counts = [first(message.get("usageMetadata"), "promptTokenCount")]
    for prediction in mappings(message.get("predictions")):
        counts.append(first(first(prediction.get("embeddings"), "statistics"), "token_count"))
    known = [count for count in counts if words.integer(count) is not None]
    return words.usage(inputs=sum(known)) if known else {}


EMBED = Api(
    name="google.embed_content",
    operation="embeddings",
    provider="gcp.gemini",
    speaks=lambda path, body: (
        (_verb(path) == "embedContent" and "content" in body)
        or (_verb(path) == "batchEmbedContents" and isinstance(body.get("requests"), list))
        or (_verb(path) == "predict" and _instances_have("content", body))
    ),
    model=_model,
    asked=_dimensions,
    said=_embedded,
)


def _instances_have(key: str, body: Body) -> bool:
    return any(key in instance for instance in mappings(body.get("instances")))


IMAGES = Api(
    name="google.predict_images",
    operation="generate_content",
    provider="gcp.gemini",
    speaks=lambda path, body: _verb(path) == "predict" and _instances_have("prompt", body),
    model=_model,
    asked=lambda path, body: {
        **_provider(path),
        **words.read(((words.REQUEST_CHOICE_COUNT, ("sampleCount",), words.several),), body.get("parameters")),
        words.OUTPUT_TYPE: "image",
    },
)

APIS = (GENERATE, EMBED, IMAGES)
