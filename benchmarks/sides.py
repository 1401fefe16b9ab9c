"""The recorders that are measured, each behind the same few functions.

What a side does is what its users get: recorded and replayed through its own context manager over httpx2, matched by
method, URL and body. Ours does not look for tools: the corpora offer some, but there are none to find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .corpora import Exchange


@dataclass(frozen=True)
class Side:
    """One recorder.

    Args:
        name: of its distribution.
        cassette: its context manager on a file; the flag is whether to record.
        load: read a file to the point where a replay can begin.
    """

    name: str
    cassette: Callable[[Path, bool], AbstractContextManager[Any]]
    load: Callable[[Path], object]


def send(url: str, corpus: Sequence[Exchange]) -> None:
    """Send the requests of a corpus, and check what comes back.

    Raises:
        AssertionError: an answer is not the corpus's.
    """
    import httpx2

    with httpx2.Client(base_url=url, trust_env=False) as client:
        for exchange in corpus:
            headers = {"content-type": "application/json"}
            answer = client.post(exchange.path, content=exchange.request, headers=headers)
            if answer.content != exchange.answer:
                raise AssertionError("an answer is not the one that belongs to its request")


def _ours(path: Path, record: bool) -> AbstractContextManager[Any]:
    from pytest_spanchain import use_cassette

    return use_cassette(path, mode="once" if record else "none", tools="off")


def _load_ours(path: Path) -> object:
    from pytest_spanchain import _store
    from pytest_spanchain._codec.splice import memory

    # As the first file of a session: what was remembered of the last turn would be this very file.
    memory.clear()
    return _store.load(path, deferred=True)


def _cassetter(path: Path, record: bool) -> AbstractContextManager[Any]:
    import cassetter

    context: AbstractContextManager[Any] = cassetter.use_cassette(
        path, record_mode="once" if record else "none", match_on=["method", "uri", "body"], intercept=["httpx2"]
    )
    return context


def _load_cassetter(path: Path) -> object:
    from cassetter.cassette import Cassette

    cassette = Cassette(path)
    cassette.load()
    return cassette


def _vcrpy(path: Path, record: bool) -> AbstractContextManager[Any]:
    import vcr

    recorder = vcr.VCR(record_mode="once" if record else "none", match_on=["method", "uri", "body"])
    context: AbstractContextManager[Any] = recorder.use_cassette(str(path))
    return context


def _load_vcrpy(path: Path) -> object:
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.serializers import yamlserializer

    return FilesystemPersister.load_cassette(path, yamlserializer)


def payloads(cassette: Any) -> int:
    """Build every payload of a cassette of ours; how many values they hold at the top."""
    return sum(
        len(span.exchange.request) + len(span.exchange.response or ()) for span in cassette.tree if span.exchange
    )


def merged(files: Sequence[str]) -> str:
    """Files of vcrpy as one: their lists of interactions one after the other."""
    begin, end = "interactions:\n", "version: 1\n"
    if not all(file.startswith(begin) and file.endswith(end) for file in files):
        raise AssertionError("these are no files of vcrpy")
    return "".join([begin, *(file[len(begin) : -len(end)] for file in files), end])


OURS = Side("pytest-spanchain", _ours, _load_ours)
VCRPY = Side("vcrpy", _vcrpy, _load_vcrpy)
PEERS = (Side("cassetter", _cassetter, _load_cassetter), VCRPY)
