import gzip
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from imageprocessing_contract.guard import Guard
from imageprocessing_contract.reasons import RowReason
from imageprocessing_worker.catalogue import MAX_RECORD, Catalogue, Dialect, Row
from imageprocessing_worker.lines import CatalogueError

GUARD = Guard()
HEADER = b"Serial Number,Product Name,Input Image Urls\n"
A, B = "http://a.example/1.jpg", "https://b.example/2.jpg"
CLOUDINARY = "https://res.example/w_300,h_200,c_fill/v1/a,b.jpg"


def read(data: bytes, size: int = 1 << 18) -> tuple[Catalogue, list[Row]]:
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    catalogue = Catalogue(chunks, GUARD)
    return catalogue, list(catalogue.rows())


def rows(text: str | bytes, header: bytes = HEADER) -> list[Row]:
    return read(header + (text.encode() if isinstance(text, str) else text))[1]


def refused(data: bytes) -> CatalogueError:
    with pytest.raises(CatalogueError) as caught:
        read(data)
    assert caught.value.message.count("\n") == 0
    return caught.value


# What is fine: the rows of a file, and the URLs of each.
READ = {
    "plain": (f"1,x,{A}\n2,y,{B}\n", [[A], [B]]),
    "no newline at the end": (f"1,x,{A}", [[A]]),
    "a quoted list": (f'1,x,"{A},{B}"\n', [[A, B]]),
    "a quoted list with spaces": (f'1,x," {A} , {B} "\n', [[A, B]]),
    "an unquoted list": (f"1,x,{A},{B},{A}\n", [[A, B, A]]),
    "an unquoted list with spaces": (f"1,x, {A}, {B}\n", [[A, B]]),
    "an unquoted list with upper case": (f"1,x,HTTP{A[4:]},{B}\n", [["HTTP" + A[4:], B]]),
    "commas in URLs": (f'1,x,"{CLOUDINARY},{CLOUDINARY}"\n', [[CLOUDINARY, CLOUDINARY]]),
    "commas in unquoted URLs": (f"1,x,{CLOUDINARY},{A}\n", [[CLOUDINARY, A]]),
    "what cannot be seen around URLs": (
        f'1,x,"\u200b{A}\u00a0,\u200b{B}\u200b"\n2,x,\ufeff{A}\u202f\n',
        [[A, B], [A]],
    ),
    "URLs in URLs": (f"1,x,{A}/{B}\n2,y,{A}?u={B}&v=1\n", [[f"{A}/{B}"], [f"{A}?u={B}&v=1"]]),
    "empty pieces": (f'1,x,",{A},,{B},"\n', [[A, B]]),
    "a list over several lines": (f'1,x,"{A},\n{B}"\n', [[A, B]]),
    "quotes in a name": (f'1,"a ""b"", c",{A}\n', [[A]]),
    "blank lines": (f"\n1,x,{A}\n\n  \n,,\n2,y,{B}\n\n", [[A], [B]]),
    "CRLF in a line only": (f"1,x,{A}\r\n2,y,{B}\n", [[A], [B]]),
    "a carriage return within quotes": (f'1,"x\ry",{A}\n', [[A]]),
    "empty cells too many": (f"1,x,{A},,\n", [[A]]),
    "too many in an empty line": (f",,,,\n1,x,{A}\n", [[A]]),
}


@pytest.mark.parametrize(("text", "urls"), READ.values(), ids=READ)
def test_what_is_read(text: str, urls: list[list[str]]) -> None:
    found = rows(text)
    assert [row.problem for row in found] == [None] * len(urls)
    assert [row.urls for row in found] == urls


