"""How a JSON text was laid out, apart from what it says: the style of its writer and the order of its keys.

A cassette keeps a JSON body as a value with sorted keys. Agents feed answers back into prompts, so replay needs the
very bytes; a *layout* is the short line that makes them again.

Invariants:

* ``join(*split(text)) == text``, checked inside ``split``; whatever it cannot promise is ``None``.
* A layout can only permute keys and choose white space and escapes: a forged one is refused or gives another spelling
  of the same value, never another value.
* Keys are ranked by code point, here and only here; how the cassette orders them on disk does not matter.

Grammar: ``STYLE[ ORDER]``, for example ``indent2+ascii+newline 241305;-;10``. ORDER lists, for every *shape* (set of
two or more keys) in the order in which a walk along sorted keys meets it, the ranks of the keys as written: one
character ``0-9a-zA-Z`` each (dotted decimals beyond 62 keys), without the tail that is ascending anyway, ``-`` if all
is ascending. A shape that occurs in several orders lists them with ``|`` and then, after ``@``, which one each
occurrence takes, as ``index*count`` runs. Shapes at the end that are all ascending are left out.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NoReturn

MAX_DEPTH = 58
"""Collections inside each other, in a value that a cassette can hold: it holds 64, and six are around a body's value
(document, entries, entry, payload, response, body). Deeper texts stay texts."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BASES: dict[str, tuple[str | int | None, tuple[str, str]]] = {
    "compact": (None, (",", ":")),
    "spaced": (None, (", ", ": ")),
    "indent1": (1, (",", ": ")),
    "indent2": (2, (",", ": ")),
    "indent3": (3, (",", ": ")),
    "indent4": (4, (",", ": ")),
    "indent8": (8, (",", ": ")),
    "tab": ("\t", (",", ": ")),
}
_FLAGS = ("ascii", "slash", "html", "upper", "newline", "crlf")
_HTML = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|.)")
_UPPER = re.compile(r"\\u(?=[0-9]{0,3}[A-F])[0-9A-F]{4}")
_RUN = re.compile(r"([0-9]{1,9})(?:\*([0-9]{1,9}))?")


class LayoutError(ValueError):
    """A layout is malformed or belongs to another value."""


def split(text: str, *, layout: bool = True) -> tuple[Any, str] | None:
    """Take a JSON text apart into its value and its layout.

    The value's mappings keep the order of the text, so that a caller who changes leaves can call ``relayout``.

    Args:
        text: any text.
        layout: whether the layout is wanted; else it is only made sure that there is one.

    Returns:
        ``(value, layout)``, or ``None`` if the text is not JSON or could not be made again from the two: duplicate
        keys, numbers spelt unusually, NaN, lone surrogates, mixed white space, excessive depth.
    """
    try:
        value = _value_of(text)
        text.encode("utf-8")
        if not _is_shallow(value):
            return None
        order = order_of(value) if layout else ""
        for style in _candidates(text):
            # One written text settles everything at once: duplicate keys, spellings, surrogates and white space.
            if _write(value, style) == text:
                _refuse_surrogates(text, value)
                return value, f"{style} {order}" if order else style
    except (ValueError, RecursionError):
        return None
    return None


def join(value: Any, layout: str) -> str:
    """Write the text that ``split`` took apart.

    Args:
        value: the value; the order of its mappings does not matter.
        layout: the layout that ``split`` gave with it.

    Raises:
        LayoutError: the layout is malformed, or made for a value with other keys.
    """
    style, _, order = layout.partition(" ")
    if layout.endswith(" "):
        raise LayoutError(f"layout {_shown(layout)}: the order after the style is empty")
    _flags(style)
    return _write(reorder(value, order), style)


def relayout(value: Any, layout: str) -> str:
    """The layout of ``value`` as it is ordered in memory, in the style of ``layout``.

    For whoever replaces parts of a value that ``split`` returned (redaction): a layout describes the keys of exactly
    one value, so it must be made anew.

    Raises:
        LayoutError: the style is unknown.
    """
    style = layout.partition(" ")[0]
    _flags(style)
    order = order_of(value)
    return f"{style} {order}" if order else style


def order_of(value: Any) -> str:
    """The key order of every mapping inside a plain value, as one line; empty if all keys are ascending."""
    shapes: dict[tuple[str, ...], _Shape] = {}
    for mapping in _mappings(value):
        keys = tuple(sorted(mapping))
        shapes.setdefault(keys, _Shape(keys)).add(tuple(mapping))
    written = [shape.text() for shape in shapes.values()]
    while written and written[-1] == "-":
        written.pop()
    return ";".join(written)


