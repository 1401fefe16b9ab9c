"""What a file costs: to record and save it, to load and verify it, to keep it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .corpora import CORPORA, Exchange
from .measure import Row, in_turns, row, without
from .server import serving
from .sides import OURS, PEERS, VCRPY, Side, merged, payloads, send

LOAD_TARGETS = {
    "ten-turn sessions": {"cassetter": 0.33, "vcrpy": 0.33},
    "three-turn sessions": {"cassetter": 0.5},
    "single turns": {"cassetter": 0.75},
}
BUILT = 0.1
"""How much more than loading building every payload may cost."""
PART = 100
"""Exchanges of which vcrpy's larger files are put together: it compares each request with all that came before, and a
thousand agent-like ones would take it a quarter of an hour."""
SAVE_TARGETS = {"small": 1.5, "ten-turn sessions": 1.0, "three-turn sessions": 1.0, "single turns": 1.0}


def measure(*, size: int, rounds: int, seed: int, note: str = "") -> Iterator[Row]:
    """Rows for all corpora of a size; the note is added to their names."""
    for name, made in CORPORA.items():
        with tempfile.TemporaryDirectory() as directory:
            yield from _corpus(name, made(size, seed), Path(directory), rounds=rounds, note=note)


def _corpus(name: str, corpus: Sequence[Exchange], directory: Path, *, rounds: int, note: str) -> Iterator[Row]:
    label = f"{name}, {len(corpus):,}{note}"
    recorded = _record(corpus, directory, rounds=rounds)
    for peer in PEERS:
        target = SAVE_TARGETS[name] if peer.name == "cassetter" else None
        if peer.name not in recorded:
            instead = f"it takes time by the square; its file is made of {len(corpus) // PART} recordings"
            yield without("record and save", label, peer.name, recorded[OURS.name], instead=instead)
            continue
        yield row("record and save", label, peer.name, recorded[OURS.name], recorded[peer.name], target=target)
    sizes = {side.name: [float(_file(directory, side).stat().st_size)] for side in (OURS, *PEERS)}
    for peer in PEERS:
        target = 0.5 if name != "small" and peer.name == "cassetter" else None
        yield row("file size (bytes)", label, peer.name, sizes[OURS.name], sizes[peer.name], target=target)
    readable = [side for side in (OURS, *PEERS) if _is_readable(side, _file(directory, side))]
    turns: dict[str, Callable[[], object]] = {
        side.name: functools.partial(side.load, _file(directory, side)) for side in readable
    }
    turns["built"] = lambda: payloads(OURS.load(_file(directory, OURS)))
    taken = in_turns(turns, rounds=rounds)
    for peer in PEERS:
        if peer not in readable:
            instead = "it refuses its own file"
            yield without("load and verify", label, peer.name, taken[OURS.name], instead=instead)
            continue
        target = LOAD_TARGETS.get(name, {}).get(peer.name)
        yield row("load and verify", label, peer.name, taken[OURS.name], taken[peer.name], target=target)
        more = None if target is None else target + BUILT
        yield row("… and build every payload", label, peer.name, taken["built"], taken[peer.name], target=more)


def _record(corpus: Sequence[Exchange], directory: Path, *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU of recording and saving, the requests and the server's answers included."""

    def turn(side: Side, part: Sequence[Exchange] = corpus) -> None:
        path = _file(directory, side)
        path.unlink(missing_ok=True)
        with serving(part) as url, side.cassette(path, True):
            send(url, part)

    recorders = [side for side in (OURS, *PEERS) if side is not VCRPY or len(corpus) <= PART]
    if VCRPY not in recorders:
        parts = []
        for start in range(0, len(corpus), PART):
            turn(VCRPY, corpus[start : start + PART])
            parts.append(_file(directory, VCRPY).read_text())
        _file(directory, VCRPY).write_text(merged(parts))
    return in_turns({side.name: functools.partial(turn, side) for side in recorders}, rounds=min(rounds, 3))


def _file(directory: Path, side: Side) -> Path:
    return directory / f"{side.name}.yaml"


def _is_readable(side: Side, path: Path) -> bool:
    """Cassetter refuses to read back more than some 500 agent-like exchanges of its own."""
    try:
        side.load(path)
    except Exception as error:  # noqa: BLE001 - its own class, and part of what is reported
        print(f"{side.name} cannot read {path.stat().st_size / 1e6:.1f} MB of its own: {str(error)[:100]}")
        return False
    return True
