"""report.html is safe with what strangers wrote, and stays small."""

from __future__ import annotations

from imageprocessing_contract import report
from imageprocessing_worker.page import Page


def page(failures: list[report.Failure], failed: int) -> str:
    """The page of a request with these failures."""
    done = report.Done(
        images=report.Images(total=failed + 10, succeeded=10, failed=failed, unchanged=0),
        bytes=report.Bytes(original=1_500_000, compressed=300_000),
        results=report.Results(csv_url="a", failed_url="b", report_url="c"),
    )
    catalogue = report.Catalogue(rows=5, images=failed + 10, invalid_rows=0)
    return Page("spring", catalogue, done, {"HTTPError": failed}, failures).render()


def test_hostile_text_is_text() -> None:
    """A URL or a server's words never become markup."""
    url = "https://x.example/<script>alert(1)</script>"
    text = page([report.Failure(2, url, "HTTPError", '"><img src=x onerror=alert(1)>')], 1)
    assert "<script" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "default-src 'none'" in text


def test_totals() -> None:
    """Sizes in the units that `ipr run` says."""
    text = page([], 0)
    assert "1.5 MB" in text
    assert "300.0 kB" in text
    assert "80 %" in text
    assert "Why images failed" not in text


def test_many_failures() -> None:
    """It says that there are more than it shows."""
    failures = [
        report.Failure(n, f"https://x.example/{'y' * 1000}", "HTTPError", "404 Not Found")
        for n in range(1000)
    ]
    text = page(failures, 1_000_000)
    assert "The first 1,000; failed.csv has all of them." in text
    assert len(text) < 2_000_000
