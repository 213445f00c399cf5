"""report.html: what it says, and that it is safe with what strangers wrote, in a browser."""

from __future__ import annotations

import io
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from imageprocessing_contract import names, report
from imageprocessing_worker.page import Page
from imageprocessing_worker.results import Result
from imageprocessing_worker.sample import SHOWN, Sample
from imageprocessing_worker.tally import Tally
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, sync_playwright
from playwright.sync_api import Page as Tab

from tests import photos
from tests.conftest import needs

HOSTILE = {
    "script": "<script>hostile()</script>",
    "image": '"><img src=x onerror=hostile()>',
    "attribute": "' onmouseover='hostile()' x='",
    "link": '<a href="javascript:hostile()">x</a><base href="https://evil.example/">',
    "style": "</style><style>body{display:none}</style>",
    "cdata": "]]><!-- --><svg onload=hostile()>",
    "template": "{{ 7 * 7 }}{% raw %}${hostile()}",
    "override": "photo\u202egpj.exe",
    "emoji": "Tasse 😀👩‍👩‍👧 كوب",
    "controls": "a\tb\u2028c\u0007d",
}


def images(count: int) -> report.Catalogue:
    return report.Catalogue(rows=count, images=count, invalid_rows=0)


def page(tally: Tally, samples: list[Sample] | None = None, cause: str | None = None) -> str:
    """The page of a request whose images add up to this."""
    urls = report.Results(csv_url="a", failed_url="b", report_url="c")
    done = tally.done(urls, cause)
    return Page("spring", images(tally.total), done, tally, samples or []).render()


def succeeded(tally: Tally, count: int, original: int = 150_000, compressed: int = 30_000) -> None:
    for n in range(count):
        url = f"https://cdn.example/{n}.jpg"
        tally.add(n + 2, "Mug", url, done(original, compressed))


def done(original: int, compressed: int, milliseconds: int = 20) -> Result:
    return Result(
        line=2,
        position=0,
        object="x",
        original=original,
        compressed=compressed,
        milliseconds=milliseconds,
    )


def failed(message: str = "404 Not Found", milliseconds: int = 20) -> Result:
    return Result(
        line=2, position=0, reason="HTTPError", message=message, milliseconds=milliseconds
    )


def sample(product: str, number: int = 0) -> Sample:
    """Left of its middle both pictures are the same."""
    before = Image.new("RGB", (512, 512), (200, 30, 30))
    after = before.copy()
    after.paste((30, 30, 200), (0, 0, 512, 512))
    return Sample(
        url=f"https://cdn.example/{number}.jpg",
        product=product,
        original=200_000,
        compressed=50_000,
        unchanged=False,
        width=1600,
        height=1200,
        before=photos.encoded(before, "JPEG"),
        after=photos.encoded(after, "JPEG"),
    )


def test_totals() -> None:
    """Sizes in the units that `ipr run` says."""
    tally = Tally()
    succeeded(tally, 10)
    text = page(tally)
    assert "1.5 MB" in text
    assert "300.0 kB" in text
    assert "80 %" in text
    assert "Why images failed" not in text
    assert "Before and after" not in text


def test_nothing_was_done() -> None:
    """No image at all, or none that succeeded."""
    assert "0 of 0 images done" in page(Tally(), cause="the deadline passed")
    tally = Tally()
    tally.add(2, "Mug", "https://cdn.example/1.jpg", failed(milliseconds=0))
    text = page(tally)
    assert "Saved" not in text
    assert "Slowest hosts" not in text


def test_images_that_grew() -> None:
    tally = Tally()
    succeeded(tally, 1, 100, 150)
    assert "-50 %" in page(tally)


