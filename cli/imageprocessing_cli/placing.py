"""Where a catalogue goes so that a cluster can read it."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from imageprocessing_cli.errors import CommandError, UsageError

MAX_CONFIG_MAP = 1 << 20
"""Bytes of all values of a ConfigMap: https://kubernetes.io/docs/concepts/configuration/configmap/"""
KEY = "products.csv"
_HASH = 10  # hex digits in a ConfigMap's name
_URL = re.compile(r"^(https?|gs)://", re.IGNORECASE)

Object = dict[str, Any]


class Placed(msgspec.Struct, frozen=True):
    """spec.source, and the ConfigMap that it names where there is to be one."""

    source: Object
    config_map: Object | None = None
    upload: str | None = None
    """Object or path of a file that is too large for a ConfigMap, below the output."""


def is_url(catalogue: str) -> bool:
    """Whether it is a URL that the cluster reads itself."""
    return _URL.match(catalogue) is not None


def from_url(url: str) -> Object:
    """spec.source of an http, https or gs URL."""
    if not url.lower().startswith("gs://"):
        return {"http": {"url": url}}
    bucket, _, name = url[len("gs://") :].partition("/")
    if not bucket or not name:
        message = f"{url} names no object; a catalogue is at gs://BUCKET/OBJECT"
        raise UsageError(message)
    return {"gcs": {"bucket": bucket, "object": name}}


def place(data: bytes, name: str, output: Object) -> Placed:
    """A ConfigMap, or for what is too large for one a file beside the request's results."""
    digest = hashlib.sha256(data).hexdigest()
    if len(data) <= MAX_CONFIG_MAP:
        ref = {"name": f"{name[:230]}-{digest[:_HASH]}", "key": KEY}
        return Placed({"configMapKeyRef": ref}, _config_map(ref["name"], data))
    path = f"catalogues/{digest}.csv"
    if gcs := output.get("gcs"):
        above = str(gcs.get("prefix", "")).strip("/")
        path = f"{above}/{path}".lstrip("/")
        return Placed({"gcs": {"bucket": gcs["bucket"], "object": path}}, upload=path)
    claim = output["persistentVolumeClaim"]
    above = str(claim.get("path", "")).strip("/")
    path = f"{above}/{path}".lstrip("/")
    source = {"claimName": claim["claimName"], "path": path}
    return Placed({"persistentVolumeClaim": source}, upload=path)


def upload_to_bucket(bucket: str, name: str, data: bytes) -> None:
    """Creates the object, unless it is there already: its name is its content's."""
    # Google's client takes a second to import.
    from imageprocessing_worker.stores import StoreError  # noqa: PLC0415
    from imageprocessing_worker.stores.gcs import GCSStore  # noqa: PLC0415

    try:
        GCSStore(bucket, "", "").create(name, data, "text/csv")
    except StoreError as error:
        raise CommandError(bucket_error(bucket, error)) from error


def bucket_error(bucket: str, error: Exception) -> str:
    """What to say of a StoreError: whose access it was is not plain."""
    return f"gs://{bucket}, with your own Google credentials: {error}"


def owned_by(request: Object) -> Object:
    """The merge patch that lets an object go when the request goes."""
    owner = {
        "apiVersion": request["apiVersion"],
        "kind": request["kind"],
        "name": request["metadata"]["name"],
        "uid": request["metadata"]["uid"],
    }
    return {"metadata": {"ownerReferences": [owner]}}


def _config_map(name: str, data: bytes) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "immutable": True,
        "data": {KEY: data.decode()},
    }
