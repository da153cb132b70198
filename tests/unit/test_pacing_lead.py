"""Handing over ahead of the moment an account opens: earlier on disk, never earlier at the receiver (rules 5, 6)."""

from random import Random

import pytest

from paceline.model.limits import parse_limit
from paceline.model.messages import Entry, FlowKey, lane_key
from paceline.pacing.agenda import Agenda
from paceline.pacing.gates import SharedGate
from paceline.pacing.lane import RUN, Account
from paceline.pacing.lead import HALF_MS, LEAST_MS, MARGIN, MOST_MS, Lead
from paceline.pacing.scopes import Scopes
from paceline.pacing.windows import NEVER, Window

LANE = lane_key("default", "chat", "default")
KEY = FlowKey(LANE, "default", "", "chat", 5, "default/a")


def agenda_of(limits: list[str], waiting: int, concurrency: int = 1) -> tuple[Agenda, Account]:
    agenda = Agenda(Scopes())
    account = Account("default/a", concurrency)
    account.windows = tuple(Window(parse_limit(text)) for text in limits)
    agenda.lane(LANE).add_account(account)
    for number in range(1, waiting + 1):
        agenda.offer(KEY.number, KEY, Entry(number, number, None, "r", None))
    return agenda, account


def test_a_message_is_given_out_ahead_with_the_moment_to_start() -> None:
    agenda, _ = agenda_of(["1/s"], 3)
    assert [r.start_at for r in agenda.release(0, 10, 50)] == [0]
    agenda.settled(1, 10)
    assert agenda.release(10, 10, 50) == []
    assert agenda.wake_at(50) == 960
    assert agenda.wake_at(0) == 1010
    assert agenda.release(959, 10, 50) == []
    assert [r.start_at for r in agenda.release(960, 10, 50)] == [1010]
    assert agenda.release(1010, 10, 50) == []
    assert agenda.wake_at(50) == NEVER  # only its end can tell when the next one may go


def test_a_wide_gate_has_to_be_open_already() -> None:
    agenda, _ = agenda_of([], 2)
    gate: SharedGate = agenda.scopes.standing_gate("queue", "chat")
    agenda.regate()
    gate.block(100)
    assert agenda.release(60, 10, 50) == []
    assert [r.entry.id for r in agenda.release(100, 10, 50)] == [1]


@pytest.mark.parametrize("seed", range(20))
def test_no_window_is_exceeded_and_none_is_wasted(seed: int) -> None:
    random = Random(seed)
    limits = random.choice([["5/2s"], ["5/2s", "20/10s"], ["1/100ms"], ["3/s", "4/1500ms"]])
    concurrency, lead, took = random.choice([1, 2, 20]), random.randint(1, 80), random.randint(0, 30)
    agenda, account = agenda_of(limits, 80, concurrency)
    now = 0
    calls: list[tuple[int, int]] = []
    ends: list[tuple[int, int]] = []
    while len(calls) < 80:
        for release in agenda.release(now, 10, lead):
            # Making it durable takes up to the lead, so the account loses nothing by it.
            start = max(release.start_at, now + random.randint(0, lead))
            calls.append((start, start + took))
            ends.append((start + took, release.entry.id))
        ends.sort()
        moment = min(agenda.wake_at(lead), ends[0][0] if ends else NEVER)
        now = max(now, moment)
        while ends and ends[0][0] <= now:
            at, id_ = ends.pop(0)
            agenda.settled(id_, at)
    assert account.flying == len(ends)
    for text in limits:
        limit = parse_limit(text)
        for index, (start, _) in enumerate(calls):
            occupied = sum(1 for begun, end in calls[:index] if end + limit.span_ms > start >= begun)
            assert occupied < limit.maximum


def test_a_second_call_never_begins_in_the_place_of_one_that_is_ahead() -> None:
    agenda, account = agenda_of(["2/s"], 4, concurrency=4)
    assert len(agenda.release(0, 10, 100)) == 2
    agenda.settled(1, 5)
    agenda.settled(2, 7)
    assert [r.start_at for r in agenda.release(950, 10, 100)] == [1005, 1007]
    assert account.opens(1006) == NEVER


def test_the_lead_is_a_multiple_of_what_the_slowest_hand_over_took_lately() -> None:
    lead = Lead()
    assert lead.ms(0) == LEAST_MS
    lead.learn(10, 1000)
    assert lead.ms(1000) == 10 * MARGIN
    lead.learn(3, 1001)  # a quick one does not make the slow one forgotten
    assert lead.ms(1001) == 10 * MARGIN
    assert lead.ms(1000 + HALF_MS) == 5 * MARGIN
    lead.learn(100_000, 2000)
    assert lead.ms(2000) == MOST_MS


def test_a_lead_shrinks_to_the_least_with_time() -> None:
    lead = Lead()
    lead.learn(60, 0)
    seen = [lead.ms(now) for now in range(0, 20 * HALF_MS, 500)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == LEAST_MS


def two_accounts(own: int) -> Agenda:
    agenda = Agenda(Scopes())
    number = 0
    for name in ("a", "b"):
        key = FlowKey(LANE, "default", "", "chat", 5, f"default/{name}")
        agenda.lane(LANE).add_account(Account(key.account, None))
        for _ in range(own):
            number += 1
            agenda.offer(key.number, key, Entry(number, number, None, "r", None))
    return agenda


def senders(agenda: Agenda, room: int) -> str:
    return "".join(r.account.id[-1] for r in agenda.release(0, room))


def test_messages_that_one_account_alone_can_send_are_released_in_a_run() -> None:
    assert senders(two_accounts(3), 10) == "aaabbb"
    assert senders(two_accounts(2 * RUN), 4 * RUN)[: 2 * RUN] == "a" * RUN + "b" * RUN


def test_accounts_that_share_messages_or_a_limit_take_turns_one_by_one() -> None:
    pool = FlowKey(LANE, "default", "", "chat", 5, "")
    shared = two_accounts(0)
    for number in range(1, 5):
        shared.offer(pool.number, pool, Entry(number, number, None, "r", None))
    assert senders(shared, 4) == "abab"
    limited = two_accounts(2)
    limited.scopes.standing_gate("queue", "chat")
    limited.regate()
    assert senders(limited, 4) == "abab"
