"""Every name that more than one part of the system relies on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

GROUP = "imageprocessing.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ImageProcessingRequest"
PLURAL = "imageprocessingrequests"

LABEL_REQUEST_UID = f"{GROUP}/request-uid"
LABEL_STEP = f"{GROUP}/step"
LABEL_ATTEMPT = f"{GROUP}/attempt"
LABEL_FINISHED = f"{GROUP}/finished"
"""Of a Job whose request has finished: the operator neither lists nor watches it any more."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "imageprocessing-operator"
# Kueue admits Jobs that carry this label; see https://kueue.sigs.k8s.io/docs/tasks/run/jobs/
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"

CONTAINER = "worker"
"""The container of a step's Pod whose termination message is the step's report."""

ENV_TASK = "IMAGEPROCESSING_TASK"
ENV_INLINE_SOURCE = "IMAGEPROCESSING_INLINE_SOURCE"
ENV_POD_UID = "IMAGEPROCESSING_POD_UID"
ENV_TERMINATION_LOG = "IMAGEPROCESSING_TERMINATION_LOG"
ENV_SOURCE_MOUNT = "IMAGEPROCESSING_SOURCE_MOUNT"
ENV_SHARD_INDEX = "JOB_COMPLETION_INDEX"  # set by the Job controller in an Indexed Job

SOURCE_MOUNT = "/source"
OUTPUT_MOUNT = "/output"

COLLECTION_REQUESTS = "processing_requests"
TABLE_IMAGES = "processed_images"
TABLE_VARIANTS = "processed_image_variants"
RECORDS_FILE = "records.sqlite"

COLUMN_SERIAL = "Serial Number"
COLUMN_PRODUCT = "Product Name"
COLUMN_URLS = "Input Image Urls"
COLUMN_OUTPUT_URLS = "Output Image Urls"
COLUMN_REASON = "Reason"

# Below the folder of one request in its output.
CATALOGUE = "catalogue.jsonl"
PLAN = "plan.json"
FAILED_CSV = "failed.csv"
REPORT_HTML = "report.html"
DONE = "done.json"
IMAGES = "compressed_images"
SAMPLES = "samples/"
"""Folder of the crops that the report shows, with a slash at its end."""


def another_catalogue(unique: str) -> str:
    """Where a plan's catalogue lies when an earlier plan left catalogue.jsonl behind."""
    return f"catalogue-{unique}.jsonl"


def processed_csv(request_id: str) -> str:
    """Path of the processed CSV below the request's folder."""
    return f"processed_csvs/processed_results_{request_id}.csv"


def shard_parts(index: int) -> str:
    """Folder of the checkpoint parts of shard `index`, with a slash at its end."""
    return f"results/{index}/"


def shard_part(index: int, pod_uid: str, number: int) -> str:
    """Checkpoint part `number` that one Pod wrote of shard `index`."""
    return f"{shard_parts(index)}{pod_uid}-{number:06d}.jsonl"


ALL_PARTS = "results/*/*.jsonl"
"""The parts of all shards, as a glob below the request's folder."""


def shard_results(index: int) -> str:
    """The commit of shard `index`: all its results, in catalogue order."""
    return f"results/{index}.jsonl"


def variant(width: int) -> str:
    """How a variant of an image is called, after srcset's descriptor: 320w."""
    return f"{width}w"


OUTPUT_COLUMN = rf"{COLUMN_OUTPUT_URLS}(?: [0-9]+w)?"
"""Pattern of what output_columns() may give."""


def output_columns(widths: Iterable[int]) -> list[str]:
    """What the processed CSV has more than the catalogue: `Output Image Urls`, ... `320w`."""
    return [COLUMN_OUTPUT_URLS, *(f"{COLUMN_OUTPUT_URLS} {variant(width)}" for width in widths)]


def image_object(url: str, extension: str) -> str:
    """Path of a compressed image: the same URL always has the same one."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return f"{IMAGES}/{digest[:2]}/{digest}.{extension}"


def variant_of(image: str, width: int) -> str:
    """Path or URL of an image's variant."""
    stem, _, extension = image.rpartition(".")
    return f"{stem}-{variant(width)}.{extension}"


def sample(url: str) -> str:
    """Path of the crops of an image; in the order of the hashes of the URLs."""
    return f"{SAMPLES}{hashlib.sha256(url.encode()).hexdigest()[:16]}.json"


def image_document(request_id: str, serial_number: str, position: int) -> str:
    """Document id of one image's record; serial numbers may hold any character, ids may not."""
    key = "\0".join((request_id, serial_number, str(position)))
    return hashlib.sha256(key.encode()).hexdigest()[:40]


def job_name(request_name: str, request_uid: str, step: str, attempt: int = 1) -> str:
    """Name of a step's Job: at most 63 characters, the same after every restart.

    The UID's hash keeps a request apart from an earlier one of the same name.
    """
    short = request_name.replace(".", "-")[:30].strip("-")
    name = f"{short}-{hashlib.sha256(request_uid.encode()).hexdigest()[:10]}-{step}"
    return name if attempt <= 1 else f"{name}-{attempt}"


def event_id(request_id: str, outcome: str) -> str:
    """The webhook-id: derived, so that a lost status sends the same message again."""
    return "msg_" + hashlib.sha256(f"{request_id}\0{outcome}".encode()).hexdigest()[:27]
