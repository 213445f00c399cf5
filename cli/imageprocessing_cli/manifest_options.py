"""`ipr submit`'s options, and the request that they make of a template. Pure but for reading it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from imageprocessing_contract import names

from imageprocessing_cli.errors import UsageError
from imageprocessing_cli.options import Function
from imageprocessing_cli.yaml_documents import DocumentError, load_documents

Object = dict[str, Any]

_FIELDS: dict[str, tuple[str, ...]] = {
    "request_id": ("requestID",),
    "image_format": ("compression", "format"),
    "quality": ("compression", "quality"),
    "max_width": ("compression", "maxWidth"),
    "widths": ("compression", "widths"),
    "invalid_rows": ("failurePolicy", "invalidRows"),
    "parallelism": ("sharding", "maxParallelism"),
}
"""Where in spec an option's value goes; what it may be is the CRD's to say."""


def spec_options(function: Function) -> Function:
    """Adds the options for the usual fields of spec."""
    options: list[Callable[[Function], Function]] = [
        click.option(
            "--from",
            "template",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Manifest of a request for all that options do not say; its source is not used.",
        ),
        click.option("--bucket", metavar="NAME", help="Cloud Storage bucket for the results."),
        click.option("--claim", metavar="NAME", help="PersistentVolumeClaim for the results."),
        click.option("--prefix", metavar="PATH", help="Folder in the bucket or claim."),
        click.option("--request-id", metavar="ID", help="The same ID is never done twice."),
        click.option("--format", "image_format", metavar="JPEG|WebP|AVIF|Original"),
        click.option("--quality", type=int, metavar="1-100"),
        click.option("--max-width", type=int, metavar="PIXELS"),
        click.option(
            "--widths",
            callback=_pixels,
            metavar="PIXELS,...",
            help="Variants of each image, with a column each: 320,640,1280.",
        ),
        click.option("--invalid-rows", metavar="Fail|Skip", help="Default Fail."),
        click.option("--parallelism", type=int, metavar="PODS", help="Shards at a time."),
        click.option("--webhook-url", metavar="URL", help="Who is told at the end."),
        click.option(
            "--webhook-secret",
            metavar="NAME[/KEY]",
            help="Secret that signs the webhook; default key: secret.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _pixels(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    try:
        return None if value is None else [int(width) for width in value.split(",")]
    except ValueError as error:
        message = f"{value!r}: numbers of pixels, separated by commas, such as 320,640,1280"
        raise click.BadParameter(message, context, option) from error


def default_name(catalogue: str) -> str:
    """A request's name after its catalogue's: `Spring 2026.csv` is spring-2026."""
    stem = re.sub(r"\.[^.]*$", "", re.sub(r"[?#].*", "", catalogue).rstrip("/").rpartition("/")[2])
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower())[:50].strip("-")
    if not name:
        message = f"{catalogue} gives no name; add one: ipr submit {catalogue} NAME"
        raise UsageError(message)
    return name


def read_template(file: Path | None) -> Object:
    """The one request in a manifest's file; an empty one without a file. Raises UsageError."""
    if file is None:
        return {"spec": {}}
    try:
        documents = load_documents(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--from {file}: {error.strerror}") from error
    except (UnicodeDecodeError, DocumentError) as error:
        raise UsageError(f"--from {file} is no manifest: {error}") from error
    found = [document for document in documents if document.get("kind") == names.KIND]
    if len(found) != 1:
        raise UsageError(f"--from {file}: expected one {names.KIND}, found {len(found)}")
    return found[0]


def build_request(name: str, template: Object, options: dict[str, Any]) -> Object:
    """The request without its source; raises UsageError where it has no output."""
    spec: Object = copy.deepcopy(template.get("spec") or {})
    spec.pop("source", None)
    for option, path in _FIELDS.items():
        if options[option] is not None:
            _set(spec, path, options[option])
    _set_output(spec, options)
    _set_webhook(spec, options)
    kept = {
        field: value
        for field, value in (template.get("metadata") or {}).items()
        if field in {"labels", "annotations", "namespace"}
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name, **kept},
        "spec": spec,
    }


def _set_output(spec: Object, options: dict[str, Any]) -> None:
    bucket, claim, prefix = options["bucket"], options["claim"], options["prefix"]
    if bucket and claim:
        message = "results go to --bucket or to --claim, not to both"
        raise UsageError(message)
    output = spec.setdefault("output", {})
    if bucket or claim:
        output.pop("gcs", None)
        output.pop("persistentVolumeClaim", None)
        output |= (
            {"gcs": {"bucket": bucket}}
            if bucket
            else {"persistentVolumeClaim": {"claimName": claim}}
        )
    if "gcs" not in output and "persistentVolumeClaim" not in output:
        message = "where do the results go? add --bucket NAME, --claim NAME or --from request.yaml"
        raise UsageError(message)
    if prefix is not None:
        in_bucket = "gcs" in output
        place = output["gcs" if in_bucket else "persistentVolumeClaim"]
        place["prefix" if in_bucket else "path"] = prefix


def _set_webhook(spec: Object, options: dict[str, Any]) -> None:
    url, secret = options["webhook_url"], options["webhook_secret"]
    if url:
        _set(spec, ("webhook", "url"), url)
    if secret:
        name, _, key = secret.partition("/")
        _set(spec, ("webhook", "secretKeyRef"), {"name": name, "key": key or "secret"})
    webhook = spec.get("webhook")
    if webhook and not ("url" in webhook and "secretKeyRef" in webhook):
        message = "a webhook needs both: --webhook-url URL and --webhook-secret NAME[/KEY]"
        raise UsageError(message)


def _set(spec: Object, path: tuple[str, ...], value: Any) -> None:
    for step in path[:-1]:
        spec = spec.setdefault(step, {})
    spec[path[-1]] = value
