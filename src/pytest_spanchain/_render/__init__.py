"""Sentences for people: what deviates, on one screen; what a tree holds, one line per span.

Invariants:

* By default a report is at most one screen; with ``-vv`` nothing is left out.
* Nothing printed holds a raw control character, wherever it came from; colour only if asked for.
* Commands and paths are never cut: they are there to be copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .._canonical import canonical
from .._compare.fields import leaf_changes
from .._compare.likeness import Ignored
from .._genai.gist import gist
from .._model import HTTP_KINDS, Deviation, FieldChange, Span, SpanTree
from .excerpt import Excerpt
from .terminal import Line, columns, cut, escape
from .textdiff import change_lines, offer_lines, value_text


@dataclass(frozen=True)
class _Room:
    """Most lines of each part; ``None`` for as many as there are."""

    tree: int | None
    fields: int | None
    changes: int | None
    notes: int | None
    extra: int | None


_ROOMS = (_Room(12, 9, 3, 2, 5), _Room(40, 30, 10, 10, 20), _Room(None, None, None, None, None))
"""By verbosity: 0, 1, and 2 or more."""

_MOST_COMMANDS = 8
_CUT = "…"
"""Stands wherever something is left out."""


def report(
    deviations: Sequence[Deviation],
    *,
    golden: SpanTree,
    live: SpanTree,
    cassette: str,
    commands: Sequence[tuple[str, str]],
    closer: str = "",
    ignored_attributes: frozenset[str] = frozenset(),
    extra: Sequence[str] = (),
    opening: str = "spanchain",
    verbosity: int = 0,
    color: bool = False,
    width: int = 100,
) -> list[str]:
    """Describe how a run deviates from its golden trace.

    Args:
        deviations: from ``_compare.compare``, perhaps re-graded.
        golden: the recorded tree that was compared.
        live: the observed tree that was compared.
        cassette: path as shown to the user; empty if there is no file.
        commands: label and exact command, e.g. ``("accept", "pytest ... --record-mode=rewrite")``.
        closer: command that shows everything; told where something is left out.
        ignored_attributes: as given to ``compare``.
        extra: further lines, e.g. of misses and live calls.
        opening: what the first line begins with.
        verbosity: pytest's; 2 shows everything.
        color: whether the lines go to a terminal that shows colour.
        width: columns.

    Returns:
        Lines without line ends; at most 40 with verbosity 0.
    """
    room = _ROOMS[min(max(verbosity, 0), 2)]
    failing = [deviation for deviation in deviations if deviation.failing]
    # Where a hook has excused the cause, the first that still fails stands for it.
    causes = [deviation for deviation in failing if not deviation.consequence] or failing[:1]
    follow = len(failing) - len(causes)
    lines = [_headline(opening, causes, excused=len(deviations) - len(failing), quiet=not extra)]
    if causes:
        excerpt = Excerpt(deviations, golden=golden, live=live, ignored=Ignored(ignored_attributes))
        drawn, shown = excerpt.fit(failing if room.tree is None else causes, most=room.tree)
        lines += drawn
        if shown < len(causes):
            lines.append(Line(f"  … and {_count(len(causes) - shown, 'more deviation')} (-vv shows them)", "dim"))
        if follow and room.tree is not None:
            lines.append(_folded(follow, causes=len(causes)))
        lines += _field_lines(failing if room.fields is None else causes, (golden, live), room, width)
    notes = [_note(deviation) for deviation in deviations if not deviation.failing]
    lines += _limited(notes, room.notes, "note")
    texts = [part for text in extra for part in text.split("\n")]
    lines += _limited([Line(text, whole=True) for text in texts], room.extra, "line")
    told = [line.render(color=color, width=width) for line in lines]
    if closer and any(_CUT in line for line in told):
        commands = [*commands, ("look closer", closer)]
    return [*told, *(line.render(color=color, width=width) for line in _footer(cassette, commands))]


def _headline(opening: str, causes: list[Deviation], *, excused: int, quiet: bool) -> Line:
    if not causes:
        more = f" ({_count(excused, 'difference')} noted)" if excused else ""
        # Equal trees alone are no pass: what else there is to say may be a miss.
        return Line(f"{opening}: no deviation from the golden trace{more}", "good" if quiet else "")
    first = f"{causes[0].kind} at {causes[0].path[-1]}"
    lead = "" if len(causes) == 1 else "first "
    return Line(f"{opening}: {_count(len(causes), 'deviation')} from the golden trace: {lead}{first}", "head")


def _folded(follow: int, *, causes: int) -> Line:
    verb = "follows" if follow == 1 else "follow"
    shows = "it" if follow == 1 else "them"
    cause = "it" if causes == 1 else "these"
    return Line(f"  … and {_count(follow, 'later difference')} that {verb} from {cause} (-vv shows {shows})", "dim")


def _field_lines(deviations: Sequence[Deviation], trees: Sequence[SpanTree], room: _Room, width: int) -> Iterator[Line]:
    """Blocks of changed fields, each difference once; what does not fit is cut, what comes after it is counted."""
    full = room.fields is None
    left = room.fields if room.fields is not None else 0
    several = len(deviations) > 1
    hidden = 0
    changed = [list(_leaves(deviation) if full else deviation.changes) for deviation in deviations]
    times = Counter(_difference(change) for changes in changed for change in changes)
    for deviation, changes in zip(deviations, changed, strict=True):
        owner = _owner(deviation, several)
        # What is left in the count is told; a history says everything again in every later request.
        told = [(change, times.pop(_difference(change), 0)) for change in changes]
        blocks = [_block(change, again - 1, width=width, full=full, owner=owner) for change, again in told if again]
        blocks += [[line] for line in _asked(deviation, trees, width=width, full=full)]
        for number, block in enumerate(blocks):
            if full:
                yield from block
            elif left < 3 or (room.changes is not None and number >= room.changes):
                hidden += 1
            else:
                yield from _limited(block, left, "line")
                left -= len(block)
    if hidden:
        yield Line(f"  … {_count(hidden, 'more changed field')} (-vv shows them)", "dim")


def _leaves(deviation: Deviation) -> Iterator[FieldChange]:
    """The changes of a deviation, also of one that was compared in a hurry, item by item."""
    for change in deviation.changes:
        yield from list(leaf_changes(change)) or [change]  # a hook's deviation may say anything


def _difference(change: FieldChange) -> tuple[str, str, str]:
    return change.path, value_text(change.golden), value_text(change.live)


def _block(change: FieldChange, again: int, *, width: int, full: bool, owner: str) -> list[Line]:
    lines = offer_lines(change, full=full, owner=owner) or change_lines(change, width=width, full=full, owner=owner)
    if again:
        lines.append(Line(f"    (and the same {_count(again, 'more time')})", "dim"))
    return lines


def _owner(deviation: Deviation, several: bool) -> str:
    return deviation.path[-1] if several else ""


def _asked(deviation: Deviation, trees: Sequence[SpanTree], *, width: int, full: bool) -> Iterator[Line]:
    """What an added or removed call asked for, so that one knows which of its name it is."""
    if deviation.golden and deviation.live:
        return
    mark, tree = ("-", trees[0]) if deviation.golden else ("+", trees[1])
    span = deviation.golden or deviation.live
    while span is not None and span.exchange is None:  # an SDK's own span around the call
        span = next(iter(tree.children(span)), None)
    if span is None or span.exchange is None:
        return
    request = span.exchange.request
    body = request.get("body")
    if span.kind == "tool":
        asked = value_text(request.get("arguments", {}))
    elif said := gist(body.get("json")) if isinstance(body, Mapping) else "":
        asked = value_text(said)
    elif span.kind not in HTTP_KINDS:
        asked = value_text(request.get("params", request.get("argv", {})))
    else:
        asked = f"{request.get('method', '')} {request.get('url', '')}".strip()
    if asked:
        yield Line(f"  {mark} {span.name}: {asked}", mark, whole=full)


def _note(deviation: Deviation) -> Line:
    what = f"  note: {deviation.kind} at {deviation.path[-1]}"
    if deviation.changes:
        change = deviation.changes[0]
        what += f": {change.path} {_brief(change.golden)} -> {_brief(change.live)}"
    return Line(what + (f" ({deviation.note})" if deviation.note else ""), "dim")


def _brief(value: object) -> str:
    return cut(escape(value_text(value)), 30)


def _limited(lines: Sequence[Line], most: int | None, noun: str) -> list[Line]:
    if most is None or len(lines) <= most:
        return list(lines)
    kept = max(most - 1, 0)
    return [*lines[:kept], Line(f"  … {_count(len(lines) - kept, f'more {noun}')} (-vv shows them)", "dim")]


def _footer(cassette: str, commands: Sequence[tuple[str, str]]) -> Iterator[Line]:
    labels = (["cassette"] if cassette else []) + [label for label, _ in commands]
    pad = max((columns(escape(label)) for label in labels), default=0) + 1
    if cassette:
        yield Line(f"  {'cassette:':<{pad}} {cassette}", whole=True)
    for label, command in commands[:_MOST_COMMANDS]:
        yield Line(f"  {label + ':':<{pad}} {command}", whole=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def tree(tree: SpanTree, *, color: bool = False, width: int = 100) -> list[str]:
    """Draw a tree, one line per span: kind, tokens in and out, start, duration, bytes out and back, error.

    Args:
        tree: the spans.
        color: whether the lines go to a terminal that shows colour.
        width: columns; names are cut, never the figures.
    """
    if not tree.spans:
        return ["(no spans)"]
    origin = tree.spans[0].start_ns
    depths: dict[str | None, int] = {}
    rows: list[tuple[str, list[str], Span]] = []
    for span in _preorder(tree):
        depths[span.span_id] = depths.get(span.parent_span_id, -1) + 1
        name = "  " * min(depths[span.span_id], 15) + escape(span.name)
        rows.append((name, _cells(span, origin), span))
    widths = [max(columns(cells[k]) for _, cells, _ in rows) for k in range(len(rows[0][1]))]
    left = max(width - sum(widths) - 2 * len(widths), 20)
    left = min(left, max(columns(name) for name, _, _ in rows))
    lines: list[str] = []
    for name, cells, span in rows:
        shown = cut(name, left)
        text = shown + " " * (left - columns(shown))
        text += "".join(f"  {cell:>{size}}" if size else "" for cell, size in zip(cells, widths, strict=True))
        lines.append(Line(text, "-" if span.status == "error" else "", whole=True).render(color=color, width=width))
        if span.status == "error":
            error = Line(f"{'  ' * (depths[span.span_id] + 1)}error: {span.status_message or '(no message)'}", "-")
            lines.append(error.render(color=color, width=width))
    return lines


def _preorder(tree: SpanTree) -> Iterator[Span]:
    """Parents before their children, and all of them before the next sibling."""
    todo = [span for span in tree.spans if span.parent_span_id not in tree.by_id][::-1]
    while todo:
        span = todo.pop()
        yield span
        todo += reversed(tree.children(span))


def _cells(span: Span, origin: int) -> list[str]:
    sizes = ""
    if span.exchange:
        answer = _bytes(len(canonical(span.exchange.response))) if span.exchange.response is not None else "none"
        sizes = f"{_bytes(len(canonical(span.exchange.request)))} -> {answer}"
    return [span.kind, _tokens(span), f"+{_time(span.start_ns - origin)}", _time(span.duration_ns), sizes]


def _tokens(span: Span) -> str:
    counts = [span.attributes.get(f"gen_ai.usage.{which}_tokens") for which in ("input", "output")]
    if all(count is None for count in counts):
        return ""
    return " -> ".join(f"{count:,}" if isinstance(count, int) else "?" for count in counts) + " tokens"


def _time(nanoseconds: int) -> str:
    seconds = nanoseconds / 1e9
    if abs(seconds) >= 1 or nanoseconds == 0:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.1f} ms" if abs(seconds) >= 1e-3 else f"{seconds * 1e6:.0f} us"


def _bytes(count: int) -> str:
    return f"{count} B" if count < 1_000 else f"{count / 1e3:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
