"""The few images that the report shows before and after: those with the lowest hash of their URL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice

import msgspec
from imageprocessing_contract import names

from imageprocessing_worker.stores import Store

EXPECTED = 12
"""Images of a request that crops are made of, in the mean: each is chosen by itself, from its
URL and the plan alone, so that a shard that is done again chooses the same ones. Fewer than
four of twelve are chosen in one of 400 requests."""
SHOWN = 8


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """samples/<hash>.json: one image with its crops, JPEG files; sizes in bytes and pixels."""

    url: str
    product: str
    original: int
    compressed: int
    unchanged: bool
    width: int
    height: int
    before: bytes
    after: bytes


def is_chosen(url: str, images: int) -> bool:
    """Whether crops are made of it, in a request of so many images."""
    low = int.from_bytes(hashlib.sha256(url.encode()).digest()[:8])
    return low * images < EXPECTED << 64


def encode(sample: Sample) -> bytes:
    """Its file."""
    return msgspec.json.encode(sample)


def read_shown(store: Store) -> Iterator[Sample]:
    """The lowest of all that there are; raises StoreError as they are read.

    One that this worker cannot read, of another version, is no reason to have no report.
    """
    found = (_decode(store.read(path)) for path in store.list(names.SAMPLES))
    return islice((sample for sample in found if sample is not None), SHOWN)


def _decode(text: bytes | None) -> Sample | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=Sample)
    except msgspec.DecodeError:
        return None
