"""The manifests to accept and to refuse; the API server and `ipr run` must agree on each."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent

MINIMAL: dict[str, Any] = {
    "apiVersion": "imageprocessing.dev/v1alpha1",
    "kind": "ImageProcessingRequest",
    "metadata": {"name": "request"},
    "spec": {
        "source": {"inline": "Serial Number,Product Name,Input Image Urls\n"},
        "output": {"persistentVolumeClaim": {"claimName": "images"}},
    },
}

# What the API server says of a broken keyword, without the limit; a rule is named by its message.
WORDS = {
    "enum": "supported values: ",
    "maxItems": "must have at most",
    "maxLength": "Too long: may not be more than",
    "maxProperties": "must have at most",
    "maximum": "should be less than or equal to",
    "minLength": "should be at least",
    "minimum": "should be greater than or equal to",
    "pattern": "should match",
    "required": "Required value",
    "type": "must be of type",
}


@dataclass(frozen=True)
class Case:
    """A manifest, the object it replaces if any, and for a refusal where and why."""

    name: str
    manifest: dict[str, Any]
    old: dict[str, Any] | None = None
    field: str | None = None
    value: Any = None
    breaks: str | None = None

    @property
    def accepted(self) -> bool:
        return self.breaks is None

    @property
    def message(self) -> str:
        assert self.breaks is not None
        return WORDS.get(self.breaks, self.breaks)


def all_cases() -> list[Case]:
    cases = [*field_cases(), *object_cases(), *update_cases()]
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)
    return cases


def field_cases() -> Iterator[Case]:
    for entry in _load("fields.yaml"):
        field = entry["field"]
        base = merge(MINIMAL, entry.get("over", {}))
        for value in entry.get("accept", []):
            yield Case(_name(field, value, ""), _with(base, field, value), field=field, value=value)
        for breaks, values in entry.get("refuse", {}).items():
            for value in values if isinstance(values, list) else [values]:
                name, manifest = _name(field, value, breaks), _with(base, field, value)
                yield Case(name, manifest, field=field, value=value, breaks=breaks)


def object_cases() -> Iterator[Case]:
    table = _load("objects.yaml")
    for row in table["accept"]:
        yield Case(row["name"], merge(MINIMAL, row["patch"]))
    for row in table["refuse"]:
        manifest = merge(MINIMAL, row["patch"])
        yield Case(row["name"], manifest, field=row["field"], breaks=row["message"])


def update_cases() -> Iterator[Case]:
    table = _load("updates.yaml")
    for row in [*table["accept"], *table["refuse"]]:
        old, new = merge(MINIMAL, row["old"]), merge(MINIMAL, row["new"])
        yield Case(row["name"], new, old, field=row.get("field"), breaks=row.get("message"))


def merge(base: Any, patch: Any) -> Any:
    """JSON merge patch: null takes away."""
    if not isinstance(patch, dict):
        return patch
    merged = copy.deepcopy(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _with(base: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    manifest = copy.deepcopy(base)
    steps = [int(n) if n else name for n, name in re.findall(r"\[(\d+)\]|([^.\[]+)", field)]
    at: Any = manifest
    for step in steps[:-1]:
        at = at[step] if isinstance(step, int) else at.setdefault(step, {})
    at[steps[-1]] = value
    return manifest


def _name(field: str, value: Any, breaks: str) -> str:
    text = repr(value)
    shown = text if len(text) <= 40 else f"{text[:30]}...({len(text)})"
    return f"{field}={shown} {breaks}".strip()


class _Loader(yaml.SafeLoader):
    """YAML with tags for what is too long to write."""


def _text(loader: _Loader, node: yaml.SequenceNode) -> str:
    parts = [loader.construct_object(child) for child in node.value]
    return "".join(piece * count for piece, count in zip(parts[::2], parts[1::2], strict=True))


def _items(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    item, count = (loader.construct_object(child, deep=True) for child in node.value)
    return [item] * count


def _keys(loader: _Loader, node: yaml.ScalarNode) -> dict[str, str]:
    return {f"key-{i}": "" for i in range(int(loader.construct_scalar(node)))}


_Loader.add_constructor("!text", _text)
_Loader.add_constructor("!items", _items)
_Loader.add_constructor("!keys", _keys)


def _load(file: str) -> Any:
    return yaml.load((HERE / file).read_text(encoding="utf-8"), Loader=_Loader)
