"""Validates an ImageProcessingRequest without an API server, by the same CRD file.

What the API server does on create and update, in its order: unknown fields (strict), defaults,
types and limits, and, when those hold, the CEL rules. tests/manifests runs through both.
Labels, annotations and the namespace are not looked into.
"""

import copy
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cel
import jsonschema
import jsonschema.validators
import yaml
from imageprocessing_contract.crd import crd_yaml

Schema = Mapping[str, Any]

# After one of these the API server does not run CEL rules: types may be wrong, sizes unbounded.
_BLOCKING = {"required", "type", "enum", "maxLength", "maxItems", "maxProperties"}

_TEXT = {"type": "string"}
# Go reads a null as an empty text here; it is no resource of ours that says so.
_TEXTS = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
_METADATA: Schema = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "generateName": _TEXT,
        "namespace": _TEXT,
        "labels": _TEXTS,
        "annotations": _TEXTS,
        # Written by the API server; there when a manifest comes from `kubectl get -o yaml`.
        "creationTimestamp": {},
        "deletionGracePeriodSeconds": {},
        "deletionTimestamp": {},
        "finalizers": {},
        "generation": {},
        "managedFields": {},
        "ownerReferences": {},
        "resourceVersion": {},
        "selfLink": {},
        "uid": {},
    },
}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong: where, as in spec.download.retries, and what."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def validate(manifest: dict[str, Any], old: dict[str, Any] | None = None) -> list[FieldError]:
    """Returns all that is wrong with a manifest, or nothing.

    With `old`, the object as it is stored, the rules about changes apply too.
    """
    if identity := _identity_errors(manifest):
        return identity
    if unknown := [
        FieldError(p, f'unknown field "{p}"') for p in _unknown(manifest, _schema(), "")
    ]:
        return unknown
    new, stored = with_defaults(manifest), None
    if old is not None:
        # An update cannot write the status, and the rules see the stored one on both sides.
        stored = _defaulted(old)
        new["status"] = stored["status"]
    invalid = list(_validator().iter_errors(new))
    errors = [*_name_errors(new.get("metadata")), *map(_field_error, invalid)]
    if all(error.validator not in _BLOCKING for error in invalid):
        errors += _rule_errors(new, stored, _schema(), "")
    return errors