def test_many_failures_stay_below_two_megabytes() -> None:
    """With crops as large as they may be, and text that takes five bytes a character."""
    tally = Tally()
    noise = random.Random(1).randbytes(64_000)
    for n in range(100_000):
        url = f"https://x{n}.example/{'&' * 1000}"
        tally.add(n + 2, '"' * 5000, url, failed("'" * 1000))
    crops = [
        Sample(
            url="https://x.example/" + "&" * 4000,
            product="'" * 5000,
            original=1,
            compressed=1,
            unchanged=False,
            width=1,
            height=1,
            before=noise,
            after=noise,
        )
    ] * SHOWN
    text = page(tally, crops)
    assert len(text.encode()) < 2_000_000
    shown = text.count('<td class="url">')
    assert shown > 100
    assert f"the first {shown:,} of 100,000; the other {100_000 - shown:,} are left out" in text
    assert 'href="failed.csv"' in text


def test_ordinary_failures_are_a_thousand() -> None:
    tally = Tally()
    for n in range(1200):
        tally.add(n + 2, "Mug", f"https://cdn.example/{n}.jpg", failed())
    assert "the first 1,000 of 1,200; the other 200 are left out" in page(tally)


def test_signatures_of_urls_are_not_passed_on() -> None:
    tally = Tally()
    url = "https://user:secret@cdn.example/1.jpg?signature=secret"
    tally.add(2, "Mug", url, failed())
    text = page(tally, [msgspec.structs.replace(sample("Mug"), url=url)])
    assert text.count("https://cdn.example/1.jpg<") == 2
    assert "secret" not in text


def test_sizes_and_hosts() -> None:
    """A histogram by powers of two, and the hosts by all of their time."""
    tally = Tally()
    tally.add(2, "a", "https://Fast.example/1", done(1024, 1023, 500))
    tally.add(3, "b", "https://user@fast.example?x", done(2047, 1, 500))
    tally.add(4, "c", "https://slow.example:8443/1", done(5000, 3000, 2000))
    tally.add(4, "c", "https://slow.example:8443/2", failed(milliseconds=0))
    rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", page(tally))
    cells = [re.sub(r"<svg.*?</svg>|</?t[rhd].*?>", "|", row).strip("|") for row in rows]
    table = [re.sub(r"\|+", "|", row) for row in cells]
    assert table == [
        "1–2 B|0|1",
        *(f"{1 << n}–{2 << n} B|0|0" for n in range(1, 9)),
        "512 B–1 KiB|0|1",
        "1–2 KiB|2|0",
        "2–4 KiB|0|1",
        "4–8 KiB|1|0",
        "slow.example:8443|2|1|2.00 s|2.00 s",
        "fast.example|2|0|0.50 s|1.00 s",
        "HTTPError|1",
    ]


def test_hosts_are_bounded() -> None:
    """The slow one is still known after ten thousand others."""
    tally = Tally()
    for n in range(10_000):
        tally.add(2, "a", f"https://{n}.example/1", done(1, 1, 1))
        if n % 100 == 0:
            tally.add(2, "a", "https://slow.example/1", done(1, 1, 1000))
    assert len(tally.slowest(1 << 30)) <= 2000
    first = tally.slowest(1)[0]
    assert (first.name, first.images, first.milliseconds) == ("slow.example", 100, 100_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    needs(None if chromium else "chromium is not installed; tests/cluster/install installs it")
    # Of this module only: Playwright's loop stays in this thread, and other tests run their own.
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium)
        yield running
        running.close()


class Opened:
    """A page in the browser; what it asked for or complained about is kept."""

    def __init__(self, browser: Browser, folder: Path, html: str) -> None:
        file = folder / names.REPORT_HTML
        file.write_text(html)
        self.tab: Tab = browser.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("console", self._heard)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.tab.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " event => console.error('policy', event.violatedDirective, event.blockedURI));"
            " window.hostile = () => console.error('hostile code ran');"
        )
        self.tab.goto(file.as_uri())
        self._file = file

    def _heard(self, message: ConsoleMessage) -> None:
        self.complaints.append(message.text)

    def close(self) -> None:
        """Nothing was asked for but the file, and nothing complained."""
        self.tab.close()
        asked = [url for url in self.requests if not url.startswith("data:")]
        assert asked == [self._file.as_uri()]
        assert self.complaints == []


