"""What became of each image, and how that survives a crash.

While a shard runs, its results lie in immutable parts; results/<i>.jsonl, written
last and only once, is the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from imageprocessing_contract import names

from imageprocessing_worker.stores import Store

Place = tuple[int, int]
"""A row's line in the source, and the position of a URL in its list, from 0."""


class Made(msgspec.Struct, frozen=True, array_like=True):
    """A variant that is stored: its width in pixels, its size in bytes."""

    width: int
    compressed: int


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
    milliseconds: int = msgspec.field(default=0, name="ms")
    """Of the last attempt to fetch it; 0 where there was none, or at another place of its URL."""
    variants: tuple[Made, ...] = ()
    """Of a width for which there is none, the image itself is no wider, or takes fewer bytes."""

    @property
    def place(self) -> Place:
        """Where the image stands in the catalogue."""
        return (self.line, self.position)


def output_urls(store: Store, result: Result, widths: Sequence[int]) -> list[str]:
    """Where the image is found, and then its variants, one for each of the widths.

    Empty strings where it failed.
    """
    image = "" if result.object is None else store.url(result.object)
    if not widths:  # the rest would be a twentieth of what finalize takes for an image
        return [image]
    made = {one.width for one in result.variants}
    return [image, *(names.variant_of(image, n) if n in made else image for n in widths)]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Result)
_BLOCK = 1 << 16


def encode(results: Iterable[Result]) -> bytes:
    """JSON lines."""
    return _encoder.encode_lines(results)


class _Placed(msgspec.Struct, gc=False):
    line: int
    position: int


_place = msgspec.json.Decoder(_Placed)


def in_order(texts: list[bytes]) -> bytes:
    """The lines of several texts by encode(), in the catalogue's order; empties the list."""
    lines: list[bytes] = []
    while texts:  # each is freed: a shard may have 17 MB of them
        lines += texts.pop().splitlines(keepends=True)
    lines.sort(key=_place_of)
    return b"".join(lines)


def _place_of(line: bytes) -> Place:
    found = _place.decode(line)
    return found.line, found.position


def is_committed(store: Store, shard: int) -> bool:
    """Whether the shard is done."""
    return store.version(names.shard_results(shard)) is not None


def committed(store: Store, shard: int) -> Iterator[Result] | None:
    """All results of a shard that is done, in the catalogue's order, None where it is not."""
    text = store.read(names.shard_results(shard))
    if text is None:
        return None
    # Another Pod that worked on this index may have stored and recorded what failed here.
    failed = {result.place for result in _decode(text) if result.object is None}
    better = {
        result.place: result
        for part in (_parts(store, shard) if failed else ())
        for result in _decode(part)
        if result.object is not None and result.place in failed
    }
    return (better.get(result.place, result) for result in _decode(text))


def read_parts(store: Store, shard: int) -> dict[Place, Result]:
    """The union of a shard's parts, whichever Pods wrote them; a success wins."""
    found: dict[Place, Result] = {}
    for part in _parts(store, shard):
        for result in _decode(part):
            known = found.get(result.place)
            if known is None or known.object is None:
                found[result.place] = result
    return found


def _parts(store: Store, shard: int) -> Iterator[bytes]:
    for path in store.list(names.shard_parts(shard)):
        part = store.read(path)
        if part is not None:
            yield part


def _decode(text: bytes) -> Iterator[Result]:
    """The results of JSON lines; a shard may have 100,000, which take 50 MB all at once."""
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + _BLOCK) + 1 or len(text)
        yield from _decoder.decode_lines(text[start:end])
        start = end
