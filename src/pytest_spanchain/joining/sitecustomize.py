"""Runs when a Python child of a recorded process starts: joins it to the trace, if it can, and steps aside.

Python imports one module of this name. The one that would have been found without us runs as ever.
"""

import importlib.util
import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(os.path.abspath(__file__))


def _step_aside() -> None:
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _join() -> None:
    if "SPANCHAIN_JOIN" not in os.environ:
        return
    try:
        from pytest_spanchain import _joining
    except ImportError:
        return  # it has another environment than the agent: it stays a stranger
    _joining.join()


_step_aside()
_join()
