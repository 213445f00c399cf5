"""ipr submit: a catalogue becomes a request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from imageprocessing_contract import names

from imageprocessing_cli.completing import files
from imageprocessing_cli.created import created
from imageprocessing_cli.errors import EXIT_CODES, CommandError, UsageError
from imageprocessing_cli.manifest_options import (
    build_request,
    default_name,
    read_template,
    spec_options,
)
from imageprocessing_cli.options import Connection, cluster_options, output_option
from imageprocessing_cli.placing import Placed, from_url, is_url, owned_by, place
from imageprocessing_cli.printing import print_objects

if TYPE_CHECKING:
    from imageprocessing_cli.cluster import Cluster

Object = dict[str, Any]
_SHOWN = 10  # errors of a catalogue


@click.command(epilog=EXIT_CODES)
@click.argument("catalogue", metavar="CATALOGUE", shell_complete=files)
@click.argument("name", required=False)
@spec_options
@click.option("--image", metavar="IMAGE", help="For a large file to a claim: an image with Python.")
@click.option("--wait", is_flag=True, help="Follow the request until it has finished.")
@click.option("--dry-run", is_flag=True, help="Send nothing; print all with -o yaml or -o json.")
@output_option("json", "yaml", "name")
@cluster_options
def submit(
    *,
    connection: Connection,
    catalogue: str,
    name: str | None,
    template: Path | None,
    image: str | None,
    wait: bool,
    dry_run: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Make a request of CATALOGUE: a CSV file, or an http, https or gs URL of one.

    NAME is by default the file's. A file of up to 1 MiB travels in a ConfigMap that goes
    with the request; a larger one goes to the request's bucket or claim.

    \b
    ipr submit products.csv --bucket shop-images --prefix catalogues
    ipr submit products.csv spring --from request.yaml --wait
    ipr submit products.csv --claim images --dry-run -o yaml > request.yaml
    """
    name = name or default_name(catalogue)
    request = build_request(name, read_template(template), options)
    # As with kubectl the manifest's namespace counts; -n wins, as for all that it is a template.
    namespace = connection.namespace or request["metadata"].pop("namespace", None)
    connection = dataclasses.replace(connection, namespace=namespace)
    placed, data = _place(catalogue, request)
    request["spec"] = {"source": placed.source, **request["spec"]}
    if dry_run:
        _check(request)
        _print_dry(placed, request, namespace, output)
        return
    cluster = connection.open()
    stored = _send(cluster, placed, request, data, image)
    created(connection, cluster, stored, output=output, wait=wait)


def _place(catalogue: str, request: Object) -> tuple[Placed, bytes]:
    if is_url(catalogue):
        return Placed(from_url(catalogue)), b""
    # Imports the CSV's reader, which a URL does not need.
    from imageprocessing_cli.catalogue_check import (  # noqa: PLC0415
        ANY_ADDRESS,
        check_catalogue,
        read_file,
    )

    file = Path(catalogue)
    data = b"".join(read_file(file))
    skip = request["spec"].get("failurePolicy", {}).get("invalidRows") == "Skip"
    found = check_catalogue(iter([data]), ANY_ADDRESS)
    if found.errors and not (skip and found.readable and found.images):
        lines = [f"  {file}:{e.line}: {e.reason}: {e.message}" for e in found.errors[:_SHOWN]]
        more = len(found.errors) - _SHOWN
        lines += [f"  and {more} more: ipr validate {file}"] if more > 0 else []
        hint = "mend them, or leave these rows out with --invalid-rows Skip"
        what = f"has errors; {hint}" if found.readable else "cannot be used"
        raise UsageError("\n".join([f"{file} {what}", *lines]))
    return place(data, request["metadata"]["name"], request["spec"]["output"]), data


def _check(request: Object) -> None:
    """What the server would say; there is none in a dry run."""
    from imageprocessing_cli.manifest import validate  # noqa: PLC0415 - 0.5 s of CEL

    if errors := validate(request):
        raise UsageError("\n".join(["the request is invalid", *(f"  {e}" for e in errors)]))


def _print_dry(placed: Placed, request: Object, namespace: str | None, output: str | None) -> None:
    if placed.upload:
        message = (
            f"the file is too large for a ConfigMap; put it to {placed.upload} in the output "
            "first, by an `ipr submit` without --dry-run or by yourself, and use its URL"
        )
        raise CommandError(message)
    objects = [found for found in (placed.config_map, request) if found]
    for found in objects if namespace else []:
        found["metadata"] |= {"namespace": namespace}
    print_objects(output or "yaml", *objects)


def _send(
    cluster: Cluster, placed: Placed, request: Object, data: bytes, image: str | None
) -> Object:
    """What the request needs, and then the request: its Pod must not wait for the rest."""
    from imageprocessing_cli.cluster import REQUESTS  # noqa: PLC0415

    # A request that is refused must leave nothing behind.
    cluster.create(REQUESTS, names.PLURAL, request, dry_run=True)
    if placed.config_map:
        return _send_with(cluster, placed.config_map, request)
    if placed.upload:
        _upload(cluster, placed, data, image)
    return cluster.create(REQUESTS, names.PLURAL, request)


def _send_with(cluster: Cluster, config_map: Object, request: Object) -> Object:
    """Creates the ConfigMap, the request, and makes the one go when the other goes."""
    from imageprocessing_cli.cluster import CORE, REQUESTS  # noqa: PLC0415

    # A name of its own: the one of a request that was deleted just now may be on its way out.
    name = {"generateName": f"{config_map['metadata']['name']}-"}
    made = cluster.create(CORE, "configmaps", config_map | {"metadata": name})
    path = cluster.path(CORE, "configmaps", made["metadata"]["name"])
    request["spec"]["source"]["configMapKeyRef"]["name"] = made["metadata"]["name"]
    try:
        stored = cluster.create(REQUESTS, names.PLURAL, request)
    except CommandError:
        cluster.call("DELETE", path)
        raise
    try:
        cluster.call("PATCH", path, body=owned_by(stored))
    except CommandError as error:
        message = f"the ConfigMap {made['metadata']['name']} will outlive the request"
        click.echo(f"warning: {message}: {error.message}", err=True)
    return stored


def _upload(cluster: Cluster, placed: Placed, data: bytes, image: str | None) -> None:
    path = placed.upload or ""
    if gcs := placed.source.get("gcs"):
        from imageprocessing_cli.placing import upload_to_bucket  # noqa: PLC0415

        upload_to_bucket(gcs["bucket"], path, data)
        click.echo(f"gs://{gcs['bucket']}/{path}: the catalogue is there", err=True)
        return
    from imageprocessing_cli.claim_pod import claim_pod  # noqa: PLC0415 - 1 s of models

    claim = placed.source["persistentVolumeClaim"]["claimName"]
    with claim_pod(cluster, claim, image, read_only=False) as pod:
        pod.write(path, data)
    click.echo(f"{path} in the claim {claim}: the catalogue is there", err=True)
