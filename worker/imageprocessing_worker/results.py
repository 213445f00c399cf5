"""What became of each image, and how that survives a crash.

While a shard runs, its results lie in immutable parts; results/<i>.jsonl, written
last and only once, is the commit.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from imageprocessing_contract import names

from imageprocessing_worker.stores import Store

Place = tuple[int, int]
"""A row's line in the source, and the position of a URL in its list, from 0."""


class Result(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One image of one row: `object` is set where it succeeded, `reason` where it failed."""

    line: int
    position: int
    object: str | None = None
    original: int = 0
    compressed: int = 0
    unchanged: bool = False
    reason: str | None = None
    message: str | None = None
    transient: bool = False

    @property
    def place(self) -> Place:
        """Where the image stands in the catalogue."""
        return (self.line, self.position)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Result)


def encode(results: Iterable[Result]) -> bytes:
    """JSON lines."""
    return b"".join(_encoder.encode(result) + b"\n" for result in results)


def is_committed(store: Store, shard: int) -> bool:
    """Whether the shard is done."""
    return store.version(names.shard_results(shard)) is not None


def read_committed(store: Store, shard: int) -> dict[Place, Result] | None:
    """All results of a shard that is done, None where it is not."""
    text = store.read(names.shard_results(shard))
    if text is None:
        return None
    found = _read([text])
    if any(result.object is None for result in found.values()):
        # Another Pod that worked on this index may have stored and recorded those.
        return _read([text, encode(read_parts(store, shard).values())])
    return found


def read_parts(store: Store, shard: int) -> dict[Place, Result]:
    """The union of a shard's parts, whichever Pods wrote them; a success wins."""
    parts = (store.read(path) for path in store.list(names.shard_parts(shard)))
    return _read(part for part in parts if part is not None)


def _read(texts: Iterable[bytes]) -> dict[Place, Result]:
    found: dict[Place, Result] = {}
    for text in texts:
        for result in _decoder.decode_lines(text):
            known = found.get(result.place)
            if known is None or known.object is None:
                found[result.place] = result
    return found
