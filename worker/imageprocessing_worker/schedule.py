"""Decides which URL of a shard is asked for next, or how long to wait.

Pure: the time and the chance are passed in, and the caller does the asking. There are
no passes over the shard: what may yet succeed is due again a while later, and meanwhile
the others go on.

A host that says nothing is either down itself, or there is no way to any host. Which one,
only another host can tell. So an attempt that met silence is undecided, and nothing more is
started, until some host answers: then it counts against its image and its host. Where that
takes longer than a second, hosts are probed for it, those first that have answered before. If
a probe, too, meets silence, that is an outage, which counts against nobody. Where it takes two
minutes, the Pod should end, see `lost()`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import msgspec

from imageprocessing_worker.download import DownloadFailure, Heard
from imageprocessing_worker.host import Attempt, Failed, Host

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before the second attempt, doubled for each further one, less up to a half by chance."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds that a host may ask us to wait: a Pod that stands idle for longer costs more than
the images of that host, which a request with failuresOf does again."""
PROBE_AFTER, PROBE_EVERY = 1.0, 5.0
"""Seconds from the first silence, and between probes: most often others answer before."""
OUTAGE_SECONDS = 120.0
"""How long no host may answer: what restarts or fails over is back by then, and the Job's next
Pod, perhaps on another node, is worth more than a longer wait here."""
MOST_SPARED = 3
"""Outages that do not count against an image: a network that comes and goes must not keep it
from ending."""
_KNOWN_HOSTS = 8  # that have answered: enough for one of them to be up


