"""Dates and times in texts: what they say, and whether that is what a clock showed.

A *phrase* is a date, a time or both as people and programs write them; its *form* is what is left when the numbers and
names are taken out, so that two phrases of one form were made by one format. Whether a phrase is the clock's is asked
of its content: ``2026-11-21`` is volatile on that day and on no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from urllib.parse import unquote

# Not those of ``calendar``, which speak the machine's language.
_MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def _names(names: list[str], group: str) -> str:
    written = {form for name in names for form in (name, name[:3], name.upper(), name[:3].upper())}
    return f"(?P<{group}>{'|'.join(sorted(written, key=len, reverse=True))})(?![A-Za-z])"


NAMES = re.sub(r"[(][?]P<[a-z_]+>|[)][(][?]![^)]*[)]", "", f"{_names(_MONTHS, 'm')}|{_names(_DAYS, 'd')}")
"""A pattern that finds the names of months and days."""

_MONTH, _WEEKDAY = _names(_MONTHS, "month_name"), _names(_DAYS, "weekday")
_ZONE = r"(?:\s?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)(?![\w:]))?"
_TIME = (
    r"(?P<hour>[01]?\d|2[0-3])(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    rf"(?:\s?(?P<half>[AaPp]\.?[Mm]\b\.?))?|\s?(?P<only_half>[AaPp]\.?[Mm]\b\.?)){_ZONE}"
)
_DAY = r"(?P<day>[0-2]?\d|3[01])"
_NTH = r"(?P<nth>st|nd|rd|th|\.)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)(?!\d)"
_THEN_TIME = rf"(?:(?:[T_ ]|,\s?|\sat\s|,\sat\s|\s-\s){_TIME})?"
# As names of files have it.
_THEN_DASHED_TIME = (
    r"(?:[T_-](?P<hour>[01]\d|2[0-3])(?P<within>[-_.]?)(?P<minute>[0-5]\d)(?:(?P=within)(?P<second>[0-5]\d))?)"
)
_COMMA_TIME = r"(?:, (?P<hour>\d\d?), (?P<minute>\d\d?)(?:, (?P<second>\d\d?)(?:, (?P<micro>\d{1,6}))?)?)?"

_FORMS = (
    rf"{_YEAR}(?P<dash>[-/._])(?P<month>0\d|1[0-2])(?P=dash){_DAY}(?!\d){_THEN_TIME}",
    rf"{_DAY}(?P<dash>[-/.])(?P<month>0?\d|1[0-2])(?P=dash)(?:{_YEAR}|(?P<short_year>\d\d)(?!\d)){_THEN_TIME}",
    rf"(?P<month>0?\d|1[0-2])(?P<dash>[-/.]){_DAY}(?P=dash)(?:{_YEAR}|(?P<short_year>\d\d)(?!\d)){_THEN_TIME}",
    rf"(?:{_WEEKDAY},?\s+)?{_MONTH}\.?\s+{_DAY}(?!\d){_NTH}(?:,?\s+{_YEAR})?{_THEN_TIME}",
    rf"(?:{_WEEKDAY},?\s+)?{_MONTH}\.?\s+{_DAY}\s+{_TIME}\s+{_YEAR}",
    rf"(?:{_WEEKDAY},?\s+)?{_DAY}{_NTH}(?:\sof)?[\s-]+{_MONTH}\.?(?:,?[\s-]+{_YEAR})?{_THEN_TIME}",
    rf"{_MONTH}\.?,?\s+{_YEAR}",
    r"(?P<year>(?:19|20)\d\d)(?P<month>0[1-9]|1[0-2])(?P<day>[0-2]\d|3[01])"
    r"(?:[T_-]?(?P<hour>[01]\d|2[0-3])(?P<minute>[0-5]\d)(?P<second>[0-5]\d)?(?:\.?(?P<fraction>\d{3,6}))?)?"
    rf"{_ZONE}(?!\d)",
    _TIME,
    _WEEKDAY,
    _MONTH,
    rf"{_YEAR}",
    rf"{_YEAR}-(?P<month>0\d|1[0-2])-{_DAY}{_THEN_DASHED_TIME}(?!\d)",
    rf"{_YEAR}[-/](?P<month>0[1-9]|1[0-2])(?![-/\d])",
    rf"(?P<month>0[1-9]|1[0-2])/{_YEAR}",
    rf"{_YEAR}-?W(?P<week>[0-4]\d|5[0-3])(?:-(?P<iso_day>[1-7]))?(?!\d)",
    rf"(?P<year>(?:19|20)\d\d), (?P<month>\d\d?), (?P<day>\d\d?){_COMMA_TIME}",
    r"(?P<year>(?:19|20)\d\d)\s?[年년]\s?(?P<month>\d\d?)\s?[月월](?:\s?(?P<day>\d\d?)\s?[日일])?",
)
_AS_CODE = 16
_FIRST = (4, 12, 0, 1, 2, 3, 5, 6, 7, 17, 16, 15, 14, 13, 8, 9, 10, 11)
"""The order in which they are tried where there is no telling where a phrase ends: the longest first."""


def _finding(form: str) -> str:
    """A pattern, without groups, that finds a form, also quoted in a URL."""
    found = re.sub(r"[(][?]P<[a-z_]+>", "(?:", form).replace("(?P=dash)", "[-/._]").replace("(?P=within)", "[-_.]?")
    found = found.replace("[-/._]", "(?:[-/._]|%2[Ff])").replace("[-/.]", "(?:[-/.]|%2[Ff])")
    found = found.replace("(?::(?:", "(?:(?::|%3[Aa])(?:").replace("[+-]\\d\\d:?", "(?:[+-]|%2[Bb])\\d\\d(?::|%3[Aa])?")
    found = found.replace("(?:[T_ ]", "(?:[T_ ]|[+]|%20")
    # Only as code writes it: elsewhere these are just numbers.
    return rf"(?:(?<=\(){found}(?=\)))" if form == _FORMS[_AS_CODE] else f"(?:{found})"


PHRASE = "|".join(_finding(_FORMS[index]) for index in _FIRST)
"""A pattern, without groups, that finds phrases; more than it should, ``readings`` is the judge."""


@cache
def _patterns() -> tuple[re.Pattern[str], ...]:
    """Compiled on use: it takes longer than the replay of a test that needs none."""
    return tuple(map(re.compile, _FORMS))


@dataclass(frozen=True)
class Reading:
    """One way to understand a phrase.

    Args:
        form: the phrase without what it says.
        lengths: whether the names in it are ``short`` or ``long``; empty for May, which is both.
        fields: what it says, by ``year``, ``month``, ``day``, ``weekday`` (0 is Monday), ``week`` and ``iso_day`` (of
            ISO 8601, whose year it then is), ``hour``, ``minute``, ``second``, ``micro`` and ``zone`` (seconds east of
            Greenwich).
    """

    form: str
    lengths: tuple[str, ...]
    fields: Mapping[str, int]

    @property
    def day(self) -> dict[str, int]:
        """What it says of the day."""
        return {name: value for name, value in self.fields.items() if name not in _TIMES}

    @property
    def time(self) -> dict[str, int]:
        """What it says of the time."""
        return {name: value for name, value in self.fields.items() if name in _TIMES}

    def is_like(self, other: Reading) -> bool:
        """Whether one format makes both phrases."""
        lengths = zip(self.lengths, other.lengths, strict=False)
        return self.form == other.form and all(one == two or "" in (one, two) for one, two in lengths)


@dataclass(frozen=True)
class Clock:
    """What a clock showed while a process ran.

    Args:
        start_ns: from when, nanoseconds since the epoch.
        end_ns: until when.
        offset: of its local time, seconds east of Greenwich.
        moved: whether the tests had stopped or moved it: then when it began was their author's choice.
    """

    start_ns: int
    end_ns: int
    offset: int
    moved: bool = False

    def stands_for(self, other: Clock) -> bool:
        """Whether one clock in one run can be the other in another: not where somebody chose another time since."""
        if not (self.moved or other.moved):
            return True
        slack = int(_TOLERANCE * 1e9)
        meet = self.start_ns - slack <= other.end_ns and other.start_ns - slack <= self.end_ns
        return self.moved and other.moved and meet

    def showed(self, fields: Mapping[str, int]) -> bool:
        """Whether a clock of this machine, local or UTC, showed this."""
        zone = fields.get("zone")
        return any(self._showed(fields, offset) for offset in ({0, self.offset} if zone is None else {zone}))

    def is_local(self, zone: int) -> bool:
        """Whether a zone is that of its local time."""
        return zone == self.offset

    def passed(self, seconds: float) -> bool:
        """Whether a moment, in seconds since the epoch, was within that time."""
        return self.start_ns / 1e9 - _TOLERANCE <= seconds <= self.end_ns / 1e9 + _TOLERANCE

    def _showed(self, fields: Mapping[str, int], offset: int) -> bool:
        first, last = (_local(ns, offset) for ns in (self.start_ns, self.end_ns))
        for number in range((last.date() - first.date()).days + 1):
            day = first.date() + timedelta(days=number)
            said = {"year": day.year, "month": day.month, "day": day.day, "weekday": day.weekday()}
            if "week" in fields:
                said = dict(zip(("year", "week", "iso_day"), day.isocalendar(), strict=True))
            if any(fields.get(name, value) != value for name, value in said.items()):
                continue
            if "hour" not in fields:
                return True
            start = datetime(day.year, day.month, day.day, fields["hour"], fields.get("minute", 0))
            start += timedelta(seconds=fields.get("second", 0), microseconds=fields.get("micro", 0))
            tolerance = timedelta(seconds=_TOLERANCE)
            if start - tolerance <= last and start + _precision(fields) + tolerance >= first:
                return True
        return False


_TIMES = frozenset({"hour", "minute", "second", "micro", "zone"})
_TOLERANCE = 1.0
"""Seconds by which a clock may be read beside ours, and what is rounded."""


def readings(phrase: str) -> Iterator[Reading]:
    """The ways to understand a phrase: ``03/04/2026`` has two; what is no date and no time has none."""
    quoted = "%" in phrase
    if quoted:
        phrase = unquote(phrase.replace("+", " "))
    for number, pattern in enumerate(_patterns()):
        found = pattern.fullmatch(phrase)
        if found is not None and (fields := _fields(found)) is not None:
            names = filter(None, (found.groupdict().get(name) for name in ("weekday", "month_name")))
            yield Reading(f"{number}{'%' if quoted else ''}:{_form(found)}", tuple(map(_length, names)), fields)


def _fields(found: re.Match[str]) -> dict[str, int] | None:
    said = {name: text for name, text in found.groupdict().items() if text is not None}
    numbers = ("year", "month", "day", "week", "iso_day", "hour", "minute", "second", "micro")
    fields: dict[str, int] = {name: int(said[name]) for name in numbers if name in said}
    if "short_year" in said:
        fields["year"] = 2000 + int(said["short_year"])
    if "month_name" in said:
        fields["month"] = _position(said["month_name"], _MONTHS) + 1
    if "weekday" in said:
        fields["weekday"] = _position(said["weekday"], _DAYS)
    if "fraction" in said:
        fields["micro"] = int(said["fraction"][:6].ljust(6, "0"))
    half = said.get("half") or said.get("only_half")
    if half is not None:
        if not 1 <= fields["hour"] <= 12:
            return None
        fields["hour"] = fields["hour"] % 12 + (12 if half[0] in "pP" else 0)
    if "zone" in said:
        fields["zone"] = _zone(said["zone"])
    return fields if fields.get("day", 1) and fields.get("month", 1) else None


def _form(found: re.Match[str]) -> str:
    """The phrase with its groups' names for what they hold, and whether that is in capitals."""
    text, form, position = found[0], "", 0
    for name, (start, end) in sorted(
        ((name, found.span(name)) for name in found.groupdict()), key=lambda item: item[1]
    ):
        if start < position or name in ("dash", "within") or (name == "zone" and text[start] not in "+-"):
            continue
        form += text[position:start] + f"<{name}{_style(name, text[start:end])}>"
        position = end
    # How often the day of the month takes two places is the calendar's affair.
    return re.sub(r" +", " ", form + text[position:])


def _style(name: str, text: str) -> str:
    if name in ("month_name", "weekday"):
        return ":upper" if text.isupper() else ""
    if name in ("half", "only_half"):
        return text[1:] + (":upper" if text[0].isupper() else "")
    return ""


def _length(text: str) -> str:
    return "" if text.upper() == "MAY" else "short" if len(text) == 3 else "long"


def _position(text: str, names: list[str]) -> int:
    return next(index for index, name in enumerate(names) if name.upper().startswith(text.upper()))


def _zone(text: str) -> int:
    if text in ("Z", "UTC", "GMT"):
        return 0
    seconds = int(text[1:3]) * 3600 + int(text[-2:]) * 60
    return -seconds if text[0] == "-" else seconds


def _local(ns: int, offset: int) -> datetime:
    return datetime.fromtimestamp(ns / 1e9 + offset, tz=timezone.utc).replace(tzinfo=None)


def _precision(fields: Mapping[str, int]) -> timedelta:
    if "minute" not in fields:
        return timedelta(hours=1)
    return timedelta(minutes=1) if "second" not in fields else timedelta(seconds=0 if "micro" in fields else 1)
