"""Reads YAML as kubectl does, so that a manifest means the same with and without a cluster."""

import json
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
        json.dumps(documents, ensure_ascii=False).encode()  # no half of a surrogate pair
    except (yaml.YAMLError, ValueError) as error:  # of 0b_, which looks like a number
        raise DocumentError(str(error)) from error
    if any(not isinstance(document, dict) for document in documents):
        raise DocumentError("every document must be an object")
    return documents


class _KubectlLoader(yaml.SafeLoader):
    """PyYAML with the scalars of go-yaml v2, which kubectl reads with.

    PyYAML makes 2026-01-01 a date, 1:30 the number 90 and 1e3 a text. A key that comes twice is
    refused, where kubectl takes the last one: it is always a mistake.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Makes every key text, as JSON has no other, and refuses one that comes twice."""
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen = set()
        for key in own:
            if self._key(key) in seen:
                raise _refusal(f"the key {self._key(key)} comes twice", key)
            seen.add(self._key(key))
        self.flatten_mapping(node)
        return {self._key(key): self.construct_object(value, deep) for key, value in node.value}

    def _key(self, node: yaml.Node) -> str:
        value = self.construct_object(node, deep=True)
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str | int | float):
            raise _refusal("a key must be a text, a number or a boolean", node)
        return str(value)


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _construct_bool(loader: _KubectlLoader, node: yaml.ScalarNode) -> bool:
    return str(loader.construct_scalar(node)).lower() in {"y", "yes", "true", "on"}


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
