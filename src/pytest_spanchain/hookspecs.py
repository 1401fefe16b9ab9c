"""Hooks that a conftest or another plugin may implement.

All change what they are given in place and return nothing, so that those of several conftests add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ._model import Deviation


@pytest.hookspec
def pytest_spanchain_deviations(config: pytest.Config, nodeid: str, deviations: list[Deviation]) -> None:
    """Veto, add or re-grade the deviations of a run, before it is judged.

    Args:
        config: the pytest config.
        nodeid: node id of the test.
        deviations: what the comparator found. Remove some, append others, or put
            ``dataclasses.replace(deviation, failing=False)`` in the place of one that should be shown but not fail.
    """


@pytest.hookspec
def pytest_spanchain_normalise(
    config: pytest.Config, nodeid: str, kind: str, name: str, request: dict[str, Any]
) -> None:
    """Change a request as it is matched and compared; what is recorded stays as it is.

    Args:
        config: the pytest config.
        nodeid: node id of the test.
        kind: ``model``, ``tool`` or ``http``.
        name: span name.
        request: a copy of the redacted request.
    """


@pytest.hookspec
def pytest_spanchain_redact(config: pytest.Config, nodeid: str, kind: str, part: dict[str, Any]) -> None:
    """Redact a request or a response further, before it is hashed, matched, stored or shown.

    Args:
        config: the pytest config.
        nodeid: node id of the test.
        kind: ``model``, ``tool`` or ``http``.
        part: a copy of the request or response after the built-in rules.
    """
