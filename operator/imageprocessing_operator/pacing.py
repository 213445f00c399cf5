"""How often status is written. Pure; times are seconds of one clock."""

from __future__ import annotations

from typing import Any

import msgspec

from imageprocessing_operator.state import Seen
from imageprocessing_operator.status import is_progress

PROGRESS = 2.0
"""Seconds between writes that only count: a Job's status may change every second."""
_LONGEST_PAUSE = 60.0
"""Seconds between writes of a status that somebody else writes, too."""


class Written(msgspec.Struct, frozen=True):
    """The last status of a request that we wrote."""

    when: float
    version: str
    generation: int
    pause: float = PROGRESS
    """Seconds until the next one where somebody else wrote meanwhile.

    Another operator that has not seen the same, or is of another version, would write the
    opposite at once, and so on (tried: 500 writes in 20 s).
    """

    def disputed(self, request: Seen) -> bool:
        """Whether somebody has written since, and did not edit the spec."""
        return request.generation == self.generation and request.resource_version != self.version

    def wait(self, request: Seen, patch: dict[str, Any], now: float) -> float:
        """Seconds until this patch may be written, 0 at once. The end of a request never waits."""
        pause = PROGRESS if is_progress(patch) else 0.0
        if self.disputed(request):
            pause = self.pause
        return max(0.0, self.when + pause - now)


def note(last: Written | None, before: Seen, written: Seen, now: float) -> Written:
    """The write that made `written` of `before`; a dispute doubles the pause."""
    noted = Written(now, written.resource_version, before.generation)
    if last is None or not last.disputed(before):
        return noted
    return msgspec.structs.replace(noted, pause=min(2 * last.pause, _LONGEST_PAUSE))
