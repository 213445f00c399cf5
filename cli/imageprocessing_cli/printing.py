"""Objects as kubectl prints them with -o, and its tables."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import yaml

Object = dict[str, Any]
PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
"""For rich: product names and URLs are no markup, and a line is cut by nobody."""


def print_objects(output: str, *objects: Object) -> None:
    """One object as it is, several as kubectl would: documents in YAML, a List in JSON."""
    if output == "name":
        for found in objects:
            click.echo(full_name(found))
        return
    shown = [_without_managed_fields(found) for found in objects]
    if output == "yaml":
        click.echo("---\n".join(_yaml(found) for found in shown), nl=False)
    else:
        whole = shown[0] if len(shown) == 1 else as_list(shown)
        click.echo(json.dumps(whole, indent=4, ensure_ascii=False))


def number(count: int, what: str) -> str:
    """1 row, 2 rows."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def full_name(found: Object) -> str:
    """As kubectl says it: imageprocessingrequest.imageprocessing.dev/spring, configmap/spring."""
    kind, (group, _, _) = found["kind"].lower(), found["apiVersion"].rpartition("/")
    return (
        f"{kind}.{group}/{found['metadata']['name']}"
        if group
        else (f"{kind}/{found['metadata']['name']}")
    )


def as_list(items: list[Object]) -> Object:
    """What kubectl makes of several objects."""
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def table(found: Object, *, wide: bool, namespaces: bool) -> list[str]:
    """The lines of a meta.k8s.io/v1 Table, as `kubectl get` has them."""
    columns = found["columnDefinitions"]
    shown = [i for i, column in enumerate(columns) if wide or not column.get("priority")]
    rows = [[columns[i]["name"].upper() for i in shown]]
    rows += [
        ["" if row["cells"][i] is None else str(row["cells"][i]) for i in shown]
        for row in found["rows"]
    ]
    if namespaces:
        own = ["NAMESPACE", *(row["object"]["metadata"]["namespace"] for row in found["rows"])]
        rows = [[namespace, *row] for namespace, row in zip(own, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _without_managed_fields(found: Object) -> Object:
    """Who wrote which field is of no interest to people; kubectl hides it, too."""
    meta = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    items = [_without_managed_fields(item) for item in found.get("items", [])]
    return {**found, "metadata": meta, **({"items": items} if items else {})}


class _Dumper(yaml.SafeDumper):
    """Writes a CSV as a block, so that people can read it."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
# kubectl's reader takes these for numbers; PyYAML's own pattern asks for a dot and a sign.
_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def _yaml(found: Object) -> str:
    text: str = yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text
