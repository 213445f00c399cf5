"""How a container's memory is shared out, whatever its size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from imageprocessing_worker.limits import share

MIB = 1 << 20
WORKER = 256 * MIB
"""For the worker itself."""


@given(st.integers(512 * MIB, 1 << 42), st.integers(1, 256))
def test_the_parts_are_never_more_than_the_whole(memory: int, processors: int) -> None:
    shares = share(memory, processors)
    assert shares.bodies + shares.codec + WORKER <= memory
    assert 1 <= shares.children <= processors
    assert shares.children == 1 or shares.codec // shares.children >= 256 * MIB
    assert shares.bodies >= 64 * MIB


def test_the_default_of_the_chart() -> None:
    """2,560 MiB: the same on any machine, and enough for 50 megapixels in each format."""
    assert share(2560 * MIB, 2) == (256 * MIB, 2048 * MIB, 2)
    assert share(2560 * MIB, 64) == (256 * MIB, 2048 * MIB, 8)


def test_a_large_machine_without_a_limit() -> None:
    assert share(1 << 40, 4) == (256 * MIB, 8192 * MIB, 4)


def test_a_container_that_is_too_small_tries() -> None:
    assert share(64 * MIB, 2) == (8 * MIB, 128 * MIB, 1)
