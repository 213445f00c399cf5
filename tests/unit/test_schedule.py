"""The order in which a shard asks, with hosts and time played by a small simulation."""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from imageprocessing_contract.reasons import ImageReason
from imageprocessing_worker.download import DownloadFailure, Heard
from imageprocessing_worker.host import DOWN_AFTER, Attempt
from imageprocessing_worker.schedule import (
    LONGEST_RETRY_AFTER,
    OUTAGE_SECONDS,
    PROBE_EVERY,
    Schedule,
)

Item = tuple[str, int]
"""A host and a number."""
Answer = tuple[float, DownloadFailure | None]
"""Seconds until it comes, and the failure."""
Behaviour = Callable[[int, int, float], Answer]
"""What a host does: called with the item's number, how often it was asked for, and the time."""

TIMEOUT = 30.0
NO_CONNECTION = DownloadFailure(
    ImageReason.CONNECTION_FAILED, "no connection", True, heard=Heard.SILENCE
)
TIMED_OUT = DownloadFailure(ImageReason.TIMEOUT, "not complete", True, heard=Heard.SILENCE)
NO_SUCH_NAME = DownloadFailure(
    ImageReason.NAME_NOT_RESOLVED, "no such name", True, heard=Heard.NOTHING
)
UNAVAILABLE = DownloadFailure(ImageReason.HTTP_ERROR, "503 Service Unavailable", True)
MISSING = DownloadFailure(ImageReason.HTTP_ERROR, "404 Not Found", False)


def too_many(seconds: float) -> DownloadFailure:
    return DownloadFailure(ImageReason.HTTP_ERROR, "429 Too Many Requests", True, seconds)


def always(failure: DownloadFailure | None, seconds: float = 0.1) -> Behaviour:
    return lambda *_: (seconds, failure)


def times(count: int, failure: DownloadFailure) -> Behaviour:
    """Each item fails so often first."""
    return lambda _, asked, __: (0.1, failure if asked <= count else None)


def cut(begin: float, end: float, failure: DownloadFailure = NO_CONNECTION) -> Behaviour:
    """Up, but for a while; the attempts under way when that begins fail with it."""

    def answer(_: int, __: int, now: float) -> Answer:
        if now + 0.1 < begin or now >= end:
            return 0.1, None
        return max(begin - now, 0.1), failure

    return answer


up = always(None)
refuses = always(NO_CONNECTION, 0.001)
hangs = always(TIMED_OUT, TIMEOUT)


@dataclass
class Simulation:
    """Does what a schedule says, with at most `window` attempts under way."""

    behaviours: dict[str, Behaviour]
    items: list[Item]
    per_host: int = 4
    retries: int = 3
    window: int = 64
    chance: Callable[[], float] = lambda: 0.5
    now: float = 0.0
    lost: bool = False
    started: list[tuple[float, Item, bool]] = field(default_factory=list)
    done: dict[Item, float] = field(default_factory=dict)
    failed: dict[Item, DownloadFailure] = field(default_factory=dict)
    failed_at: dict[Item, float] = field(default_factory=dict)
    counted: Counter[Item] = field(default_factory=Counter)

    def run(self) -> "Simulation":
        self.schedule = Schedule(
            ((item[0], item) for item in self.items),
            per_host=self.per_host,
            retries=self.retries,
            chance=self.chance,
        )
        asked: Counter[Item] = Counter()
        running: Counter[str] = Counter()
        events: list[tuple[float, int, Attempt[Item], DownloadFailure | None]] = []
        order = itertools.count()
        for _ in range(100_000):
            while len(events) < self.window and (attempt := self.schedule.take(self.now)):
                host, number = attempt.item
                asked[attempt.item] += 1
                running[host] += 1
                assert running[host] <= self.per_host
                assert attempt.canary == (attempt.item in self.done or attempt.item in self.failed)
                self.started.append((self.now, attempt.item, attempt.canary))
                seconds, failure = self.behaviours[host](number, asked[attempt.item], self.now)
                heapq.heappush(events, (self.now + seconds, next(order), attempt, failure))
            if self.schedule.done:
                return self
            if self.schedule.lost(self.now):
                self.lost = True
                return self
            wait = self.schedule.wait(self.now) if len(events) < self.window else None
            assert events or wait is not None, "nothing goes on"
            if wait is None or (events and events[0][0] <= self.now + wait):
                self.now, _, attempt, failure = heapq.heappop(events)
                running[attempt.item[0]] -= 1
                self._end(attempt, failure)
            else:
                self.now += wait
        raise AssertionError("it goes on for ever")

    def _end(self, attempt: Attempt[Item], failure: DownloadFailure | None) -> None:
        given_up = self.schedule.ended(attempt, failure, self.now)
        for failed in given_up:
            assert failed.item not in self.failed
            self.failed[failed.item] = failed.failure
            self.failed_at[failed.item] = self.now
        if failure is None and not attempt.canary:
            assert attempt.item not in self.done
            self.done[attempt.item] = self.now
        assert attempt.tries <= self.retries + 1
        self.counted[attempt.item] = max(self.counted[attempt.item], attempt.tries)

    def asked(self, host: str) -> list[float]:
        """When a host was asked for its items, without canaries."""
        return [when for when, item, canary in self.started if item[0] == host and not canary]


