"""E06: the n-th call that writes, flushes, opens or cuts a file of the database fails, for n = 1, 2, 3 ...

`strace` makes the one call fail, in each thread that comes so far. The server may refuse what it could not store
and may give up starting, in plain words; it may not say 'yes' to what is not there, nor stay unable to work.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from bench.faults.experiment import Experiment, Figure, Scale, no_less
from bench.faults.variant import Variant
from paceline.wiring import FILE_NAME
from tests.scenarios.ledger import Arrival, taken_by_text
from tests.scenarios.server import NotAnsweredError, Server, Witness, text_body, until

FAULTS = (
    ("pwrite64", "EIO"), ("fdatasync", "EIO"), ("ftruncate", "EIO"), ("openat", "EIO"), ("pwrite64", "ENOSPC"),
    ("write", "ENOSPC"), ("fsync", "EIO"), ("pwrite64", "EINTR"), ("fdatasync", "EINTR"), ("openat", "EMFILE"),
)  # fmt: skip
MOST = 400
"""No call that matters comes later than this in so short a run."""
WITHIN_S = 15.0
ENOUGH_WEDGED = 5
"""Each such run takes its full time: after so many the verdict is known."""


@dataclass
class Found:
    tried: int = 0
    fired: int = 0
    given_up: int = 0
    refused: int = 0
    acknowledged: int = 0
    false_yes: list[str] = field(default_factory=list)
    wedged: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    points: Counter[str] = field(default_factory=Counter)

    def figures(self) -> list[Figure]:
        def none_of(promise: str, found: list[str]) -> Figure:
            examples = "".join(f" [{each}]" for each in found[:3])
            return Figure(promise, f"{len(found)}{examples}", "0", not found)

        tried = ", ".join(f"{name} {count}" for name, count in self.points.items())
        return [
            Figure("faults that came about", f"{self.fired} of {self.tried} runs ({tried})", ">= 5", self.fired >= 5),
            Figure("what came of them", f"{self.given_up} starts given up, {self.refused} requests refused", "-", True),
            no_less("acknowledged messages", self.acknowledged, 10),
            none_of("said 'yes' and did not keep the message", self.false_yes),
            none_of("did not work again, nor after a restart", self.wedged),
            none_of("errors that were not told in plain words", self.unclear),
            none_of("damaged databases", self.damaged),
            none_of("messages sent twice", self.twice),
        ]  # fmt: skip


@dataclass
class Fault:
    call: str
    error: str
    number: int
    first_start: bool

    def __str__(self) -> str:
        return f"{self.call} {self.error} {self.number}{' at the first start' if self.first_start else ''}"

    def prefix(self, data: Path, trace: Path) -> tuple[str, ...]:
        names = [FILE_NAME + end for end in ("", "-wal", "-journal", ".lock")] + ["secret.key", "admin.key"]
        paths = [word for name in names for word in ("-P", str(data / name))]
        if self.call in {"openat", "fsync"}:
            paths += ["-P", str(data)]
        inject = f"inject={self.call}:error={self.error}:when={self.number}"
        return (shutil.which("strace") or "strace", "-D", "-f", "-q", "-o", str(trace), "-e", "signal=none",
                *paths, "-e", f"trace={self.call}", "-e", inject)  # fmt: skip


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    found = Found()
    with Witness(folder) as witness:
        prepared = _prepare(folder / "prepared", witness)
        for call, error in FAULTS:
            for first_start in (True, False):
                for number in _numbers(scale):
                    fault = Fault(call, error, number, first_start)
                    if len(found.wedged) >= ENOUGH_WEDGED:
                        return found.figures()
                    found.tried += 1
                    if not _try(found, folder / f"{found.tried}", fault, witness, prepared, breaking):
                        break  # so many calls are not made: it has come to the end of them
        found.twice += [text for text, all_ in taken_by_text(witness.arrivals()).items() if len(all_) > 1]
    return found.figures()


def _numbers(scale: Scale) -> Iterator[int]:
    """1, 2, 3 ... at full size; ever larger steps in a quick run."""
    number, step = 1, 1.0
    while number <= MOST:
        yield number
        step *= 1 + min(3.0, 0.05 / scale.size) if scale.size < 1 else 1
        number += max(1, int(step))


def _prepare(folder: Path, witness: Witness) -> Path:
    """A folder in which a server has worked."""
    folder.mkdir()
    with Server(folder) as server:
        server.start()
        server.account("bot", witness, 1000, concurrency=4)
        server.send(**text_body("bot", "prepared"))
        until(lambda: server.count("completed") == 1, "the message is sent")
    shutil.copytree(server.data, _as_it_was(server.data))
    return server.data


def _as_it_was(data: Path) -> Path:
    return data.with_name("as-it-was")


def _try(found: Found, folder: Path, fault: Fault, witness: Witness, prepared: Path, breaking: str) -> bool:
    """One run; whether the fault came about."""
    folder.mkdir()
    data, trace = folder / "data", folder / "trace"
    if not fault.first_start:
        data = prepared  # the same place each time: a copy in another one would begin on hold
        shutil.rmtree(data)
        shutil.copytree(_as_it_was(data), data)
    yes: dict[str, str] = {}
    server = Variant(folder, breaking, data=data, prefix=fault.prefix(data, trace))
    said = _work(found, server, fault, witness, yes)
    if "Traceback" in said or '"exception"' in said:
        found.unclear.append(f"{fault}: a traceback")
    fired = "INJECTED" in trace.read_text("utf-8", "replace")
    found.fired += fired
    found.points[f"{fault.call} {fault.error}"] += fired
    found.acknowledged += len(yes)
    _look_again(found, folder, data, fault, yes, witness)
    shutil.rmtree(folder)
    return fired


def _work(found: Found, server: Variant, fault: Fault, witness: Witness, yes: dict[str, str]) -> str:
    """Start it, send through it, stop it; what it said."""
    process = server.spawn()
    until(lambda: process.port or process.child.poll() is not None, "it listens or ends")
    try:
        if process.port and _ready(server):
            _send(found, server, fault, witness, yes)
    except (AssertionError, NotAnsweredError) as error:
        found.wedged.append(f"{fault}: {str(error)[:200]}")
    ended = process.child.poll()
    code = server.stop()
    said = server.log.read_text("utf-8", "replace")
    if ended is not None:
        found.given_up += 1
        told = [line for line in said.splitlines() if line.startswith("error: ")]
        if code in {0, None} or len(told) != 1:
            found.unclear.append(f"{fault}: ended with {code}, saying {said[-200:]!r}")
    return said


def _ready(server: Variant) -> bool:
    """Wait until it is ready; False when it has ended instead."""
    assert server.process is not None
    child, key = server.process.child, server.data / "admin.key"

    def settled() -> bool:
        if child.poll() is not None:
            return True
        try:
            server.key = key.read_text().strip()
            return server.ask("GET", "/health/ready").status == 200
        except (NotAnsweredError, OSError):
            return False

    until(settled, "it is ready or has ended", WITHIN_S)
    return child.poll() is None


def _send(found: Found, server: Variant, fault: Fault, witness: Witness, yes: dict[str, str]) -> None:
    def ask(path: str, body: dict, texts: list[str], method: str = "POST") -> bool:
        reply = server.ask(method, f"/api/v1{path}", body)
        if reply.status == 503:
            found.refused += 1
            words = reply.json.get("detail", "")
            if "disk" not in words and "database file" not in words:
                found.unclear.append(f"{fault}: {words}")
            return False
        assert reply.status in {200, 201, 202}, f"{reply.status} {reply.body[:200]!r}"
        if texts:
            ids = (
                [reply.json["id"]] if "id" in reply.json else [each["id"] for each in reply.json["accepted"]]
            )
            yes.update(zip(texts, ids, strict=True))
        return True

    settings = {"token": "1000:secret", "base_url": f"http://127.0.0.1:{witness.port}"}
    bot = {"channel": "telegram-bot", "settings": settings, "concurrency": 4}
    until(lambda: ask("/accounts/bot", bot, [], "PUT"), "the account is taken", WITHIN_S)
    for number in range(8):
        texts = [f"{fault} {number}.{part}" for part in range(5 if number % 3 == 2 else 1)]
        made = [text_body("bot", text) for text in texts]
        if len(made) == 1:
            ask("/messages", made[0], texts)
        else:
            ask("/messages/batch", {"messages": made}, texts)
    until(
        lambda: ask("/messages", text_body("bot", f"{fault} last"), [f"{fault} last"]),
        "it takes in again",
        WITHIN_S,
    )
    until(lambda: not server.count("pending", "processing", "retrying"), "it sends again", WITHIN_S)


def _look_again(
    found: Found, folder: Path, data: Path, fault: Fault, yes: dict[str, str], witness: Witness
) -> None:
    """Start it on a disk that works: it comes up, nothing is damaged, and what was promised is there and sent."""
    try:
        with Server(folder, data) as server:
            server.start()
            until(
                lambda: not server.count("pending", "processing", "retrying"), "it sends the rest", WITHIN_S
            )
            states = {message["id"]: message["state"] for message in server.all_messages()}
    except (AssertionError, NotAnsweredError, OSError) as error:
        found.wedged.append(f"{fault}: after a restart: {str(error)[-300:]}")
        return
    connection = apsw.Connection(str(data / FILE_NAME))
    if (said := connection.pragma("integrity_check")) != "ok":
        found.damaged.append(f"{fault}: {said}")
    connection.close()
    mine = [a for a in _recent(witness) if a.text.startswith(f"{fault} ")]
    taken = taken_by_text(mine)
    for text, id_ in yes.items():
        state = states.get(id_)
        if state is None or (text not in taken and state != "uncertain"):
            found.false_yes.append(f"{fault}: {text} is {state}")


def _recent(witness: Witness) -> Iterator[Arrival]:
    with witness.ledger.open("rb") as file:
        file.seek(max(0, witness.ledger.stat().st_size - 20_000))
        file.readline() if file.tell() else None
        for line in file:
            yield Arrival(*json.loads(line))


EXPERIMENT = Experiment(
    id="E06",
    title="storage errors one by one",
    run=run,
    breaks={
        "errors-are-success": "a commit that failed is answered as if it had been made",
        "no-going-on": "the writer never recovers from its first error",
    },
    needs=("strace",),
)
