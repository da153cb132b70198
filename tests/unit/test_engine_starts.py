"""Calls begin at their moment and not when their account was closed in the meantime (rules 5 and 7)."""

import asyncio
from collections.abc import Callable

import pytest

from paceline.clock import ManualClock
from paceline.engine.starts import CHUNK, Starts
from paceline.model.messages import Entry, FlowKey, HandedOver
from paceline.pacing.agenda import Agenda
from paceline.pacing.flows import Flow, Prefetch
from paceline.pacing.gates import SharedGate
from paceline.pacing.lane import Account, Lane, Release
from paceline.pacing.scopes import Scopes

KEY = FlowKey("default/chat/default", "default", "", "chat", 5, "default/a")


class Desk:
    """Starts on a manual clock, and what became of each message."""

    def __init__(self) -> None:
        self.clock = ManualClock(1000)
        self.begun: list[int] = []
        self.withheld: list[int] = []
        self.agenda = Agenda(Scopes())
        self.starts = Starts(
            self.clock, self.agenda.closed,
            lambda m, _r: self.begun.append(m.id), lambda m, _r: self.withheld.append(m.id),
        )  # fmt: skip
        self.account = Account("default/a")
        self.gate = SharedGate(("queue", "chat"))

    def hand_over(self, id_: int, start_at: int) -> None:
        flow = Flow(1, KEY, (self.gate,), False, Prefetch())
        lane = Lane(KEY.lane, None)  # type: ignore[arg-type]  # a lane that is never asked
        release = Release(Entry(id_, id_, None, "r", "g"), flow, self.account, lane, (self.gate,))
        release.start_at = start_at
        message = HandedOver(
            id_, 1, 0, "default/a", "default", "chat", "chat", "r", None, None, "{}", None, 3, 1000, None, "t", None,
            0, None, 0, 0, 1,
        )  # fmt: skip
        self.starts.put([(message, release)])

    def advance(self, ms: int) -> None:
        self.clock.advance(ms)
        self.starts._due()


@pytest.fixture
async def desk() -> Desk:
    await asyncio.sleep(0)  # alarms need the running loop
    return Desk()


async def test_a_call_begins_at_its_moment_and_not_before(desk: Desk) -> None:
    desk.hand_over(1, 1000)
    desk.hand_over(2, 1050)
    assert desk.begun == [1]
    desk.advance(49)
    assert desk.begun == [1]
    desk.advance(1)
    assert desk.begun == [1, 2]


CLOSED: dict[str, Callable[[Desk], None]] = {
    "told to wait": lambda desk: desk.account.block(5000),
    "paused": lambda desk: setattr(desk.account, "paused", True),
    "refused": lambda desk: setattr(desk.account, "stopped", "401: no"),
    "queue paused": lambda desk: setattr(desk.gate, "paused", True),
    "the queue's limit told to wait": lambda desk: desk.gate.block(5000),
    "recipient told to wait": lambda desk: desk.agenda.block("default/a", "recipient", "r", 5000),
    "group told to wait": lambda desk: desk.agenda.block("default/a", "group", "g", 5000),
}


@pytest.mark.parametrize("why", CLOSED)
async def test_nothing_begins_once_its_account_is_closed(desk: Desk, why: str) -> None:
    desk.hand_over(1, 1050)
    CLOSED[why](desk)
    desk.advance(50)
    assert (desk.begun, desk.withheld) == ([], [1])
    desk.hand_over(2, 900)  # its hand-over was written while the account was closed
    assert (desk.begun, desk.withheld) == ([], [1, 2])


async def test_a_wait_of_another_recipient_or_account_keeps_nothing(desk: Desk) -> None:
    desk.agenda.block("default/a", "recipient", "s", 5000)
    desk.agenda.block("default/b", "recipient", "r", 5000)
    desk.hand_over(1, 1000)
    assert desk.begun == [1]


async def test_who_stops_gives_back_what_has_not_begun(desk: Desk) -> None:
    desk.hand_over(1, 1050)
    desk.starts.stop()
    desk.hand_over(2, 1000)
    assert (desk.begun, desk.withheld) == ([], [1, 2])


async def test_others_have_their_turn_between_many_starts(desk: Desk) -> None:
    flow = Flow(1, KEY, (), False, Prefetch())
    lane = Lane(KEY.lane, None)  # type: ignore[arg-type]  # a lane that is never asked
    release = Release(Entry(1, 1, None, "r", None), flow, desk.account, lane, ())
    message = HandedOver(
        1, 1, 0, "default/a", "default", "chat", "chat", "r", None, None, "{}", None, 3, 1000, None, "t", None,
        0, None, 0, 0, 1,
    )  # fmt: skip
    desk.starts.put([(message, release)] * (CHUNK * 3))
    begun: list[int] = []
    asyncio.get_running_loop().call_soon(lambda: begun.append(len(desk.begun)))
    while len(desk.begun) < CHUNK * 3:
        await asyncio.sleep(0)
    assert begun[0] <= CHUNK * 2
    assert desk.begun == [1] * (CHUNK * 3)
