"""What a shard has to do: each URL once, with every place where it stands."""

from __future__ import annotations

from collections.abc import Container
from typing import NewType

import msgspec

from imageprocessing_worker.http_get import RefusedError, as_it_came
from imageprocessing_worker.plan import Plan, read_rows
from imageprocessing_worker.results import Place
from imageprocessing_worker.stores import Store


class Image(msgspec.Struct, frozen=True, array_like=True):
    """One place in the catalogue where a URL stands."""

    line: int
    position: int
    serial: str
    product: str


class Work(msgspec.Struct, frozen=True, array_like=True):
    """One URL and every place where it stands: it is downloaded once."""

    url: str
    images: list[Image]


Packed = NewType("Packed", bytes)
"""Work in 150 bytes in place of 460: a shard may have 100,000 of it waiting."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Work)


def unpack(work: Packed) -> Work:
    """What read_work() has packed."""
    return _decoder.decode(work)


def read_work(store: Store, plan: Plan, index: int, done: Container[Place]) -> list[Packed]:
    """What of a shard is not done, in the catalogue's order; raises StoreError."""
    packed: list[Packed] = []
    numbers: dict[str, int] = {}
    repeated: dict[int, Work] = {}
    for row in read_rows(store, plan, index):
        serial = row.cells[plan.header.serial].strip()
        product = row.cells[plan.header.product]
        for position, url in enumerate(row.urls):
            if (row.line, position) in done:
                continue
            image = Image(row.line, position, serial, product)
            number = numbers.setdefault(url, len(packed))
            if number == len(packed):
                packed.append(_pack(Work(url, [image])))
            else:
                if number not in repeated:
                    repeated[number] = unpack(packed[number])
                repeated[number].images.append(image)
    for number, work in repeated.items():
        packed[number] = _pack(work)
    return packed


def _pack(work: Work) -> Packed:
    return Packed(_encoder.encode(work))


def host_of(url: str) -> str:
    """The host and port that a URL leads to: the same for all its spellings.

    Empty for a URL that is refused, and leads nowhere.
    """
    try:
        found = as_it_came(url)
        return f"{(found.raw_host or '').lower().rstrip('.')}:{found.port}"
    except (RefusedError, ValueError):  # ValueError: yarl's, for what is no URL
        return ""
