"""Condition types and every reason, each with what it means.

docs/operations.md says what to do about each one.
"""

from __future__ import annotations

from enum import StrEnum


class Condition(StrEnum):
    """Types of the conditions in a request's status."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    CATALOGUE_VALID = "CatalogueValid"
    FINISHED = "Finished"
    NOTIFIED = "Notified"


class Reason(StrEnum):
    """Reasons of conditions; the column Status shows Ready's."""

    # On the way
    PLANNING = "Planning"
    PROCESSING = "Processing"
    FINALIZING = "Finalizing"
    SUSPENDED = "Suspended"
    NOT_FINISHED = "NotFinished"
    PROGRESSING = "Progressing"
    # How it ended
    SUCCEEDED = "Succeeded"
    PARTIALLY_SUCCEEDED = "PartiallySucceeded"
    TOO_MANY_FAILED_IMAGES = "TooManyFailedImages"
    ALL_IMAGES_FAILED = "AllImagesFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PLAN_FAILED = "PlanFailed"
    SHARD_FAILED = "ShardFailed"
    FINALIZE_FAILED = "FinalizeFailed"
    REPORT_LOST = "ReportLost"
    REQUEST_ID_CONFLICT = "RequestIDConflict"
    # The request itself
    SPEC_UNREADABLE = "SpecUnreadable"
    # The catalogue
    CATALOGUE_PENDING = "CataloguePending"
    CATALOGUE_VALID = "CatalogueValid"
    CATALOGUE_INVALID = "CatalogueInvalid"
    SOURCE_NOT_READABLE = "SourceNotReadable"
    OUTPUT_NOT_WRITABLE = "OutputNotWritable"
    SOURCE_REQUEST_NOT_USABLE = "SourceRequestNotUsable"
    NOT_PLANNED = "NotPlanned"
    # What keeps Pods from running
    JOB_NAME_TAKEN = "JobNameTaken"
    JOB_REFUSED = "JobRefused"
    JOB_CHANGE_REFUSED = "JobChangeRefused"
    PODS_NOT_CREATED = "PodsNotCreated"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_NOT_PULLED = "ImageNotPulled"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    VOLUME_NOT_MOUNTED = "VolumeNotMounted"
    NODE_LOST = "NodeLost"
    PODS_DISRUPTED = "PodsDisrupted"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    OOM_KILLED = "OOMKilled"
    # The webhook
    NO_WEBHOOK = "NoWebhook"
    DELIVERY_PENDING = "DeliveryPending"
    DELIVERED = "Delivered"
    RETRYING = "Retrying"
    GAVE_UP = "GaveUp"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105
    SECRET_NOT_USABLE = "SecretNotUsable"  # noqa: S105


class RowReason(StrEnum):
    """Why a row of a catalogue is invalid, or the whole catalogue is."""

    MISSING_COLUMN = "MissingColumn"
    DUPLICATE_COLUMN = "DuplicateColumn"
    NO_ROWS = "NoRows"
    NOT_CSV = "NotCSV"
    NOT_UTF8 = "NotUTF8"
    RECORD_TOO_LONG = "RecordTooLong"
    MALFORMED_RECORD = "MalformedRecord"
    TOO_MANY_CELLS = "TooManyCells"
    MISSING_CELL = "MissingCell"
    EMPTY_SERIAL_NUMBER = "EmptySerialNumber"
    DUPLICATE_SERIAL_NUMBER = "DuplicateSerialNumber"
    EMPTY_PRODUCT_NAME = "EmptyProductName"
    NO_URLS = "NoURLs"
    INVALID_URL = "InvalidURL"


class ImageReason(StrEnum):
    """Why one image failed."""

    ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
    NAME_NOT_RESOLVED = "NameNotResolved"
    CONNECTION_FAILED = "ConnectionFailed"
    TLS_FAILED = "TLSFailed"
    TIMEOUT = "Timeout"
    TOO_MANY_REDIRECTS = "TooManyRedirects"
    HTTP_ERROR = "HTTPError"
    RESPONSE_TOO_LARGE = "ResponseTooLarge"
    RESPONSE_BROKEN = "ResponseBroken"
    EMPTY_RESPONSE = "EmptyResponse"
    NOT_AN_IMAGE = "NotAnImage"
    FORMAT_NOT_SUPPORTED = "FormatNotSupported"
    CORRUPT_IMAGE = "CorruptImage"
    TOO_MANY_PIXELS = "TooManyPixels"
    TOO_MANY_SCANS = "TooManyScans"
    DECODE_TIMEOUT = "DecodeTimeout"
    DECODE_OUT_OF_MEMORY = "DecodeOutOfMemory"
    DECODER_CRASHED = "DecoderCrashed"
    SHARD_FAILED = "ShardFailed"


class EventReason(StrEnum):
    """Reasons of the Kubernetes events that the operator writes."""

    STARTED = "Started"
    FINISHED = "Finished"
    FAILED = "Failed"
    WEBHOOK_DELIVERED = "WebhookDelivered"
    WEBHOOK_GIVEN_UP = "WebhookGivenUp"
    UNREADABLE = "Unreadable"
