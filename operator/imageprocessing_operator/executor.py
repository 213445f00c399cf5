"""Performs what a decision asks for: every write to the API is here."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import msgspec
from imageprocessing_contract import names
from imageprocessing_contract.reasons import Condition, Reason
from imageprocessing_contract.request import Source

from imageprocessing_operator import jobs
from imageprocessing_operator.actions import CreateJob, Event, UpdateJob
from imageprocessing_operator.api import (
    API,
    MERGE_PATCH,
    APIError,
    core_path,
    jobs_path,
    requests_path,
)
from imageprocessing_operator.settings import Settings
from imageprocessing_operator.state import (
    Job,
    Request,
    Seen,
    Trouble,
    UnreadableRequest,
    read_job,
    read_request,
)

logger = logging.getLogger(__name__)
_MESSAGE = 1024  # characters of an event's message, the API's own limit


class Executor:
    """One method an action; each raises APIError where the caller should try again later."""

    def __init__(self, api: API, settings: Settings) -> None:
        self._api, self._settings = api, settings

    async def create_job(self, request: Request, wanted: CreateJob, now: datetime) -> Job | Trouble:
        """The new Job, our own from before a crash, or why there is none."""
        if getattr(request.status.steps, wanted.step) >= wanted.attempt:
            # It was begun: gone since, or let go just before a crash, when no watch tells of it.
            try:
                return await self._adopt(request, wanted, now)
            except APIError as error:
                if error.status != 404:
                    raise
        source = await self._whole_source(request, wanted)
        failures_of = await self._failures_of(request, wanted, now)
        if isinstance(failures_of, Trouble):
            return failures_of
        body = jobs.build_job(request, wanted, source, self._settings, failures_of)
        try:
            created = await self._api.call("POST", jobs_path(request.namespace), body=body)
        except APIError as error:
            if error.status == 409 and error.reason == "AlreadyExists":
                return await self._adopt(request, wanted, now)
            # 409: two at once in a quota.
            if not _is_refusal(error):
                raise
            if error.namespace_terminates:
                return Trouble(Reason.NAMESPACE_TERMINATING, error.message, now, final=True)
            message = f"the API server refuses the Job: {error.message}"
            return Trouble(Reason.JOB_REFUSED, message, now, final=True)
        logger.info("created Job %s/%s", request.namespace, body["metadata"]["name"])
        job = read_job(created)
        assert job is not None  # noqa: S101 - it has the labels that we gave it
        return job

    async def delete_job(self, job: Job, now: datetime, *, wait: bool) -> Trouble | None:
        """Why it could not be.

        Background or Foreground: without either the Pods live on, ownerless.
        """
        try:
            await self._api.call(
                "DELETE",
                jobs_path(job.namespace, job.name),
                body={
                    "propagationPolicy": "Foreground" if wait else "Background",
                    "preconditions": {"uid": job.uid},
                },
            )
        except APIError as error:
            if _is_refusal(error):
                return _change_refused(job, error, now, final=True)
            # 409: the name is another Job's by now.
            if error.status not in (404, 409):
                raise
        return None

    async def update_job(self, update: UpdateJob, now: datetime) -> Job | Trouble | None:
        """The Job as it is now, None where it is gone, or why it stays as it is."""
        finished = {} if update.ttl is None else {"labels": {names.LABEL_FINISHED: "true"}}
        spec: dict[str, Any] = {
            "suspend": update.suspend,
            "parallelism": update.parallelism,
            "ttlSecondsAfterFinished": update.ttl,
        }
        body = {
            # Another Job may have the name by now.
            "metadata": {"uid": update.job.uid, **finished},
            "spec": {key: value for key, value in spec.items() if value is not None},
        }
        try:
            answer = await self._api.call(
                "PATCH",
                jobs_path(update.job.namespace, update.job.name),
                body=body,
                content_type=MERGE_PATCH,
            )
        except APIError as error:
            if error.status == 404:
                return None
            if _is_refusal(error):
                # With as many Pods as before it goes on.
                final = update.suspend is not None
                return _change_refused(update.job, error, now, final=final)
            raise
        return read_job(answer)

    async def write_status(self, request: Seen, patch: dict[str, Any]) -> Seen | None:
        """The request with its status patched; None where the patch is empty.

        Carries the resource version: two operators at once then cannot undo each other.
        """
        if not patch:
            return None
        answer = await self._api.call(
            "PATCH",
            requests_path(request.namespace, request.name, "status"),
            body={
                "metadata": {"resourceVersion": request.resource_version, "uid": request.uid},
                "status": patch,
            },
            content_type=MERGE_PATCH,
        )
        return read_request(answer)

    async def post_event(self, request: Seen, event: Event, now: datetime) -> None:
        """Best effort: an event that cannot be written is logged and forgotten."""
        stamp = now.isoformat().replace("+00:00", "Z")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{request.name[:50]}.", "namespace": request.namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": request.namespace,
                "name": request.name,
                "uid": request.uid,
                "resourceVersion": request.resource_version,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE],
            "source": {"component": names.MANAGED_BY},
            "reportingComponent": names.MANAGED_BY,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        try:
            await self._api.call("POST", core_path("events", request.namespace), body=body)
        except APIError as error:
            logger.warning("event %s for %s: %s", event.reason, request.name, error)

    async def _whole_source(self, request: Request, wanted: CreateJob) -> Source:
        """The source with its inline text, which only plan needs and nobody caches."""
        if wanted.step != "plan" or not request.inline:
            return request.spec.source
        body = await self._api.call("GET", requests_path(request.namespace, request.name))
        return msgspec.convert(body["spec"]["source"], Source)

    async def _failures_of(
        self, request: Request, wanted: CreateJob, now: datetime
    ) -> str | Trouble | None:
        """With source.failuresOf: the other request's id, or why it cannot be used."""
        ref = request.spec.source.failures_of
        if ref is None:
            return None
        if wanted.step != "plan" and (planned := await self._planned_failures_of(request)):
            return planned
        reason = Reason.SOURCE_REQUEST_NOT_USABLE
        try:
            other = read_request(
                await self._api.call("GET", requests_path(request.namespace, ref.name))
            )
        except APIError as error:
            if error.status == 404:
                return Trouble(reason, f"there is no request {ref.name}", now, final=True)
            raise
        if isinstance(other, UnreadableRequest):
            message = f"request {ref.name} cannot be read: {other.problem}"
            return Trouble(reason, message, now, final=True)
        if other.spec.output != request.spec.output:
            message = f"request {ref.name} has another output; spec.output must be the same"
            return Trouble(reason, message, now, final=True)
        if not other.status.is_true(Condition.FINISHED):
            return Trouble(reason, f"request {ref.name} has not finished yet", now)
        if other.status.results is None:
            return Trouble(reason, f"request {ref.name} ended without results", now, final=True)
        return other.request_id

    async def _planned_failures_of(self, request: Request) -> str | None:
        """What the plan was given: the other request may be gone since, or another one."""
        name = names.job_name(request.name, request.uid, "plan", request.status.steps.plan)
        try:
            plan = await self._api.call("GET", jobs_path(request.namespace, name))
        except APIError as error:
            if error.status == 404:
                return None
            raise
        try:
            return jobs.read_task(plan).failures_of
        except msgspec.DecodeError:
            return None  # of a version before this operator's

    async def _adopt(self, request: Request, wanted: CreateJob, now: datetime) -> Job | Trouble:
        """The Job that already has the name, if it is this request's own."""
        name = names.job_name(request.name, request.uid, wanted.step, wanted.attempt)
        job = read_job(await self._api.call("GET", jobs_path(request.namespace, name)))
        if job is not None and job.owned and job.request_uid == request.uid:
            return job
        message = f"a Job {name} that is not this request's has the name; delete or rename it"
        return Trouble(Reason.JOB_NAME_TAKEN, message, now, final=True)


def _is_refusal(error: APIError) -> bool:
    """Whether the same call will be answered in the same way until somebody acts."""
    return not error.transient and error.status not in (401, 404, 409)


def _change_refused(job: Job, error: APIError, now: datetime, *, final: bool) -> Trouble:
    message = f"the API server refuses to change Job {job.name}: {error.message}"
    return Trouble(Reason.JOB_CHANGE_REFUSED, message, now, final=final)
