"""What every store does. A new store joins by one line in `MAKERS`."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paceline.model.errors import ConflictError
from paceline.model.ids import first_of
from paceline.model.messages import AccountNote, Added, FlowKey, Mark
from paceline.model.states import State
from paceline.stores.base import Attempt, Daily, Document, Filter, FlowAfter, Occupancy, Store
from paceline.stores.postgres import PostgresStore
from paceline.stores.sqlite import SqliteStore
from tests.contracts.stores.making import (
    EVERYTHING,
    FLOW,
    NOW,
    OTHER_FLOW,
    Machine,
    mark,
    message,
    one,
    recounted,
    revision,
    sent,
    settlement,
    tallied,
)
from tests.contracts.stores.postgres_server import url_for
from tests.simulation.store import SimulatedStore
from tests.simulation.tables import Tables

_simulated: defaultdict[Path, Tables] = defaultdict(Tables)
MAKERS: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(folder / "store.db"),
    "postgres": lambda folder: PostgresStore(url_for(folder)),
    # No store of the product: the crash simulation runs on it, so it has to be as faithful as one.
    "simulated": lambda folder: SimulatedStore(_simulated[folder]),
}
DAY = 86_400_000


@pytest.fixture(params=MAKERS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made = MAKERS[request.param](tmp_path)
    await made.open(NOW)
    yield made
    await made.close()


# Adding


async def test_a_message_comes_back_as_it_was_given(store: Store) -> None:
    row = message(
        recipient="'; DROP TABLE message; --", content='{"text":"汉字 \\" \\\\ \\u0001 🎈"}', metadata='{"a":[1,null]}',
        backoff='{"type":"fixed"}', group="room", source="shop", kind="welcome", batch=2**62 + 1,
        callback_url="http://example.com/?a=b&c", idempotency_key="k\t\u2028", fingerprint="f", expires_at=NOW + 9,
        campaign="spring", account="acme/bot", turn=2**62 + 3, state=State.SCHEDULED, due_at=NOW + 7,
    )  # fmt: skip
    assert await store.add([row], [FLOW], NOW) == [Added(row.id)]
    found = await one(store, row.id)
    for field in row.__struct_fields__:
        if field != "fingerprint":
            assert getattr(found, field) == getattr(row, field), field
    assert (found.number, found.attempts, found.sender) == (0, 0, "")
    assert (found.started_at, found.finished_at, found.outcome, found.result) == (None, None, None, None)


async def test_large_content_is_stored_beside_small_and_not_for_a_known_key(store: Store) -> None:
    large, other = ('{"text":"' + letter * 200_000 + '🎈"}' for letter in "ab")
    rows = [
        message(content=large, idempotency_key="k"),
        message(),
        message(content=other, idempotency_key="k"),
    ]
    added = await store.add(rows, [FLOW], NOW)
    assert [answer.duplicate for answer in added] == [False, False, True]
    assert (await one(store, rows[0].id)).content == large
    assert (await one(store, rows[1].id)).content == rows[1].content
    assert rows[0].content == large
    assert await store.get([rows[2].id]) == []


async def test_unknown_ids_are_left_out_and_the_order_is_the_one_asked(store: Store) -> None:
    rows = [message() for _ in range(4)]
    await store.add(rows, [FLOW], NOW)
    wanted = [rows[2].id, 2**60, rows[0].id, rows[3].id]
    assert [m.id for m in await store.get(wanted)] == [rows[2].id, rows[0].id, rows[3].id]


async def test_nothing_is_added_for_nothing(store: Store) -> None:
    assert await store.add([], [], NOW) == []
    assert await store.hand_over([], NOW) == []
    assert await store.settle([], [], [], [], NOW) == []
    assert await store.revise([], NOW) == []
    assert await store.get([]) == []
    assert await store.greatest_id() == 0


async def test_a_known_key_answers_the_first_message(store: Store) -> None:
    first = message(idempotency_key="k", fingerprint="one")
    await store.add([first], [FLOW], NOW)
    again = [message(), message(idempotency_key="k", fingerprint="two"), message(idempotency_key="new")]
    assert await store.add(again, [FLOW], NOW) == [
        Added(again[0].id), Added(first.id, duplicate=True, fingerprint="one"), Added(again[2].id),
    ]  # fmt: skip
    assert await store.get([again[1].id]) == []
    assert sum((await store.count(EVERYTHING)).values()) == 3


async def test_a_key_twice_in_one_call_adds_the_first_only(store: Store) -> None:
    rows = [message(idempotency_key="k", fingerprint=f) for f in ("one", "two")]
    answers = await store.add(rows, [FLOW], NOW)
    assert answers == [Added(rows[0].id), Added(rows[0].id, duplicate=True, fingerprint="one")]
    assert await store.get([rows[1].id]) == []


async def test_a_key_belongs_to_its_tenant(store: Store) -> None:
    other = FlowKey("b/chat/main", "b", "", "chat", 5, "")
    rows = [message(idempotency_key="k"), message(other, idempotency_key="k")]
    assert await store.add(rows[:1], [FLOW], NOW) == [Added(rows[0].id)]
    assert await store.add(rows[1:], [other], NOW) == [Added(rows[1].id)]
    both = [message(idempotency_key="l"), message(other, idempotency_key="l")]
    assert await store.add(both, [], NOW) == [Added(row.id) for row in both]


async def test_a_key_is_free_again_when_its_message_is_deleted(store: Store) -> None:
    row = message(idempotency_key="k")
    await store.add([row], [FLOW], NOW)
    await store.revise([revision(await one(store, row.id), "", None)], NOW)
    again = message(idempotency_key="k")
    assert await store.add([again], [FLOW], NOW) == [Added(again.id)]


async def test_keys_of_calls_that_share_a_commit_are_seen_by_each_other(store: Store) -> None:
    rows = [message(idempotency_key="k") for _ in range(5)]
    answers = await asyncio.gather(*(store.add([row], [FLOW], NOW) for row in rows))
    assert [a for (a,) in answers if not a.duplicate] == [Added(rows[0].id)]
    assert {a.id for (a,) in answers} == {rows[0].id}


async def test_an_id_cannot_be_taken_twice(store: Store) -> None:
    row, other = message(), message()
    await store.add([row], [FLOW], NOW)
    with pytest.raises(ConflictError):
        await store.add([other, row], [FLOW], NOW)
    assert await store.get([other.id]) == []


async def test_the_greatest_id_is_remembered_when_its_message_is_gone(store: Store) -> None:
    rows = [message(), message()]
    await store.add(rows, [FLOW], NOW)
    await store.revise([revision(await one(store, rows[1].id), "", None)], NOW)
    assert await store.get([rows[1].id]) == []
    assert await store.greatest_id() == rows[1].id


# Handing over and settling


async def test_a_hand_over_answers_all_that_a_call_needs(store: Store) -> None:
    row = message(
        kind="k", group="g", metadata="{}", backoff='"b"', callback_url="u", turn=3, expires_at=NOW + 99
    )
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW + 5)
    for field in set(given.__struct_fields__) & set(row.__struct_fields__) - {"account"}:
        assert getattr(given, field) == getattr(row, field), field
    assert (given.number, given.attempts, given.account) == (1, 0, "acme/bot")
    assert await store.processing() == [given]
    assert await store.attempts([row.id]) == [
        Attempt(row.id, 1, FLOW.number, "acme/bot", NOW + 5, None, None, None, None, None, None)
    ]
    found = await one(store, row.id)
    assert (found.state, found.sender, found.started_at, found.outcome) == (3, "acme/bot", NOW + 5, None)


async def test_only_pending_messages_of_the_named_flow_are_handed_over(store: Store) -> None:
    good, moved, cancelled, scheduled = message(), message(), message(), message(state=State.SCHEDULED)
    await store.add([good, moved, cancelled, scheduled], [FLOW], NOW)
    await store.revise([revision(await one(store, cancelled.id), "cancel", State.CANCELLED)], NOW)
    marks = [
        Mark(moved.id, OTHER_FLOW.number, "a", NOW),
        mark(cancelled),
        mark(scheduled),
        Mark(2**60, 1, "a", 1),
    ]
    given = await store.hand_over([*marks, mark(good), mark(good)], NOW)
    assert [g.id for g in given] == [good.id]
    assert await store.hand_over([mark(good)], NOW) == []


async def test_hand_overs_of_calls_that_share_a_commit_go_to_one_only(store: Store) -> None:
    rows = [message() for _ in range(20)]
    await store.add(rows, [FLOW], NOW)
    answers = await asyncio.gather(
        *(store.hand_over([mark(r, f"acme/{i}") for r in rows[i:]], NOW) for i in range(5))
    )
    assert [len(answer) for answer in answers] == [20, 0, 0, 0, 0]
    assert [g.id for g in answers[0]] == [r.id for r in rows]


async def test_each_call_of_a_shared_commit_gets_its_own_answers(store: Store) -> None:
    rows = [message() for _ in range(12)]
    added = await asyncio.gather(
        *(store.add(rows[i : i + 3], [FLOW], NOW) for i in range(0, 12, 3)), store.add([], [], NOW)
    )
    assert [[a.id for a in part] for part in added] == [
        [r.id for r in rows[i : i + 3]] for i in range(0, 12, 3)
    ] + [[]]
    given = await asyncio.gather(
        *(store.hand_over([mark(r) for r in rows[i : i + 3]], NOW) for i in range(0, 12, 3))
    )
    assert [[g.id for g in part] for part in given] == [
        [r.id for r in rows[i : i + 3]] for i in range(0, 12, 3)
    ]
    wrong = [[settlement(g, number=9 if g.id % 2 else g.number) for g in part] for part in given]
    stale = await asyncio.gather(*(store.settle(part, [], [], [], NOW) for part in wrong))
    assert stale == [[g.id for g in part if g.id % 2] for part in given]


async def test_rows_with_and_without_a_key_or_large_content_share_a_commit(store: Store) -> None:
    plain = [message() for _ in range(4)]
    large = message(content='{"text":"' + "x" * 100_000 + '"}')
    first, again = (
        message(idempotency_key="k", fingerprint="f"),
        message(idempotency_key="k", fingerprint="f"),
    )
    added = await asyncio.gather(
        store.add(plain[:1], [FLOW], NOW), store.add([first], [FLOW], NOW), store.add([large], [FLOW], NOW),
        store.add([plain[1], again], [FLOW], NOW), store.add(plain[2:], [FLOW], NOW),
    )  # fmt: skip
    assert [[a.id for a in part] for part in added] == [
        [plain[0].id], [first.id], [large.id], [plain[1].id, first.id], [plain[2].id, plain[3].id]
    ]  # fmt: skip
    assert [[a.duplicate for a in part] for part in added] == [
        [False],
        [False],
        [False],
        [False, True],
        [False] * 2,
    ]
    kept = {row.id: row.content for row in await store.find(Filter(), None, 100)}
    assert kept == {row.id: row.content for row in (*plain, first, large)}
    assert await store.count(Filter()) == {int(State.PENDING): 6}


@pytest.mark.parametrize(
    ("event", "state", "finished"),
    [("accept", 5, True), ("refuse", 6, True), ("lose", 9, True), ("expire", 8, True), ("retry", 4, False), ("give-back", 2, False)],
)  # fmt: skip
async def test_a_settlement_ends_the_hand_over(store: Store, event: str, state: int, finished: bool) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    given = await sent(
        store, row, event, outcome="Some", code="c", text="t", reference="r", due_at=NOW + 77, turn=5
    )
    found = await one(store, row.id)
    assert (found.state, found.attempts, found.number, found.due_at, found.turn) == (state, 1, 1, NOW + 77, 5)
    assert (found.started_at, found.finished_at) == (NOW + 10, NOW + 20 if finished else None)
    assert (found.outcome, found.code, found.text, found.reference) == ("Some", "c", "t", "r")
    assert await store.attempts([row.id]) == [
        Attempt(
            row.id, given.number, FLOW.number, "acme/bot", NOW + 5, NOW + 10, NOW + 20, "Some", "c", "t", "r"
        )
    ]
    assert await store.processing() == []


async def test_a_stale_settlement_changes_nothing(store: Store) -> None:
    row, other = message(), message()
    await store.add([row, other], [FLOW], NOW)
    first = await sent(store, row, "give-back")
    (second,) = await store.hand_over([mark(row)], NOW)
    before = (
        await one(store, row.id),
        await store.tallies(),
        await store.daily([0]),
        await store.attempts([row.id]),
    )
    late = settlement(first, moved_to="elsewhere", result="1")
    unknown = settlement(first, id=2**60)
    pending = settlement(first, id=other.id, number=0)
    assert await store.settle([late, unknown, pending], [], [], [], NOW) == [late.id, unknown.id, pending.id]
    assert before == (
        await one(store, row.id),
        await store.tallies(),
        await store.daily([0]),
        await store.attempts([row.id]),
    )
    twice = [settlement(second), settlement(second, "retry", moved_to="elsewhere", result="1")]
    assert await store.settle(twice, [], [], [], NOW) == [row.id]
    found = await one(store, row.id)
    assert (found.state, found.recipient, found.result) == (State.COMPLETED, row.recipient, None)


async def test_a_settlement_keeps_the_result_and_the_new_recipient(store: Store) -> None:
    rows = [message(), message()]
    await store.add(rows, [FLOW], NOW)
    await sent(store, rows[0], "retry", moved_to="bob@example.com")
    await sent(store, rows[1], result='{"n":1}')
    found = await store.get([row.id for row in rows])
    assert [(m.recipient, m.result) for m in found] == [
        ("bob@example.com", None),
        ("ann@example.com", '{"n":1}'),
    ]
    assert [line.recipient for line in await store.occupancy(0, None)] == ["ann@example.com"] * 2


async def test_a_settlement_brings_notes_and_follow_ups(store: Store) -> None:
    row, follow_up = message(), message(OTHER_FLOW)
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    await store.settle(
        [settlement(given)], [AccountNote("acme/bot", stopped="banned")], [follow_up], [OTHER_FLOW], NOW
    )
    assert await store.notes() == [AccountNote("acme/bot", stopped="banned")]
    assert (await one(store, follow_up.id)).state == State.PENDING
    assert (await store.flow_keys())[OTHER_FLOW.number] == OTHER_FLOW


async def test_a_later_flood_wait_wins_and_a_stop_is_set_and_cleared(store: Store) -> None:
    async def note(*notes: AccountNote) -> list[AccountNote]:
        await store.settle([], notes, [], [], NOW)
        return await store.notes()

    assert await note(AccountNote("a", 50)) == [AccountNote("a", 50)]
    assert await note(AccountNote("a", 40), AccountNote("a", 60), AccountNote("a", 30)) == [
        AccountNote("a", 60)
    ]
    assert await note(AccountNote("a", stopped="bad key")) == [AccountNote("a", 60, stopped="bad key")]
    assert await note(AccountNote("a", 70)) == [AccountNote("a", 70, stopped="bad key")]
    assert await note(AccountNote("a", stopped="")) == [AccountNote("a", 70)]
    assert await note(AccountNote("a", 5, recipient="r"), AccountNote("a", 6, group="g")) == [
        AccountNote("a", 70), AccountNote("a", 6, group="g"), AccountNote("a", 5, recipient="r"),
    ]  # fmt: skip


async def test_settle_and_add_of_the_same_moment_share_a_commit(store: Store) -> None:
    row, following = message(), message()
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    before = (await store.health())["commits"]

    async def add(new: Any) -> None:
        await store.add([new], [FLOW], NOW)  # asked for in the step of the loop that the others ask in

    await asyncio.gather(
        store.settle([settlement(given)], [], [], [], NOW),
        add(following),
        *(add(message()) for _ in range(50)),
    )
    assert (await store.health())["commits"] == before + 1


# Clocks


async def test_due_messages_are_promoted_the_longest_due_first(store: Store) -> None:
    due = [
        message(state=State.SCHEDULED, due_at=NOW + at, turn=at, group=f"g{at}") for at in (30, 20, 10, 40)
    ]
    await store.add([*due, message()], [FLOW], NOW)
    early = await store.promote(NOW + 9, 10)
    assert (early.entries, early.next_due) == ([], NOW + 10)
    first = await store.promote(NOW + 35, 2)
    assert [entry.id for _, entry in first.entries] == [due[2].id, due[1].id]
    assert first.next_due == NOW + 30
    flow, entry = first.entries[0]
    assert (flow, entry.turn, entry.expires_at, entry.recipient, entry.group) == (
        FLOW.number, 10, None, "ann@example.com", "g10",
    )  # fmt: skip
    assert [entry.id for _, entry in (await store.promote(NOW + 35, 9)).entries] == [due[0].id]
    last = await store.promote(NOW + 40, 9)
    assert ([entry.id for _, entry in last.entries], last.next_due) == ([due[3].id], None)
    assert await store.count(Filter()) == {State.PENDING: 5}


async def test_a_retry_is_promoted_too(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    await sent(store, row, "retry", due_at=NOW + 100)
    assert (await store.promote(NOW + 99, 9)).next_due == NOW + 100
    assert [entry.id for _, entry in (await store.promote(NOW + 100, 9)).entries] == [row.id]
    found = await one(store, row.id)
    assert (found.state, found.attempts, found.sender) == (State.PENDING, 1, "acme/bot")


async def test_what_is_scheduled_follows_the_wall_clock_and_what_is_retried_does_not(store: Store) -> None:
    scheduled, tried = message(state=State.SCHEDULED, due_at=NOW + 500, turn=NOW + 500), message()
    await store.add([scheduled, tried], [FLOW], NOW)
    (given,) = await store.hand_over([mark(tried)], NOW)
    again = settlement(given, event="retry", state=State.RETRYING, due_at=NOW + 50, turn=NOW + 50)
    await store.settle([again], [], [], [], NOW)
    behind = await store.promote(NOW + 49, 9, lambda: -400)
    assert (behind.entries, behind.next_due) == ([], NOW + 50)
    ahead = await store.promote(NOW + 20, 9, lambda: 470)
    assert (ahead.entries, ahead.next_due) == ([], NOW + 30)
    due = await store.promote(NOW + 30, 9, lambda: 470)
    assert [(entry.id, entry.turn) for _, entry in due.entries] == [(scheduled.id, NOW + 30)]
    assert due.next_due == NOW + 50
    found = await one(store, scheduled.id)
    assert (found.state, found.due_at, found.turn) == (State.PENDING, NOW + 30, NOW + 30)
    assert [entry.id for _, entry in (await store.promote(NOW + 50, 9, lambda: 470)).entries] == [tried.id]
    assert (await one(store, tried.id)).due_at == NOW + 50


async def test_messages_expire_by_the_wall_clock(store: Store) -> None:
    row = message(expires_at=NOW + 500)
    await store.add([row], [FLOW], NOW)
    behind = await store.expire(NOW + 600, 9, lambda: -200)
    assert (behind.ids, behind.next_expiry) == ([], NOW + 700)
    assert (await store.expire(NOW + 30, 9, lambda: 470)).ids == [row.id]
    assert (await one(store, row.id)).finished_at == NOW + 30


async def test_waiting_messages_expire_the_oldest_first(store: Store) -> None:
    states = [State.SCHEDULED, State.PENDING, State.PENDING, State.PENDING]
    rows = [message(state=s, expires_at=NOW + at) for s, at in zip(states, (30, 10, 20, 5), strict=True)]
    await store.add([*rows, message()], [FLOW], NOW)
    (under_way,) = await store.hand_over([mark(rows[3])], NOW)
    none = await store.expire(NOW + 9, 9)
    assert (none.ids, none.next_expiry) == ([], NOW + 10)
    some = await store.expire(NOW + 30, 2)
    assert (some.ids, some.next_expiry) == ([rows[1].id, rows[2].id], NOW + 30)
    rest = await store.expire(NOW + 30, 2)
    assert (rest.ids, rest.next_expiry) == ([rows[0].id], None)
    found = await one(store, rows[0].id)
    assert (found.state, found.number, found.finished_at, found.outcome) == (
        State.EXPIRED,
        1,
        NOW + 30,
        "expire",
    )
    assert await store.attempts([rows[0].id]) == [
        Attempt(rows[0].id, 1, FLOW.number, "", NOW + 30, None, NOW + 30, "expire", None, None, None)
    ]
    assert await store.processing() == [under_way]


async def test_a_message_that_waits_again_expires(store: Store) -> None:
    row = message(expires_at=NOW + 50)
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    assert (await store.expire(NOW + 60, 9)).ids == []
    await store.settle([settlement(given, "retry", due_at=NOW + 99)], [], [], [], NOW)
    assert (await store.expire(NOW + 60, 9)).ids == [row.id]


# People's changes


@pytest.mark.parametrize(
    ("event", "to", "is_ending"), [("cancel", State.CANCELLED, True), ("reschedule", State.SCHEDULED, False)]
)
async def test_a_waiting_message_is_revised(store: Store, event: str, to: State, is_ending: bool) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    was = await one(store, row.id)
    change = revision(was, event, to, due_at=NOW + 500, turn=7, expires_at=NOW + 900, reason="because")
    assert await store.revise([change], NOW + 50) == [row.id]
    found = await one(store, row.id)
    assert (found.state, found.due_at, found.turn, found.expires_at) == (to, NOW + 500, 7, NOW + 900)
    assert (found.number, found.finished_at) == ((1, NOW + 50) if is_ending else (0, None))
    lines = [Attempt(row.id, 1, FLOW.number, "", NOW + 50, None, NOW + 50, event, None, "because", None)]
    assert await store.attempts([row.id]) == (lines if is_ending else [])
    assert await store.revise([change], NOW + 60) == []


@pytest.mark.parametrize(
    ("event", "to", "completed", "failed"), [("confirm", State.COMPLETED, 1, 0), ("deny", State.FAILED, 0, 1)]
)
async def test_an_uncertain_message_is_settled_by_a_person(
    store: Store, event: str, to: State, completed: int, failed: int
) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    await sent(store, row, "lose", outcome="Unknown")
    assert await store.daily([0]) == []
    assert await store.revise(
        [revision(await one(store, row.id), event, to, reason="saw it")], NOW + DAY
    ) == [row.id]
    assert [(a.number, a.outcome, a.text) for a in await store.attempts([row.id])] == [
        (1, "Unknown", None), (2, event, "saw it"),
    ]  # fmt: skip
    found = await one(store, row.id)
    assert (found.state, found.number, found.finished_at, found.outcome) == (to, 2, NOW + DAY, event)
    assert await store.daily([0, NOW // DAY, NOW // DAY + 1]) == [
        Daily(day, "acme", "chat", "chat", "acme/bot", completed, failed, 0, 0) for day in (0, NOW // DAY + 1)
    ]


async def test_an_ended_message_is_revived(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    await sent(store, row, "refuse", outcome="Permanent")
    was = await one(store, row.id)
    assert await store.revise([revision(was, "revive", State.PENDING, attempts=0, turn=9)], NOW) == [row.id]
    found = await one(store, row.id)
    assert (found.state, found.attempts, found.turn, found.finished_at) == (State.PENDING, 0, 9, None)
    assert (await sent(store, row)).number == 2


async def test_a_changed_priority_account_and_pool_lead_to_another_flow(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    new = FlowKey("acme/chat/vip", "acme", "", "chat", 9, "acme/two")
    was = await one(store, row.id)
    change = revision(was, "", was.state, flow=new.number, priority=9, account="acme/two", pool="vip")
    assert await store.revise([change], NOW, [new]) == [row.id]
    found = await one(store, row.id)
    assert (found.state, found.flow, found.priority, found.account, found.pool) == (
        2,
        new.number,
        9,
        "acme/two",
        "vip",
    )
    assert [(f.key, f.pending) for f in await store.flows()] == [(new, 1)]
    assert await store.hand_over([mark(row)], NOW) == []


async def test_a_deleted_message_is_gone(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    await store.revise([revision(await one(store, row.id), "", None)], NOW)
    assert (await store.get([row.id]), await store.tallies(), await store.attempts([row.id])) == ([], [], [])
    assert await store.count(EVERYTHING) == {}


async def test_a_message_in_hand_is_not_deleted(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    (given,) = await store.hand_over([mark(row)], NOW)
    assert await store.revise([revision(await one(store, row.id), "", None)], NOW) == []
    assert await store.settle([settlement(given)], [], [], [], NOW) == []


async def test_a_revision_of_what_changed_meanwhile_does_nothing(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    was = await one(store, row.id)
    given = await sent(store, row, "give-back")
    assert given.number == 1
    before = await one(store, row.id)
    assert await store.revise([revision(was, "cancel", State.CANCELLED)], NOW) == []
    assert await store.revise([revision(before, "cancel", State.CANCELLED, from_state=1)], NOW) == []
    assert await one(store, row.id) == before


async def test_changes_of_one_message_by_two_calls_follow_each_other(store: Store) -> None:
    row = message()
    await store.add([row], [FLOW], NOW)
    was = await one(store, row.id)
    cancel = revision(was, "cancel", State.CANCELLED)
    answers = await asyncio.gather(
        store.revise([revision(was, "", was.state, turn=4)], NOW),
        store.revise([cancel], NOW),
        store.revise([cancel], NOW),
    )
    assert list(answers) == [[row.id], [row.id], []]


# Flows and entries


async def test_entries_are_paged_by_turn_and_id(store: Store) -> None:
    rows = [message(turn=turn, group=f"g{turn}") for turn in (2, 1, 1, 3, 1, 2)]
    others = [message(OTHER_FLOW) for _ in range(3)]
    await store.add([*rows, *others], [FLOW, OTHER_FLOW], NOW)
    in_line = sorted(rows, key=lambda row: (row.turn, row.id))
    turn, number, seen = 0, 0, []
    while True:
        mine, theirs = await store.entries([
            FlowAfter(FLOW.number, turn, number, 2), FlowAfter(OTHER_FLOW.number, 0, 0, 3),
        ])  # fmt: skip
        assert (mine.flow, theirs.flow, theirs.more) == (FLOW.number, OTHER_FLOW.number, False)
        assert [entry.id for entry in theirs.entries] == [row.id for row in others]
        seen += mine.entries
        if not mine.more:
            break
        turn, number = seen[-1].turn, seen[-1].id
    assert [(e.turn, e.id, e.recipient, e.group) for e in seen] == [
        (r.turn, r.id, r.recipient, r.group) for r in in_line
    ]
    for place, row in enumerate(in_line):
        assert await store.ahead(FLOW.number, row.turn, row.id) == place
    assert [(p.entries, p.more) for p in await store.entries([FlowAfter(1, 0, 0, 5)])] == [([], False)]


async def test_flows_have_their_pending_messages(store: Store) -> None:
    rows = [message(), message(), message(OTHER_FLOW), message(OTHER_FLOW, state=State.SCHEDULED)]
    await store.add(rows, [FLOW, OTHER_FLOW], NOW)
    assert {f.number: (f.key, f.pending) for f in await store.flows()} == {
        FLOW.number: (FLOW, 2), OTHER_FLOW.number: (OTHER_FLOW, 1),
    }  # fmt: skip
    await sent(store, rows[2])
    assert [f.number for f in await store.flows()] == [FLOW.number]
    assert await store.flow_keys() == {FLOW.number: FLOW, OTHER_FLOW.number: OTHER_FLOW}


async def test_occupancy_is_the_newest_of_each_account(store: Store) -> None:
    rows = [message(group=f"g{i}") for i in range(6)]
    await store.add(rows, [FLOW], NOW)
    for i, row in enumerate(rows):
        account = "a/1" if i % 2 else "a/2"
        (given,) = await store.hand_over([mark(row, account)], NOW)
        await store.settle([settlement(given, finished=NOW + i)], [], [], [], NOW)
    lines = [
        Occupancy(FLOW.number, "a/1" if i % 2 else "a/2", "ann@example.com", f"g{i}", NOW + i, spent=True)
        for i in range(6)
    ]
    cancelled = message()
    await store.add([cancelled], [FLOW], NOW)
    await store.revise([revision(await one(store, cancelled.id), "cancel", State.CANCELLED)], NOW + 50)
    assert await store.occupancy(NOW - 1, [("a/1", 9)]) == [lines[1], lines[3], lines[5]]
    assert await store.occupancy(NOW - 1, [("a/1", 2), ("a/2", 1), ("a/3", 5)]) == [
        lines[3],
        lines[5],
        lines[4],
    ]
    assert await store.occupancy(NOW + 3, [("a/1", 9), ("a/2", 9)]) == [lines[5], lines[4]]
    assert sorted(await store.occupancy(NOW, None), key=lambda line: line.finished) == lines[1:]


# Counts


@pytest.mark.parametrize("seed", range(8))
async def test_counts_are_exact_after_anything(store: Store, seed: int) -> None:
    machine = Machine(store, seed)
    for step in range(150):
        await machine.step()
        if step % 30 == 0:
            assert await tallied(store) == await recounted(store)
    assert await tallied(store) == await recounted(store)
    assert await store.count(Filter()) == await store.count(EVERYTHING)
    for part in (
        {"tenant": ("acme",)},
        {"queue": ("sms", "chat")},
        {"campaign": ("spring",)},
        {"priority": (9,)},
    ):
        assert await store.count(Filter(**part)) == await store.count(Filter(created_from=0, **part))


async def test_counts_are_exact_after_many_things_at_once(store: Store) -> None:
    machine = Machine(store, 99)
    for _ in range(10):
        await asyncio.gather(*(machine.step() for _ in range(20)))
    assert await tallied(store) == await recounted(store)


async def test_daily_work_is_summed_by_day_and_account(store: Store) -> None:
    rows = [message() for _ in range(6)]
    await store.add(rows, [FLOW], NOW)
    today, events = NOW // DAY, ["accept", "accept", "refuse", "retry", "lose", "give-back"]
    for row, event in zip(rows, events, strict=True):
        await sent(store, row, event)
    (later,) = await store.hand_over([mark(rows[5])], NOW)
    await store.settle([settlement(later, started=NOW + DAY, finished=NOW + DAY + 5)], [], [], [], NOW)

    def of(day: int, *figures: int) -> Daily:
        return Daily(day, "acme", "chat", "chat", "acme/bot", *figures)

    assert await store.daily([today]) == [of(today, 2, 1, 1, 40)]
    assert await store.daily([0, today + 1, today + 2]) == [of(0, 3, 1, 1, 45), of(today + 1, 1, 0, 0, 5)]


# Searching


async def test_every_part_of_a_filter_counts(store: Store) -> None:
    plain = message()
    special = message(
        FlowKey("b/sms/x", "b", "spring", "sms", 9, "b/s"), channel="sms", pool="x", group="g", source="s", kind="k",
        batch=7, recipient="bob", created_at=NOW + 50, content='{"text":"50% \\\\ off_now"}', state=State.SCHEDULED,
    )  # fmt: skip
    await store.add([plain, special], [FLOW, FlowKey("b/sms/x", "b", "spring", "sms", 9, "b/s")], NOW)
    matching = {
        "tenant": ("b",), "queue": ("sms",), "channel": ("sms",), "account": ("b/s",), "pool": ("x",),
        "campaign": ("spring",), "batch": (7,), "group": ("g",), "source": ("s",), "kind": ("k",), "state": (1,),
        "to": ("bob",), "priority": (9,), "ids": (special.id,), "q": "0% ",
    }  # fmt: skip
    for part, value in matching.items():
        alone = Filter(**{part: value})  # type: ignore[arg-type]
        assert [m.id for m in await store.find(alone, None, 9)] == [special.id], part
        assert await store.count(alone) == {1: 1}, part
        both = Filter(**(matching | {part: value}))  # type: ignore[arg-type]
        assert [m.id for m in await store.find(both, None, 9)] == [special.id], part
        if part != "q":
            wrong = Filter(**(matching | {part: (99,) if isinstance(value[0], int) else ("no",)}))  # type: ignore[arg-type]
            assert await store.find(wrong, None, 9) == [], part
            assert await store.count(wrong) == {}, part
            several = Filter(**{part: (*value, 99 if isinstance(value[0], int) else "no")})  # type: ignore[arg-type]
            assert [m.id for m in await store.find(several, None, 9)] == [special.id], part
    for pattern, found in (
        ("off_now", 1),
        ("offxnow", 0),
        ("0%", 1),
        ("%0", 0),
        ("\\", 1),
        ("ANN@", 1),
        ("bo", 1),
    ):
        assert len(await store.find(Filter(q=pattern), None, 9)) == found, pattern
    assert [m.id for m in await store.find(Filter(to=("bob", "ann@example.com")), None, 9)] == [
        special.id,
        plain.id,
    ]
    assert await store.find(Filter(to=("bo",)), None, 9) == []


async def test_creation_times_bound_a_search(store: Store) -> None:
    rows = [message(id=first_of(NOW + at), created_at=NOW + at) for at in (0, 10, 20)]
    await store.add(rows, [FLOW], NOW)
    for start, end, expected in (
        (NOW + 10, None, rows[1:]),
        (None, NOW + 10, rows[:1]),
        (NOW + 1, NOW + 20, rows[1:2]),
    ):
        found = await store.find(Filter(created_from=start, created_to=end), None, 9)
        assert [m.id for m in found] == [row.id for row in reversed(expected)]


async def test_the_account_of_an_unpinned_message_is_the_one_that_sent_it(store: Store) -> None:
    rows = [message(), message(account="acme/other")]
    await store.add(rows, [FLOW], NOW)
    for row in rows:
        await sent(store, row)
    assert [m.id for m in await store.find(Filter(account=("acme/bot",)), None, 9)] == [rows[0].id]
    assert [m.id for m in await store.find(Filter(account=("acme/other",)), None, 9)] == [rows[1].id]


async def test_a_search_is_paged_newest_first(store: Store) -> None:
    states = [State.PENDING, State.SCHEDULED, State.PENDING, State.PENDING, State.SCHEDULED] * 4
    rows = [message(state=state, batch=1, recipient=f"r{i % 3}") for i, state in enumerate(states)]
    await store.add(rows, [FLOW], NOW)
    await sent(store, rows[0])
    await sent(store, rows[2], "refuse")
    newest = [row.id for row in reversed(rows)]
    for wanted in (
        Filter(), Filter(batch=(1,)), Filter(state=(1, 2, 5, 6)), Filter(to=("r0", "r1", "r2")), Filter(ids=tuple(newest)),
    ):  # fmt: skip
        found: list[int] = []
        while page := await store.find(wanted, found[-1] if found else None, 3):
            assert len(page) == 3 or len(found) + len(page) == 20
            found += [m.id for m in page]
        assert found == newest, wanted
    some = [m.id for m in await store.find(Filter(state=(1, 6)), None, 5)]
    assert some == [i for i in newest if i not in {r.id for r in rows if r.state == State.PENDING} | {0}][:5]
    assert [m.id async for page in store.export(Filter(batch=(1,))) for m in page] == newest


# Cleaning


async def test_ended_messages_are_cleaned_the_oldest_first(store: Store) -> None:
    rows = [message() for _ in range(6)]
    await store.add([*rows, message(), message(OTHER_FLOW)], [FLOW, OTHER_FLOW], NOW)
    for i, row in enumerate(rows):
        (given,) = await store.hand_over([mark(row)], NOW)
        await store.settle(
            [settlement(given, "lose" if i == 5 else "accept", finished=NOW + i)], [], [], [], NOW
        )
    ids = [row.id for row in rows]

    async def left() -> list[int]:
        return [m.id for m in await store.get(ids)]

    assert await store.clean(Filter(state=(2, 9)), None, None, 9) == 0
    assert await store.clean(Filter(campaign=("spring",)), None, None, 9) == 0
    assert await store.clean(Filter(), NOW + 99, 5, 9) == 0
    assert await store.clean(Filter(), NOW + 4, 4, 9) == 1
    assert await left() == ids[1:]
    assert await store.clean(Filter(), NOW + 2, None, 9) == 1
    assert await store.clean(Filter(), None, 1, 1) == 1
    assert await left() == ids[3:]
    assert await store.clean(Filter(queue=("chat",)), None, 1, 9) == 1
    assert await left() == ids[4:]
    assert await tallied(store) == await recounted(store)
    assert len(await store.attempts(ids)) == 6
    assert len(await store.occupancy(0, None)) == 6


async def test_the_journal_is_cleaned_where_nobody_waits_for_it(store: Store) -> None:
    rows = [message() for _ in range(3)]
    await store.add(rows, [FLOW], NOW)
    await sent(store, rows[0], "give-back")
    await sent(store, rows[0], "refuse", outcome="Permanent", code="550", text="no", reference="r")
    await sent(store, rows[1], "retry")
    await sent(store, rows[2])
    await store.clean(Filter(state=(5,)), None, None, 9)
    assert await store.clean_journal(NOW + 20, 9) == 0
    before = await one(store, rows[0].id)
    assert await store.clean_journal(NOW + 21, 1) == 1
    assert await store.clean_journal(NOW + 21, 9) == 2
    assert await store.clean_journal(NOW + 21, 9) == 0
    assert [line.message for line in await store.attempts([row.id for row in rows])] == [rows[1].id]
    assert await one(store, rows[0].id) == before
    assert (before.outcome, before.code, before.text, before.reference) == ("Permanent", "550", "no", "r")
    await store.revise([revision(before, "revive", State.PENDING)], NOW)
    (given,) = await store.hand_over([mark(rows[0])], NOW)
    assert given.number == 3
    assert (await one(store, rows[0].id)).outcome is None


# Configuration


async def test_documents_are_put_replaced_listed_and_removed(store: Store) -> None:
    first = Document("queue", "acme", "chat", '{"a":1}', NOW)
    others = [Document("queue", "acme", "b", "{}", NOW), Document("account", "acme", "chat", "{}", NOW)]
    await store.put([first, *others])
    changed = msgspec.structs.replace(first, body='{"a":2}', updated_at=NOW + 1)
    await store.put([first, changed])
    assert await store.documents("queue") == [others[0], changed]
    assert await store.documents("nothing") == []
    assert await store.remove("queue", "acme", "chat") is True
    assert await store.remove("queue", "acme", "chat") is False
    assert await store.documents("queue") == [others[0]]
    assert await store.documents("account") == [others[1]]


async def test_health_tells_the_facts(store: Store) -> None:
    await store.add([message()], [FLOW], NOW)
    facts = await store.health()
    assert facts["engine"]
    assert facts["version"]
    assert facts["commits"] >= 1
    assert facts["pending"] == 0
    if facts["engine"] != "postgresql":  # a server does not tell how much room its disk has
        assert facts["free_bytes"] > 0
    assert facts["file_bytes"] > 0


@pytest.mark.parametrize("name", MAKERS)
async def test_everything_is_there_after_closing_and_opening(tmp_path: Path, name: str) -> None:
    async def all_of(store: Store) -> tuple[Any, ...]:
        return (
            await store.find(Filter(), None, 1000),
            await store.tallies(),
            await store.daily([0]),
            await store.processing(),
        )

    store = MAKERS[name](tmp_path)
    await store.open(NOW)
    machine = Machine(store, 5)
    for _ in range(40):
        await machine.step()
    before = await all_of(store)
    await store.close()
    again = MAKERS[name](tmp_path)
    await again.open(NOW)
    after = await all_of(again)
    await again.close()
    assert before == after


async def test_a_commit_of_nothing_but_known_keys_stores_nothing(store: Store) -> None:
    first = message(idempotency_key="k", fingerprint="f")
    await store.add([first], [FLOW], NOW)
    again = message(idempotency_key="k", fingerprint="f")
    answer = await store.add([again], [FLOW], NOW)
    assert [(a.id, a.duplicate) for a in answer] == [(first.id, True)]
    assert await store.get([again.id]) == []


async def test_noted_waits_move_with_a_document(store: Store) -> None:
    waits = [AccountNote("default/a", NOW + 50), AccountNote("default/a", NOW + 70, recipient="r")]
    await store.settle([], [*waits, AccountNote("default/b", stopped="401")], [], [], NOW)
    await store.put([Document("clock", "", "boot", "{}", NOW)], shift_waits=-30)
    found = {(note.account, note.recipient): note.flood_until for note in await store.notes()}
    assert found == {("default/a", ""): NOW + 20, ("default/a", "r"): NOW + 40, ("default/b", ""): None}
    await store.put([Document("clock", "", "boot", "{}", NOW)])
    assert {n.flood_until for n in await store.notes()} == {NOW + 20, NOW + 40, None}
