"""Where pytest keeps what is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._life import Life
    from ._session import Session

SESSION: pytest.StashKey[Session] = pytest.StashKey()
"""Of the config: what is known of its session."""

LIFE: pytest.StashKey[Life] = pytest.StashKey()
"""Of an item: the life of its run, from its start to its end."""