def some_failures() -> Tally:
    tally = Tally()
    succeeded(tally, 10)
    for n in range(30):
        tally.add(n + 20, f"Mug no. {n}", f"https://cdn.example/{n}.jpg", failed())
    tally.add(50, "Red shirt", "https://other.example/1.jpg", failed("500 Oops"))
    return tally


def clips(tab: Tab) -> tuple[str, str]:
    """How both pictures of the first pair are cut."""
    before, after = (
        tab.locator(f".pair img.{kind}").first.evaluate("image => getComputedStyle(image).clipPath")
        for kind in ("before", "after")
    )
    return before, after


def test_the_slider_moves(browser: Browser, tmp_path: Path) -> None:
    """By keys and by the pointer, and says where it is; the picture follows."""
    opened = Opened(browser, tmp_path, page(some_failures(), [sample("Blue mug")]))
    tab = opened.tab
    slider = tab.get_by_role("slider", name="Blue mug")
    assert clips(tab) == ("inset(0px 50% 0px 0px)", "inset(0px 0px 0px 50%)")
    slider.focus()
    for _ in range(3):
        tab.keyboard.press("ArrowRight")
    assert slider.input_value() == "53"
    assert slider.get_attribute("aria-valuetext") == "53 % before"
    assert clips(tab) == ("inset(0px 47% 0px 0px)", "inset(0px 0px 0px 53%)")
    tab.keyboard.press("Home")
    assert clips(tab)[1] == "inset(0px 0px 0px 0%)"

    box = slider.bounding_box()
    assert box
    tab.mouse.move(box["x"] + 2, box["y"] + 100)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 120, steps=5)
    tab.mouse.up()
    assert clips(tab) == ("inset(0px 20% 0px 0px)", "inset(0px 0px 0px 80%)")
    # What is seen: the one picture left of the line, the other one right of it.
    seen = Image.open(io.BytesIO(tab.locator(".pair").screenshot())).convert("RGB")
    for part, red in ((0.6, True), (0.95, False)):
        pixel = seen.getpixel((round(seen.width * part), 40))
        assert isinstance(pixel, tuple)
        assert (pixel[0] > pixel[2]) is red
    opened.close()


def test_search_finds_words_anywhere(browser: Browser, tmp_path: Path) -> None:
    opened = Opened(browser, tmp_path, page(some_failures()))
    rows = opened.tab.locator(".failures tbody tr:visible")
    assert rows.count() == 31
    search = opened.tab.get_by_role("searchbox", name="Search these failures")
    search.fill("shirt OTHER")
    assert rows.all_inner_texts() == [
        "50\tRed shirt\thttps://other.example/1.jpg\tHTTPError\t500 Oops"
    ]
    assert opened.tab.get_by_role("status").inner_text() == "1 of 31 shown"
    search.fill("no such thing")
    assert rows.count() == 0
    search.fill("")
    assert rows.count() == 31
    assert opened.tab.get_by_role("status").inner_text() == ""
    opened.close()


def test_hostile_text_is_text(browser: Browser, tmp_path: Path) -> None:
    """Everywhere that a stranger's words stand: products, URLs, hosts, messages, the cause."""
    words = {**HOSTILE, "long": "<b>" + "x" * 20_000}
    tally = Tally()
    succeeded(tally, 1)
    for line, text in enumerate(words.values(), 2):
        tally.add(line, text, f"https://{text}/{text}", failed(text))
    samples = [sample(text, number) for number, text in enumerate(words.values())]
    html = page(tally, samples, cause=HOSTILE["script"])
    opened = Opened(browser, tmp_path, html)
    tab = opened.tab
    products = tab.locator(".failures tbody td:nth-child(2)").evaluate_all(
        "cells => cells.map(cell => cell.textContent)"
    )
    captions = tab.locator("figcaption .name").all_text_contents()
    for shown in (products, captions):
        assert shown[:-1] == list(HOSTILE.values())
        assert shown[-1] == "<b>" + "x" * 156 + "…"
    assert HOSTILE["script"] in tab.locator(".notice").inner_text()
    alts = tab.locator("img.before").evaluate_all("all => all.map(image => image.alt)")
    assert alts[0] == f"Before: {HOSTILE['script']}"
    # Of elements that text could have become there are those of the page itself.
    assert tab.locator("script").count() == 1
    assert tab.locator("style").count() == 1
    assert tab.locator("img:not(.pair > img), base, svg[onload], a[href^=javascript]").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.close()