class Schedule(Generic[T]):
    """The items of one shard, at most `per_host` of a host under way at once.

    Each gets up to `retries` further attempts; so does a host that is down, and then its
    other items are given up with it. With timeouts of 30 s and 3 retries a dead host is done
    with after at most (2 + retries) x 30 s and the pauses, 160 s, however many its items are.
    """

    def __init__(
        self,
        items: Iterable[tuple[str, T]],
        *,
        per_host: int,
        retries: int,
        chance: Callable[[], float],
    ) -> None:
        """`items` with their hosts' names; `chance` gives numbers from 0 to 1."""
        self._per_host, self._retries, self._chance = per_host, retries, chance
        self._hosts: dict[str, Host[T]] = {}
        self._left = 0
        for name, item in items:
            host = self._hosts.get(name)
            if host is None:
                host = self._hosts[name] = Host(float(per_host))
            host.fresh.append(item)
            self._left += 1
        for host in self._hosts.values():
            host.fresh.reverse()  # taken from the end
            host.queued = True
        self._turn = deque(self._hosts.values())  # hosts that can start something
        self._timers: list[tuple[float, int, Host[T]]] = []  # a heap: hosts that can later
        self._count = 0  # makes entries of heaps comparable
        # How things stand between us and all hosts.
        self._undecided: deque[Attempt[T]] = deque()
        self._silent_since: float | None = None
        self._outage = False  # whether a probe met silence, too
        self._probe: Attempt[T] | None = None
        self._next_probe = 0.0
        self._canary_next = True
        self._known: deque[Host[T]] = deque(maxlen=_KNOWN_HOSTS)

    @property
    def done(self) -> bool:
        """Whether every item has succeeded or is given up."""
        return self._left == 0

    def take(self, now: float) -> Attempt[T] | None:
        """What to start now; None where there is nothing, or nothing yet."""
        if self._silent_since is None:
            return self._next(now)
        if self._probe is not None or now < self._next_probe:
            return None
        self._next_probe = now + PROBE_EVERY
        ways = (self._canary, self._next) if self._canary_next else (self._next, self._canary)
        self._canary_next = not self._canary_next
        for way in (*ways, self._undecided_again):
            if attempt := way(now):
                self._probe = attempt
                return attempt
        return None

    def wait(self, now: float) -> float | None:
        """Seconds until take() or lost() may say something else, though no attempt ends.

        None where only the end of an attempt can change that.
        """
        if self._silent_since is not None:
            next_probe = self._next_probe if self._probe is None else self._lost_at()
            return max(0.0, min(self._lost_at(), next_probe) - now)
        return max(0.0, self._timers[0][0] - now) if self._timers else None

    def lost(self, now: float) -> bool:
        """Whether no host has answered for so long that this Pod should give up."""
        return self._silent_since is not None and now >= self._lost_at()

    def ended(
        self, attempt: Attempt[T], failure: DownloadFailure | None, now: float
    ) -> list[Failed[T]]:
        """Takes in how an attempt ended; returns the items that are given up by that."""
        host = attempt.host
        host.running -= 1
        silent = failure is not None and failure.heard is Heard.SILENCE
        if attempt is self._probe:
            self._probe, self._outage = None, self._outage or silent
        attempt.failure = failure
        if failure is not None:
            host.failure = failure
            if failure.heard is Heard.SILENCE:
                self._silence(attempt, now)
                self._file(host, now)
                return []
        given_up: list[Failed[T]] = []
        answered = failure is None or failure.heard is Heard.ANSWER
        if answered:
            self._answer(host, now, given_up)
        if failure is None:
            host.places = min(self._per_host, host.places + 1 / host.places)
            host.throttles = 0
            self._left -= not attempt.canary
        elif not attempt.canary:
            self._count_against(attempt, failure, now, given_up)
        if answered and (failure is None or (attempt.item, failure) in given_up[-1:]):
            host.answered = attempt.item
        if failure is not None and failure.transient and failure.retry_after is not None:
            self._throttle(attempt, failure, failure.retry_after, now, given_up)
        self._file(host, now)
        return given_up

    def unfinished(self) -> Iterator[Failed[T]]:
        """What is left, as far as it or its host has been tried, with the latest failure."""
        for attempt in (*self._undecided, *filter(None, [self._probe])):
            if attempt.failure and not attempt.canary:
                yield Failed(attempt.item, attempt.failure)
        for host in self._hosts.values():
            yield from host.waiting()

    def _next(self, now: float) -> Attempt[T] | None:
        """Hosts take turns, and what is due again comes before what is new."""
        while self._timers and self._timers[0][0] <= now:
            when, _, host = heapq.heappop(self._timers)
            if host.timer == when:
                host.timer = None
                self._file(host, now)
        while self._turn:
            host = self._turn.popleft()
            host.queued = False
            if host.ready_at() <= now:
                attempt = self._start(host.choose(now), now)
                self._file(host, now)
                return attempt
            self._file(host, now)
        return None

    def _start(self, attempt: Attempt[T], now: float) -> Attempt[T]:
        attempt.host.running += 1
        attempt.began = now
        attempt.of_down_host = attempt.host.is_down
        return attempt

    def _file(self, host: Host[T], now: float) -> None:
        """Puts a host where it is found again once it can start something."""
        when = host.ready_at()
        if host.queued or when == float("inf"):
            return
        if when <= now:
            host.queued = True
            self._turn.append(host)
        elif host.timer is None or when < host.timer:
            host.timer = when
            heapq.heappush(self._timers, (when, self._number(), host))

    def _silence(self, attempt: Attempt[T], now: float) -> None:
        if not attempt.canary:
            self._undecided.append(attempt)
        if self._silent_since is None:
            self._silent_since = now
            self._next_probe = now + PROBE_AFTER
            self._canary_next = True

    def _answer(self, host: Host[T], now: float, given_up: list[Failed[T]]) -> None:
        """There is a way to hosts: silences count, but not against the host that answers."""
        undecided, self._undecided = self._undecided, deque()
        outage, self._outage, self._silent_since = self._outage, False, None
        for attempt in undecided:
            if outage and attempt.spared < MOST_SPARED:
                attempt.spared += 1
                self._later(attempt, now)
                continue
            attempt.host.silences += 1
            attempt.host.probes += attempt.of_down_host
            if attempt.failure:
                self._count_against(attempt, attempt.failure, now, given_up)
        for silent in dict.fromkeys(attempt.host for attempt in undecided):
            if silent.is_down and silent is not host:
                if silent.probes >= self._retries and not silent.running:
                    self._give_up(silent, given_up)
                pause = self._pause(silent.probes + 1)
                silent.resume_at = max(silent.resume_at, now + pause)
            self._file(silent, now)
        host.silences = host.probes = 0
        if host not in self._known:
            self._known.append(host)

    def _count_against(
        self, attempt: Attempt[T], failure: DownloadFailure, now: float, given_up: list[Failed[T]]
    ) -> None:
        attempt.tries += 1
        if failure.transient and attempt.tries <= self._retries:
            self._later(attempt, now)
        else:
            given_up.append(Failed(attempt.item, failure))
            self._left -= 1

    def _later(self, attempt: Attempt[T], now: float) -> None:
        due = now + self._pause(max(1, attempt.tries))
        heapq.heappush(attempt.host.later, (due, self._number(), attempt))

    def _throttle(
        self,
        attempt: Attempt[T],
        failure: DownloadFailure,
        seconds: float,
        now: float,
        given_up: list[Failed[T]],
    ) -> None:
        """The host wants fewer requests: none for a while, and then half as many at once."""
        host = attempt.host
        if seconds > LONGEST_RETRY_AFTER:
            message = (
                f"{failure.message}; the server asks for a pause of {seconds:.0f} s, "
                f"and at most {LONGEST_RETRY_AFTER:.0f} s are waited for"
            )
            host.failure = msgspec.structs.replace(failure, message=message)
            for _, _, again in host.later:
                again.failure = host.failure
            self._give_up(host, given_up)
            return
        # What was sent before the last pause began says the same thing once more.
        if attempt.began >= host.throttled_at:
            host.throttled_at = now
            host.throttles += 1
            host.places = max(1.0, host.places / 2)
        pause = max(seconds, self._pause(host.throttles))
        host.resume_at = max(host.resume_at, now + pause)

    def _give_up(self, host: Host[T], given_up: list[Failed[T]]) -> None:
        waiting = list(host.waiting())
        host.fresh, host.later = [], []
        given_up += waiting
        self._left -= len(waiting)

    def _canary(self, now: float) -> Attempt[T] | None:
        """Asks once more for what a host has answered, at best one that is not silent now."""
        silent = {attempt.host for attempt in self._undecided}
        self._known.rotate(-1)
        for host in sorted(self._known, key=lambda host: host.silences > 0 or host in silent):
            if host.answered is not None and host.has_place and host.resume_at <= now:
                return self._start(Attempt(host.answered, host, canary=True), now)
        return None

    def _undecided_again(self, now: float) -> Attempt[T] | None:
        for number, attempt in enumerate(self._undecided):
            if attempt.host.has_place and attempt.host.resume_at <= now:
                del self._undecided[number]
                return self._start(attempt, now)
        return None

    def _lost_at(self) -> float:
        # A known host that asked for a pause says nothing before that is over.
        pauses = [host.resume_at for host in self._known]
        return max([self._silent_since or 0.0, *pauses]) + OUTAGE_SECONDS

    def _pause(self, number: int) -> float:
        pause: float = min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE)
        return pause * (1 - self._chance() / 2)

    def _number(self) -> int:
        self._count += 1
        return self._count
