"""Reads YAML as kubectl does, so that a manifest means the same with and without a cluster."""

import re
from collections.abc import Hashable
from typing import Any

import yaml


class DocumentError(ValueError):
    """A text is not YAML, or not what kubectl would take."""


def load_documents(text: str) -> list[dict[str, Any]]:
    """Returns the objects in a text of one or more YAML documents; empty documents are left out."""
    try:
        documents = [d for d in yaml.load_all(text, Loader=_KubectlLoader) if d is not None]
    except yaml.YAMLError as error:
        raise DocumentError(str(error)) from error
    if any(not isinstance(document, dict) for document in documents):
        raise DocumentError("every document must be an object")
    return documents


class _KubectlLoader(yaml.SafeLoader):
    """PyYAML with the scalars of go-yaml v2, which kubectl reads with.

    PyYAML makes 2026-01-01 a date, 1:30 the number 90 and 1e3 a string, and lets a key come twice.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuses keys that come twice, and makes every key text, as JSON has no other."""
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            value = self.construct_object(key_node, deep=True)
            key, problem = _json_key(value), None
            if value is None or isinstance(value, list | dict):
                problem = "a key must be a text, a number or a boolean"
            elif key in seen:
                problem = f"the key {key} comes twice"
            if problem:
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        mapping = super().construct_mapping(node, deep)
        return {_json_key(key): value for key, value in mapping.items()}


def _json_key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _construct_bool(loader: _KubectlLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in {"y", "yes", "true", "on"}


def _construct_float(loader: _KubectlLoader, node: yaml.ScalarNode) -> float:
    """kubectl sends JSON, where 1e3 has become 1000."""
    number = float(loader.construct_scalar(node))
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_KubectlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_KubectlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(
        r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"
    ),
    list("yYnNtTfFoO"),
)
_KubectlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_KubectlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[.][0-9]+|[0-9]+(?:[.][0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_KubectlLoader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_KubectlLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)
