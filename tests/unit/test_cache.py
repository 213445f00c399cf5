"""What is newest counts, whatever comes late."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import count, permutations
from typing import Any

import msgspec
import pytest
from imageprocessing_contract.reasons import Reason
from imageprocessing_operator.cache import Cache
from imageprocessing_operator.state import Interruptions, Job, Request, Trouble

from tests.unit.operator_state import NOW, PLANNED, UID, a_job, a_request

KEY = ("shop", "spring")
TROUBLE = Trouble(Reason.UNSCHEDULABLE, "no node", NOW)


def version(number: int, uid: str = UID) -> Request:
    return msgspec.structs.replace(
        a_request(), resource_version=str(number), generation=number, uid=uid
    )


def job(number: int, **fields: object) -> Job:
    return a_job("plan", resource_version=str(number), **fields)


def seen(cache: Cache) -> str | None:
    found = cache.request(KEY)
    return found.resource_version if found else None


def test_older_versions_are_dropped() -> None:
    cache = Cache(lambda: NOW)
    for number, key in ((9, KEY), (10, KEY), (2, None)):
        assert cache.put_request(version(number)) == key
        cache.put_job(job(number))
    # As numbers: "9" is not newer than "10".
    assert seen(cache) == "10"
    assert [j.resource_version for j in cache.jobs(UID)] == ["10"]


def test_what_changes_nothing_that_is_read_is_no_news() -> None:
    """Our own writes come back as events; a Job's controller writes what nobody reads here."""
    cache = Cache(lambda: NOW)
    request, first = version(3), job(3)
    assert (cache.put_request(request), cache.put_job(first)) == (KEY, KEY)
    again = msgspec.structs.replace(request, resource_version="4")
    assert (cache.put_request(again), cache.put_job(job(4))) == (None, None)
    assert seen(cache) == "4"
    assert cache.put_request(msgspec.structs.replace(request, resource_version="5", deleting=True))
    assert cache.put_job(job(5, ready=0)) == KEY


@pytest.mark.parametrize("answer_first", [True, False])
def test_a_job_that_was_let_go_stays_until_its_request_settles(answer_first: bool) -> None:
    """The watch tells that it left; should the request's status fail, its report still counts."""
    cache = Cache(lambda: NOW)
    cache.put_request(version(3))
    cache.put_job(job(3, ended="Complete"))
    cache.learn(job(3), report=PLANNED)
    answer = job(4, ended="Complete", let_go=True, report=PLANNED)
    if answer_first:
        cache.put_job(answer)
        assert cache.drop_job(job(4, ended="Complete")) is None
    else:
        assert cache.drop_job(job(4, ended="Complete")) == KEY
        cache.put_job(answer)
    assert cache.jobs(UID) == [answer]
    cache.drop_request(version(5))
    assert cache.jobs(UID) == []


def test_a_settled_request_takes_its_jobs_along() -> None:
    """A list that was asked for before that does not bring them back."""
    cache = Cache(lambda: NOW)
    cache.put_request(version(3))
    cache.put_job(job(3))
    cache.expect_list()
    cache.drop_request(version(4))
    assert cache.jobs(UID) == []
    cache.replace([version(3)], [job(3)])
    assert cache.jobs(UID) == []


OOM = Trouble(Reason.OOM_KILLED, "more memory", NOW)


@pytest.mark.parametrize(
    ("trouble", "fields", "healed"),
    [
        (TROUBLE, {"active": 2, "ready": 1}, False),
        (TROUBLE, {"active": 2, "ready": 2}, True),
        (TROUBLE, {"active": 2, "ready": 2, "terminating": 1}, False),
        (OOM, {"active": 2, "ready": 2}, False),
        (OOM, {"active": 2, "ready": 2, "succeeded": 1}, True),
        (OOM, {"ended": "Failed"}, True),
    ],
)
def test_trouble_is_over_when_the_job_goes_on(
    trouble: Trouble, fields: dict[str, Any], healed: bool
) -> None:
    """A worker that was killed runs again, too, until it is killed again."""
    cache = Cache(lambda: NOW)
    cache.put_request(version(1))
    cache.put_job(job(3, ready=0))
    cache.learn(job(3), trouble=trouble)
    cache.put_job(job(4, **fields))
    (known,) = cache.jobs(UID)
    assert known.trouble == (None if healed else trouble)


def test_what_went_does_not_come_back() -> None:
    """An event from before a request settled, or a Job was deleted, may still be on its way."""
    cache = Cache(lambda: NOW)
    cache.put_request(version(3))
    cache.put_job(job(3))
    cache.drop_request(version(5))
    cache.drop_job(job(5))
    cache.put_request(version(4))
    cache.put_job(job(4))
    assert (cache.request(KEY), cache.jobs(UID)) == (None, [])
    cache.put_request(version(6))
    assert seen(cache) == "6"


