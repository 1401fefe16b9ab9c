"""Python values as plain ones and back, with their types, without pickle.

Invariants:

* ``encode`` is faithful or it raises ``Unrecordable``; ``decode(encode(v))`` equals ``v`` in type and content. Only
  with ``opaque=True``, for arguments, does it show what cannot be rebuilt, and stands ``{"$opaque": type}`` in for what
  has no plain form; ``decode`` refuses both.
* Whatever the code of the values raises (converters, properties, ``__hash__``) comes out as an error of this package:
  who records must not change what the agent sees.
* ``decode`` builds builtins, and classes that ``trust`` vouches for. It imports nothing that a cassette names.
* Key order is not this module's: mappings keep the order they have in memory, and ``_layout.order_of`` writes it down.

JSON's own values stand for themselves; everything else is a *tag*, a mapping of one key that starts with ``$``. A real
mapping of that form is wrapped in ``{"$esc": ...}``; one whose keys are not all text becomes
``{"$map": [[key, value], ..]}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._canonical import canonical
from ..errors import CassetteBroken, Unrecordable, UsageError
from .decoder import decode as decode
from .encoder import encode as encode
from .encoder import mark as mark
from .receivers import Receiver as Receiver
from .trust import register_type as register_type
from .trust import trusted_types as trusted_types


def check_round_trip(plain: Any, *, types: Mapping[str, type]) -> None:
    """Make sure, while recording, that a replay will be able to rebuild what ``encode`` wrote.

    Raises:
        Unrecordable: it will not.
    """
    try:
        again = encode(decode(plain, types=types))
    except (UsageError, CassetteBroken) as error:
        raise Unrecordable(str(error)) from error
    if canonical(again) != canonical(plain):
        raise Unrecordable("the value does not survive being written and read; register a converter for its class")