WITHOUT_COMMA = "line 2, URL 1: another URL follows in it; separate the URLs of a list by commas"
FOUR_CELLS = (
    "line 2 has 4 cells, the header has 3: "
    "quote cells that contain the separator, without a space before the quote"
)
# A row that is invalid: its reason, what its message says, in which line it begins.
PROBLEMS = {
    "serial": (f",x,{A}", RowReason.EMPTY_SERIAL_NUMBER, "line 2 has no serial number"),
    "blank serial": (f" \t,x,{A}", RowReason.EMPTY_SERIAL_NUMBER, "line 2 has no serial number"),
    "name": (f"1,,{A}", RowReason.EMPTY_PRODUCT_NAME, "line 2 has no product name"),
    "blank name": (f"1, ,{A}", RowReason.EMPTY_PRODUCT_NAME, "line 2 has no product name"),
    "no URL": ("1,x,", RowReason.NO_URLS, "line 2 has no image URL"),
    "only commas": ('1,x,", ,"', RowReason.NO_URLS, "line 2 has no image URL"),
    "scheme": (
        "1,x,ftp://a.example/1.jpg",
        RowReason.INVALID_URL,
        "line 2, URL 1: the URL does not begin with http:// or https://",
    ),
    "no scheme": (
        "1,x,a.example/1.jpg",
        RowReason.INVALID_URL,
        "line 2, URL 1: the URL does not begin with http:// or https://",
    ),
    "another scheme in a list": (
        f'1,x,"{A},ftp://a.example/1.jpg,{B}"',
        RowReason.INVALID_URL,
        "line 2, URL 2: the URL does not begin with http:// or https://",
    ),
    "host": ("1,x,http:///1.jpg", RowReason.INVALID_URL, "line 2, URL 1: the URL has no host"),
    "user": (
        "1,x,http://me:s3cret@a.example/1.jpg",
        RowReason.INVALID_URL,
        "line 2, URL 1: the URL contains a user name or a password",
    ),
    "space": (
        "1,x,http://a.example/a b.jpg",
        RowReason.INVALID_URL,
        "line 2, URL 1: the URL contains a space or a control character; a space is written %20",
    ),
    "newline between URLs": (f'1,x,"{A}\n{B}"', RowReason.INVALID_URL, WITHOUT_COMMA),
    "space between URLs": (f"1,x,{A} {B}", RowReason.INVALID_URL, WITHOUT_COMMA),
    "semicolon between URLs": (f"1,x,{A};{B}", RowReason.INVALID_URL, WITHOUT_COMMA),
    "bar between URLs": (f"1,x,{A} | {B}", RowReason.INVALID_URL, WITHOUT_COMMA),
    "another comma between URLs": (f"1,x,{A}，{B}", RowReason.INVALID_URL, WITHOUT_COMMA),
    "no scheme in a list": (
        f'1,x,"{A},//a.example/1.jpg"',
        RowReason.INVALID_URL,
        "line 2, URL 2: the URL does not begin with http:// or https://",
    ),
    "HTML": (
        "1,x,http://a.example/?w=1&amp;h=2",
        RowReason.INVALID_URL,
        "line 2, URL 1: the URL contains &amp;, which is HTML for &; write & alone",
    ),
    "a private address": (
        "1,x,http://10.0.0.1/1.jpg",
        RowReason.INVALID_URL,
        "line 2, URL 1: not a public address: 10.0.0.0/8 is Private-Use (RFC1918)",
    ),
    "two cells of three": (
        "1,x",
        RowReason.MISSING_CELL,
        "line 2 has 2 cells, the header has 3",
    ),
    "one cell of three": ("1", RowReason.MISSING_CELL, "line 2 has 1 cells, the header has 3"),
    "four cells of three": (
        "1,x,y,z",
        RowReason.TOO_MANY_CELLS,
        FOUR_CELLS,
    ),
    "a space before the quote": (f'1, "x, y",{A}', RowReason.TOO_MANY_CELLS, FOUR_CELLS),
    "a name with a comma": (
        f"1,x, y,{A}",
        RowReason.TOO_MANY_CELLS,
        FOUR_CELLS,
    ),
}


