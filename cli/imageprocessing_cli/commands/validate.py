"""ipr validate: manifest and catalogue on this machine, every error with its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from imageprocessing_contract import names, redact
from imageprocessing_contract.guard import NOT_PUBLIC

from imageprocessing_cli.catalogue_check import Checked, check_catalogue, read_file
from imageprocessing_cli.errors import EXIT_USAGE, HOW_TO_ALLOW, UsageError
from imageprocessing_cli.options import allow_network
from imageprocessing_cli.printing import number

_MANIFESTS = {".yaml", ".yml", ".json", ""}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Catalogue that the request in FILE is for.",
)
@allow_network("Network of which the catalogue may name addresses. May be repeated.")
def validate(file: Path, csv: Path | None, allowed: tuple[str, ...]) -> None:
    """Check FILE, a manifest (.yaml, .json) or a catalogue, as the API server and the worker do.

    Says every error with its line. A catalogue that is in the manifest, inline or as a
    ConfigMap, is checked as well.

    \b
    ipr validate products.csv
    ipr validate request.yaml --csv products.csv

    Exit code: 0 valid, 2 not valid.
    """
    if file.suffix.lower() not in _MANIFESTS:
        if csv:
            message = "--csv belongs to a manifest; FILE is a catalogue"
            raise UsageError(message)
        said = _report(str(file), check_catalogue(read_file(file), allowed))
    else:
        said = _manifest_errors(file, allowed)
        if csv:
            said += _report(str(csv), check_catalogue(read_file(csv), allowed))
    for line in said:
        click.echo(redact.printable(line), err=True)
    if any(NOT_PUBLIC in line for line in said):
        click.echo(HOW_TO_ALLOW, err=True)
    if said:
        sys.exit(EXIT_USAGE)


def _manifest_errors(file: Path, allowed: tuple[str, ...]) -> list[str]:
    from imageprocessing_cli.manifest import validate as errors_of  # noqa: PLC0415 - 0.5 s of CEL
    from imageprocessing_cli.yaml_documents import DocumentError, load_documents  # noqa: PLC0415
    from imageprocessing_cli.yaml_lines import line_of, request_lines  # noqa: PLC0415

    text = b"".join(read_file(file)).decode(errors="replace")
    try:
        documents = load_documents(text)
    except DocumentError as error:
        return [f"{file}: {error}"]
    requests = 0
    said: list[str] = []
    for document, node in zip(documents, request_lines(text), strict=True):
        if document.get("kind") != names.KIND:
            continue
        requests += 1
        found = errors_of(document)
        said += [f"{file}:{line_of(node, error.path)}: {error}" for error in found]
        if found:
            continue
        name = document["metadata"].get("name", "")
        click.echo(f"{file}: the request {name} is valid".replace("  ", " "))
        if held := _held_catalogue(document, documents):
            said += _report(f"{file}: catalogue", check_catalogue(iter([held]), allowed))
    if not requests:
        said.append(f"{file}: there is no {names.KIND} in it")
    return said


def _held_catalogue(request: dict[str, Any], documents: list[dict[str, Any]]) -> bytes | None:
    """The catalogue, where it is in the request or in a ConfigMap of the same file."""
    from imageprocessing_cli.manifest_file import config_map_bytes  # noqa: PLC0415 - CEL as well

    source = request["spec"]["source"]
    if "inline" in source:
        return str(source["inline"]).encode()
    if ref := source.get("configMapKeyRef"):
        return config_map_bytes(ref["name"], ref["key"], documents)
    return None


def _report(label: str, found: Checked) -> list[str]:
    if not found.errors:
        counts = f"{number(found.rows, 'row')}, {number(found.images, 'image')}"
        click.echo(f"{label}: {counts}, all valid")
    return [f"{label}:{e.line}: {e.reason}: {e.message}" for e in found.errors]
