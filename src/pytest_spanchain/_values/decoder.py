"""From plain values back to Python ones; see the package for the form."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CassetteBroken, SpanchainError, UsageError
from .leaves import FACTORIES, is_tag, leaves, read_no_number, read_surrogates, typed
from .objects import NAMED_SECTIONS, Parts, message_of, put_together
from .trust import resolve

_REMEDY = "The value was changed by hand or its class has changed since: record it again."


def decode(plain: Any, *, types: Mapping[str, type]) -> Any:
    """Make the value again that ``encode`` got.

    Args:
        plain: what ``encode`` returned.
        types: classes by ``module:qualname``, from ``trusted_types``; registered ones are known anyway.

    Raises:
        UsageError: a class is named that nobody vouches for; it says how to register it.
        CassetteBroken: a tag is unknown, malformed, or does not fit its class.
    """
    return _Decoder(types).decode(plain, "$")


class _Decoder:
    def __init__(self, types: Mapping[str, type]) -> None:
        self._types = types

    def decode(self, plain: Any, path: str) -> Any:
        if type(plain) is list:
            return self._items(plain, path)
        if type(plain) is not dict:
            return plain
        if not is_tag(plain):
            return {key: self.decode(item, f"{path}.{key}") for key, item in plain.items()}
        ((tag, content),) = plain.items()
        try:
            return self._tagged(tag, content, path)
        except SpanchainError:
            raise
        except Exception as error:  # the class's own code runs here, and what it is given may be forged
            raise CassetteBroken(f"{tag} cannot be rebuilt: {message_of(error)}", field=path, remedy=_REMEDY) from error

    def _items(self, plain: Any, path: str) -> list[Any]:
        return [self.decode(item, f"{path}[{index}]") for index, item in enumerate(typed(plain, list))]

    def _pairs(self, plain: Any, path: str) -> list[tuple[Any, Any]]:
        pairs = [(self.decode(key, path), self.decode(item, path)) for key, item in typed(plain, list)]
        if len({key for key, _ in pairs}) != len(pairs) and not any(key != key for key, _ in pairs):  # NaN
            raise ValueError("a key occurs twice")
        return pairs

    def _tagged(self, tag: str, content: Any, path: str) -> Any:
        if tag in _READERS:
            return _READERS[tag](self.decode(content, path))
        if tag in _FROM_ITEMS:
            return _FROM_ITEMS[tag](self._items(content, path))
        if tag == "$esc":
            inner = typed(content, dict)
            if not is_tag(inner):
                raise ValueError("there is nothing to escape")
            return {key: self.decode(item, f"{path}.{key}") for key, item in inner.items()}
        if tag in ("$map", "$ordereddict"):
            return {"$map": dict, "$ordereddict": OrderedDict}[tag](self._pairs(content, path))
        if tag == "$counter":
            return Counter(dict(self._pairs(content, path)))
        if tag == "$deque":
            return deque(self._items(content["items"], path), _exact(content, "items", "maxlen")["maxlen"])
        if tag == "$defaultdict":
            name = _exact(content, "factory", "items")["factory"]
            return defaultdict(None if name is None else FACTORIES[name], self._pairs(content["items"], path))
        if tag in ("$object", "$enum", "$exception"):
            return self._object(tag, content, path)
        if tag == "$opaque":
            raise ValueError(f"{content} had no plain form when it was recorded")
        raise ValueError("the tag is unknown")

    def _object(self, tag: str, content: Any, path: str) -> Any:
        name = typed(typed(content, dict)["type"], str)
        cls = resolve(name, self._types)
        if cls is None:
            raise UsageError(
                f"{path}: the recorded value is a {name}, a class that neither the annotations nor the module of the "
                f"tool name; call spanchain.register_type({name.rpartition(':')[2]}) where the class is defined"
            )
        sections = {
            section: {key: self.decode(part, f"{path}.{key}") for key, part in typed(item, dict).items()}
            if section in NAMED_SECTIONS
            else self.decode(item, f"{path}.{section}")
            for section, item in content.items()
            if section != "type"
        }
        return put_together(cls, Parts(tag, name, sections))


def _exact(content: Any, *keys: str) -> dict[str, Any]:
    if sorted(typed(content, dict)) != sorted(keys):
        raise ValueError(f"keys are {', '.join(sorted(content))}, expected {', '.join(keys)}")
    return dict(content)


_READERS: dict[str, Callable[[Any], Any]] = {
    "$float": read_no_number,
    "$str": read_surrogates,
    **{tag: read for _, tag, _, read in leaves()},
}
_FROM_ITEMS: dict[str, Callable[[list[Any]], Any]] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
