"""Work that is stopped finishes what it has begun, and begins nothing more."""

import signal
import threading

import pytest
from maskwire import MaskwireError
from maskwire.cli.work import stopped_by_signals, work_until_stopped


def test_what_is_done_comes_as_soon_as_it_is() -> None:
    released = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            released.wait(30)
        if number == 3:
            raise MaskwireError("three")
        return number * 2

    seen = []
    for several in work_until_stopped(range(6), work, 2, threading.Event()):
        seen += several
        if len(seen) == 5:
            released.set()
    outcomes = dict(seen)
    assert seen[-1] == (0, 0)  # the first one took longest, and kept nobody waiting
    assert str(outcomes.pop(3)) == "three"
    assert outcomes == {number: number * 2 for number in (0, 1, 2, 4, 5)}


def test_nothing_is_begun_after_a_stop_and_nothing_is_lost() -> None:
    stopping, begun = threading.Event(), []
    both = threading.Barrier(2)

    def work(number: int) -> int:
        begun.append(number)
        if number < 2:
            both.wait(30)
            stopping.set()
        return number

    seen = [item for several in work_until_stopped(range(100), work, 2, stopping) for item, _ in several]
    assert sorted(seen) == sorted(begun)
    assert len(begun) < 5
    assert list(work_until_stopped(range(3), work, 2, stopping)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stopping, said = threading.Event(), []
    with stopped_by_signals(stopping, lambda: said.append("stopping")) as received:
        signal.raise_signal(number)
        assert stopping.is_set()
        assert (received, said) == ([number], ["stopping"])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(number) is before
