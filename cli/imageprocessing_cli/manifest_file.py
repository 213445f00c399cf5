"""A manifest file as `ipr run` takes it: one request, and the ConfigMap it may refer to."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.request import ClaimPath, KeyRef, Source, Spec, parse_spec

from imageprocessing_cli.errors import UsageError
from imageprocessing_cli.manifest import validate, with_defaults
from imageprocessing_cli.yaml_documents import DocumentError, load_documents

TEXT_FILE = "products.csv"
"""Name under which a catalogue that is in the manifest's file reaches the worker."""


class LocalRequest(msgspec.Struct, frozen=True):
    """A valid request, with its source where a local process can read it."""

    name: str
    spec: Spec
    source: Source
    mount: str
    """Folder that takes the place of the source's claim."""
    identity: Source
    """What the source is by its content: another catalogue under one name is another request."""
    text: bytes | None = None
    """A catalogue that is in the file itself."""


def read_local_request(file: Path, csv: Path | None) -> LocalRequest:
    """Raises UsageError for a file that is no valid request, or whose source is out of reach."""
    try:
        documents = load_documents(file.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"{file}: {error.strerror}"
        raise UsageError(message) from error
    except (UnicodeDecodeError, DocumentError) as error:
        message = f"{file} is no manifest: {error}; a catalogue is given with --csv"
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
    name = manifest["metadata"].get("name", "request")
    source = spec.source
    if csv is not None:
        return _from_file(name, spec, csv)
    if source.inline is not None:
        return _from_text(name, spec, source.inline.encode())
    if ref := source.config_map_key_ref:
        return _from_text(name, spec, _needed(ref, documents))
    if source.persistent_volume_claim or source.failures_of:
        message = "this source is only there in a cluster; give the catalogue with --csv FILE"
        raise UsageError(message)
    return LocalRequest(name, spec, source, "", source)


def _from_file(name: str, spec: Spec, csv: Path) -> LocalRequest:
    path = csv.resolve()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"--csv {csv}: {error.strerror}"
        raise UsageError(message) from error
    source = _file(path.name)
    return LocalRequest(name, spec, source, os.fspath(path.parent), Source(inline=digest))


def _from_text(name: str, spec: Spec, text: bytes) -> LocalRequest:
    digest = hashlib.sha256(text).hexdigest()
    return LocalRequest(name, spec, _file(TEXT_FILE), "", Source(inline=digest), text)


def _file(name: str) -> Source:
    return Source(persistent_volume_claim=ClaimPath(claim_name="local", path=name))


def _needed(ref: KeyRef, documents: list[dict[str, Any]]) -> bytes:
    found = config_map_bytes(ref.name, ref.key, documents)
    if found is None:
        message = (
            f"the ConfigMap {ref.name} with the key {ref.key} is not in the file; "
            "add it as a second document, or give the catalogue with --csv FILE"
        )
        raise UsageError(message)
    return found


def config_map_bytes(name: str, key: str, documents: list[dict[str, Any]]) -> bytes | None:
    """What a key of that ConfigMap holds, where it is among the documents."""
    for document in documents:
        named = (document.get("metadata") or {}).get("name")
        if document.get("kind") != "ConfigMap" or named != name:
            continue
        text = (document.get("data") or {}).get(key)
        encoded = (document.get("binaryData") or {}).get(key)
        try:
            if isinstance(encoded, str):
                return base64.b64decode(encoded)
        except ValueError as error:
            raise UsageError(f"binaryData.{key} of the ConfigMap {name}: {error}") from error
        if isinstance(text, str):
            return text.encode()
    return None