def simulation(
    behaviours: dict[str, Behaviour], counts: dict[str, int], **options: object
) -> Simulation:
    items = [(host, n) for host, count in counts.items() for n in range(count)]
    return Simulation(behaviours, items, **options).run()  # type: ignore[arg-type]


def test_hosts_take_turns() -> None:
    ran = simulation({"a": up, "b": up}, {"a": 6, "b": 2}, window=1)
    assert [host for _, (host, _), _ in ran.started] == list("abab" + "aaaa")
    assert [item for _, item, _ in ran.started if item[0] == "a"] == [("a", n) for n in range(6)]


def test_a_slow_host_holds_up_nobody() -> None:
    ran = simulation({"slow": always(None, 20), "b": up}, {"slow": 8, "b": 800}, per_host=4)
    assert max(when for (host, _), when in ran.done.items() if host == "b") < 21
    assert ran.now == 40


@pytest.mark.parametrize(("fails", "succeeds"), [(0, True), (3, True), (4, False)])
@pytest.mark.parametrize("failure", [UNAVAILABLE, NO_CONNECTION, NO_SUCH_NAME])
def test_what_may_pass_is_tried_again(
    failure: DownloadFailure, fails: int, *, succeeds: bool
) -> None:
    behaviours = {"a": times(fails, failure), "b": up}
    ran = simulation(behaviours, {"a": 1, "b": 100}, per_host=1)
    assert len(ran.asked("a")) == min(fails, 3) + 1
    assert (("a", 0) in ran.done, ran.failed) == (succeeds, {} if succeeds else {("a", 0): failure})


def test_what_cannot_pass_is_not_tried_again() -> None:
    ran = simulation({"a": always(MISSING)}, {"a": 3})
    assert len(ran.started) == len(ran.failed) == 3


def test_pauses_grow() -> None:
    ran = simulation({"a": always(UNAVAILABLE, 0)}, {"a": 1}, retries=7, chance=lambda: 0)
    gaps = [b - a for a, b in itertools.pairwise(ran.asked("a"))]
    assert gaps == [1, 2, 4, 8, 16, 30, 30]
    ran = simulation({"a": always(UNAVAILABLE, 0)}, {"a": 1}, retries=7, chance=lambda: 0.75)
    shorter = [b - a for a, b in itertools.pairwise(ran.asked("a"))]
    assert shorter == pytest.approx([gap * 0.625 for gap in gaps])


def test_a_host_that_only_refuses_to_answer_well_proves_that_there_is_a_way() -> None:
    ran = simulation({"a": always(UNAVAILABLE), "dead": hangs}, {"a": 3, "dead": 3}, retries=1)
    assert not ran.lost
    assert len(ran.failed) == 6


