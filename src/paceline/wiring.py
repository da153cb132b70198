"""The composition root: the only place that names concrete stores and channels."""

import asyncio
import gc
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from paceline.channels.handler import HandlerChannel
from paceline.channels.outgoing import HttpClient, check_url
from paceline.channels.smtp import Smtp
from paceline.channels.telegram_bot import TelegramBot
from paceline.channels.webhook import Webhook
from paceline.client_types import Handlers
from paceline.clock import SystemClock
from paceline.config import Settings
from paceline.engine.core import Options
from paceline.engine.doctor import examine_folder
from paceline.engine.holds import HOW
from paceline.engine.installation import mark_copy
from paceline.engine.relay import Relay
from paceline.engine.secrets import Vault
from paceline.engine.service import Service
from paceline.engine.threads import ThreadPool
from paceline.memory import give_large_pieces_back
from paceline.model.errors import InvalidError, PacelineError, Problem
from paceline.observe import configure_logging
from paceline.stores.base import Store
from paceline.stores.journal import JournalReader
from paceline.stores.outbox import OutboxDesk, OutboxPlace, OutboxSource, parse_outbox
from paceline.stores.outbox_sqlite import SqliteOutbox, SqliteOutboxDesk
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_audit import SqliteJournalReader
from paceline.stores.sqlite_files import SqliteFiles
from paceline.stores.sqlite_idle import copy_idle
from paceline.stores.transfer import Moving
from paceline.stores.transfer_sqlite import SqliteMoving

if TYPE_CHECKING:
    from paceline.api.server import Server

FILE_NAME = "paceline.db"
KEY_FILE = "admin.key"
SECRET_FILE = "secret.key"  # noqa: S105 - the name of a file
GC_EVERY = 20_000
"""Objects made before the youngest are searched for cycles; with Python's 700 it happens a thousand times a second."""
SWITCH_S = 0.0001
"""How often a thread that wants to run gets to: with Python's 5 ms each commit would wait that long (ADR 1)."""

log = structlog.get_logger("paceline")


def make_store(settings: Settings) -> Store:
    """The store that the settings name.

    Raises:
        InvalidError: there is no such kind of store.
    """
    if _is_postgres(settings):
        store: Store = _postgres().PostgresStore(settings.store or "", settings.role, settings.lease)
        return store
    if settings.role != "all":
        text = f"{settings.role} is for a node beside others, which takes a store in PostgreSQL (--store)"
        raise InvalidError([Problem("/role", text)])
    return SqliteStore(_store_path(settings), mark_copy)


def make_files(settings: Settings) -> SqliteFiles:
    """The same store as files, for what is done without serving it: copying, putting back, migrating.

    Raises:
        InvalidError: there is no such kind of store.
    """
    return SqliteFiles(_store_path(settings), mark_copy)


def _store_path(settings: Settings) -> Path:
    """The file of a SQLite store; only that kind has one."""
    if settings.store is None:
        return settings.data / FILE_NAME
    if settings.store.startswith("sqlite:///"):
        return Path(settings.store.removeprefix("sqlite:///"))
    if _is_postgres(settings):
        raise InvalidError(
            [
                Problem(
                    "/store",
                    "is in PostgreSQL and no file: copy, check and restore it with the server's own tools",
                )
            ]
        )
    raise InvalidError([Problem("/store", "must be sqlite:///PATH or postgresql://USER@HOST/DATABASE")])


def _is_postgres(settings: Settings) -> bool:
    return (settings.store or "").startswith(("postgresql:", "postgres:"))


def _postgres() -> Any:
    """The PostgreSQL store, whose driver is not installed with the rest."""
    try:
        from paceline.stores import postgres
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise InvalidError(
            [Problem("/store", "needs the PostgreSQL driver: pip install 'paceline[postgres]'")]
        ) from None
    return postgres


