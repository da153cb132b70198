"""What is remembered of events does not hold the content of messages."""

from typing import Any

from paceline.clock import ManualClock
from paceline.engine.events import EventBus
from paceline.engine.figures import Figures
from paceline.engine.happenings import Happenings
from tests.contracts.stores.making import message


def test_events_remember_a_new_message_without_its_content() -> None:
    bus = EventBus(0)
    happenings = Happenings(bus, Figures(ManualClock(0)))
    rows = [message(content="x" * 100_000), message()]
    added: list[Any] = []
    happenings.when_added.append(added.extend)
    happenings.added(rows)
    kept = [source for told in bus._memory for source in told.sources]
    assert [each[0] for each in kept] == [row.id for row in rows]
    assert not any(row.content in each for each, row in zip(kept, rows, strict=True))
    assert added == rows
    (event,) = [event for told in bus._memory for event in told.events() if event.id == 0]
    assert (event.type, event.tenant, event.queue) == ("message-queued", rows[0].tenant, rows[0].queue)
    assert event.data["to"] == rows[0].recipient
