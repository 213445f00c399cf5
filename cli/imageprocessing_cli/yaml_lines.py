"""The line of a manifest's file where a field stands."""

from __future__ import annotations

import re

import yaml


def request_lines(text: str) -> list[yaml.Node]:
    """The nodes of the documents in a text that are not empty, as load_documents has them."""
    nodes = yaml.compose_all(text, Loader=yaml.SafeLoader)
    return [node for node in nodes if node is not None and not _is_null(node)]


def line_of(node: yaml.Node, path: str) -> int:
    """The line, from 1, of a path such as spec.failures[2].url, or of what is there of it."""
    line = node.start_mark.line + 1
    for step in re.findall(r"[^.\[\]]+", path):
        below = _below(node, step)
        if below is None:
            break
        line, node = below
    return line


def _below(node: yaml.Node, step: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and step.isdigit() and int(step) < len(node.value):
        item = node.value[int(step)]
        return item.start_mark.line + 1, item
    return None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
