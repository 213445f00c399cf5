"""A manifest file as `ipr run` takes it: one request, and the ConfigMap it may refer to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.request import ClaimPath, Source, Spec, parse_spec

from imageprocessing_cli.manifest import validate, with_defaults
from imageprocessing_cli.yaml_documents import DocumentError, load_documents


class UsageError(Exception):
    """The file or an option is wrong; the message says what to do."""


class LocalRequest(msgspec.Struct, frozen=True):
    """A valid request, with its source where a local process can read it."""

    name: str
    spec: Spec
    source: Source
    mount: str
    """Folder that takes the place of the source's claim."""


def read_local_request(file: Path, csv: Path | None) -> LocalRequest:
    """Raises UsageError for a file that is no valid request, or whose source is out of reach."""
    try:
        documents = load_documents(file.read_text())
    except (OSError, UnicodeDecodeError, DocumentError) as error:
        message = f"{file}: {error}"
        raise UsageError(message) from error
    requests = [document for document in documents if document.get("kind") == names.KIND]
    if len(requests) != 1:
        message = f"{file}: expected one {names.KIND}, found {len(requests)}"
        raise UsageError(message)
    if errors := validate(requests[0]):
        message = "\n".join([f"{file}: the request is invalid", *(f"  {e}" for e in errors)])
        raise UsageError(message)
    manifest = with_defaults(requests[0])
    spec = parse_spec(manifest["spec"])
    source, mount = _source(spec.source, csv, documents)
    return LocalRequest(manifest["metadata"].get("name", "request"), spec, source, mount)


def _source(
    source: Source, csv: Path | None, documents: list[dict[str, Any]]
) -> tuple[Source, str]:
    if csv is not None:
        path = csv.resolve()
        if not path.is_file():
            message = f"--csv {csv}: there is no such file"
            raise UsageError(message)
        claim = ClaimPath(claim_name="local", path=path.name)
        return Source(persistent_volume_claim=claim), os.fspath(path.parent)
    if ref := source.config_map_key_ref:
        for document in documents:
            named = document.get("metadata", {}).get("name")
            if document.get("kind") == "ConfigMap" and named == ref.name:
                text = document.get("data", {}).get(ref.key)
                if text is not None:
                    return Source(inline=text), ""
        message = (
            f"the ConfigMap {ref.name} with the key {ref.key} is not in the file; "
            "add it as a second document, or give the catalogue with --csv FILE"
        )
        raise UsageError(message)
    if source.persistent_volume_claim or source.failures_of:
        message = "this source is only there in a cluster; give the catalogue with --csv FILE"
        raise UsageError(message)
    return source, ""
