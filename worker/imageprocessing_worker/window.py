"""How many images are under way before the codec has them."""

from __future__ import annotations

LEAST, MOST = 16, 256
"""256 hide 0.2 s of latency at 1,000 images a second; more would only be memory."""
_WAITING = 8
"""Bodies for each child that may wait: enough for the ups and downs of a network."""
GROW_SECONDS = 0.05
_SHRINK_EVERY = 8  # images; slower than bodies arrive, or it would swing


class Window:
    """Grows while the codec has nothing to do, and shrinks while bodies pile up before it.

    So there are as many downloads at once as latency and slow hosts demand, and else few
    bodies in memory, and few to be fetched again after a crash.
    """

    def __init__(self, children: int, now: float) -> None:
        """`children`: images that the codec works on at once."""
        self._children = children
        self.size = LEAST
        self._grown_at = now
        self._piled_up = 0

    def starves(self, at_codec: int) -> bool:
        """Whether a child has nothing to do, and more downloads may help."""
        return at_codec < self._children and self.size < MOST

    def has_room(self, downloads: int, at_codec: int, now: float) -> bool:
        """Whether another download may start, with so many images at both stages."""
        if downloads + at_codec < self.size:
            return True
        if not self.starves(at_codec) or now < self._grown_at + GROW_SECONDS:
            return False
        self.size = min(MOST, 2 * self.size)
        self._grown_at = now
        return True

    def encoded(self, at_codec: int) -> None:
        """The codec is done with one image; so many are left there."""
        if at_codec > self._children * (1 + _WAITING):
            self._piled_up += 1
            if self._piled_up == _SHRINK_EVERY:
                self._piled_up = 0
                self.size = max(LEAST, self.size - 1)
