"""Puts the site's pages together: python -m docs.site.pages FOLDER.

Pages are docs/*.md and the ones that have their place elsewhere in the repository. Their links
lead to files, so that GitHub shows them; on the site a link to a page leads to that page, one to
a picture of docs/screenshots to the site's copy, and one to any other file to GitHub.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = "https://github.com/imageprocessing-operator/imageprocessing-operator/blob/main/"
SCREENSHOTS = ROOT / "docs" / "screenshots"
ELSEWHERE = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def sources() -> dict[str, Path]:
    """Each page's name on the site and the file that it is made of."""
    pages = {file.name: file for file in sorted((ROOT / "docs").glob("*.md"))}
    return pages | {name: ROOT / path for name, path in ELSEWHERE.items()}


def moved(text: str, source: Path, pages: dict[str, Path]) -> str:
    """The text of `source` with links for the site; FileNotFoundError names a broken one."""
    names = {file: name for name, file in pages.items()}

    def link(found: re.Match[str]) -> str:
        target = (source.parent / found[1]).resolve()
        if target in names:
            return names[target]
        if target.parent == SCREENSHOTS and target.exists():
            return f"{SCREENSHOTS.name}/{target.name}"
        if not target.exists():
            raise FileNotFoundError(f"{source.relative_to(ROOT)} links to {found[1]}")
        return SOURCE + str(target.relative_to(ROOT))

    return _LINK.sub(link, text)


def main() -> None:
    """Writes the pages, into a folder that holds nothing else."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(SCREENSHOTS, folder / SCREENSHOTS.name)
    pages = sources()
    for name, source in pages.items():
        (folder / name).write_text(moved(source.read_text(), source, pages))


if __name__ == "__main__":
    main()
