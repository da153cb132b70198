"""E04: the power goes at any moment, and the disk keeps of what was not flushed what it likes.

A traced server takes in and sends; its disk is rebuilt as it may have been at random moments, and each is held
against what had been answered and sent by then. Some are started for real and have to bring the work to its end.
"""

import random
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import apsw

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.replay import MODES, Disk, play
from bench.faults.syscalls import Call, read, tracing
from bench.faults.variant import Variant
from paceline.model.ids import from_text
from paceline.model.states import State
from paceline.wiring import FILE_NAME
from tests.scenarios.ledger import read_ledger, taken_by_text
from tests.scenarios.server import Server, Witness, drained, text_body, until

POINTS, STARTS, MESSAGES, SENDERS = 2000, 40, 4000, 4
FAILING = ("-e", "inject=fdatasync:error=EIO:when=14+9")
"""Every ninth flush of a thread fails, once the server is up."""
_ID = re.compile(rb'"id": ?"([0-9A-Za-z_-]+)"')
_TEXT = re.compile(rb'"text": ?"(t-[0-9]+-[0-9]+)"')
_ROWS = """SELECT m.id, coalesce(e.state, 0), coalesce(e.number, 0), coalesce(m.content ->> '$.text', m.content ->> '$.payload.text')
           FROM message m LEFT JOIN entry e USING (id)"""
_COUNTS = (
    "SELECT state, count(*) FROM entry GROUP BY 1 ORDER BY 1",
    "SELECT state, sum(count) FROM counted GROUP BY 1 HAVING sum(count) ORDER BY 1",
)


@dataclass
class Told:
    """What the world had been told up to a moment of the trace."""

    acknowledged: set[int] = field(default_factory=set)
    calls: Counter[str] = field(default_factory=Counter)
    seen: int = 0

    def learn(self, said: list[Call]) -> None:
        for call in said[self.seen :]:
            if call.data.startswith((b"HTTP/1.1 202", b'{"batch":')):
                self.acknowledged.update(i for t in _ID.findall(call.data) if (i := from_text(t.decode())))
            elif b"HTTP/1.1" not in call.data[:12]:
                self.calls.update(t.decode() for t in _TEXT.findall(call.data))
        self.seen = len(said)


@dataclass
class Judgement:
    points: int = 0
    started: int = 0
    acknowledged: int = 0
    lost_points: int = 0
    most_lost: int = 0
    corrupt: list[str] = field(default_factory=list)
    unmarked: int = 0
    false_endings: int = 0
    miscounted: int = 0
    shut_out: list[str] = field(default_factory=list)
    never_sent: int = 0
    sent_again: int = 0

    def figures(self) -> list[Figure]:
        return [
            no_less("moments at which the power went", self.points, 1),
            no_less("acknowledged messages in the trace", self.acknowledged, 100),
            no_more("moments that lost an acknowledged message", self.lost_points, 0),
            no_more("acknowledged messages lost at the worst of them", self.most_lost, 0),
            Figure("damaged databases", f"{len(self.corrupt)} {self.corrupt[:2] or ''}", "0", not self.corrupt),
            no_more("calls of the provider without a mark on the disk", self.unmarked, 0),
            no_more("said to be sent, not in the provider's ledger", self.false_endings, 0),
            no_more("moments with wrong counts", self.miscounted, 0),
            no_less("of them started and brought to an end", self.started, 1),
            Figure("starts that failed or let nobody in", f"{len(self.shut_out)} {self.shut_out[:1] or ''}", "0",
                   not self.shut_out),
            no_more("messages a restarted server never sent nor told", self.never_sent, 0),
            no_more("messages a restarted server sent again", self.sent_again, 0),
        ]  # fmt: skip


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    found: list[Figure] = []
    for name, options in (("", ()), ("; some flushes failed: ", FAILING)):
        part = folder / (name.strip("; :") or "flushed")
        part.mkdir()
        figures = _part(part, scale, breaking or "small-log", options)
        found += [Figure(name.removeprefix("; ") + f.promise, f.value, f.gate, f.passed) for f in figures]
    return found


