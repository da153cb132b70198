"""The event bus: a listener that is too slow costs a bounded memory, and whoever missed events is told."""

import pytest

from paceline.engine.events import BACKLOG, MEMORY, EventBus, StreamEvent

START = 1_000


async def heard(bus: EventBus, count: int, last: int | None) -> list[StreamEvent]:
    listening = bus.listen(lambda event: True, last, 60)
    found = [event for _ in range(count) if (event := await anext(listening)) is not None]
    await listening.aclose()  # type: ignore[attr-defined]  # it is a generator
    return found


async def test_a_listener_that_is_too_slow_is_told_how_many_it_missed() -> None:
    bus = EventBus(START)
    bus.publish("alert", {"n": -1})
    listening = bus.listen(lambda event: True, START - 1, 60)
    assert (await anext(listening)) is not None
    for n in range(BACKLOG + 7):
        bus.publish("alert", {"n": n})
    found = [await anext(listening) for _ in range(BACKLOG + 1)]
    assert [event.data["n"] for event in found[:-1] if event] == list(range(BACKLOG))
    gap = found[-1]
    assert gap is not None and gap.type == "gap"
    assert gap.data == {"reason": "7 events were left out because this connection was too slow"}
    bus.publish("alert", {"n": "next"})
    after = await anext(listening)
    assert after is not None and after.data == {"n": "next"}
    await listening.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert not bus._subscribers


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (0, "events since your last one are no longer remembered"),
        (START + 50_000, "your last event is none of this server's; some may be missing"),
        (10**18 - 1, "your last event is none of this server's; some may be missing"),
    ],
)
async def test_a_place_that_cannot_be_taken_up_again_is_told(last: int, told: str) -> None:
    bus = EventBus(START)
    for n in range(10):
        bus.publish("alert", {"n": n})
    (gap,) = await heard(bus, 1, last)
    assert (gap.type, gap.data) == ("gap", {"reason": told})


async def test_what_is_remembered_is_bounded() -> None:
    bus = EventBus(START)
    for n in range(MEMORY + 5):
        bus.publish("alert", {"n": n})
    assert bus._remembered == MEMORY
    first, second = await heard(bus, 2, START + 4)
    assert (first.data, second.data) == ({"n": 5}, {"n": 6})
    gap, oldest = await heard(bus, 2, START + 3)
    assert (gap.type, oldest.data) == ("gap", {"n": 5})
