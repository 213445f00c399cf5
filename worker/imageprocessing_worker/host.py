"""What a schedule knows of one host: its items, and how it has answered of late."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

from imageprocessing_worker.download import DownloadFailure

T = TypeVar("T")

DOWN_AFTER = 10
"""Silences in a row after which a host gets one attempt at a time. So many images of a host
that is up do not time out in a row by chance, and they take one timeout together."""


class Failed(NamedTuple, Generic[T]):
    """An item that is given up, and why."""

    item: T
    failure: DownloadFailure


class Attempt(msgspec.Struct, Generic[T], eq=False):
    """An item that is asked for.

    Of a `canary` only what its host says matters: the item is done.
    """

    item: T
    host: Host[T]
    canary: bool = False
    tries: int = 0  # that count against it
    spared: int = 0  # outages that did not
    began: float = 0.0
    of_down_host: bool = False
    failure: DownloadFailure | None = None  # the latest


class Host(msgspec.Struct, Generic[T], eq=False):
    """A host's items that wait, and its state; the schedule writes all of it. Times in seconds."""

    places: float  # attempts that may run at once; falls when the host says it is too much
    fresh: list[T] = []  # the next one last
    later: list[tuple[float, int, Attempt[T]]] = []  # a heap: when they are due
    running: int = 0
    resume_at: float = 0.0  # nothing is started before
    silences: int = 0  # in a row
    probes: int = 0  # of these, since it counts as down
    throttled_at: float = -1.0
    throttles: int = 0  # in a row
    answered: T | None = None  # a canary
    failure: DownloadFailure | None = None  # the latest
    queued: bool = False  # whether it stands in the schedule's turn
    timer: float | None = None  # for when it stands in the schedule's timers

    @property
    def is_down(self) -> bool:
        """Whether it gets only probes."""
        return self.silences >= DOWN_AFTER

    @property
    def has_place(self) -> bool:
        """Whether another attempt may run beside those that do."""
        return self.running < (1 if self.is_down else int(self.places))

    def ready_at(self) -> float:
        """When it can start something; infinity where an attempt has to end before."""
        if not self.has_place or not (self.fresh or self.later):
            return float("inf")
        if self.fresh or self.is_down:
            return self.resume_at
        return max(self.resume_at, self.later[0][0])

    def choose(self, now: float) -> Attempt[T]:
        """Takes the next item: what is due again comes before what is new.

        A host that is down is rather probed with what it has not been silent about.
        """
        due = self.later and self.later[0][0] <= now and not self.is_down
        if due or not self.fresh:
            return heapq.heappop(self.later)[2]
        return Attempt(self.fresh.pop(), self)

    def waiting(self) -> Iterator[Failed[T]]:
        """What waits, each with its own latest failure or the host's, if there is one."""
        for _, _, attempt in self.later:
            if attempt.failure:
                yield Failed(attempt.item, attempt.failure)
        if self.failure:
            for item in reversed(self.fresh):
                yield Failed(item, self.failure)
