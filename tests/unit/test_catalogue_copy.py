import pytest
from imageprocessing_contract.reasons import RowReason
from imageprocessing_worker import catalogue_copy
from imageprocessing_worker.catalogue import Problem, Row

A, B = "http://a.example/1.jpg", "http://b.example/ü,2.jpg"
ROWS = [
    Row(2, ["1", "x\n\r\n\0\u2028\"'", f" {A} ,{B}"], [A, B]),
    Row(5, ["", "🥣" * 1000, A], [], Problem(RowReason.EMPTY_SERIAL_NUMBER, "line 5: é")),
    Row(6, ["3", "x", A], [A]),
]


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_rows_come_back_from_chunks_of_any_size(size: int) -> None:
    data = b"".join(map(catalogue_copy.encode, ROWS))
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    assert list(catalogue_copy.decode(chunks, 2)) == ROWS
    assert data.count(b"\n") == len(ROWS)
