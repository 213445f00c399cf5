"""Reading YAML; tests/apiserver compares the scalars with kubectl's."""

from __future__ import annotations

import pytest
from imageprocessing_cli.yaml_documents import DocumentError, load_documents


def test_several_documents_without_the_empty_ones() -> None:
    assert load_documents("---\na: 1\n---\n---\n# nothing\n---\nb: [x]\n") == [
        {"a": 1},
        {"b": ["x"]},
    ]


def test_scalars_are_those_of_kubectl() -> None:
    (document,) = load_documents("{date: 2026-01-01, time: 1:30, on: off, big: 1e3, 1: x, 2.5: z}")

    assert document == {
        "date": "2026-01-01",
        "time": "1:30",
        "true": False,
        "big": 1000.0,
        "1": "x",
        "2.5": "z",
    }


def test_a_merged_map_gives_way_to_the_keys_beside_it() -> None:
    (document,) = load_documents("a: &a {x: 1, z: 2}\nb: {<<: *a, x: 3}\nc: {x: 3, <<: *a}\n")

    assert document["b"] == document["c"] == {"x": 3, "z": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "the key a comes twice"),
        ("1: a\n'1': b\n", "the key 1 comes twice"),
        ("~: a\n", "a key must be a text"),
        ("? [a]\n: b\n", "a key must be a text"),
        ("a: 1\n---\n- a\n", "every document must be an object"),
        ("{a: b", "line 1"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("a: 0b_\n", "invalid literal"),
        ('a: "\\ud800"\n', "surrogates not allowed"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        load_documents(text)