def ordered(part: Mapping[str, Any]) -> dict[str, Any]:
    """A request or response, sorted, with the key orders of the mappings inside it under ``order`` if it needs one."""
    # Sorted first, so that the order speaks only of what is inside.
    bare = {key: value for key, value in sorted(part.items()) if key != "order"}
    order = order_of(bare)
    return {**bare, "order": order} if order else bare


def unordered(part: Mapping[str, Any]) -> Any:
    """Undo ``ordered``.

    Raises:
        LayoutError: the order is malformed, or made for a value with other keys.
    """
    bare = {key: value for key, value in part.items() if key != "order"}
    return reorder(bare, part.get("order", ""))


def reorder(value: Any, order: str) -> Any:
    """Rebuild a plain value with its mappings in the order that ``order_of`` described.

    Raises:
        LayoutError: the order is malformed, or made for a value with other keys.
    """
    if not order:
        return _rebuild(value, {})
    shapes: dict[tuple[str, ...], _Shape] = {}
    for mapping in _mappings(value):
        keys = tuple(sorted(mapping))
        shapes.setdefault(keys, _Shape(keys)).count += 1
    parts = order.split(";")
    if len(parts) > len(shapes):
        raise LayoutError(f"layout order {_shown(order)} has {len(parts)} shapes, the value has {len(shapes)}")
    turns = {
        shape.keys: shape.turns(part)
        for shape, part in zip(shapes.values(), parts + ["-"] * (len(shapes) - len(parts)), strict=True)
    }
    return _rebuild(value, turns)


@dataclass
class _Shape:
    """A set of keys, which are sorted, and the orders in which the objects that have it were written."""

    keys: tuple[str, ...]
    count: int = 0
    orders: dict[tuple[str, ...], int] = field(default_factory=dict)
    runs: list[list[int]] = field(default_factory=list)

    def add(self, written: tuple[str, ...]) -> None:
        index = self.orders.setdefault(written, len(self.orders))
        if self.runs and self.runs[-1][0] == index:
            self.runs[-1][1] += 1
        else:
            self.runs.append([index, 1])

    def text(self) -> str:
        text = "|".join(map(_permutation_text, self.orders))
        if len(self.orders) == 1:
            return text
        return f"{text}@{'.'.join(f'{index}*{count}' if count > 1 else str(index) for index, count in self.runs)}"

    def turns(self, part: str) -> Iterator[tuple[str, ...]]:
        """The keys in written order, once per occurrence."""
        texts, at, runs = part.partition("@")
        orders = [_permuted(self.keys, text) for text in texts.split("|")]
        if bool(at) != (len(orders) > 1):
            raise LayoutError(f"layout order {_shown(part)}: '@' and '|' go together")
        plan = self._plan(runs, len(orders)) if at else [(0, self.count)]
        return (orders[index] for index, count in plan for _ in range(count))

    def _plan(self, runs: str, orders: int) -> list[tuple[int, int]]:
        plan = []
        for run in runs.split("."):
            match = _RUN.fullmatch(run)
            if match is None or int(match[1]) >= orders:
                raise LayoutError(f"layout order: run {_shown(run)} names no listed order")
            plan.append((int(match[1]), int(match[2] or 1)))
        total = sum(count for _, count in plan)
        if total != self.count:
            raise LayoutError(
                f"layout order counts {total} objects with keys {_named(self.keys)}, there are {self.count}"
            )
        return plan


def _named(keys: tuple[str, ...]) -> str:
    return "keys " + _shown(", ".join(keys))


