"""What the watches and our own writes last said of requests and Jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
from imageprocessing_contract.reasons import Reason
from imageprocessing_contract.report import Report

from imageprocessing_operator import disruptions
from imageprocessing_operator.state import Job, LostReport, Seen, Trouble

Key = tuple[str, str]
"""Namespace and name of a request."""


class Cache:
    """Newest known state; an event that is older than what is there is dropped."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock, self._started = clock, clock()
        self._requests: dict[Key, Seen] = {}
        self._keys: dict[str, Key] = {}
        self._jobs: dict[str, dict[str, Job]] = {}
        # UIDs of what went, with its last version: events that are still on their way must
        # not bring it back. Kept until the next list, or until it went a second time: both the
        # watch and the answer to our own write have told it then, and nothing older comes.
        self._gone: dict[str, int] = {}
        # UIDs of what changed since a list was asked for: the list may be older than that.
        # None while there is no such list.
        self._changed: set[str] | None = set()

    def request(self, key: Key) -> Seen | None:
        """The request, None once it is deleted or settled."""
        return self._requests.get(key)

    def requests(self) -> list[Seen]:
        """All requests."""
        return list(self._requests.values())

    def jobs(self, request_uid: str) -> list[Job]:
        """Jobs that carry the request's UID."""
        return list(self._jobs.get(request_uid, {}).values())

    def put_request(self, request: Seen) -> Key | None:
        """Keeps it unless a newer version is there, or was.

        Returns its key where anything changed that is read here: our own writes come back as
        events, and change nothing.
        """
        key = (request.namespace, request.name)
        known = self._requests.get(key)
        if self._is_gone(request) or (known is not None and not _newer(request, known)):
            return None
        if known is not None and known.uid != request.uid:
            self.drop_request(known)
        self._requests[key] = request
        self._keys[request.uid] = key
        self._note_change(request.uid)
        return None if _same(request, known) else key

    def drop_request(self, request: Seen) -> None:
        """It is deleted, or settled and no longer watched; nothing is left to do for its Jobs."""
        key = (request.namespace, request.name)
        known = self._requests.get(key)
        if known is not None and known.uid == request.uid:
            del self._requests[key]
        self._keys.pop(request.uid, None)
        for job in self._jobs.pop(request.uid, {}).values():
            self._went(job)
        self._went(request)

    def put_job(self, job: Job) -> Key | None:
        """Keeps it with what was found out about it before, as put_request() does.

        Returns its request's key where anything changed that is read here.
        """
        known = self._jobs.get(job.request_uid, {}).get(job.uid)
        # The answer to letting it go may come after the watch has told that it left.
        left = job.let_go and int(job.resource_version) == self._gone.get(job.uid)
        if not left and self._is_gone(job):
            return None
        if known is not None and not _newer(job, known):
            return None
        if known is not None:
            trouble = None if _heals(known, job) else known.trouble
            job = msgspec.structs.replace(
                job,
                report=known.report,
                trouble=trouble,
                interruptions=disruptions.counted(known, job, self._clock()),
            )
        elif job.interruptions is None and job.created < self._started:
            request = self._requests.get(self._keys.get(job.request_uid, ("", "")))
            if request is not None:
                told = disruptions.remembered(request, job, self._clock())
                job = msgspec.structs.replace(job, interruptions=told)
        self._jobs.setdefault(job.request_uid, {})[job.uid] = job
        self._note_change(job.uid)
        return None if _same(job, known) else self._keys.get(job.request_uid)

    def drop_job(self, job: Job) -> Key | None:
        """It is deleted, or left the watch; returns the key of a request that lost it by that."""
        jobs = self._jobs.get(job.request_uid, {})
        known = jobs.get(job.uid)
        if known is not None and known.let_go and _newer(known, job):
            # Not deleted. Until its request's end is written it is known with its report.
            self._went(job)
            return None
        jobs.pop(job.uid, None)
        if not jobs:
            self._jobs.pop(job.request_uid, None)
        self._went(job)
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

    def expect_list(self) -> None:
        """A list is asked for now: what changes from here on is newer than the list."""
        self._changed = set()

    def replace(self, requests: Iterable[Seen], jobs: Iterable[Job]) -> None:
        """All there is, whatever the versions say: after a restored etcd they run backwards."""
        changed, self._changed = self._changed or set(), None
        known_requests = {request.uid: request for request in self._requests.values()}
        known_jobs = {job.uid: job for several in self._jobs.values() for job in several.values()}
        self._requests, self._keys, self._jobs = {}, {}, {}
        self._gone = {uid: version for uid, version in self._gone.items() if uid in changed}
        for request in requests:
            newer = known_requests.pop(request.uid, None) if request.uid in changed else None
            self.put_request(newer or request)
        for job in jobs:
            known = known_jobs.pop(job.uid, None)
            if known is not None and job.uid not in changed:
                known = msgspec.structs.replace(
                    job,
                    report=known.report,
                    trouble=known.trouble,
                    interruptions=known.interruptions,
                )
            self.put_job(known or job)
        # What came after the list was made.
        for request in known_requests.values():
            if request.uid in changed:
                self.put_request(request)
        for job in known_jobs.values():
            if job.uid in changed:
                self.put_job(job)

    def _went(self, what: Seen | Job) -> None:
        version, before = int(what.resource_version), self._gone.pop(what.uid, None)
        if version != before:
            self._gone[what.uid] = max(version, before or 0)
        self._note_change(what.uid)

    def _note_change(self, uid: str) -> None:
        if self._changed is not None:
            self._changed.add(uid)

    def _is_gone(self, what: Seen | Job) -> bool:
        return int(what.resource_version) <= self._gone.get(what.uid, -1)


def _same(new: Seen | Job, known: Seen | Job | None) -> bool:
    """Whether only the version differs."""
    return known is not None and known == msgspec.structs.replace(
        new, resource_version=known.resource_version
    )


def _heals(known: Job, job: Job) -> bool:
    """Whether the Job goes on, whatever was in its way."""
    if known.trouble and known.trouble.reason == Reason.OOM_KILLED:
        # The next try runs, too, until it is killed.
        return job.succeeded > known.succeeded or job.ended is not None
    return job.ended is not None or (0 < job.active <= job.ready and not job.terminating)


def _newer(one: Seen | Job, other: Seen | Job) -> bool:
    """Resource versions are numbers that grow, since Kubernetes 1.35 also by contract."""
    return int(one.resource_version) >= int(other.resource_version)
