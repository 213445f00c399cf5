"""What the watches and our own writes last said of requests and Jobs."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from imageprocessing_contract.report import Report

from imageprocessing_operator.state import Job, LostReport, Request, Trouble

Key = tuple[str, str]
"""Namespace and name of a request."""


class Cache:
    """Newest known state; an event that is older than what is there is dropped."""

    def __init__(self) -> None:
        self._requests: dict[Key, Request] = {}
        self._keys: dict[str, Key] = {}
        self._jobs: dict[str, dict[str, Job]] = {}

    def request(self, key: Key) -> Request | None:
        """The request, None once it is deleted or settled."""
        return self._requests.get(key)

    def jobs(self, request_uid: str) -> list[Job]:
        """Jobs that carry the request's UID."""
        return list(self._jobs.get(request_uid, {}).values())

    def all_keys(self) -> list[Key]:
        """All requests."""
        return list(self._requests)

    def put_request(self, request: Request) -> Key:
        """Keeps it unless a newer version is there; returns its key."""
        key = (request.namespace, request.name)
        known = self._requests.get(key)
        if known is None or known.uid != request.uid or _newer(request, known):
            if known is not None and known.uid != request.uid:
                self.drop_request(known)
            self._requests[key] = request
            self._keys[request.uid] = key
        return key

    def drop_request(self, request: Request) -> None:
        """It is deleted, or settled and no longer watched."""
        key = (request.namespace, request.name)
        known = self._requests.get(key)
        if known is not None and known.uid == request.uid:
            del self._requests[key]
        self._keys.pop(request.uid, None)

    def put_job(self, job: Job) -> Key | None:
        """Keeps it with what was found out about it before; returns its request's key."""
        jobs = self._jobs.setdefault(job.request_uid, {})
        known = jobs.get(job.uid)
        if known is None or _newer(job, known):
            if known is not None:
                running = job.active > 0 and job.ready >= job.active
                trouble = None if running or job.ended else known.trouble
                job = msgspec.structs.replace(job, report=known.report, trouble=trouble)
            jobs[job.uid] = job
        return self._keys.get(job.request_uid)

    def drop_job(self, job: Job) -> Key | None:
        """It is deleted; returns its request's key."""
        jobs = self._jobs.get(job.request_uid, {})
        jobs.pop(job.uid, None)
        if not jobs:
            self._jobs.pop(job.request_uid, None)
        return self._keys.get(job.request_uid)

    def learn(
        self,
        job: Job,
        *,
        report: Report | LostReport | None = None,
        trouble: Trouble | None = None,
    ) -> None:
        """Notes what was found out about a Job, if it is still there."""
        known = self._jobs.get(job.request_uid, {}).get(job.uid)
        if known is not None:
            self._jobs[job.request_uid][job.uid] = msgspec.structs.replace(
                known, report=report or known.report, trouble=trouble
            )

    def replace(self, requests: Iterable[Request], jobs: Iterable[Job]) -> None:
        """All there is, whatever the versions say: after a restored etcd they run backwards."""
        found = {
            job.uid: (job.report, job.trouble)
            for several in self._jobs.values()
            for job in several.values()
        }
        self._requests, self._keys, self._jobs = {}, {}, {}
        for request in requests:
            self.put_request(request)
        for job in jobs:
            report, trouble = found.get(job.uid, (None, None))
            self.put_job(msgspec.structs.replace(job, report=report, trouble=trouble))


def _newer(one: Request | Job, other: Request | Job) -> bool:
    """Resource versions are numbers that grow, since Kubernetes 1.35 also by contract."""
    return int(one.resource_version) >= int(other.resource_version)