def test_a_host_that_answers_some_is_not_down_for_the_others() -> None:
    """It hangs for every second image: none of the others is given up untried."""

    def answer(number: int, _: int, __: float) -> Answer:
        return (TIMEOUT, TIMED_OUT) if number % 2 else (0.1, None)

    ran = simulation({"a": answer, "b": up}, {"a": 200, "b": 200}, per_host=16)
    assert len(ran.done) == 300


def test_a_host_without_retries_is_given_up_only_after_its_last_answer() -> None:
    """Ten are refused while the eleventh still downloads: then there are more to be had."""

    def answer(number: int, _: int, now: float) -> Answer:
        return (5.0, None) if number == 10 else (0.1, NO_CONNECTION if now < 4 else None)

    ran = simulation({"a": answer, "b": up}, {"a": 100, "b": 400}, per_host=11, retries=0)
    assert len([item for item in ran.done if item[0] == "a"]) > 80


def test_a_second_attempt_waits_for_nobody() -> None:
    """One that hangs for 30 s does not hold up another's second attempt."""

    def answer(number: int, asked: int, _: float) -> Answer:
        return (TIMEOUT, None) if number == 0 else (0.1, UNAVAILABLE if asked == 1 else None)

    ran = simulation({"a": answer}, {"a": 2})
    assert ran.done["a", 1] < 2


def test_retry_after_pauses_the_whole_host_and_costs_the_waiting_ones_nothing() -> None:
    def answer(_: int, __: int, now: float) -> Answer:
        return 0.1, too_many(60) if now < 60 else None

    ran = simulation({"a": answer, "b": up}, {"a": 100, "b": 100}, per_host=4)
    assert not ran.failed
    asked = ran.asked("a")
    assert [when for when in asked if when < 60.1] == [0] * 4
    assert set(ran.counted.values()) == {0, 1}
    assert max(when for (host, _), when in ran.done.items() if host == "b") < 3


def test_a_host_that_has_too_much_gets_less() -> None:
    """Five a second, and it says 429 to the rest."""
    seconds: Counter[int] = Counter()

    def answer(_: int, __: int, now: float) -> Answer:
        seconds[int(now)] += 1
        return 0.1, None if seconds[int(now)] <= 5 else too_many(0)

    ran = simulation({"a": answer}, {"a": 300}, per_host=16)
    assert not ran.failed
    assert len(ran.started) < 1.6 * 300
    assert ran.now < 2.5 * 300 / 5


def test_a_host_that_had_too_much_once_gets_more_again() -> None:
    def answer(_: int, __: int, now: float) -> Answer:
        return 0.1, too_many(0) if now == 0 else None

    ran = simulation({"a": answer}, {"a": 2000}, per_host=16)
    assert ran.now < 1.5 * 2000 / 16 * 0.1


def test_a_host_that_asks_for_too_long_a_pause_is_given_up() -> None:
    ran = simulation({"a": always(too_many(3600)), "b": up}, {"a": 100, "b": 100}, per_host=4)
    assert len(ran.asked("a")) == 4
    assert len(ran.failed) == 100
    assert {failure.message for failure in ran.failed.values()} == {
        "429 Too Many Requests; the server asks for a pause of 3600 s, "
        "and at most 300 s are waited for"
    }
    assert ran.now < 10
    just = simulation({"a": always(too_many(LONGEST_RETRY_AFTER))}, {"a": 2}, retries=1)
    assert just.now > LONGEST_RETRY_AFTER


@pytest.mark.parametrize(("behaviour", "seconds"), [(hangs, 160), (refuses, 12)])
@pytest.mark.parametrize("count", [1000, 100_000])
def test_a_dead_host_among_others_is_only_its_own_images(
    behaviour: Behaviour, seconds: float, count: int
) -> None:
    """Also when the others are done long before."""
    ran = simulation({"dead": behaviour, "b": up}, {"dead": count, "b": 1000}, per_host=16)
    assert len(ran.done) == 1000
    assert len(ran.failed) == count
    assert max(ran.done.values()) < 1000 / 16 * 0.1 + 1
    assert max(ran.failed_at.values()) < seconds
    assert len(ran.asked("dead")) == 16 + 3