def with_defaults(manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns the object that the API server would make of a manifest; a status in it is dropped."""
    return _defaulted({name: value for name, value in manifest.items() if name != "status"})


def limit_message(keyword: str, limit: Any) -> str:
    """Says what a value that breaks a limit of the schema should have been, as the API server does."""
    match keyword:
        case "required":
            return "Required value"
        case "type":
            return f"must be of type {limit if isinstance(limit, str) else ','.join(limit)}"
        case "enum":
            return "Unsupported value: supported values: " + ", ".join(f'"{v}"' for v in limit)
        case "pattern":
            return f"should match '{limit}'"
        case "minimum":
            return f"should be greater than or equal to {limit}"
        case "maximum":
            return f"should be less than or equal to {limit}"
        case "minLength":
            return f"should be at least {limit} chars long"
        case "maxLength":
            return f"Too long: may not be more than {limit} characters"
        case "maxItems" | "maxProperties":
            return f"Too many: must have at most {limit} items"
    raise NotImplementedError(keyword)


@functools.cache
def _definition() -> dict[str, Any]:
    definition: dict[str, Any] = yaml.safe_load(crd_yaml())["spec"]
    return definition


@functools.cache
def _schema() -> Schema:
    schema: dict[str, Any] = _definition()["versions"][0]["schema"]["openAPIV3Schema"]
    return {**schema, "properties": {**schema["properties"], "metadata": _METADATA}}


@functools.cache
def _validator() -> jsonschema.protocols.Validator:
    draft = jsonschema.Draft202012Validator
    dialect: type[jsonschema.protocols.Validator] = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        draft,
        {"pattern": _pattern, "required": _required},
        type_checker=draft.TYPE_CHECKER.redefine("integer", _is_integer),
    )
    return dialect(_json_schema(_schema()))


def _json_schema(schema: Any) -> Any:
    """Returns the schema with Kubernetes' only type that JSON Schema lacks spelt out."""
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    converted = {key: _json_schema(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        converted["type"] = ["integer", "string"]
    return converted


def _is_integer(_checker: object, value: object) -> bool:
    """Goes by what Go makes of JSON: 64 bits, and 2.0 is an integer where a float is still exact."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) < 2**53
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _pattern(
    _validator: object, pattern: str, value: object, _schema: Schema
) -> Iterator[jsonschema.ValidationError]:
    # Every pattern is anchored; Python's $ alone would let a final newline pass, RE2's does not.
    if isinstance(value, str) and not re.fullmatch(pattern, value, re.ASCII):
        yield jsonschema.ValidationError("pattern")


def _required(
    _validator: object, names: list[str], value: object, _schema: Schema
) -> Iterator[jsonschema.ValidationError]:
    if isinstance(value, dict):
        yield from (
            jsonschema.ValidationError("required", path=[n]) for n in names if n not in value
        )


def _field_error(error: jsonschema.ValidationError) -> FieldError:
    message = limit_message(str(error.validator), error.validator_value)
    return FieldError(functools.reduce(_join, error.absolute_path, ""), message)


def _join(path: str, step: str | int) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def _identity_errors(manifest: dict[str, Any]) -> list[FieldError]:
    definition = _definition()
    wanted = {
        "apiVersion": f"{definition['group']}/{definition['versions'][0]['name']}",
        "kind": definition["names"]["kind"],
    }
    return [
        FieldError(name, limit_message("enum", [value]))
        for name, value in wanted.items()
        if manifest.get(name) != value
    ]


def _name_errors(metadata: Any) -> Iterator[FieldError]:
    """Checks what the CRD cannot say: the API server itself looks at the name."""
    if metadata is not None and not isinstance(metadata, dict):
        return
    name, prefix = ((metadata or {}).get(field) for field in ("name", "generateName"))
    if not name and not prefix:
        yield FieldError("metadata.name", "Required value: name or generateName is required")
    elif isinstance(name, str) and len(name) > 253:
        yield FieldError("metadata.name", "must be no more than 253 bytes")
    elif isinstance(name, str) and name and not _NAME.fullmatch(name):
        yield FieldError(
            "metadata.name",
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters,"
            " '-' or '.', and must start and end with an alphanumeric character",
        )


def _unknown(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """Yields the paths of fields that the schema does not have."""
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            if name in schema["properties"]:
                yield from _unknown(item, schema["properties"][name], _join(path, name))
            else:
                yield _join(path, name)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _unknown(item, schema["items"], _join(path, index))


def _defaulted(manifest: dict[str, Any]) -> dict[str, Any]:
    defaulted: dict[str, Any] = _as_json(manifest)
    _apply_defaults(defaulted, _schema())
    return defaulted


def _as_json(value: Any) -> Any:
    """Returns a copy in which 2.0 is 2, as JSON on its way through Go has it."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return int(value) if isinstance(value, float) and _is_integer(None, value) else value


def _apply_defaults(value: Any, schema: Schema) -> None:
    """Fills in defaults, parents before their children; a null counts as absent."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, child in properties.items():
            if value.get(name) is None:
                value.pop(name, None)
                if "default" in child:
                    value[name] = copy.deepcopy(child["default"])
            if name in value:
                _apply_defaults(value[name], child)
        if "additionalProperties" in schema:
            for name in [name for name, item in value.items() if item is None]:
                del value[name]
    elif isinstance(value, list):
        for item in value:
            _apply_defaults(item, schema.get("items", {}))


def _rule_errors(value: Any, old: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    """Yields what the rules (x-kubernetes-validations) at a value and below it find wrong."""
    for rule in schema.get("x-kubernetes-validations", []):
        if old is None and "oldSelf" in rule["rule"]:
            continue  # about changes, and there is none
        if not _program(rule["rule"]).execute({"self": value, "oldSelf": old}):
            yield FieldError((path + rule.get("fieldPath", "")).removeprefix("."), rule["message"])
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                before = old.get(name) if isinstance(old, dict) else None
                yield from _rule_errors(value[name], before, child, _join(path, name))
    elif isinstance(value, list):
        # Our lists are atomic: the API server pairs no item with an old one.
        for index, item in enumerate(value):
            yield from _rule_errors(item, None, schema["items"], _join(path, index))


@functools.cache
def _program(rule: str) -> cel.Program:
    return cel.compile(rule)
