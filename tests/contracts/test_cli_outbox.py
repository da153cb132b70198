"""The commands for outboxes, on real databases of both kinds."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paceline.cli import main
from tests.contracts.stores import postgres_server
from tests.contracts.stores.outboxes import KINDS, App, body
from tests.contracts.test_engine_support import running

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def ask(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # what an engine logged meanwhile
        code = main.run(["outbox", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return ask


def _app(kind: str, folder: Path) -> App:
    app = App(kind, folder)
    if kind == "postgresql":
        asyncio.run(postgres_server.execute(app.database, f"CREATE SCHEMA {app.schema}",
                                            f"CREATE TABLE {app.schema}.own (n bigint)"))  # fmt: skip
    return app


async def _refuse(app: App, folder: Path) -> None:
    """Let a relay refuse what is wrong and take the rest."""
    async with running(folder) as engine:
        app.relay(engine)
        await app.empty()


@pytest.mark.parametrize("kind", KINDS)
def test_an_outbox_is_made_looked_at_and_mended(kind: str, tmp_path: Path, run: Run) -> None:
    app = _app(kind, tmp_path)
    code, out, err = run("list", app.url)
    assert code == 3 and "paceline outbox create" in err
    assert run("create", app.url)[0] == 0
    assert run("create", app.url)[0] == 0  # what is there stays
    if kind == "sqlite":
        asyncio.run(app.ask("CREATE TABLE own (n)"))
    asyncio.run(app.write([body("good"), body("bad", nonsense=1)]))
    code, out, err = run("list", app.url)
    assert code == 0 and "script to somebody" in out and "2 rows waiting, 0 refused" in err
    asyncio.run(_refuse(app, tmp_path))
    code, out, _ = run("list", app.url, "--refused", "--json")
    view: dict[str, Any] = json.loads(out)
    assert (view["waiting"], view["refused"], len(view["rows"])) == (0, 1, 1)
    (row,) = view["rows"]
    assert "nonsense" in row["error"] and json.loads(row["message"])["text"] == "bad" and row["refused_at"]
    assert run("retry", app.url, "--key", "unknown")[1].startswith("0 rows")
    assert run("retry", app.url)[1].startswith("1 row tried again")
    assert run("discard", app.url, "--key", row["key"])[1].startswith("0 rows")  # it waits: it is not refused
    asyncio.run(_refuse(app, tmp_path))
    assert run("discard", app.url, "--key", row["key"])[1].startswith("1 row deleted")
    assert asyncio.run(app.left()) == 0


def test_the_statements_are_printed_for_migrations(run: Run) -> None:
    code, out, _ = run("ddl", "postgresql", "--schema", "shop", "--no-bell")
    assert code == 0 and '"shop".paceline_outbox' in out and "NOTIFY" not in out.upper()
    assert run("ddl", "postgresql", "--schema", "a b")[0] == 2


def test_without_a_url_the_only_one_of_the_settings_is_meant(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run("list")
    assert code == 2 and "names no outbox" in err
    monkeypatch.setenv("PACELINE_OUTBOX", "sqlite:///a.db sqlite:///b.db")
    assert "names several" in run("list")[2]
    monkeypatch.setenv("PACELINE_OUTBOX", f"sqlite:///{tmp_path / 'a.db'}")
    assert run("create")[0] == 0 and run("list")[0] == 0


def test_a_database_that_is_not_there_is_told_in_one_line(run: Run) -> None:
    code, _, err = run("create", "postgresql://nobody:secret@127.0.0.1:1/app")
    assert code == 1 and "cannot be reached" in err and "secret" not in err and "Traceback" not in err
