"""botocore stands on urllib3, where it is met; here it learns not to retry what replay refuses, and not to wait."""

from __future__ import annotations

import functools
import time
from types import ModuleType, SimpleNamespace
from typing import Any

from ...errors import BoundaryError, SpanchainError
from .. import _wait


def install(module: ModuleType) -> None:
    """Patch a module of botocore.

    Args:
        module: ``botocore.httpsession``, or one that sleeps (``botocore.endpoint``, ``botocore.waiter``).

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        if module.__name__ == "botocore.httpsession":
            _let_refusals_through(module.URLLib3Session)
        else:
            _without_waiting(module)
    except AttributeError as error:
        raise BoundaryError(f"{module.__name__} is not recognised: {error}") from None


def _let_refusals_through(session: Any) -> None:
    """A refusal is no failure of the network, which botocore would try again."""
    original = session.send

    @functools.wraps(original)
    def send(self: Any, request: Any) -> Any:
        try:
            return original(self, request)
        except Exception as error:
            refusal = getattr(error, "kwargs", {}).get("error")
            if isinstance(refusal, SpanchainError):
                raise refusal from None
            raise

    session.send = send


def _without_waiting(module: Any) -> None:
    original = module.time

    def sleep(seconds: float) -> None:
        if not _wait.skips():
            time.sleep(seconds)

    # The name in this one module: everybody else's ``time`` stays what it is.
    module.time = SimpleNamespace(**{**vars(original), "sleep": sleep})
