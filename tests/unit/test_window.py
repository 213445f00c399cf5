from imageprocessing_worker.window import LEAST, MOST, Window


def simulate(latency: float, images: int = 3000, *, rate: float = 300, slow: int = 0) -> "Run":
    """A codec of two children that takes `rate` images a second, and a server of that latency.

    `slow` downloads of the first never end.
    """
    return Run(latency, images, rate, slow)


class Run:
    def __init__(self, latency: float, images: int, rate: float, slow: int) -> None:
        self.window = Window(2, 0.0)
        tick = 0.001
        arrivals: list[float] = []
        at_codec, begun, busy, stuck = 0, 0, 0.0, 0
        self.done, self.most, now = 0, 0, 0.0
        while self.done < images:
            now += tick
            while begun < 2 * images and self.window.has_room(len(arrivals) + stuck, at_codec, now):
                begun += 1
                if stuck < slow:
                    stuck += 1
                else:
                    arrivals.append(now + latency)
            while arrivals and arrivals[0] <= now:
                arrivals.pop(0)
                at_codec += 1
            busy = busy + tick * rate if at_codec else 0.0
            while busy >= 1 and at_codec:
                busy -= 1
                at_codec -= 1
                self.done += 1
                self.window.encoded(at_codec)
            self.most = max(self.most, at_codec)
        self.share = images / rate / now
        """Of the time that the codec alone would take."""


def test_latency_is_hidden() -> None:
    assert simulate(0.001).share > 0.98
    for latency in (0.05, 0.2):
        run = simulate(latency)
        assert run.share > 0.9
        assert run.most < 200


def test_few_bodies_wait_where_there_is_no_latency() -> None:
    assert simulate(0.001).most <= LEAST
    assert simulate(0.001, rate=5, images=100).most <= LEAST


def test_it_shrinks_again() -> None:
    window = Window(2, 0.0)
    window.size = MOST
    for _ in range(8 * MOST):
        window.encoded(100)
    assert window.size == LEAST
    for _ in range(8 * MOST):
        window.encoded(3)
    assert window.size == LEAST


def test_downloads_that_hang_hold_up_nobody() -> None:
    assert simulate(0.01, slow=LEAST * 10).share > 0.9


def test_it_stays_where_the_codec_has_work() -> None:
    window = Window(2, 0.0)
    assert not window.has_room(LEAST - 2, 2, 10.0)
    assert not window.has_room(LEAST, 0, 0.01)
    assert window.has_room(LEAST, 0, 10.0)
    assert window.size == 2 * LEAST
