"""What the doctor tells of the nodes on a store: each finding with what happened and what to do."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from paceline.cli import main
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.engine_group import group, silence, until
from tests.contracts.stores.postgres_server import base, execute, in_thread, url_for
from tests.contracts.test_engine_support import running

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
EVERY = range(64)
Finding = dict[str, Any]


class Fleet:
    """The rows of nodes in a store that no process runs on."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        asyncio.run(self._make())
        self.run("DELETE FROM node")

    async def _make(self) -> None:
        async with running(self.folder, store=PostgresStore(url_for(self.folder))):
            pass

    def run(self, statement: str) -> None:
        url, schema = base(self.folder)
        in_thread(lambda: execute(url, f"SET search_path = {schema}; {statement}"))

    def node(
        self, id_: str, role: str = "all", *, owns: range = range(0), heard: int = 1_000, lease: int = 5_000,
        started: int = 3_600_000, ended: int | None = None, off: int = 0, name: str = "there",
    ) -> None:  # fmt: skip
        """One that was last heard, started and ended so many milliseconds ago."""
        end = "NULL" if ended is None else f"{NOW} - {ended}"
        slot = "coalesce((SELECT max(slot) + 1 FROM node), 0)"
        self.run(
            "INSERT INTO node (id, slot, name, role, machine, process, started_at, heartbeat_at, lease_ends_at, off, boot,"
            f" boot_offset, ended_at) SELECT '{id_}', {slot}, '{name}', '{role}', 'm', 7, {NOW} - {started}, {NOW} - {heard},"
            f" {NOW} - {heard} + {lease}, {off}, '', 0, {end};"
            f"INSERT INTO fence VALUES ('{id_}', 0, 0, {ended is not None});"
            f"UPDATE partition SET owner = '{id_}' WHERE number >= {owns.start} AND number < {owns.stop}"
        )

    def seen(self) -> dict[str, Finding]:
        self._capsys.readouterr()
        main.run(["doctor", "--json", "--store", url_for(self.folder)])
        return {one["name"]: one for one in json.loads(self._capsys.readouterr().out)}


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACELINE_SERVER", "http://127.0.0.1:9")
    return Fleet(tmp_path, capsys)


def wrong(seen: dict[str, Finding]) -> dict[str, str]:
    """Of what is about nodes, the names and states of what did not pass; all of that has advice."""
    names = [
        "nodes",
        "silent nodes",
        "partitions",
        "suspect nodes",
        "clocks of nodes",
        "versions of nodes",
    ]
    found = {name: seen[name]["status"] for name in names if seen[name]["status"] != "pass"}
    assert all(seen[name]["advice"] for name in found)
    return found


def test_nodes_that_share_the_work_pass(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=range(32))
    fleet.node("b", "sender", owns=range(32, 64), started=500, heard=500)
    seen = fleet.seen()
    assert wrong(seen) == {}
    assert seen["nodes"]["detail"] == "1 of the role all, 1 of the role sender"


def test_a_store_that_no_node_runs_on(fleet: Fleet) -> None:
    seen = fleet.seen()
    assert wrong(seen) == {"nodes": "warn"}
    assert "none runs" in seen["nodes"]["detail"] and "paceline up" in seen["nodes"]["advice"]


def test_one_that_fell_silent_while_no_other_sends(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=EVERY, heard=60_000)
    fleet.node("b", "api")
    fleet.run(
        "INSERT INTO under_way VALUES (1, 70, 1, 0, 1, 1, NULL, 's', 1), (2, 6, 1, 0, 1, 1, NULL, 's', 1)"
    )
    seen = fleet.seen()
    assert wrong(seen) == {"nodes": "fail", "silent nodes": "fail"}
    found = seen["silent nodes"]
    assert "process 7 on there (role all) was last heard at" in found["detail"]
    assert "64 partitions and 2 calls" in found["detail"] and "no node that sends is there" in found["detail"]
    assert "Start one that sends" in found["advice"]


def test_one_that_fell_silent_and_that_nobody_followed(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=range(10), heard=60_000)
    fleet.node("b", "all", owns=range(10, 64))
    seen = fleet.seen()
    assert wrong(seen) == {"silent nodes": "fail"}
    assert "10 partitions and 0 calls; nobody followed" in seen["silent nodes"]["detail"]
    assert "pg_stat_activity" in seen["silent nodes"]["advice"]


def test_one_that_fell_silent_with_nothing_of_its_own(fleet: Fleet) -> None:
    fleet.node("a", "api", heard=60_000)
    fleet.node("b", "all", owns=EVERY)
    assert wrong(fleet.seen()) == {"silent nodes": "warn"}


