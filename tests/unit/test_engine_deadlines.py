"""A call that exceeds its time is told of, never before its deadline; one that ended is not."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from paceline.engine.deadlines import GRAIN_S, Deadlines


class Loop:
    """The two methods of an event loop that are used, on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.moment = 100.0
        self.timers: dict[object, tuple[float, Callable[..., None], tuple[Any, ...]]] = {}

    def time(self) -> float:
        return self.moment

    def call_at(self, moment: float, call: Callable[..., None], *given: Any) -> "Timer":
        timer = Timer(self)
        self.timers[timer] = (moment, call, given)
        return timer

    def advance(self, seconds: float) -> None:
        self.moment += seconds
        for timer, (moment, call, given) in list(self.timers.items()):
            if moment <= self.moment:
                del self.timers[timer]
                call(*given)


class Timer:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def cancel(self) -> None:
        self.loop.timers.pop(self, None)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_nobody_is_cut_off_before_the_deadline_and_everybody_soon_after(loop: Loop) -> None:
    missed: list[int] = []
    deadlines = Deadlines(missed.append)
    for number in range(40):
        deadlines.set(number, 1 + number * 0.05)
    for _ in range(400):
        loop.advance(0.01)
        passed = loop.moment - 100
        due = {number for number in range(40) if 1 + number * 0.05 < passed - GRAIN_S - 1e-6}
        early = {number for number in missed if 1 + number * 0.05 > passed + 1e-6}
        assert due <= set(missed)
        assert not early
    assert sorted(missed) == list(range(40))


def test_a_call_that_ended_is_left_alone_and_leaves_no_timer(loop: Loop) -> None:
    missed: list[int] = []
    deadlines = Deadlines(missed.append)
    slots = [deadlines.set(number, 5) for number in range(3)]
    assert len(loop.timers) == 1
    for number, slot in enumerate(slots):
        deadlines.over(number, slot)
    assert not loop.timers
    loop.advance(60)
    deadlines.over(1, slots[1])
    assert missed == []
