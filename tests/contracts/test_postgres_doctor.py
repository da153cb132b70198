"""`paceline doctor` on a store in PostgreSQL that no server runs on: it is read, and nothing is written."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from paceline.cli import main
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.postgres_server import base, in_thread, url_for
from tests.contracts.test_engine_support import ADMIN, running

Found = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Found:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACELINE_SERVER", "http://127.0.0.1:9")

    def ask(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        capsys.readouterr()
        code = main.run(["doctor", "--json", *arguments])
        return code, {one["name"]: one for one in json.loads(capsys.readouterr().out)}

    return ask


async def _fill(folder: Path) -> None:
    async with running(folder, store=PostgresStore(url_for(folder))) as engine:
        await engine.service.queues.pause(ADMIN, "sms")
        await engine.service.holds.hold(ADMIN, {"reason": "looking"})


def _state(folder: Path) -> list[Any]:
    """All that a start would write."""

    async def ask() -> list[Any]:
        url, schema = base(folder)
        connection = await asyncpg.connect(url, server_settings={"search_path": schema})
        try:
            rows = await connection.fetch("SELECT * FROM node ORDER BY id") + await connection.fetch(
                "SELECT * FROM document ORDER BY kind, tenant, name"
            )
            return [tuple(row) for row in rows]
        finally:
            await connection.close()

    return in_thread(ask)


def test_what_is_in_it_is_told_and_nothing_is_written(tmp_path: Path, found: Found) -> None:
    asyncio.run(_fill(tmp_path))
    before = _state(tmp_path)
    code, seen = found("--store", url_for(tmp_path), "--data", str(tmp_path / "keys"))
    assert code == 2 and seen["server"]["status"] == "fail"
    assert seen["store"]["status"] == "pass" and seen["store"]["detail"] == "it can be read"
    assert "looking" in seen["hold"]["detail"] and "queue sms" in seen["paused"]["detail"]
    assert seen["quarantined messages"]["status"] == "pass"
    assert "scheduler" in seen["not checked"]["detail"]
    assert _state(tmp_path) == before and not (tmp_path / "keys").exists()


async def test_it_can_be_looked_at_while_a_server_runs_elsewhere(tmp_path: Path, found: Found) -> None:
    async with running(tmp_path, store=PostgresStore(url_for(tmp_path))) as engine:
        _, seen = await asyncio.to_thread(found, "--store", url_for(tmp_path))
        assert seen["store"]["status"] == "pass"
        assert (await engine.ended(await engine.send()))["state"] == "completed"


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, found: Found) -> None:
    for _ in range(2):
        code, seen = found("--store", url_for(tmp_path))
        assert code == 2 and seen["store"]["status"] == "warn"
        assert "there is no store at" in seen["store"]["detail"]


def test_a_server_that_cannot_be_reached_is_told_without_the_password(tmp_path: Path, found: Found) -> None:
    code, seen = found("--store", "postgresql://me:hunter2@127.0.0.1:1/db")
    assert code == 2 and seen["store"]["status"] == "fail"
    assert "cannot be reached" in seen["store"]["detail"] and "hunter2" not in str(seen)
