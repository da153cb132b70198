"""The engine, the audit and the command line on a store in PostgreSQL."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from paceline import wiring
from paceline.cli import main
from paceline.config import load
from paceline.model.errors import InvalidError
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.audited import made
from tests.contracts.stores.postgres_server import execute, in_thread, url_for
from tests.contracts.test_cli_support import Running, receiver
from tests.contracts.test_engine_support import running


class Stored:
    """A store with every kind of life in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.url, self._capsys = url_for(folder), capsys
        self.names = made(folder, store=PostgresStore(self.url))

    def change(self, statement: str) -> None:
        base, _, schema = self.url.partition("?schema=")
        in_thread(lambda: execute(base, f"SET search_path = {schema}; {statement}"))

    def audit(self) -> tuple[int, Any]:
        self._capsys.readouterr()
        code = main.run(["audit", "--json"])
        return code, json.loads(self._capsys.readouterr().out)

    def broken(self) -> set[str]:
        return {check["name"] for check in self.audit()[1]["checks"] if check["broken"]}


@pytest.fixture
def stored(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Stored:
    for name in [name for name in os.environ if name.startswith("PACELINE_")]:
        monkeypatch.delenv(name)
    found = Stored(tmp_path, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACELINE_STORE", found.url)
    return found


def test_every_kind_of_life_is_clean_and_every_kind_of_damage_found(stored: Stored) -> None:
    code, view = stored.audit()
    assert (code, view["verdict"]) == (0, "clean"), view
    looked = {check["name"]: check["looked_at"] for check in view["checks"]}
    assert looked["windows"]["limits"] == 2
    assert looked["quotas"]["sends"] == 12
    assert looked["hand-overs"]["messages that a person revived"] == 2
    assert view["store"].startswith("postgresql://") and "schema=" in view["store"]
    stored.change("UPDATE tally SET count = count + 1 WHERE state = 5")
    assert stored.broken() == {"counts"}
    stored.change("UPDATE tally SET count = count - 1 WHERE state = 5")
    stored.change("UPDATE daily SET completed = completed - 1 WHERE account = 'default/slow'")
    assert stored.broken() == {"days"}
    stored.change("UPDATE daily SET completed = completed + 1 WHERE account = 'default/slow'")
    stored.change("UPDATE attempt SET started = handed_over - 9 WHERE outcome = 'Accepted'")
    assert "times" in stored.broken()
    stored.change("UPDATE attempt SET started = handed_over WHERE outcome = 'Accepted'")
    stored.change("DELETE FROM attempt WHERE outcome = 'Permanent'")
    assert "endings" in stored.broken()
    assert "file" not in stored.broken()
    stored.change("DELETE FROM message WHERE id = (SELECT min(id) FROM message)")
    assert "file" in stored.broken()


def test_a_place_without_a_store_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACELINE_STORE", url_for(tmp_path))
    assert main.run(["audit"]) != 0
    assert "there is no store at postgresql://" in capsys.readouterr().err


async def test_the_engine_sends_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, store=PostgresStore(url_for(tmp_path))) as engine:
        id_ = await engine.send()
        assert (await engine.ended(id_))["state"] == "completed"
        later = await engine.send(scheduled_at=engine.later())
    async with running(tmp_path, store=PostgresStore(url_for(tmp_path))) as engine:
        assert await engine.state(id_) == "completed"
        assert await engine.state(later) == "scheduled"


async def test_the_engine_goes_on_by_itself_after_its_connections_are_ended(tmp_path: Path) -> None:
    base, _, _ = url_for(tmp_path).partition("?")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'paceline %'"
    async with running(tmp_path, store=PostgresStore(url_for(tmp_path))) as engine:
        await engine.account("slow", limits=["1/100ms"])
        ids = [await engine.send(account="slow", to=f"r{number}") for number in range(12)]
        for _ in range(6):
            await execute(base, end)
            await asyncio.sleep(0.2)
        assert [(await engine.ended(id_))["state"] for id_ in ids] == ["completed"] * 12
        assert [call for call, _ in engine.script.sent] == ids


def test_what_needs_a_file_says_that_there_is_none(tmp_path: Path) -> None:
    settings = load({"store": "postgresql://u:hunter2@h/d", "data": tmp_path})
    with pytest.raises(InvalidError, match="is in PostgreSQL and no file"):
        wiring.make_files(settings)


def test_facts_do_not_tell_the_password(tmp_path: Path) -> None:
    service = wiring.make_service(load({"store": "postgresql://u:hunter2@h/d", "data": tmp_path}))
    told = repr(vars(service)) + repr(vars(service.core)) + repr(vars(service.core.store))
    assert "hunter2" not in told


def test_a_missing_driver_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("paceline.stores.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("paceline.stores.postgres")
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(InvalidError, match=r"pip install 'paceline\[postgres\]'"):
        wiring.make_store(load({"store": "postgresql://u@h/d", "data": tmp_path}))


@pytest.mark.slow
def test_a_server_runs_on_it_and_another_follows(tmp_path: Path) -> None:
    with receiver() as hook:
        server = Running(tmp_path, hook, PACELINE_STORE=url_for(tmp_path))
        try:
            sent = server.run("send", "--channel", "webhook", "--to", hook, "--text", "hello", "--wait")
            assert sent.returncode == 0, sent.stderr
            found = {one["name"]: one for one in json.loads(server.run("doctor", "--json").stdout)}
            assert found["durability"]["status"] == "pass"
            audited = server.json("audit", code=0)
            assert audited["verdict"] == "clean"
        finally:
            assert server.stop() == 0
    again = Running(tmp_path, "", PACELINE_STORE=url_for(tmp_path))
    listed = json.loads(again.run("messages", "list", "--json").stdout)
    assert [one["state"] for one in listed] == ["completed"]
    assert again.stop() == 0


@pytest.mark.slow
def test_kills_of_the_process_break_no_promise(tmp_path: Path) -> None:
    with receiver() as hook:
        lines = [
            json.dumps({"channel": "webhook", "to": f"{hook}{n}", "payload": {"n": n}}) for n in range(150)
        ]
        (tmp_path / "many.jsonl").write_text("\n".join(lines))
        for _ in range(2):  # at the third kill what was under way each time would be set aside
            server = Running(tmp_path, hook, PACELINE_STORE=url_for(tmp_path))
            assert server.run("send", "--file", "many.jsonl").returncode == 0
            server.process.kill()
            server.process.wait()
        assert sum(_counts(tmp_path).values()) == 300
        server = Running(tmp_path, hook, PACELINE_STORE=url_for(tmp_path))
        try:
            end = time.monotonic() + 60
            while _counts(tmp_path) != {5: 300}:
                assert time.monotonic() < end, _counts(tmp_path)
                time.sleep(0.05)
            assert server.json("audit")["verdict"] == "clean"
        finally:
            server.stop()


def _counts(folder: Path) -> dict[int, int]:
    """How many messages are in each state."""

    async def ask() -> dict[int, int]:
        base, _, schema = url_for(folder).partition("?schema=")
        connection = await asyncpg.connect(base, server_settings={"search_path": schema})
        try:
            return dict(await connection.fetch("SELECT state, count(*) FROM entry GROUP BY state"))
        finally:
            await connection.close()

    return in_thread(ask)
