"""Plain functions that tell of what they return, whoever calls them by whatever reference.

The code object is swapped, as in ``_patch``; but for functions without a closure, for good, and so cheaply that it may
be done before it is known whether anybody will ask. Signature and source stay what they were.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

_CALL = "<spanchain observed>"
_MARK = "_spanchain_observed"


def _template(*args: Any, **kwargs: Any) -> Any:
    call: Any = "<spanchain observed>"
    return call(*args, **kwargs)


def observe(function: FunctionType, tell: Callable[[Any], None]) -> None:
    """Call ``tell`` with each value that a function returns.

    Args:
        function: a plain function without a closure; once it is observed, another call does nothing.
        tell: must not raise.
    """
    if _MARK in vars(function):
        return
    code = function.__code__
    original = FunctionType(code, function.__globals__, function.__name__, function.__defaults__)
    original.__kwdefaults__ = function.__kwdefaults__

    def call(*args: Any, **kwargs: Any) -> Any:
        value = original(*args, **kwargs)
        tell(value)
        return value

    template = _template.__code__
    constants = tuple(call if constant == _CALL else constant for constant in template.co_consts)
    vars(function).update({_MARK: True, "__signature__": inspect.signature(original)})
    function.__code__ = template.replace(
        co_consts=constants, co_name=code.co_name, co_filename=code.co_filename, co_firstlineno=code.co_firstlineno
    )
