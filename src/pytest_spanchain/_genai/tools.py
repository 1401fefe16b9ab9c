"""Tools as the dialects declare them that took OpenAI's or Anthropic's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .api import Body, ToolDeclaration, first, mappings


def declared(body: Body) -> Iterator[ToolDeclaration]:
    """The tools of a request, nested (``{"type": "function", "function": ..}``) or not."""
    return _declarations([*mappings(body.get("tools")), *mappings(body.get("functions"))])


def declaration(name: Any, schema: Any) -> ToolDeclaration:
    """A tool by its name, with its schema if that is one."""
    return ToolDeclaration(name, schema if isinstance(schema, Mapping) else None)


def _declarations(tools: list[Mapping[str, Any]]) -> Iterator[ToolDeclaration]:
    for tool in tools:
        kind = tool.get("type")
        nested = tool.get(kind) if isinstance(kind, str) else None
        if kind == "namespace":
            for inner in mappings(tool.get("tools")):
                yield from _declarations([inner])
            continue
        if kind is None and isinstance(tool.get("function"), Mapping):  # Ollama's SDK may leave the type out
            nested = tool["function"]
        said = tool if tool.get("name") or not isinstance(nested, Mapping) else nested
        name = said.get("name") or kind
        if isinstance(name, str):
            yield declaration(name, first(said, "parameters", "input_schema"))
