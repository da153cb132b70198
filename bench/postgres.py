"""pg-drain, pg-two, pg-backlog, pg-held, pg-notify: a store in PostgreSQL, on a server that is there.

Each in a database of its own. Both sides of a ratio are measured in turn, again and again; medians.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg

from bench import backlog, postgres_raw
from bench.engine import text_of
from bench.postgres_engine import Node
from bench.postgres_place import ACCOUNTS, database, execute, fill, make
from paceline.clock import SystemClock

UNIT = "messages/s"
RATE = 800
HELD_S = 600


async def drain(_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """One node against the raw loop, which runs before and after each drain."""
    count = 20_000 if quick else 100_000
    async with database() as base:
        raws, drains, ratios, costs = [await _raw(base, count)], [], [], []
        for turn in range(2 if quick else 5):
            rate, cost = await _drain(base, count, f"drain{turn}")
            raws.append(await _raw(base, count))
            drains.append(rate)
            costs.append(cost)
            ratios.append(rate / (sum(raws[-2:]) / 2))
    return [
        {"name": "pg raw, beside the drain", "value": median(raws), "unit": UNIT},
        {"name": "pg drain", "value": median(drains), "unit": UNIT, "ratio": round(median(ratios), 3),
         "of": "pg raw, beside the drain", "goal": ">= 0.4"},
        {"name": "pg drain, the node's CPU", "value": median(costs) * 1e6, "unit": "us/message"},
    ]  # fmt: skip


async def _raw(base: str, count: int) -> float:
    url = await make(base, SystemClock().now(), "raw")
    await fill(url, count, SystemClock().now())
    rate = await postgres_raw.same_rows(url)
    await execute(base, "DROP SCHEMA raw CASCADE")
    return rate


async def _drain(base: str, count: int, schema: str) -> tuple[float, float]:
    url = await make(base, SystemClock().now(), schema)
    await fill(url, count, SystemClock().now())
    node = Node(url)
    await node.open(ACCOUNTS, ["1000000/s"], concurrency=None, pools=ACCOUNTS)
    gc.collect()
    gc.freeze()
    start, cpu = time.perf_counter(), time.process_time()
    node.core.dispatcher.start()
    await _settled(node, count)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    await node.close()
    gc.unfreeze()
    await execute(base, f"DROP SCHEMA {schema} CASCADE")
    return count / took, cpu / count


async def _settled(node: Node, count: int) -> None:
    done = asyncio.Event()
    node.core.happenings.when_settled.append(lambda _ended: node.settled >= count and done.set())
    if node.settled < count:
        await done.wait()


async def two(_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Two processes that send against one, in turn, on the same backlog for the same time."""
    seconds, turns = (3.0, 1) if quick else (8.0, 3)
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    async with database() as base:
        url = await make(base, SystemClock().now())
        first = 0
        for _ in range(turns):
            for senders in (1, 2):
                count = round(40_000 * (seconds + 2))  # more than they can send
                await execute(base, "TRUNCATE paceline.waiting, paceline.message, paceline.tally")
                await fill(url, count, SystemClock().now(), first=first)
                first += count
                found[senders].append(await _senders(url, senders, seconds))
    rates = {n: median(rate for rate, _, _ in each) for n, each in found.items()}
    made = [
        {"name": f"pg senders: {n}", "value": rates[n], "unit": UNIT}
        | ({"ratio": round(rates[2] / rates[1], 3), "of": "pg senders: 1"} if n == 2 else {})
        for n in (1, 2)
    ]
    for n, each in found.items():
        ours, all_ = median(own for _, own, _ in each), median(busy for _, _, busy in each)
        made.append({"name": f"pg senders: {n}, their CPU", "value": ours, "unit": "cores"})
        made.append(
            {"name": f"pg senders: {n}, the machine", "value": all_, "unit": f"cores of {os.cpu_count()}"}
        )
    return made


