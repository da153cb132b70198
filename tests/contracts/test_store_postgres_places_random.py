"""Two nodes that hand over, settle and change limits at random: no window holds more than its limit."""

import asyncio
import random
from pathlib import Path

import pytest

from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import FLOW, NOW, mark, message
from tests.contracts.stores.nodes import two_nodes
from tests.contracts.stores.places import ALL, CALLS, EACH, EVERYTHING, OF_ALL, Node, sized


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_two_nodes_do_no_window_holds_more_than_its_limit(tmp_path: Path, seed: int) -> None:
    """Random hand-overs, endings and changes of limits; judged by when each call began and ended."""
    async with two_nodes(tmp_path) as stores:
        await play(stores, random.Random(seed))


async def play(stores: list[PostgresStore], chance: random.Random) -> None:
    nodes = [Node(store) for store in stores]
    limits = {"limit/all": 4, "limit/each": 2, "queue/chat": 3}
    wides = {"limit/all": ALL, "limit/each": EACH, "queue/chat": CALLS}
    await stores[0].nodes.set_wide([sized(wides[n], m) for n, m in limits.items()], [], NOW)
    rows = [message(recipient=chance.choice("abc")) for _ in range(400)]
    await stores[0].add(rows, [FLOW], NOW)
    to = {row.id: row.recipient for row in rows}
    waiting, open_, now = rows, [], NOW
    calls: dict[int, tuple[int, int | None]] = {}
    most = {(name, NOW): limit for name, limit in limits.items()}
    for _ in range(250):
        now += chance.randrange(300)
        if chance.random() < 0.05:
            name = chance.choice(list(limits))
            limits[name] = chance.randrange(1, 6)
            most[name, now] = limits[name]
            await chance.choice(stores).nodes.set_wide([sized(wides[name], limits[name])], [], now)
        parts = [chance.sample(waiting, min(len(waiting), chance.randrange(6))) for _ in nodes]
        parts[1] = [row for row in parts[1] if row not in parts[0]]
        revision, _ = await stores[0].nodes.wide()
        answers = await asyncio.gather(*(
            node.store.nodes.hand_over(
                [mark(row, started=now) for row in part],
                [[OF_ALL, ("limit/each", row.recipient), ("queue/chat", "")] for row in part], revision, now, 0, EVERYTHING)
            for node, part in zip(nodes, parts, strict=True)))  # fmt: skip
        given = [each for answer in answers for each in answer.handed]
        calls |= {each.id: (now, None) for each in given}
        gone = {each.id for each in given}
        waiting = [row for row in waiting if row.id not in gone]
        open_ += given
        chance.shuffle(open_)
        over, open_ = open_[: (n := chance.randrange(4))], open_[n:]
        now += chance.randrange(200)
        await chance.choice(nodes).end(over, now)
        calls |= {each.id: (calls[each.id][0], now) for each in over}
    judge(calls, to, most, now)
    assert len(calls) > 60


def judge(
    calls: dict[int, tuple[int, int | None]], to: dict[int, str], most: dict[tuple[str, int], int], now: int
) -> None:
    """At each start, as many others occupy a place as the limit that held then allows, one less at most."""
    for id_, (began, _) in calls.items():
        for name, span in (("limit/all", 1000), ("limit/each", 5000), ("queue/chat", 0)):
            limit = max((at, limit) for (of, at), limit in most.items() if of == name and at <= began)[1]
            others = [
                other
                for other, (start, end) in calls.items()
                if other != id_
                and (name != "limit/each" or to[other] == to[id_])
                and (start, other) < (began, id_)
                and (end is None or end + span > began)
            ]
            assert len(others) < limit, (name, began)
