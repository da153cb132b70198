"""What is told together is remembered together, event by event for whoever asks, and bounded."""

from collections.abc import Sequence

import pytest

from paceline.engine import events
from paceline.engine.events import EventBus, StreamEvent


def made(number: int, source: str) -> StreamEvent:
    return StreamEvent(number, "message-sent", source, "", "", "", {"id": source})


def ids(found: Sequence[StreamEvent]) -> list[int]:
    return [event.id for event in found]


def test_one_who_comes_back_gets_every_event_after_his_last_whatever_was_told_together() -> None:
    bus = EventBus(100)
    bus.tell(["a", "b", "c"], made)
    bus.publish("queue-status", {"queue": "sms"}, tenant="b")
    bus.tell(["b", "b"], made)
    assert ids(bus._resume(99, lambda _event: True)) == [100, 101, 102, 103, 104, 105]
    assert ids(bus._resume(101, lambda _event: True)) == [102, 103, 104, 105]
    assert ids(bus._resume(100, lambda event: event.tenant == "b")) == [101, 103, 104, 105]
    assert bus._resume(105, lambda _event: True) == []


def test_nothing_is_made_while_nobody_listens() -> None:
    calls: list[int] = []

    def counted(number: int, source: str) -> StreamEvent:
        calls.append(number)
        return made(number, source)

    bus = EventBus(0)
    bus.tell(["a", "b"], counted)
    assert calls == []
    bus.tap(lambda _event: None)
    bus.tell(["c"], counted)
    assert calls == [2]


def test_memory_is_bounded_and_a_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MEMORY", 10)
    bus = EventBus(0)
    for _ in range(20):
        bus.tell(["a", "b", "c"], made)
    assert 10 <= bus._remembered <= 12
    assert bus._remembered == sum(len(told.sources) for told in bus._memory)
    found = bus._resume(5, lambda _event: True)
    assert found[0].type == "gap"
    assert ids(found[1:]) == list(range(60 - bus._remembered, 60))
