"""The lease: one holder at a time, lost when it is not renewed."""

from worker_graph.local.lease import Lease


class Clock:
    """Time by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_holder_until_it_lapses() -> None:
    clock = Clock()
    lease = Lease(clock)
    assert lease.holder == ""
    assert lease.take("a", 10)
    assert not lease.take("b", 10)
    clock.now += 9.75
    assert lease.holder == "a"
    assert lease.take("a", 10), "the holder renews"
    clock.now += 9.75
    assert not lease.take("b", 10), "the renewal counts from its own time"
    clock.now += 0.25
    assert lease.holder == ""
    assert lease.expires_in_s == 0
    assert lease.take("b", 10)
    assert lease.holder == "b"
    assert lease.expires_in_s == 10


def test_only_the_holder_gives_it_back() -> None:
    lease = Lease(Clock())
    lease.take("a", 10)
    lease.release("b")
    assert lease.holder == "a"
    lease.release("a")
    assert lease.holder == ""
