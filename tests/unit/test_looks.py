"""When to look for what keeps a Job's Pods from running."""

from __future__ import annotations

from datetime import timedelta

from imageprocessing_contract.reasons import Reason
from imageprocessing_operator.looks import Look, asked, taken
from imageprocessing_operator.state import Trouble

from tests.unit.operator_state import NOW, a_job, after

FOUND = Trouble(Reason.UNSCHEDULABLE, "no node", NOW)
JOB = a_job("plan")


def seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


def test_the_first_look_is_ten_seconds_after_the_job_was_made() -> None:
    assert asked(None, JOB, after(2)) == Look(JOB.uid, after(10), seconds(10))
    assert asked(None, JOB, after(30)).due == after(30), "at once, by a new process"


def test_a_look_stays_due_until_it_is_taken() -> None:
    look = Look(JOB.uid, after(20), seconds(10))
    assert asked(look, JOB, after(15)) == look
    assert asked(look, JOB, after(30)) == look


def test_another_job_or_another_trouble_begins_anew() -> None:
    look = Look(JOB.uid, after(20), seconds(40))
    other = a_job("shards", created=after(60))
    assert asked(look, other, after(61)) == Look(other.uid, after(70), seconds(10))
    # Nobody asked when it was due.
    assert asked(look, JOB, after(31)) == Look(JOB.uid, after(41), seconds(10))


def test_looks_become_rarer_up_to_a_minute() -> None:
    look, waits, now = asked(None, JOB, after(10)), [], after(10)
    for _ in range(5):
        look = taken(look, JOB, FOUND, now)
        waits.append(int((look.due - now).total_seconds()))
        now = look.due
    assert waits == [10, 20, 40, 60, 60]


def test_while_pods_end_there_is_one_every_ten_seconds() -> None:
    """Until one is late."""
    ending = a_job("plan", terminating=1)
    look = taken(Look(JOB.uid, NOW, seconds(10)), ending, None, NOW)
    assert look.interval == seconds(10)
    assert taken(look, ending, FOUND, NOW).interval == seconds(20)
