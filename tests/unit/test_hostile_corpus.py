"""Ten thousand damaged files through the real codec: each is an image or a named refusal."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_contract.request import Compression
from imageprocessing_worker import formats
from imageprocessing_worker.children import Codec
from imageprocessing_worker.codec import Encoded, Refused

from tests import hostile
from tests.codec import MAX_PIXELS, compression
from tests.unit.memory import children_used, forget_peak, peak

SEED = 4
CASES = 10_400
CHILDREN = 2
MEMORY = 512 << 20
"""Of all children; no file here needs more than a part of it."""
PATIENCE = 20.0
"""Seconds for one image: thousands of times what each takes."""

SETTINGS: dict[str, Compression] = {
    "JPEG": compression(),
    "Original": compression("Original", metadata="Keep"),
    "small originals": compression("Original", max_width=20),
    "WebP": compression("WebP", max_width=50, metadata="Keep"),
}
# What a file alone can be refused for.
NAMED = {
    ImageReason.CORRUPT_IMAGE,
    ImageReason.DECODE_OUT_OF_MEMORY,
    ImageReason.EMPTY_RESPONSE,
    ImageReason.FORMAT_NOT_SUPPORTED,
    ImageReason.NOT_AN_IMAGE,
    ImageReason.TOO_MANY_PIXELS,
    ImageReason.TOO_MANY_SCANS,
}


def check(result: Encoded | Refused, story: str) -> str:
    if isinstance(result, Refused):
        assert result.reason in NAMED, f"{result}\n{story}"
        assert len(result.message) < 250
        return str(result.reason)
    assert result.width > 0
    assert result.height > 0
    # What is stored must be what it is called.
    assert formats.FILES[formats.recognise(result.data)] == (result.extension, result.content_type)
    return "image"


async def run(first: int, count: int, settings: Compression) -> Counter[str]:
    """Each case in turn, two at a time, with what became of them."""
    outcomes: Counter[str] = Counter()
    numbers = iter(range(first, first + count))

    async def work(pool: Codec) -> None:
        for number in numbers:
            case = hostile.case(SEED, number)
            outcomes[check(await pool.compress(case.data), case.story)] += 1

    pool = Codec(settings, MAX_PIXELS, children=CHILDREN, memory_limit=MEMORY, time_limit=PATIENCE)
    async with pool, asyncio.TaskGroup() as group:
        for _ in range(CHILDREN):
            group.create_task(work(pool))
    return outcomes


async def corpus(first: int, cases: int) -> None:
    hostile.sources()
    forget_peak()
    before = peak()
    count = cases // len(SETTINGS)
    with children_used() as used:
        for number, (name, chosen) in enumerate(SETTINGS.items()):
            outcomes = await run(first + number * count, count, chosen)
            print(f"{name}: {dict(outcomes.most_common())}")  # noqa: T201 - figures to report
            # The files are not so broken that nothing is tested but the first bytes.
            assert outcomes["image"] > count // 8
            assert outcomes["CorruptImage"] > count // 8
            assert outcomes["DecodeOutOfMemory"] < count // 50
    most, grown = max(used), peak() - before
    print(f"children {most >> 20} MiB, parent {grown >> 20} MiB more")  # noqa: T201
    assert most < MEMORY
    assert grown < 64 << 20


async def test_ten_thousand_damaged_files() -> None:
    await corpus(0, CASES)


@pytest.mark.long
async def test_half_a_million_damaged_files() -> None:
    await corpus(CASES, 500_000)


@pytest.fixture(scope="module")
def codec() -> Iterator[tuple[asyncio.Runner, Codec]]:
    with asyncio.Runner() as runner:
        pool = Codec(
            SETTINGS["Original"], MAX_PIXELS, children=1, memory_limit=MEMORY, time_limit=PATIENCE
        )
        runner.run(pool.__aenter__())
        yield runner, pool
        runner.run(pool.__aexit__(None, None, None))


EDITS = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(0, 40), st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(st.sampled_from(sorted(hostile.sources())), EDITS, st.booleans())
def test_whatever_is_put_in_place_of_whatever(
    codec: tuple[asyncio.Runner, Codec],
    source: str,
    edits: list[tuple[int, int, bytes]],
    sums: bool,
) -> None:
    data = hostile.sources()[source]
    for at, gone, new in edits:
        data = data[:at] + new + data[at + gone :]
    if sums and source.startswith("PNG"):
        data = hostile.with_checksums(data)
    runner, pool = codec
    check(runner.run(pool.compress(data)), source)
