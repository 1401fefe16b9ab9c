"""httplib2 stands on ``http.client``, where it is met; only its connections connect ahead of their requests."""

from __future__ import annotations

from types import ModuleType

from ...errors import BoundaryError
from . import http_client


def install(lib: ModuleType) -> None:
    """Patch the connections of ``httplib2``.

    Raises:
        BoundaryError: the library looks different.
    """
    try:
        kinds = (lib.HTTPConnectionWithTimeout, lib.HTTPSConnectionWithTimeout)
    except AttributeError as error:
        raise BoundaryError(f"httplib2 is not recognised, replay would connect: {error}") from None
    for kind in kinds:
        http_client.put_off_connecting(kind)
