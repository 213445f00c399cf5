"""What a shard has to do: each URL once, with every place where it stands."""

from __future__ import annotations

from collections.abc import Container

import msgspec

from imageprocessing_worker.http_get import RefusedError, as_it_came
from imageprocessing_worker.plan import Plan, read_rows
from imageprocessing_worker.results import Place
from imageprocessing_worker.stores import Store


# There may be 100,000 of both, and they refer to nothing that refers to them.
class Image(msgspec.Struct, frozen=True, gc=False):
    """One place in the catalogue where a URL stands."""

    line: int
    position: int
    serial: str
    product: str


class Work(msgspec.Struct, frozen=True, gc=False):
    """One URL and every place where it stands: it is downloaded once."""

    url: str
    images: list[Image]


def read_work(store: Store, plan: Plan, index: int, done: Container[Place]) -> list[Work]:
    """What of a shard is not done, in the catalogue's order; raises StoreError."""
    work: dict[str, Work] = {}
    for row in read_rows(store, plan, index):
        serial = row.cells[plan.header.serial].strip()
        product = row.cells[plan.header.product]
        for position, url in enumerate(row.urls):
            if (row.line, position) not in done:
                image = Image(row.line, position, serial, product)
                work.setdefault(url, Work(url, [])).images.append(image)
    return list(work.values())


def host_of(url: str) -> str:
    """The host and port that a URL leads to: the same for all its spellings.

    Empty for a URL that is refused, and leads nowhere.
    """
    try:
        found = as_it_came(url)
        return f"{(found.raw_host or '').lower().rstrip('.')}:{found.port}"
    except (RefusedError, ValueError):  # ValueError: yarl's, for what is no URL
        return ""