@functools.lru_cache(maxsize=1_024)
def _permuted(keys: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The keys in the order that a text names.

    Raises:
        LayoutError: it names none.
    """
    if text == "-":
        return keys
    ranks = _ranks(text, len(keys))
    if not ranks or len(set(ranks)) != len(ranks) or not all(0 <= rank < len(keys) for rank in ranks):
        raise LayoutError(f"layout order {_shown(text)} is no permutation of the {len(keys)} {_named(keys)}")
    named = set(ranks)
    return tuple(keys[rank] for rank in ranks + [rank for rank in range(len(keys)) if rank not in named])


@functools.lru_cache(maxsize=1_024)  # an API has few shapes
def _permutation_text(written: tuple[str, ...]) -> str:
    place = {key: rank for rank, key in enumerate(sorted(written))}
    ranks = [place[key] for key in written]
    end = len(ranks)
    # The tail may be left out while it is what the reader would append: the unnamed ranks, ascending.
    while end and ranks[end - 1 :] == sorted(ranks[end - 1 :]):
        end -= 1
    if not end:
        return "-"
    if len(ranks) <= len(_DIGITS):
        return "".join(_DIGITS[rank] for rank in ranks[:end])
    return ".".join(map(str, ranks[:end]))


def _ranks(text: str, size: int) -> list[int]:
    if size <= len(_DIGITS):
        return [_DIGITS.find(character) for character in text]
    return [int(part) if re.fullmatch("[0-9]{1,9}", part) else -1 for part in text.split(".")]


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Mappings of two keys or more: parents first, along sorted keys, so that a sorted copy is walked alike."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if len(node) > 1:
                yield node
            stack.extend(node[key] for key in sorted(node, reverse=True))
        elif isinstance(node, list):
            stack.extend(reversed(node))


def _rebuild(value: Any, turns: dict[tuple[str, ...], Iterator[tuple[str, ...]]]) -> Any:
    if isinstance(value, dict):
        keys = tuple(sorted(value))
        written = next(turns[keys]) if keys in turns else keys
        # Children are built along sorted keys, as ``_mappings`` walks, and only then put into their places.
        built = {key: _rebuild(value[key], turns) for key in keys}
        return {key: built[key] for key in written}
    if isinstance(value, list):
        return [_rebuild(item, turns) for item in value]
    return value


def _candidates(text: str) -> Iterator[str]:
    """Styles that the look of the text allows, likeliest first; ``split`` tries them."""
    escaped = "\\u" in text
    lower = text.lower() if escaped else ""
    hints = {
        "ascii": escaped and text.isascii(),
        "slash": "\\/" in text,
        "html": escaped and any(escape in lower for escape in _HTML.values()),
        "upper": escaped and _UPPER.search(text) is not None,
    }
    end = "+crlf" if text.endswith("\r\n") else "+newline" if text.endswith("\n") else ""
    # What looks like an escape may be a literal backslash before a letter, so each hint is tried both ways.
    choices = [(f"+{flag}", "") if hinted else ("",) for flag, hinted in hints.items()]
    for base in _bases(text):
        for flags in product(*choices):
            yield f"{base}{''.join(flags)}{end}"


def _bases(text: str) -> tuple[str, ...]:
    if not text.startswith(("{\n", "[\n")):
        return ("spaced", "compact") if '": ' in text[:400] or ", " in text[:80] else ("compact", "spaced")
    margin = re.match(r"[ \t]*", text[2:])
    width = margin[0] if margin else ""
    return ("tab",) if width == "\t" else tuple(base for base, (indent, _) in _BASES.items() if indent == len(width))


def _write(value: Any, style: str) -> str:
    flags = _flags(style)
    text = _encoder(style.split("+")[0], ascii_only="ascii" in flags)(value)
    # The characters replaced here occur in JSON only inside strings, so the text can be edited as a whole.
    if "slash" in flags:
        text = text.replace("/", "\\/")
    if "html" in flags:
        for character, escape in _HTML.items():
            text = text.replace(character, escape)
    if "upper" in flags:
        text = _ESCAPE.sub(lambda match: f"\\u{match[1].upper()}" if match[1] else match[0], text)
    return text + ("\r\n" if "crlf" in flags else "\n" if "newline" in flags else "")


@functools.lru_cache
def _encoder(base: str, *, ascii_only: bool) -> Callable[[Any], str]:
    indent, separators = _BASES[base]
    return json.JSONEncoder(indent=indent, separators=separators, ensure_ascii=ascii_only, allow_nan=False).encode


@functools.lru_cache
def _flags(style: str) -> tuple[str, ...]:
    base, *flags = style.split("+")
    if base not in _BASES:
        raise LayoutError(f"layout style {_shown(base)} is unknown; known are {', '.join(_BASES)}")
    if flags != [flag for flag in _FLAGS if flag in flags] or {"newline", "crlf"} <= set(flags):
        raise LayoutError(
            f"layout style {_shown(style)}: flags are {', '.join(_FLAGS)}, each at most once, in this order"
        )
    return tuple(flags)


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        # An empty collection is a level too.
        level = [node for node in level if isinstance(node, (dict, list))]
        if not level:
            return True
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
    return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# One for all: json.loads makes a new one for every call with options.
_value_of = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _refuse_surrogates(text: str, value: Any) -> None:
    # A lone surrogate can only come from an escape; the value could then not be hashed.
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
