"""Places of wide limits: taken with the hand-over, all of a message or none, on whichever node, and never too many."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from paceline.model.errors import EndedError, InvalidError, UnavailableError
from paceline.model.messages import NewMessage
from paceline.model.wide import Need, Use, Wide
from paceline.stores.base import Document
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import FLOW, NOW, mark, message, one
from tests.contracts.stores.nodes import ended, two_nodes
from tests.contracts.stores.places import ALL, CALLS, EACH, EVERYTHING, OF_ALL, Node, sized
from tests.contracts.stores.postgres_server import url_for


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[PostgresStore]]:
    async with two_nodes(tmp_path) as made:
        yield made


async def put(store: PostgresStore, many: int, recipient: str = "ann@example.com") -> list[NewMessage]:
    rows = [message(recipient=recipient) for _ in range(many)]
    await store.add(rows, [FLOW], NOW)
    return rows


async def used(store: PostgresStore, now: int, name: str = "limit/all") -> Use:
    return (await store.nodes.wide_use([name], now))[name]


async def test_a_place_is_free_again_a_window_after_the_end_of_its_call(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([ALL], [], NOW)
    rows = await put(stores[0], 7)
    first = await node.take(rows)
    assert [each.id for each in first.handed] == [row.id for row in rows[:3]]
    assert first.refused == [row.id for row in rows[3:]]
    assert [(t.name, t.key, t.moments) for t in first.told] == [("limit/all", "", [])]
    assert (await one(stores[0], rows[3].id)).number == 0  # nothing happened to it
    assert await used(stores[0], NOW) == Use(3, None)
    await node.end(first.handed[:2], NOW + 100)
    assert (await node.take(rows[3:], now=NOW + 1099)).handed == []
    later = await node.take(rows[3:], now=NOW + 1100)
    assert [each.id for each in later.handed] == [rows[3].id, rows[4].id]
    assert (await node.take(rows[5:], now=NOW + 999_999)).handed == []  # three calls are under way


async def test_what_another_node_used_is_free_later_by_as_much_as_clocks_are_apart(
    stores: list[PostgresStore],
) -> None:
    one_, two = map(Node, stores)
    await stores[0].nodes.set_wide([ALL], [], NOW)
    rows = await put(stores[0], 6)
    given = (await one_.take(rows[:3])).handed
    await one_.end(given, NOW + 100)
    refused = await two.take(rows[3:], now=NOW + 1106, apart=7)
    assert (refused.handed, refused.told[0].moments) == ([], [NOW + 1107] * 3)
    assert len((await two.take(rows[3:5], now=NOW + 1107, apart=7)).handed) == 2
    assert len((await one_.take(rows[5:], now=NOW + 1107, apart=7)).handed) == 1


async def test_two_nodes_at_the_same_moment_take_no_more_than_there_are(stores: list[PostgresStore]) -> None:
    await stores[0].nodes.set_wide([sized(ALL, 40)], [], NOW)
    rows = await put(stores[0], 200)
    nodes = [Node(store) for store in stores]
    answers = await asyncio.gather(*(nodes[n % 2].take(rows[n * 10 : n * 10 + 10]) for n in range(20)))
    assert sum(len(answer.handed) for answer in answers) == 40


async def test_nobody_waits_for_places_that_another_one_has_in_his_hands(
    stores: list[PostgresStore], tmp_path: Path
) -> None:
    base, _, schema = url_for(tmp_path).partition("?schema=")
    await stores[0].nodes.set_wide([ALL], [], NOW)
    rows = await put(stores[0], 3)
    other = await asyncpg.connect(base)
    try:
        await other.execute(f"SET search_path = {schema}")
        await other.execute("BEGIN")
        await other.execute("DELETE FROM place_free WHERE place < 2")
        await other.execute("UPDATE place_made SET floor = 0")
        async with asyncio.timeout(5):
            assert len((await Node(stores[1]).take(rows)).handed) == 1
        await other.execute("ROLLBACK")
    finally:
        await other.close()
    assert len((await Node(stores[1]).take(rows[1:])).handed) == 2


async def test_a_message_gets_all_of_its_places_or_none(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([ALL, EACH], [], NOW)
    ann = await put(stores[0], 4, "ann")
    bob = await put(stores[0], 1, "bob")
    revision, _ = await stores[0].nodes.wide()
    rows = [*ann, *bob]
    needs = [[OF_ALL, ("limit/each", row.recipient)] for row in rows]
    answer = await stores[0].nodes.hand_over([mark(row) for row in rows], needs, revision, NOW, 0, EVERYTHING)
    # The second to the fourth for ann get nothing, so that what they would have taken of all is there for bob.
    assert [each.id for each in answer.handed] == [ann[0].id, bob[0].id]
    assert [(told.name, told.key) for told in answer.told] == [("limit/each", "ann")]
    assert await used(stores[0], NOW) == Use(2, None)
    assert len((await node.take(ann[1:])).handed) == 1  # the third place of all was left


async def test_what_was_not_pending_any_more_takes_nothing(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([ALL], [], NOW)
    rows = await put(stores[0], 4)
    assert len((await node.take(rows[:1])).handed) == 1
    answer = await node.take([*rows[1:3], rows[0]])
    assert [each.id for each in answer.handed] == [rows[1].id, rows[2].id]
    answer = await node.take(rows[:2])
    assert (answer.handed, answer.refused, answer.told[0].name) == (
        [],
        [row.id for row in rows[:2]],
        "limit/all",
    )
    assert await used(stores[0], NOW) == Use(3, None)


async def test_nobody_overtakes_what_was_refused(stores: list[PostgresStore]) -> None:
    """Two batches are on their way; a place becomes free after the first one was refused."""
    node, nodes = Node(stores[0]), stores[0].nodes
    await nodes.set_wide([sized(ALL, 1)], [], NOW)
    revision, _ = await nodes.wide()
    rows = await put(stores[0], 3)
    given = (await node.take(rows[:1])).handed
    first = await nodes.hand_over([mark(rows[1])], [[OF_ALL]], revision, NOW, 0, 0)
    await node.end(given, NOW - 1000)
    second = await nodes.hand_over([mark(rows[2])], [[OF_ALL]], revision, NOW, 0, 0)
    assert (first.refused, second.refused) == ([rows[1].id], [rows[2].id])
    assert second.number > first.number > 0
    again = await nodes.hand_over(
        [mark(row) for row in rows[1:]], [[OF_ALL]] * 2, revision, NOW, 0, second.number
    )
    assert [each.id for each in again.handed] == [rows[1].id]


async def test_calls_of_a_queue_are_free_at_their_end(stores: list[PostgresStore]) -> None:
    one_, two = map(Node, stores)
    await stores[0].nodes.set_wide([CALLS], [], NOW)
    rows = await put(stores[0], 5)
    need: Need = ("queue/chat", "")
    given = (await one_.take(rows, [need])).handed
    assert len(given) == 2
    assert (await two.take(rows[2:], [need])).handed == []
    await one_.end(given[:1], NOW + 500)
    assert len((await two.take(rows[2:], [need], now=NOW + 400, apart=50)).handed) == 1


async def test_a_call_that_did_not_begin_leaves_its_place_at_once(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([sized(ALL, 1)], [], NOW)
    rows = await put(stores[0], 1)
    given = (await node.take(rows)).handed
    await node.end(given, NOW + 10, "Withheld", "give-back")
    assert len((await node.take(rows, now=NOW + 10)).handed) == 1


async def test_places_are_made_as_they_are_needed(stores: list[PostgresStore], tmp_path: Path) -> None:
    base, _, schema = url_for(tmp_path).partition("?schema=")
    await stores[0].nodes.set_wide([sized(ALL, 100_000), sized(EACH, 50)], [], NOW)
    reader = await asyncpg.connect(base)
    try:
        count = f"SELECT made FROM {schema}.place_made ORDER BY made"
        assert [row[0] for row in await reader.fetch(count)] == [5000]
        rows = await put(stores[0], 6000)
        for start in (0, 3000):
            answer = await Node(stores[0]).take(rows[start : start + 3000])
            assert len(answer.handed) == 3000
        made = [row[0] for row in await reader.fetch(count)]
        assert made == [7000]  # a thousand were missing
        assert await used(stores[0], NOW) == Use(6000, None)
        await Node(stores[0]).take(await put(stores[0], 2), [("limit/each", "ann")])
        assert [row[0] for row in await reader.fetch(count)] == [2, *made]
    finally:
        await reader.close()


async def test_a_limit_counts_what_was_sent_before_it_was_set_and_what_is_under_way(
    stores: list[PostgresStore],
) -> None:
    node = Node(stores[0])
    rows = await put(stores[0], 8)
    given = await stores[0].hand_over([mark(row) for row in rows[:4]], NOW)
    await node.end(given[:1], NOW - 2000)  # longer ago than the window
    await node.end(given[1:2], NOW - 400)
    await node.end(given[2:3], NOW - 300, "Withheld", "give-back")
    await stores[1].nodes.set_wide([ALL], [], NOW)
    assert await used(stores[0], NOW) == Use(2, NOW + 600)
    assert len((await node.take(rows[4:])).handed) == 1
    assert len((await node.take(rows[5:], now=NOW + 599)).handed) == 0
    assert len((await node.take(rows[5:], now=NOW + 600)).handed) == 1
    await node.end(given[3:], NOW + 600)  # it was under way when the limit was set
    assert len((await node.take(rows[6:], now=NOW + 1599)).handed) == 0
    assert len((await node.take(rows[6:], now=NOW + 1600)).handed) == 1


async def test_limits_of_recipients_and_groups_find_what_was_sent_to_them(
    stores: list[PostgresStore],
) -> None:
    node = Node(stores[0])
    rows = [
        message(recipient=to, group=group) for to, group in (("ann", "g"), ("bob", None), ("ännchen", "g"))
    ]
    rows += [message(recipient=row.recipient, group=row.group) for row in rows]
    await stores[0].add(rows, [FLOW], NOW)
    await node.end(await stores[0].hand_over([mark(row) for row in rows[:3]], NOW), NOW)
    both = Wide("limit/both", 1, 5000, recipient="*", group="*")
    named = Wide("limit/named", 1, 5000, recipient="ann")
    await stores[0].nodes.set_wide([EACH, both, named, Wide("limit/g", 3, 5000, group="g")], [], NOW)
    for needs, row, goes in (
        (("limit/each", "ännchen"), rows[5], False),
        (("limit/each", "carl"), rows[5], True),
        (("limit/both", "ann\x00g"), rows[3], False),
        (("limit/both", "bob\x00g"), rows[3], True),
        (("limit/named", "ann"), rows[4], False),
        (("limit/g", "g"), rows[4], True),
    ):
        assert len((await node.take([row], [needs], now=NOW + 1)).handed) == goes, needs


async def test_a_limit_made_smaller_loses_the_places_that_are_free_first(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([sized(ALL, 4)], [], NOW)
    rows = await put(stores[0], 10)
    given = (await node.take(rows[:4])).handed
    await node.end(given[:1], NOW + 100)
    await node.end(given[1:2], NOW + 200)
    await stores[1].nodes.set_wide([sized(ALL, 1)], [], NOW + 200)  # two are under way, two ended
    assert await used(stores[0], NOW + 200) == Use(2, None)
    await node.end(given[3:], NOW + 500)  # the later one is told first
    await node.end(given[2:3], NOW + 300)
    assert (await node.take(rows[4:], now=NOW + 1499)).handed == []
    assert len((await node.take(rows[4:], now=NOW + 1500)).handed) == 1
    await stores[1].nodes.set_wide([sized(ALL, 3)], [], NOW + 1500)
    assert len((await node.take(rows[5:], now=NOW + 1500)).handed) == 2


async def test_a_limit_that_is_gone_is_in_nobodys_way(stores: list[PostgresStore]) -> None:
    node = Node(stores[0])
    await stores[0].nodes.set_wide([ALL], [], NOW, [Document("limit", "", "all", "{}", NOW)])
    rows = await put(stores[0], 8)
    given = (await node.take(rows[:3])).handed
    _, gone = await stores[1].nodes.set_wide([], ["limit/all"], NOW, removed=("limit", "", "all"))
    assert gone
    assert await stores[0].documents("limit") == []
    assert (await stores[0].nodes.wide())[1] == []
    await node.end(given, NOW + 5)
    assert len((await node.take(rows[3:], [])).handed) == 5


@pytest.mark.parametrize("needs", [(), (OF_ALL,)], ids=["none", "a place"])
async def test_a_hand_over_by_limits_that_have_changed_since_does_nothing(
    stores: list[PostgresStore], needs: tuple[Need, ...]
) -> None:
    await stores[0].nodes.set_wide([ALL], [], NOW)
    revision, _ = await stores[0].nodes.wide()
    rows = await put(stores[0], 2)
    await stores[1].nodes.set_wide([EACH], [], NOW)
    wanted = [needs] * 2 if needs else ()
    answer = await stores[0].nodes.hand_over(
        [mark(row) for row in rows], wanted, revision, NOW, 0, EVERYTHING
    )
    assert (answer.handed, answer.refused, answer.stale) == ([], [], True)
    assert (await one(stores[0], rows[0].id)).number == 0
    again = await stores[0].nodes.hand_over(
        [mark(row) for row in rows], wanted, revision + 1, NOW, 0, EVERYTHING
    )
    assert (len(again.handed), again.stale) == (2, False)


async def test_a_limit_is_not_set_while_another_node_is_in_the_middle_of_a_commit(
    stores: list[PostgresStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.stores.postgres_wide._WAIT_MS", 50)
    base, _, schema = url_for(tmp_path).partition("?schema=")
    other = await asyncpg.connect(base)
    try:
        await other.execute("BEGIN")
        await other.execute(f"UPDATE {schema}.fence SET batch = batch WHERE node = '{stores[0].nodes.id}'")
        with pytest.raises(UnavailableError):
            await stores[1].nodes.set_wide([ALL], [], NOW)
        await other.execute("ROLLBACK")
    finally:
        await other.close()
    assert (await stores[1].nodes.wide())[1] == []
    await stores[1].nodes.set_wide([ALL], [], NOW)


async def test_an_ended_nodes_places_are_held_until_its_calls_are_settled(
    stores: list[PostgresStore],
) -> None:
    lost, follower = map(Node, stores)
    await stores[0].nodes.set_wide([ALL], [], NOW)
    rows = await put(stores[0], 6)
    given = (await lost.take(rows[:3])).handed
    await ended(stores[1], stores[0])
    with pytest.raises(EndedError):
        await lost.end(given, NOW)
    assert (await follower.take(rows[3:], now=NOW + 60_000)).handed == []
    await follower.end(await stores[1].nodes.open_calls(range(64)), NOW + 60_000)
    assert (await follower.take(rows[3:], now=NOW + 60_999)).handed == []
    assert len((await follower.take(rows[3:], now=NOW + 61_000)).handed) == 3


async def test_recipients_that_were_not_sent_to_for_long_are_forgotten(
    stores: list[PostgresStore], tmp_path: Path
) -> None:
    base, _, schema = url_for(tmp_path).partition("?schema=")
    node = Node(stores[0])
    await stores[0].nodes.set_wide([ALL, sized(EACH, 2)], [], NOW)
    rows = await put(stores[0], 30)
    held = []
    for number, row in enumerate(rows):
        answer = await node.take([row], [("limit/each", f"r{number}")])
        held += answer.handed
    await node.end(held[:20], NOW)
    await node.end(held[20:25], NOW + 10_000)
    while await stores[0].nodes.clean_places(NOW + 5000, 7):
        continue
    reader = await asyncpg.connect(base)
    try:
        assert await reader.fetchval(f"SELECT count(*) FROM {schema}.place_made") == 11
        assert (
            await reader.fetchval(f"SELECT count(*) FROM {schema}.place_free WHERE free_at <= {NOW + 5000}")
            == 3
        )
    finally:
        await reader.close()
    again = await node.take((await put(stores[0], 3)), [("limit/each", "r0")], now=NOW + 5000)
    assert (len(again.handed), len(again.refused)) == (2, 1)


async def test_a_limit_with_more_places_than_can_be_kept_is_refused(stores: list[PostgresStore]) -> None:
    with pytest.raises(InvalidError, match="1,000,000"):
        await stores[0].nodes.set_wide([sized(ALL, 1_000_001)], [], NOW)
