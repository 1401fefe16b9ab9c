"""Values without parts (bytes, dates, numbers, paths): for each class its tag, its writer and its reader.

Also what else the encoder and the decoder must agree on.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import pathlib
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from ..errors import Unrecordable

FACTORIES: dict[str, Callable[[], Any]] = {
    "list": list,
    "dict": dict,
    "set": set,
    "int": int,
    "float": float,
    "str": str,
    "tuple": tuple,
    "bool": bool,
}
"""Those of a ``defaultdict``, by the name that a cassette knows."""


def is_tag(plain: Mapping[str, Any]) -> bool:
    """Whether a plain mapping is a tag, or looks like one."""
    return len(plain) == 1 and next(iter(plain)).startswith("$")


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: it has no lone surrogate."""
    if value.isascii():
        return True
    with contextlib.suppress(UnicodeEncodeError):
        value.encode("utf-8")
        return True
    return False


def to_base64(data: bytes | bytearray) -> str:
    """Base64 text of bytes."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: Any) -> bytes:
    """Bytes of a base64 text, strictly."""
    try:
        return base64.b64decode(typed(text, str), validate=True)
    except binascii.Error as error:
        raise ValueError(f"it is not base64: {error}") from None


def typed(value: Any, kind: type) -> Any:
    """``value``, if it is exactly a ``kind``."""
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


def _zoned(value: Any) -> Any:
    """ISO text; beside it the zone and the fold where the text alone would lose them."""
    zone = value.tzinfo
    if not value.fold and (zone is None or (type(zone) is datetime.timezone and zone == datetime.timezone.utc)):
        return value.isoformat()
    return [value.replace(tzinfo=None).isoformat(), zone, value.fold]


def _unzoned(kind: Any) -> Callable[[Any], Any]:
    def read(plain: Any) -> Any:
        if type(plain) is str:
            return kind.fromisoformat(plain)
        text, zone, fold = plain
        return kind.fromisoformat(text).replace(tzinfo=zone, fold=fold)

    return read


def _zone_name(value: zoneinfo.ZoneInfo) -> str:
    if value.key is None:
        raise Unrecordable("a ZoneInfo that was read from a file has no name to record it by")
    return value.key


def _timezone(value: datetime.timezone) -> list[Any]:
    offset = value.utcoffset(None)
    name = value.tzname(None)
    return [offset] if name == datetime.timezone(offset).tzname(None) else [offset, name]


def read_surrogates(plain: Any) -> str:
    """The text behind a ``$str`` tag."""
    text = from_base64(plain).decode("utf-8", "surrogatepass")
    if is_text(text):
        raise ValueError("the text has no lone surrogate and needs no tag")
    return text


def read_no_number(plain: Any) -> float:
    """The float behind a ``$float`` tag."""
    if plain not in ("nan", "inf", "-inf"):
        raise ValueError("only nan, inf and -inf need a tag")
    return float(plain)


def _text_of(value: Any) -> str:
    return str(value)


def _parsed(kind: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda plain: kind(typed(plain, str))


def leaves() -> Iterator[tuple[type, str, Callable[[Any], Any], Callable[[Any], Any]]]:
    """Class, tag, writer (into something that can be encoded again) and reader."""
    yield bytes, "$bytes", to_base64, from_base64
    yield bytearray, "$bytearray", to_base64, lambda plain: bytearray(from_base64(plain))
    yield complex, "$complex", lambda value: [value.real, value.imag], lambda plain: complex(*plain)
    yield range, "$range", lambda value: [value.start, value.stop, value.step], lambda plain: range(*plain)
    yield Decimal, "$decimal", _text_of, _parsed(Decimal)
    yield Fraction, "$fraction", _text_of, _parsed(Fraction)
    yield UUID, "$uuid", _text_of, _parsed(UUID)
    yield datetime.date, "$date", datetime.date.isoformat, _parsed(datetime.date.fromisoformat)
    yield datetime.datetime, "$datetime", _zoned, _unzoned(datetime.datetime)
    yield datetime.time, "$time", _zoned, _unzoned(datetime.time)
    yield (
        datetime.timedelta,
        "$timedelta",
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda plain: datetime.timedelta(*plain),
    )
    yield datetime.timezone, "$timezone", _timezone, lambda plain: datetime.timezone(*plain)
    yield zoneinfo.ZoneInfo, "$zoneinfo", _zone_name, _parsed(zoneinfo.ZoneInfo)
    # The concrete class depends on the platform, so both flavours of ``Path`` share a tag and become the local one.
    yield type(pathlib.Path()), "$path", lambda value: value.as_posix(), _parsed(pathlib.Path)
    yield pathlib.PurePosixPath, "$pureposixpath", _text_of, _parsed(pathlib.PurePosixPath)
    yield pathlib.PureWindowsPath, "$purewindowspath", _text_of, _parsed(pathlib.PureWindowsPath)