def test_the_policy_refuses_what_would_slip_through(browser: Browser, tmp_path: Path) -> None:
    """Were text to become markup after all: nothing of it runs, nothing is loaded."""
    tally = some_failures()
    html = page(tally).replace(
        "</main>",
        "<script>hostile()</script><img src=https://evil.example/x onerror=hostile()>"
        "<p style='color:red'>x</p></main>",
    )
    opened = Opened(browser, tmp_path, html)
    opened.tab.wait_for_function("document.querySelector('main > img').complete")
    assert "hostile code ran" not in " ".join(opened.complaints)
    broken = {text.split()[1] for text in opened.complaints if text.startswith("policy")}
    assert broken == {"script-src-elem", "img-src", "style-src-attr", "script-src-attr"}
    opened.tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """Contrast of at least 4.5 for all text (WCAG 2.2, 1.4.3), and at phone width no sideways scroll."""
    opened = Opened(browser, tmp_path, page(some_failures(), [sample("Blue mug")], "too late"))
    tab = opened.tab
    tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(background) < 0.2) is (scheme == "dark")
    for colour, behind in tab.evaluate(COLOURS):
        assert contrast(colour, behind) >= 4.5, (colour, behind)
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    opened.close()


COLOURS = """() => {
  const found = new Set();
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    if (!texts.currentNode.data.trim()) continue;
    let node = texts.currentNode.parentElement;
    if (node.closest(".pair")) continue;
    const colour = getComputedStyle(node).color;
    while (getComputedStyle(node).backgroundColor === "rgba(0, 0, 0, 0)") node = node.parentElement;
    found.add(JSON.stringify([colour, getComputedStyle(node).backgroundColor]));
  }
  return Array.from(found, JSON.parse);
}"""


def luminance(colour: str) -> float:
    """Relative luminance of rgb(...), as WCAG 2.2 has it."""
    levels = [int(level) / 255 for level in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (
        level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_screen_readers_find_their_way(browser: Browser, tmp_path: Path) -> None:
    """A heading of each section, a caption of each table, a name of each control and picture."""
    opened = Opened(browser, tmp_path, page(some_failures(), [sample("Blue mug")]))
    tab = opened.tab
    assert tab.get_by_role("heading", level=1).count() == 1
    headings = tab.get_by_role("heading", level=2).all_inner_texts()
    assert headings == [
        "Totals",
        "Before and after",
        "Sizes",
        "Slowest hosts",
        "Why images failed",
        "Failed images",
    ]
    assert tab.locator("table:not(:has(> caption))").count() == 0
    assert tab.locator("th:not([scope])").count() == 0
    assert tab.locator("img:not([alt])").count() == 0
    assert tab.locator("input").evaluate_all("all => all.every(input => input.labels.length)")
    for name in headings:
        assert tab.get_by_role("region", name=name, exact=True).count() >= 1
    opened.close()


def test_without_scripts_all_can_be_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / names.REPORT_HTML).write_text(page(some_failures(), [sample("Blue mug")]))
    tab = browser.new_page(java_script_enabled=False)
    tab.goto((tmp_path / names.REPORT_HTML).as_uri())
    boxes = [tab.locator(f".pair .{kind}").bounding_box() for kind in ("before", "after")]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"]
    assert tab.get_by_role("searchbox").count() == 0
    assert tab.locator(".failures tbody tr:visible").count() == 31
    tab.close()