def test_images_of_a_dead_host_that_are_few_have_all_their_attempts() -> None:
    ran = simulation({"dead": refuses, "b": up}, {"dead": DOWN_AFTER // 4, "b": 100})
    assert set(Counter(item for _, item, _ in ran.started if item[0] == "dead").values()) == {4}


def test_a_host_that_comes_back_is_used_as_before() -> None:
    ran = simulation({"a": cut(0, 3), "b": up}, {"a": 1000, "b": 1000}, per_host=16)
    assert not ran.failed
    back = [when for when in ran.asked("a") if when >= 3]
    assert back[-1] - back[0] < 1000 / 16 * 0.1 + 2


def test_a_name_that_does_not_exist_is_no_outage() -> None:
    ran = simulation({"typo": always(NO_SUCH_NAME)}, {"typo": 40})
    assert not ran.lost
    assert len(ran.failed) == 40


@pytest.mark.parametrize("failure", [NO_CONNECTION, TIMED_OUT])
@pytest.mark.parametrize("retries", [0, 3])
@pytest.mark.parametrize("hosts", [1, 2, 300])
@pytest.mark.parametrize("begin", [0, 0.55, 1.05])
def test_an_outage_costs_no_image(
    failure: DownloadFailure, retries: int, hosts: int, begin: float
) -> None:
    """It begins with the shard, in its middle, or with its last images under way."""
    names = [f"host{n}" for n in range(hosts)]
    behaviour = cut(begin, 60 + begin, failure)
    per_host = 4 if hosts < 300 else 1
    count = 44 if hosts < 300 else 3
    ran = simulation(
        dict.fromkeys(names, behaviour),
        dict.fromkeys(names, count),
        per_host=per_host,
        retries=retries,
    )
    assert not ran.failed
    assert len(ran.done) == hosts * count
    assert ran.now < 60 + begin + PROBE_EVERY + 10 + hosts * count / 64 * 0.1
    # A probe every few seconds, and no more.
    during = [when for when, _, _ in ran.started if begin + 1 < when < begin + 60]
    assert all(b - a >= PROBE_EVERY for a, b in itertools.pairwise(during))


@pytest.mark.parametrize("failure", [NO_CONNECTION, TIMED_OUT])
@pytest.mark.parametrize("hosts", [1, 5])
def test_an_outage_for_good_ends_the_shard(failure: DownloadFailure, hosts: int) -> None:
    names = [f"host{n}" for n in range(hosts)]
    behaviour = cut(1, 1e9, failure)
    ran = simulation(dict.fromkeys(names, behaviour), dict.fromkeys(names, 100))
    assert ran.lost
    assert ran.failed == {}
    assert OUTAGE_SECONDS < ran.now < OUTAGE_SECONDS + 5
    left = {failed.item: failed.failure for failed in ran.schedule.unfinished()}
    assert set(left) | set(ran.done) == set(ran.items)
    assert set(left.values()) == {failure}


def test_an_outage_with_one_image_only() -> None:
    assert simulation({"a": cut(0, 60)}, {"a": 1}, retries=0).done
    ran = simulation({"a": hangs}, {"a": 1}, retries=0)
    assert ran.lost
    # It is under way as a probe then.
    assert [failed.item for failed in ran.schedule.unfinished()] == ran.items


def test_hosts_that_were_never_tried_have_no_failure() -> None:
    names = [f"host{n}" for n in range(100)]
    ran = simulation(dict.fromkeys(names, refuses), dict.fromkeys(names, 2), window=8, per_host=1)
    assert ran.lost
    tried = {item[0] for _, item, _ in ran.started}
    assert 8 < len(tried) < 100
    assert {failed.item[0] for failed in ran.schedule.unfinished()} == tried


def test_an_outage_is_asked_about_where_there_was_an_answer() -> None:
    """The dead host's images are the last: that it is not an outage, only the others can say."""
    ran = simulation({"dead": cut(0.35, 1e9), "b": up}, {"dead": 20, "b": 4})
    assert not ran.lost
    canaries = {item[0] for _, item, canary in ran.started if canary}
    assert "b" in canaries
    assert len(ran.failed) == 8
    assert ran.now < 40


def test_another_known_host_is_asked_each_time() -> None:
    """Of those that have answered only one still does."""
    died = cut(0.15, 1e9)
    behaviours = {"a": died, "b": died, "c": up, "d": died, "dead": hangs}
    ran = simulation(behaviours, {"a": 1, "b": 1, "c": 1, "d": 1, "dead": 1})
    assert not ran.lost
    assert len(ran.done) == 4


def test_a_canary_that_meets_silence_leaves_its_place() -> None:
    """It has the host's only one, when an image of that host is due and another host answers."""

    def answer(number: int, asked: int, _: float) -> Answer:
        if number == 0:
            return (0.1, None) if asked == 1 else (TIMEOUT, TIMED_OUT)
        return 0.1, UNAVAILABLE if asked == 1 else None

    behaviours = {"a": answer, "dead": always(NO_CONNECTION, 0.3), "c": always(None, 5)}
    ran = simulation(behaviours, {"a": 2, "dead": 1, "c": 1}, per_host=1)
    assert ("a", 0) in [item for _, item, canary in ran.started if canary]
    assert ("a", 1) in ran.done


def test_a_host_in_its_own_pause_is_no_outage() -> None:
    """It answered, and asked for more time than an outage may take."""

    def answer(_: int, __: int, now: float) -> Answer:
        return 0.1, too_many(200) if now < 200 else None

    ran = simulation({"a": answer, "dead": refuses}, {"a": 10, "dead": 10})
    assert not ran.lost
    assert {host for host, _ in ran.failed} == {"dead"}


ANSWERS = st.tuples(
    st.sampled_from([0.0, 0.1, 5.0, TIMEOUT]),
    st.sampled_from(
        [None] * 4
        + [MISSING, UNAVAILABLE, NO_CONNECTION, NO_CONNECTION, TIMED_OUT, NO_SUCH_NAME]
        + [too_many(0), too_many(7), too_many(1000)]
    ),
)


@example(
    # A canary that met silence was the host's only attempt.
    hosts=[(1, [(0.0, None)])] * 4
    + [(14, [(0.0, NO_CONNECTION), (5.0, NO_CONNECTION), (0.0, None), (5.0, too_many(0))])],
    per_host=2,
    retries=0,
    window=2,
    chance=0.0,
)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.lists(ANSWERS, min_size=1, max_size=8)), max_size=6),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 12),
    st.floats(0, 1),
)
def test_whatever_hosts_do(
    hosts: list[tuple[int, list[Answer]]],
    per_host: int,
    retries: int,
    window: int,
    chance: float,
) -> None:
    """Each image ends once, or the shard is lost; limits hold; it ends (see Simulation)."""
    behaviours: dict[str, Behaviour] = {}
    for number, (_, answers) in enumerate(hosts):
        script = itertools.cycle(answers)
        behaviours[f"host{number}"] = lambda *_, script=script: next(script)
    counts = {f"host{number}": count for number, (count, _) in enumerate(hosts)}
    ran = simulation(
        behaviours, counts, per_host=per_host, retries=retries, window=window, chance=lambda: chance
    )
    ended = set(ran.done) | set(ran.failed)
    assert not set(ran.done) & set(ran.failed)
    left = [failed.item for failed in ran.schedule.unfinished()]
    assert len(left) == len(set(left))
    assert not ended & set(left)
    if not ran.lost:
        assert ended == set(ran.items)
    elif len(hosts) <= 2:  # of more hosts not each is probed in time
        assert not any(map(always_answers, (answers for _, answers in hosts)))
    # No host waits while another has its second turn.
    if all(map(always_answers, (answers for _, answers in hosts))):
        first = defaultdict[str, int](lambda: 10**9)
        for position, (_, item, _) in enumerate(ran.started):
            first[item[0]] = min(first[item[0]], position)
        assert all(position < len(hosts) for position in first.values())


def always_answers(answers: list[Answer]) -> bool:
    return all(
        failure is None
        or (failure.heard is Heard.ANSWER and (failure.retry_after or 0) <= LONGEST_RETRY_AFTER)
        for _, failure in answers
    )
