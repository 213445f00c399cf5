"""The site: its pages, its links, and that it loads nothing from elsewhere."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from imageprocessing_contract.crd import crd_yaml

from docs.site.offline import loads_from_elsewhere
from docs.site.pages import ROOT, SCREENSHOTS, SOURCE, moved, sources
from docs.site.reference import page


def test_the_reference_is_what_the_crd_says() -> None:
    """`make docs-reference` writes it anew."""
    assert (ROOT / "docs" / "reference.md").read_text() == page(yaml.safe_load(crd_yaml()))


def test_each_field_has_a_row_with_its_description() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    version = yaml.safe_load(crd_yaml())["spec"]["versions"][-1]["schema"]["openAPIV3Schema"]
    rows = [
        (path, inner["description"])
        for root in ("spec", "status")
        for path, inner in leaves(root, version["properties"][root])
    ]
    assert len(rows) > 100
    for path, description in rows:
        section, _, name = path.rpartition(".")
        table = text.split(f"## {section}\n")[1].split("\n## ")[0].split("\n### ")[0]
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        assert description.replace("*", "\\*").replace("<", "&lt;") in row


def leaves(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner
        below = f"{path}.{name}[]" if "items" in inner else f"{path}.{name}"
        yield from leaves(below, inner.get("items", inner))


def test_every_page_is_in_the_navigation_once() -> None:
    """A page that is not there is found by nobody; one that is not written is a dead link."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = [
        name
        for entry in nav
        for name in ([entry] if isinstance(entry, str) else next(iter(entry.values())))
    ]
    assert sorted(listed) == sorted(sources())


def test_pictures_are_shown_and_small() -> None:
    """Each is on a page, whose link leads to the site's own copy."""
    pages = sources()
    text = "".join(moved(source.read_text(), source, pages) for source in pages.values())
    pictures = list(SCREENSHOTS.iterdir())
    assert pictures
    for picture in pictures:
        assert f"]({SCREENSHOTS.name}/{picture.name})" in text
        assert picture.stat().st_size < 150_000


def test_links_of_every_page_lead_somewhere() -> None:
    pages = sources()
    for source in pages.values():
        moved(source.read_text(), source, pages)


def test_links_are_made_for_the_site() -> None:
    pages = sources()
    here = ROOT / "benchmarks" / "README.md"
    text = (
        "[a](../docs/design.md#5-the-operator) [b](img2dataset.txt) [c](https://x.example/) [d](#x)"
    )
    assert moved(text, here, pages) == (
        f"[a](design.md#5-the-operator) [b]({SOURCE}benchmarks/img2dataset.txt) "
        "[c](https://x.example/) [d](#x)"
    )
    with pytest.raises(FileNotFoundError, match=r"benchmarks/README\.md links to nowhere\.md"):
        moved("[e](nowhere.md)", here, pages)


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ('<script src="https://cdn.example/a.js"></script>', "https://cdn.example/a.js"),
        ('<img src="//cdn.example/a.png">', "//cdn.example/a.png"),
        ('<link rel="stylesheet" href="http://x.example/a.css">', "http://x.example/a.css"),
        ('<link rel="preconnect" href="https://fonts.example">', "https://fonts.example"),
        ("<style>@import 'https://x.example/a.css'</style>", "https://x.example/a.css"),
        ("a { background: url( https://x.example/b.png ) }", "https://x.example/b.png"),
        ('<iframe src=" HTTPS://x.example">', " HTTPS://x.example"),
        ('<a href="https://x.example">read on</a>', None),
        ('<link rel="canonical" href="https://x.example/">', None),
        ('<img src="assets/a.png"><script src="../b.js"></script>', None),
        ("a { background: url(data:image/png;base64,AA//) }", None),
    ],
)
def test_what_is_loaded_from_elsewhere(text: str, loaded: str | None) -> None:
    assert loads_from_elsewhere(text) == ([loaded] if loaded else [])


def test_browsers_are_told_to_load_nothing_from_elsewhere() -> None:
    theme = (Path(ROOT) / "docs/site/theme/main.html").read_text()
    assert "default-src 'self'" in theme
