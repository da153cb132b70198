"""``paceline up --processes``: several nodes of this machine on one store, started, watched and ended together.

The parent opens no store and sends nothing: it starts a process for each node, starts those again that die, and passes
on that it was told to end. Each node holds one end of a socket whose other end only the parent has: through it come its
orders, and it closes when the parent is gone, however that came about.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from paceline.config import Settings
from paceline.model.errors import InvalidError, Problem
from paceline.observe import configure_logging

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
"""A node that lived so long begins with the first pause again."""
LAST_S: Final = 10.0
"""How long after the grace of its calls a node may take for the rest of its end, before it is killed."""
STARTED: Final = b"+"
"""What a node tells its parent once it has joined and listens."""

log = structlog.get_logger("paceline.processes")


class Orders(msgspec.Struct, frozen=True):
    """What a node is started with: the options of the command line, and the file of settings if one was named."""

    arguments: dict[str, Any]
    config: str | None


class Child:
    """One node of this machine, through all the processes that it has been."""

    def __init__(self, name: str, orders: Orders) -> None:
        """Not started yet."""
        self.name, self.orders = name, orders
        self.started = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None

    def signal(self, number: int) -> bool:
        """Send its process a signal, if there is one; whether there was."""
        if self.process is None or self.process.returncode is not None:
            return False
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return True


def run(settings: Settings, arguments: Mapping[str, Any], config: Path | None) -> int:
    """Run `settings.processes` nodes until told to end; the exit code.

    Raises:
        InvalidError: several nodes cannot share this store, or have no ports.
    """
    check(settings)
    configure_logging(settings.log_level, settings.log_format)
    return asyncio.run(Parent(settings, orders_of(settings, arguments, config)).run())


def check(settings: Settings) -> None:
    """Whether so many nodes can be.

    Raises:
        InvalidError: the store is none in PostgreSQL, or there are no ports for all.
    """
    if not (settings.store or "").startswith(("postgresql:", "postgres:")):
        raise InvalidError(
            [
                Problem(
                    "/processes",
                    f"{settings.processes} processes share a store in PostgreSQL (--store postgresql://...); "
                    "a SQLite file is for one",
                )
            ]
        )
    if settings.port and settings.port + settings.processes - 1 > 65_535:
        text = f"{settings.processes} processes take as many ports from --port on, and {settings.port} leaves too few"
        raise InvalidError([Problem("/processes", text)])


def ports(settings: Settings) -> list[int]:
    """The port of each node: one after the other, or a free one for each."""
    return [settings.port + number if settings.port else 0 for number in range(settings.processes)]


def orders_of(settings: Settings, arguments: Mapping[str, Any], config: Path | None) -> list[Orders]:
    """The same for all but the port and the role: unless that was said, the first takes messages and the others send."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
    said = settings.origin("role") != "default"
    made = []
    for number, port in enumerate(ports(settings)):
        role = settings.role if said or number == 0 else "sender"
        own = given | {"port": port, "role": role, "processes": 1}
        made.append(Orders(own, str(config) if config else None))
    return made


class Parent:
    """Keeps the nodes running."""

    def __init__(self, settings: Settings, orders: list[Orders]) -> None:
        """Nothing is started yet."""
        self._grace_s = settings.grace
        self._children = [Child(f"{n}/{len(orders)}", each) for n, each in enumerate(orders, 1)]
        self._ending = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """Start the first node, which may have keys and tables to make, then the others; until all have ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._told)
        first, *others = self._children
        kept = [asyncio.create_task(self._keep(first))]
        await self._or_ending(first.started.wait())
        if not self._ending.is_set():
            kept += [asyncio.create_task(self._keep(child)) for child in others]
        await asyncio.gather(*kept)
        return self._code

    async def _keep(self, child: Child) -> None:
        """Start a node, and start it again whenever it dies, until all are to end."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        while not self._ending.is_set():
            begun = loop.time()
            code = await self._live(child)
            if self._ending.is_set():
                if code not in {0, -signal.SIGTERM}:  # the second: told before it knew of signals
                    self._code = self._code or 1
                return
            if not child.started.is_set():
                # It never ran: what is wrong is said above, and would be wrong again.
                log.error("a node could not start; all end", node=child.name, ended=how(code))
                self._code = code if code > 0 else 1
                self._end()
                return
            if loop.time() - begun >= STEADY_S:
                pause = FIRST_PAUSE_S
            log.error("a node died and is started again", node=child.name, ended=how(code), in_s=pause)
            await self._or_ending(asyncio.sleep(pause))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _live(self, child: Child) -> int:
        """One process of a node, from its start to its end; the exit code."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.setblocking(False)
            with theirs:
                try:
                    child.process = process = await asyncio.create_subprocess_exec(
                        sys.executable, "-P", "-m", "paceline.cli.process", child.name,
                        stdin=theirs.fileno(), start_new_session=True,  # Ctrl-C is told to the parent alone, which passes it on
                    )  # fmt: skip
                except OSError as error:  # the machine has no room for one more
                    log.error("a node could not be started", node=child.name, reason=str(error))  # noqa: TRY400 - it is said in words
                    return 1
            if self._ending.is_set():
                child.signal(signal.SIGTERM)
            log.info(
                "started a node", node=child.name, process=process.pid, role=child.orders.arguments["role"]
            )
            if await self._tells(ours, child.orders):
                child.started.set()
            return await process.wait()

    async def _tells(self, ours: socket.socket, orders: Orders) -> bool:
        """Give a process its orders; whether it tells that it has started, before it ends."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(ours, msgspec.json.encode(orders) + b"\n")
            return await loop.sock_recv(ours, 1) == STARTED
        except OSError:  # it died
            return False

    async def _or_ending(self, what: Any) -> None:
        """Until it is done, or all are to end."""
        tasks = {asyncio.ensure_future(what), asyncio.ensure_future(self._ending.wait())}
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _told(self) -> None:
        """Told to end; a second time: wait for no call."""
        if self._ending.is_set():
            self._pass_on(signal.SIGTERM)
        else:
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._pass_on(signal.SIGTERM)
        asyncio.get_running_loop().call_later(self._grace_s + LAST_S, self._kill)

    def _pass_on(self, number: int) -> list[str]:
        return [child.name for child in self._children if child.signal(number)]

    def _kill(self) -> None:
        killed = self._pass_on(signal.SIGKILL)
        if killed:
            log.error("killed nodes that did not end in time", nodes=killed, after_s=self._grace_s + LAST_S)


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
