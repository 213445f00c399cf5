"""The pictures of the pages: python -m docs.site.screenshots, by `make docs-screenshots`.

The report is that of the demo, in Chromium; `ipr watch` is its own code on a terminal that
records. The demo's port is in its URLs and decides the order of the samples, so pictures differ
a little each time.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imageprocessing_cli.following import Failures, follow
from imageprocessing_contract import names
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from docs.site.pages import ROOT, SCREENSHOTS

_COLOURS = 128
"""Of a picture's palette: the report's photographs are small, and a page should be, too."""
_WIDTH = 100  # characters
_TIME = "2026-01-01T00:00:00Z"
_NONE = {"succeeded": 0, "failed": 0, "unchanged": 0}
_TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ margin: 0; background: {background}; color: {foreground}; width: fit-content }}
pre {{ margin: 0; padding: 16px; font: 14px/1.5 "DejaVu Sans Mono", monospace }}
</style><body><pre>{code}</pre>"""


def report(browser: Browser, folder: Path) -> None:
    """The first screen of the demo's report, light and dark."""
    with tempfile.TemporaryDirectory() as work:
        demo = [sys.executable, str(ROOT / "examples" / "demo.py")]
        subprocess.run(demo, cwd=work, check=True, stdout=subprocess.DEVNULL)
        page = Path(work) / "demo" / "results" / names.REPORT_HTML
        for theme in ("light", "dark"):
            tab = browser.new_page(
                viewport={"width": 900, "height": 1000},
                color_scheme="light" if theme == "light" else "dark",
            )
            tab.goto(page.as_uri())
            _save(tab.screenshot(), folder / f"report-{theme}.png")


def watch(browser: Browser, folder: Path) -> None:
    """`ipr watch` half way."""
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, color_system="truecolor", width=_WIDTH)
    follow(_half_way(), terminal, Failures(terminal))
    # What a terminal shows in the end: of each line, what came after it was erased.
    seen = [line.rpartition("\x1b[2K")[2] for line in written.getvalue().split("\n")]
    console = Console(file=io.StringIO(), record=True, color_system="truecolor", width=_WIDTH)
    console.print(Text.from_ansi("\n".join(["$ ipr watch spring", *seen])))
    tab = browser.new_page()
    tab.set_content(
        console.export_html(theme=DIMMED_MONOKAI, code_format=_TERMINAL, inline_styles=True)
    )
    _save(tab.locator("body").screenshot(), folder / "watch.png")


def _half_way() -> Iterator[dict[str, Any]]:
    """A request of three shards, of which two are done."""
    yield _seen("Planning")
    for done in (0, 1, 2):
        yield _seen(
            "Processing",
            images={"total": 180, "processed": 60 * done, **_NONE},
            shards={"total": 3, "active": 3 - done, "succeeded": done, "failed": 0},
            progress={"since": _TIME, "imagesPerMinute": 720, "timeLeft": f"{15 - 5 * done}s"},
        )


def _seen(reason: str, **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": "Ready", "status": "Unknown", "reason": reason},
        {"type": "Reconciling", "status": "True", "reason": "Progressing"},
    ]
    for condition in conditions:
        condition |= {"message": "", "lastTransitionTime": _TIME}
    return {"metadata": {"name": "spring"}, "status": {"conditions": conditions, **status}}


def _save(png: bytes, file: Path) -> None:
    """With few colours: a third of the bytes."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def main() -> None:
    """Writes all pictures."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        report(browser, SCREENSHOTS)
        watch(browser, SCREENSHOTS)
        browser.close()


if __name__ == "__main__":
    main()