@pytest.mark.parametrize(("text", "reason", "message"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_row_that_is_invalid(text: str, reason: RowReason, message: str) -> None:
    bad, good = rows(f"{text}\n9,y,{B}\n")
    assert bad.problem is not None
    assert (bad.line, bad.problem.reason, bad.problem.message) == (2, reason, message)
    assert bad.urls == []
    assert len(bad.cells) == 3
    assert good.problem is None


def test_a_serial_number_may_not_repeat() -> None:
    found = rows(f'1,x,{A}\n2,"y\ny",{A}\n 2 ,z,{A}\n1,w,{A}\n3,v,{A}\n')
    assert [row.line for row in found] == [2, 3, 5, 6, 7]
    assert [row.problem and row.problem.message for row in found] == [
        None,
        None,
        "line 5 repeats the serial number '2' of line 3",
        "line 6 repeats the serial number '1' of line 2",
        None,
    ]


def test_empty_cells_too_many_are_dropped() -> None:
    catalogue, (row,) = read(f"Serial Number;Product Name;Input Image Urls\n1;x;{A};;\n".encode())
    assert catalogue.header.columns[-1] == "Input Image Urls"
    assert (row.cells, row.problem) == (["1", "x", A], None)


def test_the_row_that_an_invalid_row_repeats_is_still_the_first() -> None:
    first, second = rows(f"1,,{A}\n1,x,{A}\n")
    assert first.problem is not None
    assert second.problem is not None
    assert second.problem.reason is RowReason.DUPLICATE_SERIAL_NUMBER


def test_cells_are_kept_as_they_came() -> None:
    (row,) = rows(f'" 1 ","a ""b"",\r\nc", {A} \n')
    assert row.cells == [" 1 ", 'a "b",\r\nc', f" {A} "]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("size", [1, 1 << 18])
def test_forms(delimiter: str, newline: str, mark: bytes, size: int) -> None:
    urls = f'"{A},{B}"' if delimiter == "," else f"{A},{B}"
    table = [["Serial Number", "Product Name", "Input Image Urls"], ["1", "Müsli 🥣", urls]]
    text = newline.join(delimiter.join(line) for line in table) + newline
    catalogue, (row,) = read(mark + text.encode(), size)
    assert catalogue.dialect == Dialect(delimiter, newline, bool(mark))
    assert catalogue.header.columns == table[0]
    assert (row.cells[1], row.urls) == ("Müsli 🥣", [A, B])


# Headers: what is kept of them, and of the row below.
HEADERS = {
    "extra columns": (
        f"Id,Serial Number,Product Name,Input Image Urls,Note\n7,1,x,{A},n\n",
        ["Id", "Serial Number", "Product Name", "Input Image Urls", "Note"],
        ["7", "1", "x", A, "n"],
    ),
    "an unquoted list before an extra column": (
        f"Serial Number,Product Name,Input Image Urls,Note\n1,x,{A},{B},n\n",
        ["Serial Number", "Product Name", "Input Image Urls", "Note"],
        ["1", "x", f"{A},{B}", "n"],
    ),
    "an extra column that is not there": (
        f"Serial Number,Product Name,Input Image Urls,Note\n1,x,{A}\n",
        ["Serial Number", "Product Name", "Input Image Urls", "Note"],
        ["1", "x", A, ""],
    ),
    "another order": (
        f"Input Image Urls,Product Name,Serial Number\n{A},x,1\n",
        ["Input Image Urls", "Product Name", "Serial Number"],
        [A, "x", "1"],
    ),
    "an unquoted list in front": (
        f"Input Image Urls,Product Name,Serial Number\n{A},{B},x,1\n",
        ["Input Image Urls", "Product Name", "Serial Number"],
        [f"{A},{B}", "x", "1"],
    ),
    "columns that are replaced": (
        "Output Image Urls,Serial Number,Reason,Product Name,Input Image Urls\n"
        f"old,1,why,x,{A},{B}\n",
        ["Serial Number", "Product Name", "Input Image Urls"],
        ["1", "x", f"{A},{B}"],
    ),
    "case and spaces": (
        f" serial number ,PRODUCT NAME,Input image URLs,output image urls\n1,x,{A},old\n",
        [" serial number ", "PRODUCT NAME", "Input image URLs"],
        ["1", "x", A],
    ),
    "spaces that look alike, and what cannot be seen": (
        "\ufeff\ufeffSerial\u00a0Number,Product  Name,Input Image\u202fUrls\u200b,Output\u00a0Image Urls\n"
        f"1,x,{A},old\n",
        ["\ufeffSerial\u00a0Number", "Product  Name", "Input Image\u202fUrls\u200b"],
        ["1", "x", A],
    ),
    "names like those of JSON and XML": (
        f"[<id>],Serial Number,Product Name,Input Image Urls,{{x}}\n7,1,x,{A},n\n",
        ["[<id>]", "Serial Number", "Product Name", "Input Image Urls", "{x}"],
        ["7", "1", "x", A, "n"],
    ),
    "a quoted newline": (
        f'Serial Number,"Product Name","Input Image Urls","Note\nof ours"\n1,x,{A},n\n',
        ["Serial Number", "Product Name", "Input Image Urls", "Note\nof ours"],
        ["1", "x", A, "n"],
    ),
    "a line for Excel above": (
        f'"sep=;"\r\nSerial Number;Product Name;Input Image Urls\r\n1;x;{A}\r\n',
        ["Serial Number", "Product Name", "Input Image Urls"],
        ["1", "x", A],
    ),
    "such a line without quotes": (
        f"SEP=,\nSerial Number,Product Name,Input Image Urls\n1,x,{A}\n",
        ["Serial Number", "Product Name", "Input Image Urls"],
        ["1", "x", A],
    ),
    "such a line with a tab": (
        f"sep=\t\nSerial Number\tProduct Name\tInput Image Urls\n1\tx\t{A}\n",
        ["Serial Number", "Product Name", "Input Image Urls"],
        ["1", "x", A],
    ),
    "blank lines above": (
        f"\n\r\nSerial Number,Product Name,Input Image Urls\n1,x,{A}\n",
        ["Serial Number", "Product Name", "Input Image Urls"],
        ["1", "x", A],
    ),
}


@pytest.mark.parametrize(("text", "columns", "cells"), HEADERS.values(), ids=HEADERS)
def test_headers(text: str, columns: list[str], cells: list[str]) -> None:
    catalogue, (row,) = read(text.encode())
    assert catalogue.header.columns == columns
    assert row.cells == cells
    assert row.problem is None
    assert row.line == text.count("\n")
    header = catalogue.header
    places = header.serial, header.product, header.urls
    known = [re.sub("[^a-z]", "", columns[i].lower()) for i in places]
    assert known == ["serialnumber", "productname", "inputimageurls"]


# Lists of which a spreadsheet made a cell for each URL, under columns without a name.
SPREAD = {
    "two": (f"1;x;{A};{B};;n", [A, B]),
    "three": (f"1;x;{A};{B};{A};n", [A, B, A]),
    "with a gap": (f"1;x;{A};;{B};n", [A, B]),
    "none in the first": (f"1;x;;{A};{B};n", [A, B]),
    "one": (f"1;x;{A};;;n", [A]),
    "one as it should be": (f"1;x;{A},{B};;;n", [A, B]),
}


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize(("text", "urls"), SPREAD.values(), ids=SPREAD)
def test_a_list_that_was_spread_over_cells(text: str, urls: list[str], delimiter: str) -> None:
    if delimiter == ",":
        text = text.replace(f"{A},{B}", f'"{A},{B}"').replace(";", ",")
    header = delimiter.join(["Serial Number", "Product Name", "Input Image Urls", "", " ", "Note"])
    catalogue, (row,) = read(f"{header}\n{text}\n".encode())
    assert (row.problem, row.urls) == (None, urls)
    assert catalogue.header.columns == header.split(delimiter)
    assert row.cells == ["1", "x", ",".join(urls), "", "", "n"]


def test_a_list_that_was_spread_and_has_commas() -> None:
    header = b"Serial Number,Product Name,Input Image Urls,,,,,,\n"
    (row,) = rows(f"1,x,{CLOUDINARY},{A},,\n", header)
    assert (row.problem, row.urls, len(row.cells)) == (None, [CLOUDINARY, A], 9)


def test_notes_under_columns_without_a_name_stay() -> None:
    header = b"Serial Number,Product Name,Input Image Urls,,\n"
    (row,) = rows(f"1,x,{A},check this,see http://b\n", header)
    assert (row.urls, row.cells) == ([A], ["1", "x", A, "check this", "see http://b"])


# A file that cannot be read as a whole.
REFUSED = {
    "empty": (b"", 1, RowReason.NO_ROWS, "the catalogue is empty"),
    "blank": (b"\n \n\r\n", 1, RowReason.NO_ROWS, "the catalogue is empty"),
    "only a header": (
        b"Serial Number,Product Name,Input Image Urls\n \n",
        1,
        RowReason.NO_ROWS,
        "the catalogue has a header and no rows",
    ),
    "only a mark": (b"\xef\xbb\xbf", 1, RowReason.NO_ROWS, "the catalogue is empty"),
    "missing column": (
        b"Serial Number,Product,Input Image Urls\n",
        1,
        RowReason.MISSING_COLUMN,
        "line 1: the column 'Product Name' is missing; "
        "the header has: Serial Number, Product, Input Image Urls",
    ),
    "another separator": (
        b"Serial Number|Product Name|Input Image Urls\n",
        1,
        RowReason.MISSING_COLUMN,
        "line 1: the column 'Input Image Urls' is missing; cells are separated by commas, "
        "semicolons or tabs; the header has: Serial Number|Product Name|Input Image Urls",
    ),
    "missing column below blank lines": (
        b"\n\nSerial Number,Input Image Urls\n",
        3,
        RowReason.MISSING_COLUMN,
        "line 3: the column 'Product Name' is missing; "
        "the header has: Serial Number, Input Image Urls",
    ),
    "no header": (
        b"1,x,https://me:s3cret@a.example/1.jpg?sig=s3cret\n",
        1,
        RowReason.MISSING_COLUMN,
        "line 1: the column 'Input Image Urls' is missing; the header has: 1, x, https://…",
    ),
    "duplicate column": (
        b"Serial Number,Product Name,Input Image Urls,product name\n",
        1,
        RowReason.DUPLICATE_COLUMN,
        "line 1: the column 'Product Name' is there 2 times",
    ),
    "Latin-1": (
        HEADER + b"1,M\xfcsli,http://a.example/\n",
        2,
        RowReason.NOT_UTF8,
        "line 2 is not UTF-8: byte 0xfc at column 4; save the catalogue as UTF-8",
    ),
    "a cut character": (
        HEADER + b"1,x,http://a.example/\xe2\x82",
        2,
        RowReason.NOT_UTF8,
        "line 2 is not UTF-8: byte 0xe2 at column 22; save the catalogue as UTF-8",
    ),
    "Latin-1 in a later line of a record": (
        HEADER + b'1,"x\n\xfc",http://a.example/\n',
        3,
        RowReason.NOT_UTF8,
        "line 3 is not UTF-8: byte 0xfc at column 1; save the catalogue as UTF-8",
    ),
    "UTF-16 LE with a mark": (
        HEADER.decode().encode("utf-16"),
        1,
        RowReason.NOT_UTF8,
        "the catalogue is UTF-16; save it as UTF-8",
    ),
    "UTF-16 BE": (
        HEADER.decode().encode("utf-16-be"),
        1,
        RowReason.NOT_UTF8,
        "the catalogue is UTF-16; save it as UTF-8",
    ),
    "UTF-16 LE": (
        HEADER.decode().encode("utf-16-le"),
        1,
        RowReason.NOT_UTF8,
        "the catalogue is UTF-16; save it as UTF-8",
    ),
    "xlsx": (
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00" + b"\xff\x00" * 50,
        1,
        RowReason.NOT_CSV,
        "the catalogue is a workbook (.xlsx, .ods) or another ZIP file; export it as CSV UTF-8",
    ),
    "xls": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 50,
        1,
        RowReason.NOT_CSV,
        "the catalogue is an Excel workbook (.xls); export it as CSV UTF-8",
    ),
    "gzip": (
        gzip.compress(HEADER),
        1,
        RowReason.NOT_CSV,
        "the catalogue is a gzip file; unpack it",
    ),
    "PDF": (b"%PDF-1.7\n%", 1, RowReason.NOT_CSV, "the catalogue is a PDF"),
    "JSON": (b'\n[\n  {"Serial Number": 1}]', 1, RowReason.NOT_CSV, "the catalogue is JSON"),
    "a web page": (
        b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><title>Sign in</title>",
        1,
        RowReason.NOT_CSV,
        "the catalogue is a web page or XML; take the address that downloads the CSV",
    ),
    "an unclosed quote": (
        HEADER + b'1,x,http://a.example/\n2,"y,http://a.example/\n3,z,http://a.example/\n',
        3,
        RowReason.MALFORMED_RECORD,
        "line 3: unexpected end of data; check the quotes of this record",
    ),
    "an unclosed quote that swallows the next": (
        HEADER + b'1,"x,http://a.example/\n2,"y",http://a.example/\n',
        2,
        RowReason.MALFORMED_RECORD,
        "line 2: ',' expected after '\"'; check the quotes of this record",
    ),
    "an unclosed quote in the header": (
        b'Serial Number,"Product Name,Input Image Urls\n1,x,http://a.example/\n',
        1,
        RowReason.MALFORMED_RECORD,
        "line 1: unexpected end of data; check the quotes of this record",
    ),
    "a bare carriage return": (
        HEADER + b"1,x\ry,http://a.example/\n",
        2,
        RowReason.MALFORMED_RECORD,
        "line 2: a carriage return without a line feed; end lines with LF or CRLF",
    ),
    "carriage returns as line ends": (
        HEADER.replace(b"\n", b"\r") + b"1,x,http://a.example/\r",
        1,
        RowReason.MALFORMED_RECORD,
        "line 1: a carriage return without a line feed; end lines with LF or CRLF",
    ),
}


@pytest.mark.parametrize(("data", "line", "reason", "message"), REFUSED.values(), ids=REFUSED)
def test_a_catalogue_that_cannot_be_read(
    data: bytes, line: int, reason: RowReason, message: str
) -> None:
    found = refused(data)
    assert (found.line, found.reason, found.message) == (line, reason, message)


def test_a_line_of_the_header_in_the_message_is_short() -> None:
    columns = [f"Column {n} {'long ' * 20}" for n in range(1000)]
    assert len(refused(",".join(columns).encode()).message) <= 400


def test_a_record_may_have_a_mebibyte_and_no_more() -> None:
    urls = f'"{A}' + f",{A}" * 45_000
    record = f"1,x,{urls}".ljust(MAX_RECORD - 2) + '"\n'
    assert len(record) == MAX_RECORD
    assert len(rows(record)[0].urls) == 45_001
    found = refused(HEADER + f"0,w,{A}\n".encode() + b" " + record.encode())
    assert (found.line, found.reason) == (3, RowReason.RECORD_TOO_LONG)
    assert found.message == (
        "the record that begins at line 3 is longer than 1 MiB; is a closing quote missing?"
    )


# What a child reads of 200 MB, and where it must stop.
HUGE = {
    "one line": ('b"1,x," + b"a" * (1 << 18)', "x", 2),
    "a quoted cell of short lines": ("b'1,x,\"'", '(b"a" * 63 + b"\\n") * 4096', 2),
    "an unclosed header": ("b'Serial Number,\"'", '(b"a" * 63 + b"\\n") * 4096', 1),
}
CHILD = """
import resource
import sys
from imageprocessing_contract.guard import Guard
from imageprocessing_worker.catalogue import Catalogue
from imageprocessing_worker.lines import CatalogueError

def chunks():
    global sent
    for chunk in [{start}] + [{more}] * 800:
        sent += len(chunk)
        yield chunk

sent = 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(Catalogue(chunks(), Guard()).rows())
except CatalogueError as error:
    print(error.line, error.reason, sent)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", HUGE)
def test_200_megabytes_in_one_cell_take_little_memory(name: str) -> None:
    start, more, line = HUGE[name]
    more = 'b"a" * (1 << 18)' if more == "x" else more
    if line == 2:
        start = f"{HEADER!r} + {start}"
    program = CHILD.format(start=start, more=more)
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert said[:2] == [str(line), "RecordTooLong"]
    assert int(said[2]) < 4 << 20, "it read on after the bound"
    assert int(said[3]) < 16 << 10, f"{said[3]} KiB more than before"


def test_long_catalogues_take_little_memory_and_chunks_of_any_size() -> None:
    def chunks() -> Iterator[bytes]:
        yield HEADER
        yield b"".join(f"{n},x,{A}\n".encode() for n in range(100_000))  # one chunk of 3.6 MB

    found = Catalogue(chunks(), GUARD).rows()
    assert sum(1 for row in found if row.problem is None) == 100_000
