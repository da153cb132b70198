"""PostgreSQL servers for tests: one that is running here, or one of our own where its programs are installed. Not tests.

`TEST_POSTGRES_URL` names a server in which databases may be made and dropped; without it the usual port of this
machine is tried. Each process makes one database with a random name, in it each test has a schema of its own, and
`drop_all` drops it when the tests are over.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

T = TypeVar("T")

_USUAL = "postgresql://postgres@127.0.0.1:5432/postgres"
_NONE = "there is no PostgreSQL here: nothing answers at TEST_POSTGRES_URL or on port 5432, and no initdb is installed"

_NEEDED = ("initdb", "pg_ctl", "pg_basebackup")

_undo: list[Callable[[], None]] = []


def in_thread(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own, whether or not one runs here."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(work())))
    thread.start()
    thread.join()
    if not found:
        raise RuntimeError("the work in the thread failed")
    return found[0]


async def execute(url: str, *statements: str) -> None:
    """Run some statements on a connection of their own."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def missing(reason: str) -> None:
    """Leave the test out, so that nobody overlooks it; where everything has to be there, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class PrivateServer:
    """A server of our own in a temporary folder, on a free port of this machine."""

    def __init__(self, *options: str) -> None:
        programs = _programs()
        if programs is None:
            missing("no PostgreSQL server is installed here (initdb and pg_ctl)")
            raise AssertionError
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="paceline-postgres-"))
        self._data = self.folder / "data"
        self._who: dict[str, Any] = {}
        if os.name == "posix" and os.geteuid() == 0:  # the server refuses to run as root
            import pwd

            user = next((n for n in ("postgres", "nobody") if _known(n)), "nobody")
            entry = pwd.getpwnam(user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
            self._who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._options = " ".join(
            f"-c {o}" for o in (f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=''",
                                "shared_buffers=32MB", *options)
        )  # fmt: skip
        self._make()
        self.start()

    def _make(self) -> None:
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        )

    def start(self) -> None:
        """Start and wait until it answers; refuse a stranger that took the port."""
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self.folder / "log", "-o", self._options)

        async def whose() -> str:
            connection = await asyncpg.connect(self.url, timeout=10)
            try:
                return str(await connection.fetchval("SHOW data_directory"))
            finally:
                await connection.close()

        assert in_thread(whose) == str(self._data)

    def stop(self, mode: str = "fast") -> None:
        """`immediate` is as hard as a power cut for everything but the disk."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data, "-m", mode)

    @property
    def first(self) -> int:
        """The id of the process that started all others."""
        return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])

    def kill(self) -> None:
        """End its first process by SIGKILL; the others notice, and end themselves."""
        first, others = self.first, children(self.first)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{each}").exists() for each in (first, *others)):
            assert time.monotonic() < deadline, "the server does not end"
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop it and delete its folder."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        # Its output must not go to a pipe: the server inherits it, and the pipe would never end.
        with (self.folder / "said").open("ab") as said:
            subprocess.run(
                command, check=True, stdout=said, stderr=said, cwd=self.folder, timeout=60, **self._who
            )


def children(process: int) -> list[int]:
    """The ids of the processes that a process started."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def url_for(folder: Path) -> str:
    """The URL of a store that belongs to this folder: a schema of its own in this process's database."""
    schema = "t_" + hashlib.sha256(str(folder).encode()).hexdigest()[:20]
    return f"{database()}?schema={schema}"


def database() -> str:
    """The URL of this process's database."""
    found = _database()
    if found is None:
        missing(_NONE)
        raise AssertionError
    return found


def drop_all() -> None:
    """Undo everything that was made here."""
    while _undo:
        _undo.pop()()


@cache
def _database() -> str | None:
    server = os.environ.get("TEST_POSTGRES_URL") or _USUAL
    if not in_thread(lambda: _answers(server)):
        if _programs() is None:
            return None
        private = PrivateServer()
        _undo.append(private.remove)
        server = private.url
    name = f"paceline_test_{secrets.token_hex(6)}"
    in_thread(lambda: execute(server, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0"))
    _undo.append(lambda: in_thread(lambda: execute(server, f"DROP DATABASE {name} WITH (FORCE)")))
    parts = urlsplit(server)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", "", ""))


async def _answers(url: str) -> bool:
    try:
        await execute(url, "SELECT 1")
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


def _programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = shutil.which("initdb")
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True
    )
    for folder in ([Path(found).parent] if found else []) + folders:
        if all((folder / program).exists() for program in _NEEDED):
            return folder
    return None


def _known(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def base(folder: Path) -> tuple[str, str]:
    """The database and the schema of a folder's store."""
    url, _, schema = url_for(folder).partition("?schema=")
    return url, schema


async def ask(folder: Path, question: str) -> Any:
    """One value out of a folder's store, by a connection of the test's own."""
    url, schema = base(folder)
    connection = await asyncpg.connect(url, server_settings={"search_path": schema})
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()
