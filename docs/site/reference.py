"""Every field of the resource as a page: python -m docs.site.reference > docs/reference.md.

The CRD says everything; this only lays it out, a table for each object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from imageprocessing_contract.crd import crd_yaml

_HEAD = """\
# Reference

Every field of an ImageProcessingRequest, written by `make docs-reference` from the CRD, the file that the API server checks requests by. `kubectl explain ipr.spec` shows the same. What stands like `this is immutable` is what the API server says when a rule is broken.
"""


class Field(NamedTuple):
    """One property of an object in the schema."""

    path: str
    """From the resource's root, with [] behind each list: spec.worker.tolerations[].key."""
    schema: dict[str, Any]
    required: bool

    @property
    def inner(self) -> dict[str, Any]:
        """The schema of a list's items, or else the field's own."""
        items: dict[str, Any] = self.schema.get("items", self.schema)
        return items


def fields(schema: dict[str, Any], path: str = "") -> Iterator[Field]:
    """The properties of one object, in the CRD's order."""
    for name, inner in schema.get("properties", {}).items():
        ending = "[]" if "items" in inner else ""
        yield Field(f"{path}.{name}{ending}", inner, name in schema.get("required", []))


def page(definition: dict[str, Any]) -> str:
    """The whole page, for the newest version of the definition."""
    version = definition["spec"]["versions"][-1]
    schema = version["schema"]["openAPIV3Schema"]
    api_version = f"{definition['spec']['group']}/{version['name']}"
    parts = [_HEAD, f"`apiVersion: {api_version}`, `kind: {definition['spec']['names']['kind']}`\n"]
    parts += [_rules(schema)]
    for name in ("spec", "status"):
        parts += _sections(Field(name, schema["properties"][name], required=name == "spec"))
    return "\n".join(part for part in parts if part)


def _sections(field: Field) -> Iterator[str]:
    """An object's own section, and then those of the objects in it."""
    heading = "##" if "." not in field.path else "###"
    yield f"{heading} {field.path}\n"
    yield f"{_text(field.schema['description'])}\n"
    yield _rules(field.inner)
    inside = list(fields(field.inner, field.path))
    yield "| Field | Type | Default | What it is |\n|---|---|---|---|"
    yield "\n".join(_row(one) for one in inside) + "\n"
    for one in inside:
        if "properties" in one.inner:
            yield from _sections(one)


def _row(field: Field) -> str:
    name = field.path.rpartition(".")[2].removesuffix("[]")
    default = "required" if field.required else _default(field.schema)
    said = " ".join([field.schema["description"], *_limits(field), *_messages(field)])
    return f"| `{name}` | {_type(field)} | {default} | {_text(said)} |"


def _type(field: Field) -> str:
    many = "list of " if "items" in field.schema else ""
    if "properties" in field.inner:
        anchor = "".join(letter for letter in field.path.lower() if letter.isalnum())
        return f"[{many}object](#{anchor})"
    if field.schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "additionalProperties" in field.schema:
        return "map of strings"
    return many + str(field.inner.get("format", field.inner["type"]))


def _default(schema: dict[str, Any]) -> str:
    # A parent's {} only makes the defaults inside it appear.
    default = schema.get("default")
    return "" if default in (None, {}) else f"`{_literal(default)}`"


def _limits(field: Field) -> Iterator[str]:
    """What the description leaves to the schema."""
    schema = field.inner
    if "enum" in schema:
        yield f"One of {', '.join(f'`{_literal(value)}`' for value in schema['enum'])}."
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        yield f"{low} to {high}."
    elif low is not None:
        yield f"At least {low}."
    length = schema.get("maxLength")
    if length is not None and str(length) not in field.schema["description"].replace(",", ""):
        yield f"At most {length} characters."


def _messages(field: Field) -> list[str]:
    """Rules of a field that has no section of its own."""
    if "properties" in field.inner:
        return []
    rules = field.schema.get("x-kubernetes-validations", [])
    return [f"Or else: `{rule['message']}`." for rule in rules]


def _rules(schema: dict[str, Any]) -> str:
    """The rules of an object, as the API server says them when they are broken."""
    rules = schema.get("x-kubernetes-validations", [])
    return "".join(f"- `{rule['message']}`\n" for rule in rules)


def _literal(value: Any) -> str:  # any JSON
    return value if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> None:
    """Writes the page to the standard output."""
    sys.stdout.write(page(yaml.safe_load(crd_yaml())))


if __name__ == "__main__":
    main()
