"""Everybody at the database at once: writers, the dispatcher, dashboards, the command line, and one export that
reads so slowly that it lasts for the whole run.

Nobody may be told that the database is locked, and the write-ahead log may not grow for as long as somebody reads.
"""

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.figures_of import percentile
from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import Line, NotAnsweredError, Server, Witness, clean_environment, text_body

WRITERS, READERS, ACCOUNTS = 8, 4, 20
WRITES_A_SECOND = 15
"""Of each writer; one in so many is a batch."""
BATCH_EVERY, BATCH = 10, 20
OLD = 12_000
"""Messages that are there from the start, due tomorrow: so the export has much to read."""
FILLER = "The quick brown fox jumps over the lazy dog. " * 20
LOOKS: tuple[tuple[str, str, object], ...] = (
    ("GET", "/stats/overview", None),
    ("GET", "/stats/realtime", None),
    ("GET", "/messages?limit=50", None),
    ("GET", "/messages?state=completed&limit=20", None),
    ("GET", "/messages?q=fox&limit=10", None),
    ("GET", "/accounts?limit=50", None),
    ("GET", "/queues", None),
    ("POST", "/messages/actions?dry_run=true", {"action": "delete", "filter": {"state": ["scheduled"]}}),
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status", "--json"),
    ("messages", "list", "--limit", "5", "--json"),
    ("accounts", "list", "--json"),
)


@dataclass
class Figures:
    """What came out. Times in milliseconds, sizes in bytes."""

    seconds: float = 0.0
    acknowledged: int = 0
    reads: int = 0
    commands: int = 0
    exported: int = 0
    errors: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    twice: int = 0
    write_ms: list[float] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)
    wal_most: int = 0

    @property
    def write_p99(self) -> float:
        return percentile(self.write_ms, 0.99)

    @property
    def wal_mib(self) -> float:
        return self.wal_most / 1024 / 1024

    def lines(self) -> list[str]:
        return [
            f"in {self.seconds:.0f} s            {self.acknowledged} messages acknowledged, {self.reads} reads",
            f"besides            {self.commands} commands, {self.exported} lines exported",
            f"errors             {len(self.errors)} {self.errors[:3]}",
            f"write              p50 {percentile(self.write_ms, 0.5):.1f} ms, p99 {self.write_p99:.1f} ms",
            f"read               p50 {percentile(self.read_ms, 0.5):.1f} ms, p99 {percentile(self.read_ms, 0.99):.1f} ms",
            f"write-ahead log    {self.wal_mib:.1f} MiB at most",
            f"lost, sent twice   {len(self.lost)} {self.lost[:3]}, {self.twice}",
        ]


