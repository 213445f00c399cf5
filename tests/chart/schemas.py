"""JSON schemas for kubeconform, from what the API server says about its kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOCATION = "{{.Group}}_{{.ResourceKind}}.json"
"""How kubeconform finds a kind's file; its Group of the core kinds is their version."""
_INT_OR_STRING = {"oneOf": [{"type": "string"}, {"type": "integer"}]}


def write_schemas(openapi: dict[str, Any], directory: Path) -> None:
    """One file a kind of an OpenAPI v2 document, strict: unknown fields are errors."""
    definitions = {name: _strict(rules) for name, rules in openapi["definitions"].items()}
    for name, rules in openapi["definitions"].items():
        for kind in rules.get("x-kubernetes-group-version-kind", []):
            group = kind["group"] or kind["version"]
            file = directory / f"{group}_{kind['kind'].lower()}.json"
            schema = {"$ref": f"#/definitions/{name}", "definitions": definitions}
            if not file.exists():
                file.write_text(json.dumps(schema))


def _strict(rules: Any) -> Any:
    if isinstance(rules, list):
        return [_strict(rule) for rule in rules]
    if not isinstance(rules, dict):
        return rules
    if rules.get("format") == "int-or-string":
        return _INT_OR_STRING
    made = {name: _strict(rule) for name, rule in rules.items()}
    if isinstance(made.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made