def test_a_lease_that_ended_a_moment_ago_is_given_time(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=range(10), heard=8_000)
    fleet.node("b", "all", owns=range(10, 64))
    seen = fleet.seen()
    assert wrong(seen) == {"suspect nodes": "warn"}
    assert "has not been heard for 8." in seen["suspect nodes"]["detail"]


def test_what_is_nobodys_for_long(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=range(60))
    fleet.node("b", "all", ended=30_000, heard=31_000)
    seen = fleet.seen()
    assert wrong(seen) == {"partitions": "fail"}
    assert "4 are nobody's since" in seen["partitions"]["detail"]
    fleet.node("c", "all", ended=2_000, heard=3_000)
    seen = fleet.seen()
    assert wrong(seen) == {"partitions": "warn"}
    assert "ask again" in seen["partitions"]["advice"]


def test_a_partition_of_a_node_that_was_ended_is_nobodys(fleet: Fleet) -> None:
    fleet.node("a", "all", owns=range(60))
    fleet.node("b", "all", owns=range(60, 64), ended=30_000, heard=31_000)
    assert wrong(fleet.seen()) == {"partitions": "fail"}


def test_nodes_of_which_none_sends_or_none_takes_messages(fleet: Fleet) -> None:
    fleet.node("a", "api")
    seen = fleet.seen()
    assert wrong(seen) == {"nodes": "fail"}
    assert seen["nodes"]["detail"] == "1 of the role api: none of them sends, and everything waits"
    assert "--role all (or sender)" in seen["nodes"]["advice"]
    fleet.run("DELETE FROM node; DELETE FROM fence")
    fleet.node("b", "sender", owns=EVERY)
    seen = fleet.seen()
    assert wrong(seen) == {"nodes": "warn"}
    assert "none of them takes messages" in seen["nodes"]["detail"]


def test_clocks_that_are_apart(fleet: Fleet) -> None:
    fleet.node("a", owns=EVERY, off=1_000)
    assert wrong(fleet.seen()) == {}
    fleet.node("b", "api", off=1_500, name="elsewhere")
    seen = fleet.seen()
    assert wrong(seen) == {"clocks of nodes": "warn"}
    assert "process 7 on elsewhere (role api) by up to 1.5 s" in seen["clocks of nodes"]["detail"]
    assert "time service" in seen["clocks of nodes"]["advice"]


def test_programs_of_several_versions(fleet: Fleet) -> None:
    fleet.node("a", owns=EVERY)
    fleet.node("b", "api", name="elsewhere")
    assert wrong(fleet.seen()) == {}
    fleet.run("ALTER TABLE node ADD COLUMN IF NOT EXISTS program integer; UPDATE node SET program = 3")
    assert wrong(fleet.seen()) == {}
    fleet.run("UPDATE node SET program = 2 WHERE id = 'b'")
    seen = fleet.seen()
    assert wrong(seen) == {"versions of nodes": "warn"}
    assert "process 7 on elsewhere (role api) (knows schema 2)" in seen["versions of nodes"]["detail"]


def test_a_machine_whose_nodes_lose_their_lease_often(fleet: Fleet) -> None:
    fleet.node("a", owns=EVERY)
    for number in range(3):
        fleet.node(f"left{number}", name="sound", heard=61_000, ended=60_000)  # stopped while its lease held
        fleet.node(f"long{number}", name="mended", heard=90_000_000, ended=89_000_000)  # more than a day ago
    for number in range(2):
        fleet.node(f"lost{number}", name="shaky", heard=70_000, ended=60_000)
    assert wrong(fleet.seen()) == {}
    fleet.node("lost", name="shaky", heard=70_000, ended=60_000)
    seen = fleet.seen()
    assert wrong(seen) == {"suspect nodes": "warn"}
    assert seen["suspect nodes"]["detail"] == "nodes on shaky lost their lease 3 times in a day"


async def test_real_nodes_are_told_of_by_each_of_them(tmp_path: Path) -> None:
    async with group(tmp_path) as nodes:
        taker = await nodes.add("api")
        assert (await told(taker))["nodes"]["status"] == "fail"
        sender = await nodes.add("sender")
        await until(lambda: len(sender.core.owned) == 64)
        for engine in (taker, sender):
            seen = await told(engine)
            assert wrong(seen) == {}, seen
            assert seen["nodes"]["detail"] == "1 of the role api, 1 of the role sender"
        silence(sender)
        async with asyncio.timeout(20):
            while "suspect nodes" not in wrong(await told(taker)):
                await asyncio.sleep(0.02)


async def told(engine: Any) -> dict[str, Finding]:
    return {one["name"]: one for one in await engine.service.doctor()}