class Contention:
    """The run."""

    def __init__(self, folder: Path, seconds: float, seed: int, broken: str) -> None:
        self.folder, self.seconds, self.seed, self.broken = folder, seconds, seed, broken
        self.figures = Figures()
        self.over = threading.Event()
        self.texts: list[str] = []
        self.server: Server
        self.witness: Witness

    def run(self) -> Figures:
        with (
            Witness(self.folder, "--latency", "0.001-0.01") as self.witness,
            Server(self.folder, broken=self.broken) as self.server,
        ):
            self.server.start()
            self._prepare()
            begun = time.monotonic()
            self._at_once()
            self.figures.seconds = time.monotonic() - begun
            drained_but_old(self.server, 120)
            self.server.stop()
            self._judge()
        return self.figures

    def _prepare(self) -> None:
        for index in range(ACCOUNTS):
            self.server.account(f"a{index}", self.witness, 1000 + index, limits=["100/s"], concurrency=4)
        for start in range(0, OLD, 1000):
            self.server.send_all([
                text_body(f"a{n % ACCOUNTS}", f"old-{n} {FILLER}", delay="1d") for n in range(start, start + 1000)
            ])  # fmt: skip

    def _at_once(self) -> None:
        """Start everybody, let them for so long, and end them."""
        works: list[Callable[[], None]] = [self._export, self._commands, self._watch]
        works += [lambda number=number: self._write(number) for number in range(WRITERS)]  # type: ignore[misc]  # bound
        works += [lambda number=number: self._look(number) for number in range(READERS)]  # type: ignore[misc]  # bound
        threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        self.over.wait(self.seconds)
        self.over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "somebody still waits for an answer"

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.figures.errors.append(f"{type(error).__name__}: {error}"[:300])

    def _write(self, number: int) -> None:
        chance, count = random.Random(f"{self.seed}/{number}"), 0
        with self.server.line() as line:
            while not self.over.wait(chance.uniform(0, 2 / WRITES_A_SECOND)):
                count += 1
                many = BATCH if count % BATCH_EVERY == 0 else 1
                texts = [f"{number}-{count}-{place} {FILLER}" for place in range(many)]
                bodies = [text_body(f"a{chance.randrange(ACCOUNTS)}", text) for text in texts]
                if many == 1:
                    good = self._timed(line, self.figures.write_ms, "POST", "/messages", bodies[0])
                else:
                    good = self._timed(line, [], "POST", "/messages/batch", {"messages": bodies})
                if good:
                    self.texts += texts

    def _look(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/look/{number}")
        with self.server.line() as line:
            while not self.over.wait(chance.uniform(0, 0.2)):
                self.figures.reads += self._timed(line, self.figures.read_ms, *chance.choice(LOOKS))

    def _timed(self, line: Line, times: list[float], method: str, path: str, body: object) -> bool:
        """Ask, and note how long the answer took; whether it was a good one."""
        begun = time.perf_counter()
        try:
            reply = line.ask(method, "/api/v1" + path, body)
        except NotAnsweredError as error:
            self.figures.errors.append(str(error))
            return False
        times.append((time.perf_counter() - begun) * 1000)
        if not 200 <= reply.status < 300:
            self.figures.errors.append(f"{method} {path}: {reply.status} {reply.body[:200]!r}")
        return 200 <= reply.status < 300

    def _commands(self) -> None:
        environment = clean_environment() | {
            "PACELINE_SERVER": f"http://127.0.0.1:{self.server.port}", "PACELINE_KEY": self.server.key,
        }  # fmt: skip
        while not self.over.wait(1.0):
            self._command(COMMANDS[self.figures.commands % len(COMMANDS)], environment)
            self.figures.commands += 1

    def _command(self, command: Sequence[str], environment: dict[str, str]) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "paceline.cli.main", *command], env=environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode:
            self.figures.errors.append(f"{' '.join(command)}: {done.returncode} {done.stderr[-200:]}")

    def _export(self) -> None:
        """Read an export a little at a time, so that it lasts for as long as the run does."""
        with socket.socket() as line:
            line.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384
            )  # else the kernel takes megabytes ahead
            line.settimeout(30)
            line.connect(("127.0.0.1", self.server.port))
            line.sendall(
                b"GET /api/v1/messages/export?format=jsonl HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                b"Authorization: Bearer " + self.server.key.encode() + b"\r\n\r\n"
            )
            head = line.recv(8192)
            assert head.startswith(b"HTTP/1.1 200"), head[:200]
            size = OLD * (len(FILLER) + 500)
            pause = 8192 * self.seconds / size
            while not self.over.wait(pause):
                part = line.recv(8192)
                assert part, "the export ended early, or was too short for this run"
                self.figures.exported += part.count(b'{"id"')

    def _watch(self) -> None:
        log = self.server.data
        while not self.over.wait(0.1):
            for path in log.glob("*-wal"):
                with suppress(OSError):
                    self.figures.wal_most = max(self.figures.wal_most, path.stat().st_size)

    def _judge(self) -> None:
        figures, taken = self.figures, taken_by_text(self.witness.arrivals())
        figures.acknowledged = len(self.texts)
        figures.lost = [text[:20] for text in self.texts if text not in taken]
        figures.twice = sum(len(found) > 1 for found in taken.values())
        logged = self.server.log.read_text("utf-8", "replace").splitlines()
        figures.errors += [line[:200] for line in logged if "locked" in line or '"level": "error"' in line]


def drained_but_old(server: Server, within: float) -> None:
    """Everything has gone but what is due tomorrow."""
    deadline = time.monotonic() + within
    while server.count("pending", "retrying", "processing"):
        assert time.monotonic() < deadline, f"not within {within} s: everything has ended"
        time.sleep(0.05)


def contention(folder: Path, seconds: float, seed: int, broken: str = "") -> Figures:
    """Run it for so long."""
    return Contention(folder, seconds, seed, broken).run()