async def _senders(url: str, senders: int, seconds: float) -> tuple[float, float, float]:
    """Messages a second, cores that the senders used, and cores that everything on the machine used."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    command = [sys.executable, "-m", "bench.postgres_engine", url, str(seconds), str(senders)]
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL,
                                             env=environment)
        for _ in range(senders)
    ]  # fmt: skip
    try:
        for each in processes:
            await _said(each, lambda line: line == "ready")
        for each in processes:
            each.stdin.write(b"go\n")
            await each.stdin.drain()
        await asyncio.sleep(0.5)
        before, begun = _busy(), time.perf_counter()
        told = [json.loads(await _said(each, lambda line: line.startswith('{"rate"'))) for each in processes]
        busy = (_busy() - before) / (time.perf_counter() - begun)
        for each in processes:
            await each.wait()
    finally:
        for each in processes:
            if each.returncode is None:
                each.kill()
    return sum(each["rate"] for each in told), sum(each["cores"] for each in told), busy


async def _said(process: asyncio.subprocess.Process, wanted: Callable[[str], bool]) -> str:
    """The next line of this kind; the others are its log."""
    async with asyncio.timeout(120):
        while line := (await process.stdout.readline()).decode().strip():
            if wanted(line):
                return line
    raise RuntimeError("a sender ended")


def _busy() -> float:
    """Seconds of processor time that the machine has used since its start."""
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


async def long_line(_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """What a send costs with few and with many waiting: two nodes of this process on two schemas send in turn."""
    few, many = 10_000, 1_000_000 if quick else 10_000_000
    async with database() as base:
        now = SystemClock().now()
        nodes = []
        for schema, count in (("small", few), ("large", many)):
            url = await make(base, now, schema)
            await fill(url, count, now)
            node = Node(url)
            await node.open(ACCOUNTS, ["1000000/s"], pools=ACCOUNTS)
            await backlog._sends(node)  # warms up
            await _refill(node)
            nodes.append(node)
        costs = []
        for _ in range(5 if quick else 9):
            costs.append([await backlog._sends(node) for node in nodes])
            for node in nodes:
                await _refill(node)
        for node in nodes:
            await node.close()
    return [
        {"name": f"pg cost at {few:,}", "value": median(a for a, _ in costs), "unit": "us/message"},
        {"name": f"pg cost at {many:,}", "value": median(b for _, b in costs), "unit": "us/message"},
        {"name": "pg cost ratio", "value": median(b / a for a, b in costs), "unit": "x", "goal": "<= 1.3"},
    ]


async def _refill(node: Node, count: int = backlog.SENDS) -> None:
    await node.fill(count, lambda index: text_of(index, ACCOUNTS))


async def held(_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Drains before and after a transaction elsewhere was held open for a while, at 800 messages a second.

    VACUUM runs before each drain, as autovacuum would: while the transaction is open it can remove nothing.
    """
    seconds, count = (20, 10_000) if quick else (HELD_S, 20_000)
    async with database() as base:
        url = await make(base, SystemClock().now())
        node = Node(url)
        await node.open(ACCOUNTS, ["1000000/s"], concurrency=None, pools=ACCOUNTS)
        await _burst(base, node, count)
        free = [await _burst(base, node, count)]
        await _steadily(node, 5)
        free.append(await _burst(base, node, count))
        async with _transaction(base):
            kept = await _steadily(node, seconds)
            bound = [await _burst(base, node, count // 4) for _ in range(3)]
        await _burst(base, node, count)
        free += [await _burst(base, node, count) for _ in range(2)]
        await node.close()
    ratio = round(median(bound) / median(free), 3)
    return [
        {"name": "pg drain, no transaction held", "value": median(free), "unit": UNIT},
        {"name": f"pg drain, one held for {seconds} s", "value": median(bound), "unit": UNIT, "ratio": ratio,
         "of": "pg drain, no transaction held", "goal": ">= 0.9"},
        {"name": f"pg sent of {RATE}/s, one held", "value": kept, "unit": UNIT},
    ]  # fmt: skip


@asynccontextmanager
async def _transaction(base: str) -> Any:
    """One that has a snapshot and a number, and does nothing more."""
    connection = await asyncpg.connect(base)
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.execute("SELECT pg_current_xact_id()")
    try:
        yield
    finally:
        await transaction.rollback()
        await connection.close()


async def _burst(base: str, node: Node, count: int) -> float:
    """Messages a second of a backlog that was filled while nothing was sent."""
    await _refill(node, count)
    await execute(
        base, *(f"VACUUM paceline.{t}" for t in ("waiting", "under_way", "tally", "fence", "daily"))
    )
    target = node.settled + count
    gc.collect()
    start = time.perf_counter()
    node.core.dispatcher.start()
    await _settled(node, target)
    took = time.perf_counter() - start
    node.core.dispatcher.pause()
    return count / took


async def _steadily(node: Node, seconds: float) -> float:
    """Take in and send 800 a second, twenty at a time, for so long; how many a second were sent."""
    node.core.dispatcher.start()
    start, before, turn = time.perf_counter(), node.settled, 0
    while time.perf_counter() - start < seconds:
        await _refill(node, 20)
        turn += 1
        await asyncio.sleep(max(0.0, start + turn * 20 / RATE - time.perf_counter()))
    rate = (node.settled - before) / (time.perf_counter() - start)
    while node.core.agenda.out or sum(node.core.dispatcher.pending.values()):
        await asyncio.sleep(0.01)
    node.core.dispatcher.pause()
    return rate


async def notify(_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """32 nodes that write single messages for the lanes of others, with word to their owners and without, in turn."""
    from bench import postgres_notify

    return await postgres_notify.run(2.0 if quick else 5.0, 2 if quick else 7)


ALL: dict[str, Callable[[Path, bool], Awaitable[list[dict[str, Any]]]]] = {
    "pg-drain": drain,
    "pg-two": two,
    "pg-backlog": long_line,
    "pg-held": held,
    "pg-notify": notify,
}