LET_GO = job(4, ended="Complete", let_go=True)
TOLD: dict[str, Callable[[Cache], object]] = {
    "job, answer": lambda cache: cache.put_job(LET_GO),
    "job, watch": lambda cache: cache.drop_job(job(4, ended="Complete")),
    "request, answer": lambda cache: cache.drop_request(version(5)),
    "request, watch": lambda cache: cache.drop_request(version(5)),
}
"""How a request settles and its Job is let go: the answers come in order, the watches whenever."""


@pytest.mark.parametrize(
    "order",
    [
        order
        for order in permutations(TOLD)
        if order.index("job, answer") < order.index("request, answer")
    ],
    ids=" ".join,
)
def test_nothing_is_left_of_what_settled(order: tuple[str, ...]) -> None:
    cache = Cache(lambda: NOW)
    cache.replace([], [])
    empty = {key: copy.copy(value) for key, value in vars(cache).items()}
    cache.put_request(version(3))
    cache.put_job(job(3, ended="Complete"))
    for number, what in enumerate(order):
        TOLD[what](cache)
        # Until a watch has told, its events from before are still on their way.
        if "request, answer" in order[: number + 1] and "request, watch" in order[number + 1 :]:
            cache.put_request(version(4))
        if "job, answer" in order[: number + 1] and "job, watch" in order[number + 1 :]:
            cache.put_job(job(3, ended="Complete"))
    assert vars(cache) == empty


def test_another_request_of_the_same_name() -> None:
    cache = Cache(lambda: NOW)
    cache.put_request(version(3, "old"))
    cache.put_request(version(7, "new"))
    cache.put_request(version(4, "old"))
    cache.drop_request(version(5, "old"))
    assert seen(cache) == "7"
    assert cache.put_job(job(8, request_uid="new")) == KEY
    assert cache.put_job(job(8, request_uid="old", uid="x")) is None


def test_a_list_replaces_all_whatever_its_versions() -> None:
    """After a restored etcd they run backwards."""
    cache = Cache(lambda: NOW)
    cache.put_request(version(90))
    cache.drop_job(job(95, uid="again"))
    cache.put_job(job(90, uid="lost"))
    cache.put_job(job(90))
    cache.learn(job(90), report=PLANNED)
    cache.expect_list()
    cache.replace([version(5)], [job(5), job(5, uid="again")])
    assert seen(cache) == "5"
    assert {j.uid: j.resource_version for j in cache.jobs(UID)} == {"plan-1": "5", "again": "5"}
    assert next(j for j in cache.jobs(UID) if j.uid == "plan-1").report == PLANNED


def test_a_list_is_older_than_what_came_while_it_was_made() -> None:
    cache = Cache(lambda: NOW)
    cache.put_request(version(3))
    cache.put_job(job(3, uid="goes"))
    cache.put_job(job(3, uid="changes"))
    cache.expect_list()
    cache.drop_request(version(5))
    cache.drop_job(job(5, uid="goes"))
    cache.put_job(job(6, uid="changes"))
    cache.put_job(job(7, uid="comes"))
    cache.replace([version(3)], [job(3, uid="goes"), job(3, uid="changes")])
    assert cache.request(KEY) is None
    assert {j.uid: j.resource_version for j in cache.jobs(UID)} == {"changes": "6", "comes": "7"}


def test_what_was_found_out_stays_with_the_job() -> None:
    cache = Cache(lambda: NOW)
    cache.put_job(job(1, ready=0))
    cache.learn(job(1), trouble=TROUBLE)
    cache.put_job(job(2, ready=0))
    assert cache.jobs(UID)[0].trouble == TROUBLE
    # A Pod that lingers on a lost node is trouble though all others run.
    cache.put_job(job(3, terminating=1))
    assert cache.jobs(UID)[0].trouble == TROUBLE
    cache.put_job(job(4))
    assert cache.jobs(UID)[0].trouble is None
    cache.learn(job(9, uid="unknown"), trouble=TROUBLE)
    assert [j.uid for j in cache.jobs(UID)] == ["plan-1"]


RUNNING = a_job("shards", active=2, ready=2, parallelism=2, completions=9)


def test_they_are_counted_until_one_is_done() -> None:
    cache = Cache(lambda: NOW)
    versions = count(5)
    seen_of_it: list[dict[str, Any]] = [{}, {"ready": 0}, {"ready": 2}, {"ready": 1}, {}]
    for fields in seen_of_it:
        version = str(next(versions))
        cache.put_job(msgspec.structs.replace(RUNNING, resource_version=version, **fields))
    (job,) = cache.jobs(UID)
    assert job.interruptions == Interruptions(count=3, first=NOW, last=NOW)
    cache.replace([], [msgspec.structs.replace(job, interruptions=None)])
    assert cache.jobs(UID) == [job], "a list changes nothing about it"
    done = msgspec.structs.replace(job, resource_version="99", succeeded=1, finished_pods=1)
    cache.put_job(done)
    assert cache.jobs(UID)[0].interruptions is None
