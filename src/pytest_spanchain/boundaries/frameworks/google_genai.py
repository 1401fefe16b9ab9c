"""google-genai's automatic function calling: the function that it is about to invoke is recorded.

Conversion of the arguments, the wording of errors and the parts for the model are the SDK's, in replay too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from .. import _seam

_DIST = "google-genai"


def install(module: ModuleType) -> None:
    """Patch ``google.genai._extra_utils``.

    Raises:
        BoundaryError: it looks different.
    """
    for name in ("invoke_function_from_dict_args", "invoke_function_from_dict_args_async"):
        _seam.patch(module, name, _around, dist=_DIST, takes=("args", "function_to_invoke"))
    for name in ("get_function_response_parts", "get_function_response_parts_async"):
        _seam.takes_up(module, name, _asked)


def _asked(given: Mapping[str, Any]) -> Iterator[_seam.ToolCall]:
    for part in given["response"].candidates[0].content.parts:
        if part.function_call:
            yield _seam.ToolCall(part.function_call.id or "", part.function_call.name, part.function_call.args)


def _around(original: Callable[..., Any]) -> Callable[..., Any]:
    # Plain for both: what the async one returns is awaited by its caller.
    def invoke(args: Any, function_to_invoke: Any) -> Any:
        __tracebackhide__ = True
        body = _seam.recorded(function_to_invoke, name=function_to_invoke.__name__, arguments=args)
        return original(args, body)

    return invoke
