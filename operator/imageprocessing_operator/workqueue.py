"""A queue of keys: each is worked on by one worker at a time, and may come back later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.5, 60.0  # seconds


class WorkQueue(Generic[Key]):
    """Adding a key twice is adding it once; a key that is being worked on waits its turn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        # Since when, by the clock, in seconds.
        self._waiting: dict[Key, float] = {}
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key) -> None:
        """Work on the key as soon as possible."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._clock()
            self._ready.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on the key then, or earlier if it is added or was to come earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(max(0.0, seconds), self.add, key)

    def retry(self, key: Key, at_least: float = 0.0) -> None:
        """Work on a key again that failed: later each time, with jitter."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        seconds = min(_FIRST_BACKOFF * 2**failures, _LONGEST_BACKOFF)
        # Never before what was asked for; many that wait for the same do not come at once.
        self.add_after(key, at_least + seconds * random.uniform(0.8, 1.2))  # noqa: S311

    def succeeded(self, key: Key) -> None:
        """Its next failure is a first one again."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """The next key; call done() when the work on it has ended."""
        key = await self._ready.get()
        del self._waiting[key]
        self._working[key] = self._clock()
        return key

    def done(self, key: Key) -> None:
        """The work on the key has ended; it comes back if it was added meanwhile."""
        del self._working[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def forget(self, key: Key) -> None:
        """Nothing is left to do about the key."""
        self._failures.pop(key, None)
        if timer := self._timers.pop(key, None):
            timer.cancel()

    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    def age(self) -> float:
        """Seconds that the first of them has waited."""
        return self._age(self._waiting)

    def longest_work(self) -> float:
        """Seconds for which a worker has been at the same key."""
        return self._age(self._working)

    def _age(self, since: dict[Key, float]) -> float:
        # Dictionaries keep the order in which keys came.
        first = next(iter(since.values()), None)
        return 0.0 if first is None else self._clock() - first
