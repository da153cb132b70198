"""Through a real PgBouncer: refused before anything is written, in one plain sentence, whatever its settings."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from paceline.model.errors import SchemaError
from paceline.stores.postgres import PostgresStore
from tests.contracts.stores.making import NOW
from tests.contracts.stores.pooler import Mode, Pooler
from tests.contracts.stores.postgres_server import base, url_for

SENTENCE = r"behind a pooler that shares its connections .* name the server itself"


@pytest.fixture(params=[("transaction", True), ("transaction", False), ("session", False)], ids=str)
def pooler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pooler]:
    kind: tuple[Mode, bool] = request.param
    made = Pooler(url_for(tmp_path), kind[0], strict=kind[1])
    yield made
    made.remove()


def test_a_store_does_not_open(pooler: Pooler, tmp_path: Path) -> None:
    async def run() -> bool:
        with pytest.raises(SchemaError, match=SENTENCE):
            await PostgresStore(pooler.url).open(NOW)
        url, schema = base(tmp_path)
        connection = await asyncpg.connect(url)
        try:
            return bool(
                await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema
                )
            )
        finally:
            await connection.close()

    assert asyncio.run(run()) is False


@pytest.mark.parametrize("command", [["up", "--port", "0"], ["doctor"]], ids=["up", "doctor"])
def test_the_command_line_says_so_and_fails(pooler: Pooler, tmp_path: Path, command: list[str]) -> None:
    program = [sys.executable, "-m", "paceline.cli.main", *command]
    given = ["--store", pooler.url, "--data", str(tmp_path / "data")]
    told = subprocess.run([*program, *given], capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode not in {0, -9}
    said = told.stdout + told.stderr
    assert "behind a pooler" in said and "Traceback" not in said