def _part(folder: Path, scale: Scale, breaking: str, options: tuple[str, ...]) -> list[Figure]:
    trace = folder / "trace"
    witness_port = _traffic(folder, scale, breaking, trace, options)
    texts = set(taken_by_text(read_ledger(folder / "ledger")))
    calls = list(read(trace, folder / "data"))
    found, chance = Judgement(), random.Random(scale.seed)
    last = max(call.end for call in calls)
    # Some moments of their own for the first start: that is where files are made.
    first = next(call.end for call in calls if b"HTTP/1.1" in call.data)
    points = scale.count(POINTS, 60)
    moments = [(chance.randrange(first), chance.choice(MODES)) for _ in range(points // 10)]
    moments += [(chance.randrange(first, last), chance.choice(MODES)) for _ in range(points - points // 10)]
    starts = set(chance.sample(moments, scale.count(STARTS, 3)))
    # The few steps in which the keys are written come up too seldom by chance, and each has to be survived.
    early = [call for call in calls if call.end < first]
    keys = [c for c in early if ".key" in c.path or (c.name == "sync" and c.path == str(folder / "data"))]
    steps = [(c.end + 1, mode) for c in keys for mode in MODES]
    behind = max(c.end for c in keys)
    starts.update(chance.sample(steps, min(len(steps), scale.count(60, 4))))
    starts.update((behind + chance.randrange(20, 60), "gone") for _ in range(scale.count(20, 2)))
    moments = sorted(starts.union(moments, steps))
    with tempfile.TemporaryDirectory(dir=_fast_disk(folder)) as images:
        for step, image, told in _images(calls, moments, Path(images), folder / "data", chance):
            _judge(found, image / FILE_NAME, told, texts)
            if step in starts:
                _judge_start(found, folder / f"start-{found.points}", image, told, witness_port)
    trace.unlink()
    return found.figures()


def _fast_disk(folder: Path) -> Path:
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else folder


def _traffic(folder: Path, scale: Scale, breaking: str, trace: Path, options: tuple[str, ...]) -> int:
    """Messages are taken in and sent under the eyes of strace; the port of the witness."""
    count = scale.count(MESSAGES, 240) // SENDERS
    with (
        Witness(folder, "--latency", "0.001-0.01") as witness,
        Variant(folder, breaking, prefix=tracing(trace, *options)) as server,
    ):
        server.start()
        for number in range(SENDERS):
            until(partial(_account, server, witness, number), "the account is stored")
        threads = [
            threading.Thread(target=_send, args=(server, witness.port, n, count)) for n in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        drained(server, 240)  # a flush that fails costs half a second, and there may be a hundred of them
        server.stop()
        until(lambda: not _alive(trace), "the trace is whole")
        return witness.port


def _account(server: Server, witness: Witness, number: int) -> bool:
    settings = {"token": f"{1000 + number}:secret", "base_url": f"http://127.0.0.1:{witness.port}"}
    body = {"channel": "telegram-bot", "settings": settings, "concurrency": 4}
    return server.ask("PUT", f"/api/v1/accounts/a{number}", body).status < 300


def _alive(trace: Path) -> bool:
    with trace.open("rb") as file:
        file.seek(-min(200, trace.stat().st_size), 2)
        return b"+++ exited with" not in file.read()


def _send(server: Server, port: int, number: int, count: int) -> None:
    chance, done = random.Random(number), 0
    with server.line() as line:
        while done < count:
            size = min(count - done, chance.choice((1, 1, 1, 8)))
            texts = [f"t-{number}-{done + n}" for n in range(size)]
            made = [text_body(f"a{chance.randrange(SENDERS)}", text) for text in texts]
            if number == 0:
                url = f"http://127.0.0.1:{port}/hook/h"
                made = [{"channel": "webhook", "to": url, "payload": {"text": text}} for text in texts]
            path, body = ("", made[0]) if size == 1 else ("/batch", {"messages": made})
            reply = line.ask("POST", f"/api/v1/messages{path}", body)
            assert reply.status in {202, 503}, reply.body
            done += size  # what was refused is not sent again: a crash may bring it back


def _images(
    calls: list[Call], moments: list[tuple[int, str]], into: Path, root: Path, chance: random.Random
) -> Iterator[tuple[tuple[int, str], Path, Told]]:
    wanted, told, number = iter([*moments, (1 << 60, "")]), Told(), 0
    (moment, mode), last = next(wanted), (Disk(chance), list[Call]())
    for place, disk, said in play(calls, chance):
        while place > moment:
            # The state before this step is what the disk was at that moment; `play` steps once for each line.
            image = into / str(number)
            image.mkdir()
            told.learn(last[1])
            last[0].cut(image, root, mode)
            yield (moment, mode), image, told
            shutil.rmtree(image)
            (moment, mode), number = next(wanted), number + 1
        last = (disk, said)


def _judge(found: Judgement, database: Path, told: Told, taken: set[str]) -> None:
    found.points += 1
    found.acknowledged = max(found.acknowledged, len(told.acknowledged))
    rows: dict[int, tuple[int, int, str]] = {}
    if database.exists():
        image = database.with_name("looked-at.db")
        shutil.copy(database, image)
        if (log := database.with_name(database.name + "-wal")).exists():
            shutil.copy(log, image.with_name(image.name + "-wal"))
        if (journal := database.with_name(database.name + "-journal")).exists():
            shutil.copy(journal, image.with_name(image.name + "-journal"))
        try:
            rows = _rows(found, image)
        except apsw.Error as error:
            found.corrupt.append(str(error))
    lost = len(told.acknowledged - rows.keys())
    found.lost_points += lost > 0
    found.most_lost = max(found.most_lost, lost)
    marked = {text: number for _, number, text in rows.values()}
    found.unmarked += sum(count > marked.get(text, 0) for text, count in told.calls.items())
    found.false_endings += sum(
        state == State.COMPLETED and (text not in taken or not told.calls[text])
        for state, _, text in rows.values()
    )


def _rows(found: Judgement, image: Path) -> dict[int, tuple[int, int, str]]:
    connection = apsw.Connection(str(image))
    try:
        said = connection.pragma("integrity_check")
        if said != "ok":
            found.corrupt.append(str(said)[:200])
        if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'message'").get:
            return {}
        entries, counted = (connection.execute(query).fetchall() for query in _COUNTS)
        found.miscounted += entries != counted
        return {id_: (state, number, text) for id_, state, number, text in connection.execute(_ROWS)}
    finally:
        connection.close()


def _judge_start(found: Judgement, folder: Path, image: Path, told: Told, port: int) -> None:
    """Start a server on what is left, and see it send the rest: all of it, and nothing twice."""
    folder.mkdir()
    shutil.copytree(image, folder / "data", ignore=shutil.ignore_patterns("looked-at*"))
    found.started += 1
    try:
        with Witness(folder, "--port", str(port)) as witness, Server(folder) as server:
            server.start_moved()
            server.api("GET", "/accounts")
            drained(server, 60)
            states = {from_text(m["id"]): m for m in server.all_messages()}
            sent = taken_by_text(witness.arrivals())
    except Exception as error:
        found.shut_out.append(f"{type(error).__name__}: {str(error)[-300:]}")
        return
    for id_ in told.acknowledged:
        message = states.get(id_)
        text = message and ((message.get("payload") or {}).get("text") or message.get("text"))
        found.never_sent += message is None or (
            text not in sent and not told.calls[text] and message["state"] != "uncertain"
        )
    hooks = {(m.get("payload") or {}).get("text") for m in states.values() if m["channel"] == "webhook"}
    found.sent_again += sum(text in told.calls and text not in hooks for text in sent)
    shutil.rmtree(folder)


EXPERIMENT = Experiment(
    id="E04",
    title="power cut",
    run=run,
    breaks={
        "flush-never": "SQLite's synchronous=OFF: nothing is flushed",
        "flush-at-checkpoints": "SQLite's synchronous=NORMAL: a commit is not flushed",
        "ack-before-commit": "the sender hears 'yes' when its message is in line for the commit",
        "names-not-flushed": "the names of the key files are not flushed",
        "errors-are-success": "a commit whose flush failed is answered as if it had been made",
        "mark-not-flushed": "hand-overs are committed without a flush",
    },
    needs=("strace",),
)
