"""The composition root: the only place that names concrete stores and channels."""

import asyncio
import gc
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from paceline.channels.handler import HandlerChannel
from paceline.channels.outgoing import HttpClient, check_url
from paceline.channels.smtp import Smtp
from paceline.channels.telegram_bot import TelegramBot
from paceline.channels.webhook import Webhook
from paceline.clock import SystemClock
from paceline.config import Settings
from paceline.engine.core import Options
from paceline.engine.holds import HOW
from paceline.engine.installation import mark_copy
from paceline.engine.secrets import Vault
from paceline.engine.service import Service
from paceline.engine.threads import ThreadPool
from paceline.model.errors import InvalidError, PacelineError, Problem
from paceline.observe import configure_logging
from paceline.stores.base import Store
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_files import SqliteFiles

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
    return SqliteStore(_store_path(settings), mark_copy)


def make_files(settings: Settings) -> SqliteFiles:
    """The same store as files, for what is done without serving it: copying, putting back, migrating.

    Raises:
        InvalidError: there is no such kind of store.
    """
    return SqliteFiles(_store_path(settings), mark_copy)


def _store_path(settings: Settings) -> Path:
    if settings.store is None:
        return settings.data / FILE_NAME
    if settings.store.startswith("sqlite:///"):
        return Path(settings.store.removeprefix("sqlite:///"))
    raise InvalidError([Problem("/store", "must be sqlite:///PATH; other stores are not there yet")])


def make_service(settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None = None) -> Service:
    """All parts put together; nothing runs yet."""
    clock = SystemClock()
    threads = ThreadPool(settings.threads_min, settings.threads_max)
    http = HttpClient(settings.outgoing_allow)
    jobs = HandlerChannel(threads)
    for kind, function in (handlers or {}).items():
        jobs.register(kind, function)
    channels = (Smtp(), Webhook(http, clock.now), TelegramBot(http), jobs)
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Service(
        make_store(settings),
        {channel.name: channel for channel in channels},
        clock,
        Vault.open(settings.data / SECRET_FILE),
        random.random,
        lambda url: check_url(url, settings.outgoing_allow),
        Options(in_flight=settings.in_flight, trace_ms=round(settings.trace_retention * 1000)),
        threads,
        {"data": str(settings.data), "store": settings.store or FILE_NAME},
        http.close,
    )


async def open_service(
    settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None = None
) -> Service:
    """A running engine; `await service.close(grace)` ends it.

    Raises:
        OccupiedError, SchemaError, InvalidError: as they say.
    """
    if not structlog.is_configured():  # what is not configured prints variables with every traceback
        configure_logging(settings.log_level, settings.log_format)
    service = make_service(settings, handlers)
    if await service.start(settings.data / KEY_FILE):
        log.info("first start: an admin key was written", file=str(settings.data / KEY_FILE))
    return service


def serve(settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None = None) -> int:
    """Run the server until it is told to stop; the exit code."""
    configure_logging(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_S)
    try:
        runner: Callable[..., Any] = _uvloop_run()
        return int(runner(_serve(settings, handlers)))
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


async def _serve(settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None) -> int:
    from paceline.api.app import build
    from paceline.api.server import Server

    service = make_service(settings, handlers)
    server = Server(build(service, settings), settings.host, settings.port)
    server.listen()  # before the store is opened: a port that is taken changes nothing
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _end, service, server)
    first = await service.start(settings.data / KEY_FILE)
    _greet(settings, server.port, first=first)
    if service.holds.held is not None:
        sys.stdout.write(f"ON HOLD: nothing is sent. {service.holds.held.text};\n{HOW}\n")
        sys.stdout.flush()
    _spare_the_collector()
    try:
        await server.serve()
    finally:
        await service.close(settings.grace)
    return 0


def _end(service: Service, server: "Server") -> None:
    """Told to stop: hand nothing more over from this moment, and let the server finish its answers."""
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
    sys.stdout.write(
        f"Paceline listens on http://{settings.host}:{port} (API reference: /docs)\n{made} in {key}\n"
    )
    sys.stdout.flush()
