import tracemalloc

import pytest
from imageprocessing_worker import serials
from imageprocessing_worker.serials import SerialNumbers


def test_the_first_line_of_a_serial_number() -> None:
    seen = SerialNumbers()
    numbers = [str(n) for n in range(20_000)] + ["é" * 500_000, "\0", "2" * 40, "2" * 41]
    assert [seen.first_line(number, 10**9 + n) for n, number in enumerate(numbers)] == [None] * len(
        numbers
    )
    # The first line stays, whatever came since.
    for _ in range(2):
        again = [seen.first_line(number, 7) for number in numbers]
        assert again == list(range(10**9, 10**9 + len(numbers)))


def test_a_hash_across_two_entries_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry's line and the next one's hash may look like the hash of another number."""
    line = int.from_bytes(b"\0\0abc")
    hashes = {
        "one": b"\0\0" + b"x" * 14,
        "two": b"\0\0" + b"y" * 14,
        "across": line.to_bytes(5) + b"\0\0" + b"y" * 9,
    }

    class Hash:
        def __init__(self, data: bytes, *, digest_size: int) -> None:
            self._hash = hashes[data.decode()]
            assert len(self._hash) == digest_size

        def digest(self) -> bytes:
            return self._hash

    monkeypatch.setattr(serials, "blake2b", Hash)
    seen = SerialNumbers()
    assert [seen.first_line("one", line), seen.first_line("two", 2)] == [None, None]
    assert seen.first_line("across", 3) is None
    assert seen.first_line("across", 4) == 3


@pytest.mark.parametrize("length", [8, 200])
def test_serial_numbers_of_any_length_take_little_memory(length: int) -> None:
    count = 100_000
    seen = SerialNumbers()
    tracemalloc.start()
    try:
        for n in range(count):
            seen.first_line(f"{n:0{length}d}", n)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A third of it are the buckets themselves, whose number does not grow.
    assert used < 48 * count
