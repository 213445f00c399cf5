"""The spec of an ImageProcessingRequest, as the API server stores it.

Limits and defaults live in the CRD: nothing here checks them again, and a field
that the CRD gives a default has none here.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

Format = Literal["JPEG", "WebP", "AVIF", "Original"]
Formulas = Literal["Keep", "Neutralize"]


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Fields are camelCase on the wire, as Kubernetes has them."""


class KeyRef(_Camel, frozen=True):
    """A key in a ConfigMap or Secret of the request's namespace."""

    name: str
    key: str


class HTTPSource(_Camel, frozen=True):
    """A CSV at an http or https URL."""

    url: str


class GCSObject(_Camel, frozen=True):
    """An object in Cloud Storage."""

    bucket: str
    object: str


class ClaimPath(_Camel, frozen=True):
    """A path below the root of a PersistentVolumeClaim."""

    claim_name: str
    path: str = ""


class RequestName(_Camel, frozen=True):
    """Another request of the same namespace."""

    name: str


class Source(_Camel, frozen=True):
    """Where the catalogue comes from: exactly one is set."""

    config_map_key_ref: KeyRef | None = None
    inline: str | None = None
    http: HTTPSource | None = None
    gcs: GCSObject | None = None
    persistent_volume_claim: ClaimPath | None = None
    failures_of: RequestName | None = None


class GCSPrefix(_Camel, frozen=True):
    """A place in a Cloud Storage bucket."""

    bucket: str
    prefix: str = ""


class Firestore(_Camel, frozen=True):
    """Where the record of each image goes."""

    project: str
    database: str
    collection: str


class Output(_Camel, frozen=True):
    """Where the results go: exactly one of gcs and persistentVolumeClaim is set."""

    gcs: GCSPrefix | None = None
    persistent_volume_claim: ClaimPath | None = None
    public_base_url: str | None = msgspec.field(name="publicBaseURL", default=None)
    firestore: Firestore | None = None
    # With a default here too: requests that finished without the field keep their hash.
    formulas: Formulas = "Keep"


class Compression(_Camel, frozen=True):
    """How each image is encoded; sizes in pixels, quality 1 to 100."""

    format: Format
    progressive: bool
    background: str
    keep_original_if_smaller: bool
    metadata: Literal["Strip", "Keep"]
    quality: int | None = None
    target_ssim_permille: int | None = msgspec.field(name="targetSSIMPermille", default=None)
    max_width: int | None = None
    max_height: int | None = None
    widths: tuple[int, ...] = ()


class Download(_Camel, frozen=True):
    """Limits of one download; maxSize is a quantity of bytes such as 50Mi."""

    timeout_seconds: int
    max_size: str
    max_pixels: int
    retries: int
    max_connections_per_host: int


class Sharding(_Camel, frozen=True):
    """How the catalogue is cut into shards."""

    images_per_shard: int
    max_parallelism: int
    retries_per_shard: int


class FailurePolicy(_Camel, frozen=True):
    """What counts as failed; maxFailedImages is a number or a percentage such as "5%"."""

    max_failed_images: int | str
    invalid_rows: Literal["Fail", "Skip"]


class Webhook(_Camel, frozen=True):
    """Who is told at the end, and the Secret that signs the message."""

    url: str
    secret_key_ref: KeyRef
    timeout_seconds: int


class Worker(_Camel, frozen=True):
    """Where and with which resources the worker's Pods run, in the terms of a Pod's spec."""

    # Copied into the Pod unread, so they stay plain JSON.
    resources: dict[str, Any] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    priority_class_name: str | None = None


class Spec(_Camel, frozen=True):
    """spec of an ImageProcessingRequest."""

    source: Source
    output: Output
    compression: Compression
    download: Download
    sharding: Sharding
    failure_policy: FailurePolicy
    worker: Worker
    active_deadline_seconds: int
    suspend: bool
    job_ttl_seconds_after_finished: int = msgspec.field(name="jobTTLSecondsAfterFinished")
    request_id: str | None = msgspec.field(name="requestID", default=None)
    webhook: Webhook | None = None


def parse_spec(spec: Any) -> Spec:
    """Reads a stored spec; raises msgspec.ValidationError where another CRD let it through."""
    return msgspec.convert(spec, Spec)


def spec_hash(spec: Spec) -> str:
    """Hash of what is immutable: the same hash means the same results."""
    fixed = (
        spec.source,
        spec.output,
        spec.compression,
        spec.sharding.images_per_shard,
        spec.failure_policy.invalid_rows,
    )
    return hashlib.sha256(msgspec.json.encode(fixed, order="deterministic")).hexdigest()[:32]


def output_path(spec: Spec, request_id: str) -> str:
    """Folder of the request in its bucket or claim, without slashes around it."""
    gcs, claim = spec.output.gcs, spec.output.persistent_volume_claim
    above = gcs.prefix if gcs else claim.path if claim else ""
    return f"{above.strip('/')}/{request_id}".lstrip("/")


def allowed_failures(limit: int | str, total: int) -> int:
    """How many of `total` images may fail; a percentage is rounded down."""
    if isinstance(limit, str):
        return total * int(limit.removesuffix("%")) // 100
    return limit


_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def size_bytes(quantity: str) -> int:
    """Bytes of a quantity that the CRD's pattern lets through: digits and Ki, Mi or Gi."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]
