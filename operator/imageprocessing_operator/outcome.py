"""How a request ended, from its totals and its failure policy. Pure."""

from __future__ import annotations

from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.report import Catalogue, Done
from imageprocessing_contract.request import Spec, allowed_failures

from imageprocessing_operator.conditions import Phase, failed, succeeded

_PLAN_ERRORS = frozenset(
    {
        Reason.CATALOGUE_INVALID,
        Reason.SOURCE_NOT_READABLE,
        Reason.OUTPUT_NOT_WRITABLE,
        Reason.SOURCE_REQUEST_NOT_USABLE,
        Reason.REQUEST_ID_CONFLICT,
    }
)


def plan_error(reason: str) -> Reason:
    """A plan's reason; that of a newer worker, or of no worker at all, is not known here."""
    known = (error for error in _PLAN_ERRORS if error == reason)
    return next(known, Reason.PLAN_FAILED)


def judge(spec: Spec, done: Done, catalogue: Catalogue | None) -> Phase:
    """The final conditions; results are delivered whatever they are."""
    images = done.images
    message = f"{images.succeeded} of {images.total} images done"
    if images.failed:
        message += f", {images.failed} failed"
    if done.failed_shards:
        message += f" (failed shards: {done.failed_shards})"
    left_out = catalogue.invalid_rows if catalogue else 0
    if left_out:
        message += f", {left_out} invalid rows left out"
    if done.cause == Reason.DEADLINE_EXCEEDED:
        seconds = spec.active_deadline_seconds
        return failed(Reason.DEADLINE_EXCEEDED, f"stopped after {seconds} s: {message}")
    if images.total and not images.succeeded:
        return failed(Reason.ALL_IMAGES_FAILED, message)
    limit = spec.failure_policy.max_failed_images
    if images.failed > allowed_failures(limit, images.total):
        return failed(Reason.TOO_MANY_FAILED_IMAGES, f"{message}; maxFailedImages is {limit}")
    if images.failed or left_out:
        return succeeded(Reason.PARTIALLY_SUCCEEDED, message)
    return succeeded(Reason.SUCCEEDED, message)