def make_journal_reader(settings: Settings, where: Path | None) -> JournalReader:
    """Reads a store for an audit: that of a data folder or a database file, or the one that the settings name.

    Raises:
        InvalidError: there is no such kind of store.
    """
    if where is not None:
        return SqliteJournalReader(where / FILE_NAME if where.is_dir() else where)
    if _is_postgres(settings):
        _postgres()
        from paceline.stores.postgres_audit import PostgresJournalReader

        return PostgresJournalReader(settings.store or "")
    return SqliteJournalReader(_store_path(settings))


def make_moving(where: str) -> Moving:
    """A whole store to be moved from or to: a URL, a data folder, or a database file (``.db``).

    Raises:
        InvalidError: it is none of these, or needs a driver that is not installed.
    """
    settings = Settings(store=where)
    if _is_postgres(settings):
        _postgres()
        from paceline.stores.transfer_postgres import PostgresMoving

        return PostgresMoving(where)
    if ":" in where.partition("/")[0]:
        return SqliteMoving(_store_path(settings))
    path = Path(where)
    return SqliteMoving(path if path.is_file() or path.suffix == ".db" else path / FILE_NAME)


def make_outbox(place: OutboxPlace) -> tuple[OutboxSource, OutboxDesk]:
    """An outbox as its relay, and as people, see it.

    Raises:
        InvalidError: it needs a driver that is not installed.
    """
    if place.dialect == "sqlite":
        return SqliteOutbox(place), SqliteOutboxDesk(place)
    _postgres()
    from paceline.stores.outbox_postgres import PostgresOutbox, PostgresOutboxDesk

    return PostgresOutbox(place), PostgresOutboxDesk(place)


def repeatable_channels() -> frozenset[str]:
    """The names of the channels on which a repeat does not double a message, or may be known not to.

    A function says for itself whether it may be called again, and only its own process knows what it said.
    """
    kinds = (Smtp, Webhook, TelegramBot, HandlerChannel)
    return frozenset(kind.name for kind in kinds if kind.repeat_is_safe or kind is HandlerChannel)


def make_service(
    settings: Settings,
    handlers: Handlers | None = None,
    facts: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> Service:
    """All parts put together, on the store of the settings or another one; nothing runs yet."""
    clock = SystemClock()
    threads = ThreadPool(settings.threads_min, settings.threads_max)
    http = HttpClient(settings.outgoing_allow)
    jobs = HandlerChannel(threads)
    for kind, given in (handlers or {}).items():
        function, repeat_is_safe = given if isinstance(given, tuple) else (given, False)
        jobs.register(kind, function, repeat_is_safe=repeat_is_safe)
    channels = (Smtp(), Webhook(http, clock.now), TelegramBot(http), jobs)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        store or make_store(settings),
        {channel.name: channel for channel in channels},
        clock,
        Vault.open(settings.data / SECRET_FILE),
        random.random,
        lambda url: check_url(url, settings.outgoing_allow),
        Options(
            in_flight=settings.in_flight,
            trace_ms=round(settings.trace_retention * 1000),
            longest_wait_ms=round(settings.longest_wait * 1000),
        ),
        threads,
        facts or {"data": str(settings.data), "store": settings.shown()["store"]["value"] or FILE_NAME},
        http.close,
    )


async def look_at_folder(settings: Settings) -> list[dict[str, Any]]:
    """What the doctor can tell of a data folder without its store."""
    return await examine_folder(settings.data)


