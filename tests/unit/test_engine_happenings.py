"""What is remembered of events does not hold the content of large messages."""

from typing import Any

from paceline.clock import ManualClock
from paceline.engine.events import EventBus
from paceline.engine.figures import Figures
from paceline.engine.happenings import Happenings
from tests.contracts.stores.making import message


def test_events_remember_a_large_message_without_its_content() -> None:
    bus = EventBus(0)
    happenings = Happenings(bus, Figures(ManualClock(0)))
    rows = [message(content="x" * 100_000), message()]
    added: list[Any] = []
    happenings.when_added.append(added.extend)
    happenings.added(rows)
    kept = [source for told in bus._memory for source in told.sources]
    assert [each.id for each in kept] == [row.id for row in rows]
    assert [len(each.content) for each in kept] == [0, len(rows[1].content)]
    assert added == rows and len(rows[0].content) == 100_000
