"""E05: the disk is filled to its last byte and freed again, many times, under load.

A small file system of its own holds the data. While it is full the server may say 'yes' only to what it has
room for after all, and may call a provider only with a mark on the disk: one account has a backlog, so that a
hand-over is due all the while. Some of the fillings end in a kill, after which both are looked at. Freed, it goes
on by itself.
"""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.variant import Variant
from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import NotAnsweredError, Reply, Server, Witness, drained, text_body, until

ROUNDS, LONG_S, SIZE_MIB = 50, 60, 96
KILL_EVERY = 5
BACKLOG, BACKLOG_PACE = 20, "2/100ms"
"""Messages that wait when the disk is filled, and the limit that makes them wait."""


@dataclass
class Found:
    rounds: int = 0
    kills: int = 0
    refused: int = 0
    unclear: list[str] = field(default_factory=list)
    yes_while_full: int = 0
    stuck: list[str] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)
    lines_per_minute: float = 0.0
    yes: dict[str, str] = field(default_factory=dict)


class Client(threading.Thread):
    """Sends without a pause, big ones and small ones, and notes what was acknowledged."""

    def __init__(self, server: Server, found: Found) -> None:
        super().__init__(daemon=True)
        self.server, self.found = server, found
        self.over, self.full, self.refused_now = threading.Event(), threading.Event(), threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            try:
                with self.server.line(timeout=10) as line:
                    while not self.over.is_set():
                        number += 1
                        text = f"{number} " + "x" * (2500 if number % 3 else 5)
                        refused_before = self.refused_now.is_set()
                        self._note(text, line.ask("POST", "/api/v1/messages", text_body(f"a{number % 2}", text)),
                                   was_full=refused_before)  # fmt: skip
                        self.over.wait(0.02)
            except (NotAnsweredError, OSError):
                self.over.wait(0.05)
            except Exception as error:
                self.failure = error
                return

    def _note(self, text: str, reply: Reply, *, was_full: bool) -> None:
        if reply.status == 202:
            self.found.yes[text] = reply.json["id"]
            self.found.yes_while_full += was_full and self.full.is_set()
            return
        if reply.status == 503 and self.full.is_set():
            self.found.refused += 1
            self.refused_now.set()
            if "disk is full" not in reply.json["detail"] and len(self.found.unclear) < 5:
                self.found.unclear.append(reply.json["detail"])
        elif reply.status not in {503, 429}:
            self.found.unclear.append(f"{reply.status} {reply.body[:200]!r}")


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    found = Found()
    with (
        _small_disk(folder / "disk") as disk,
        Witness(folder, "--latency", "0.001-0.01") as witness,
        Variant(folder, breaking, data=disk / "data") as server,
    ):
        server.start()
        for number in range(2):
            server.account(f"a{number}", witness, 1000 + number, concurrency=4)
        server.account("slow", witness, 1002, limits=[BACKLOG_PACE])
        client = Client(server, found)
        client.start()
        try:
            for round_ in range(scale.count(ROUNDS, 4)):
                long = round_ == 1
                _round(found, server, client, disk, witness, long_s=LONG_S * max(scale.size, 0.25) if long else 0.3,
                       kill=round_ % KILL_EVERY == KILL_EVERY - 2)  # fmt: skip
        except AssertionError as error:
            found.stuck.append(str(error)[:200])
        finally:
            client.over.set()
            client.join(15)
        if client.failure is not None:
            raise client.failure
        if not found.stuck:
            drained(server, 60)
        stored = {message["id"]: message for message in server.all_messages()}
        sent = taken_by_text(witness.arrivals())
        server.stop()
    return _judge(found, stored, sent)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    options = f"size={SIZE_MIB}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _round(
    found: Found, server: Server, client: Client, disk: Path, witness: Witness, *, long_s: float, kill: bool
) -> None:
    filler, lines = disk / "filler", _lines(server)
    waiting = [f"round {found.rounds} {number}" for number in range(BACKLOG)]
    found.yes |= zip(waiting, server.send_all([text_body("slow", text) for text in waiting]), strict=True)
    client.refused_now.clear()
    client.full.set()
    fill(filler)
    until(lambda: fill(filler) or client.refused_now.is_set(), "a message is refused")
    began = time.monotonic()
    while time.monotonic() < began + long_s:
        fill(filler)  # also what became free in the meantime
        time.sleep(0.05)
    if long_s > 1:
        minutes = max(1.0, (time.monotonic() - began) / 60)
        found.lines_per_minute = max(found.lines_per_minute, (_lines(server) - lines) / minutes)
    if kill:
        server.kill()
        found.kills += 1
    client.full.clear()
    filler.unlink()
    freed = time.monotonic()
    if kill:
        server.start()
    arrived = witness.report()["taken"]
    until(lambda: server.ask("GET", "/health/ready").status == 200, "it is ready again")
    said = len(found.yes)
    until(lambda: len(found.yes) > said, "it takes messages in again")
    until(lambda: witness.report()["taken"] > arrived, "it sends again")
    if not kill:
        found.resumed.append(time.monotonic() - freed)
    found.rounds += 1


def _lines(server: Server) -> int:
    return server.log.read_bytes().count(b"\n")


def fill(path: Path) -> None:
    """Take what is left of the disk, to the last byte."""
    with path.open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 64, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue  # less than that is left


def _judge(found: Found, stored: dict[str, dict], sent: dict[str, list]) -> list[Figure]:
    text_of = {id_: message["text"] for id_, message in stored.items()}
    lost = [text for text, id_ in found.yes.items() if id_ not in stored]
    told = {text_of[id_] for id_, m in stored.items() if m["state"] in {"completed", "uncertain", "failed"}}
    unrecorded = [text for text in sent if text not in told]
    unsaid = [t for t in found.yes if t not in sent and t not in told]
    twice = [text for text, all_ in sent.items() if len(all_) > 1]
    return [
        Figure("goes on by itself", f"{found.stuck or 'yes'}", "yes", not found.stuck),
        no_less("times the disk was filled", found.rounds, 3),
        no_less("of them with a kill while it was full", found.kills, 1),
        no_less("messages refused while it was full", found.refused, 3),
        Figure("'yes' after a refusal, while it was full", str(found.yes_while_full), "all of them kept", not lost),
        no_more("acknowledged messages lost", len(lost), 0),
        no_more("calls of the provider that were not recorded", len(unrecorded), 0),
        no_more("messages neither sent nor told", len(unsaid), 0),
        no_more("messages sent twice", len(twice), 0),
        no_more("seconds until it took in and sent again", round(max(found.resumed, default=99), 2), 10),
        no_more("lines logged in a minute while full", round(found.lines_per_minute, 1), 6),
        Figure("refusals that named another reason", f"{len(found.unclear)} {found.unclear[:2] or ''}", "0",
               not found.unclear),
    ]  # fmt: skip


EXPERIMENT = Experiment(
    id="E05",
    title="disk full",
    run=run,
    breaks={
        "errors-are-success": "a commit that failed is answered as if it had been made",
        "no-going-on": "the writer never recovers from its first error",
        "call-without-mark": "the provider is called although the hand-over could not be written",
    },
    needs=("root",),
)