async def look(settings: Settings) -> list[dict[str, Any]]:
    """The doctor's findings about a data folder that no server runs on; the folder stays as it is.

    A file is copied, and the copy is what is opened; PostgreSQL is read as it is.

    Raises:
        OccupiedError, SchemaError, UnavailableError: the store is in use, not ours, or cannot be read or copied.
        NotFoundError: there is none.
        ConflictError: it was moved elsewhere, or is an unfinished copy.
    """
    with tempfile.TemporaryDirectory(prefix="paceline-doctor-") as name:
        copy = Path(name)
        store: Store | None = None
        if _is_postgres(settings):
            _postgres()
            from paceline.stores.postgres_look import PostgresLook

            store = PostgresLook(settings.store or "")
        else:
            await asyncio.to_thread(copy_idle, _store_path(settings), copy / FILE_NAME)
        secret = settings.data / SECRET_FILE
        if secret.is_file():
            await asyncio.to_thread(shutil.copy, secret, copy / SECRET_FILE)
        copied = msgspec.structs.replace(settings, data=copy, store=None)
        service = make_service(copied, facts={"data": str(settings.data)}, store=store)
        try:
            return await service.look()
        finally:
            await service.close_channels()


async def open_service(settings: Settings, handlers: Handlers | None = None) -> Service:
    """A running engine; `await service.close(grace)` ends it.

    Raises:
        OccupiedError, SchemaError, InvalidError: as they say.
    """
    if settings.origin("outbox").startswith("option"):
        raise InvalidError(
            [
                Problem(
                    "/outbox",
                    "is relayed by a server, not by an engine inside another program: paceline up --outbox URL",
                )
            ]
        )
    if not structlog.is_configured():  # what is not configured prints variables with every traceback
        configure_logging(settings.log_level, settings.log_format)
    service = make_service(settings, handlers)
    if await service.start(settings.data / KEY_FILE):
        log.info("first start: an admin key was written", file=str(settings.data / KEY_FILE))
    return service


def serve(
    settings: Settings, handlers: Handlers | None = None, started: Callable[[], None] | None = None
) -> int:
    """Run the server until it is told to stop; the exit code. `started` is called once it sends and listens."""
    configure_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_S)
    give_large_pieces_back()
    try:
        runner: Callable[..., Any] = _uvloop_run()
        return int(runner(_serve(settings, handlers, started)))
    except PacelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _uvloop_run() -> Callable[..., Any]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _serve(settings: Settings, handlers: Handlers | None, started: Callable[[], None] | None) -> int:
    from paceline.api.app import build
    from paceline.api.server import Server

    service = make_service(settings, handlers)
    places = [parse_outbox(url) for url in settings.outbox]
    service.relays.all += [Relay(p, *make_outbox(p), service.messages, service.core) for p in places]
    server = Server(build(service, settings), settings.host, settings.port)
    server.listen()  # before the store is opened: a port that is taken changes nothing
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _end, service, server)
    first = await service.start(
        settings.data / KEY_FILE, settings.store_wait if _is_postgres(settings) else 0
    )
    _greet(settings, server.port, first=first)
    if service.holds.held is not None:
        sys.stdout.write(f"ON HOLD: nothing is sent. {service.holds.held.text};\n{HOW}\n")
        sys.stdout.flush()
    _spare_the_collector()
    if started is not None:
        started()
    try:
        await server.serve()
    finally:
        await service.close(settings.grace)
    return 0


def _end(service: Service, server: "Server") -> None:
    """Told to stop: hand nothing more over from this moment, and let the server finish its answers.

    Told a second time: wait for nobody.
    """
    service.wait_no_more()
    if server.should_exit:
        server.force_exit = True
        service.hurry()
        return
    service.core.dispatcher.pause()
    server.end()


def _spare_the_collector() -> None:
    """What is there after the start stays; and look for cycles rarely: nothing on the hot path makes any."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_EVERY, 20, 50)


def _greet(settings: Settings, port: int, *, first: bool) -> None:
    key = settings.data / KEY_FILE
    made = "An admin key was made" if first else "The admin key is"
    offers = (
        "role sender: /health and /metrics alone" if settings.role == "sender" else "API reference: /docs"
    )
    sys.stdout.write(f"Paceline listens on http://{settings.host}:{port} ({offers})\n{made} in {key}\n")
    sys.stdout.flush()
