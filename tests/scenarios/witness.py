"""A provider that bears witness: what it took is in a ledger, flushed to the disk, before it answers.

It speaks two dialects over plain HTTP on the loopback interface: the Bot API (``POST /bot<token>/sendMessage``;
the sender is the number in the token) and webhooks (``POST /hook/<name>``; the sender is the name). It knows
nothing of Paceline and imports nothing of it.

    python -m tests.scenarios.witness --port 0 --ledger FILE [--limit 20/10] [--latency 0.005-0.02] [--seed 1]

prints its port on the first line. Part of the latency passes before the arrival and the rest before the answer,
at random, so a sender cannot rely on either.

    GET  /report                   the books as JSON
    GET  /wait?taken=N&within=S    answers as soon as N different texts were taken (or `arrived=N`, `open=N`:
                                   calls being held), or when the time is up
    POST /behave                   {"sender": "1000" or "", "latency": [low, high], "fail": share, "cut": share,
                                   "drop": share, "hang": share, "flood_every": N, "flood_for": S, "flood_next": S,
                                   "says": text, "hold": true}: replaces the behaviour towards one sender, or towards all others
    POST /release                  answer the calls that are held, and hold no more

Behaviours: `fail` answers 500 without taking the message, `drop` cuts the connection without taking it, `cut`
takes it and cuts, `hang` takes it and never answers, `hold` takes it and answers when it is released, a flood is
a 429 with `retry_after` (or with what it `says` instead, word for word; '' for nothing). A request that was
begun after such an answer and arrives within the wait is counted.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MS = 1_000_000


@dataclass
class Behaviour:
    """How the witness treats a sender."""

    latency: tuple[float, float] = (0.0, 0.0)
    fail: float = 0.0
    drop: float = 0.0
    cut: float = 0.0
    hang: float = 0.0
    flood_every: int = 0
    flood_for: float = 2.0
    flood_next: float = 0.0
    says: str | None = None
    hold: bool = False


@dataclass
class Sender:
    """What the witness remembers of a sender."""

    arrived: int = 0
    recent: dict[tuple[int, float], deque[int]] = field(default_factory=dict)
    wait_until: int = 0
    told_at: int = 0


class Ledger:
    """Lines on disk. Lines written while a flush runs share the next one."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._flush: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def write(self, line: list[Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._flush))
        await asyncio.shield(self._next)

    async def _after(self, running: "asyncio.Task[None] | None") -> None:
        if running is not None:
            await running
        self._flush, self._next = self._next, None
        await asyncio.to_thread(os.fdatasync, self._file)


class Books:
    """Everything that was seen."""

    def __init__(self, ledger: Ledger, limits: list[tuple[int, float]], seed: int) -> None:
        self.ledger, self.limits, self.random = ledger, limits, random.Random(seed)
        self.senders: defaultdict[str, Sender] = defaultdict(Sender)
        self.behaviours: dict[str, Behaviour] = {"": Behaviour()}
        self.answers: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.two_hands = self.exceeded = self.inside = self.open = self.arrived = 0
        self.released = asyncio.Event()
        self.changed = asyncio.Condition()

    def behaviour(self, sender: str) -> Behaviour:
        return self.behaviours.get(sender) or self.behaviours[""]

    def arrive(self, name: str, text: str, began: int) -> tuple[str, float]:
        """Count an arrival; the answer it gets and, for a flood, the seconds to wait."""
        now, sender, behaviour = time.monotonic_ns(), self.senders[name], self.behaviour(name)
        self.arrived += 1
        sender.arrived += 1
        self._count_windows(sender, now)
        answer, wait = self._answer(sender, behaviour, now, began)
        self.answers[answer] += 1
        if answer in {"ok", "hang", "cut"}:
            self.taken[text] += 1
        return answer, wait

    def _count_windows(self, sender: Sender, now: int) -> None:
        for limit in self.limits:
            most, seconds = limit
            recent = sender.recent.setdefault(limit, deque())
            while recent and recent[0] <= now - seconds * 1e9:
                recent.popleft()
            recent.append(now)
            self.exceeded += len(recent) > most

    def _answer(self, sender: Sender, behaviour: Behaviour, now: int, began: int) -> tuple[str, float]:
        wait = 0.0
        if now < sender.wait_until:
            self.inside += began > sender.told_at > 0
            return "flood", (sender.wait_until - now) / 1e9
        if behaviour.flood_next:
            wait, behaviour.flood_next = behaviour.flood_next, 0.0
        elif behaviour.flood_every and sender.arrived % behaviour.flood_every == 0:
            wait = behaviour.flood_for
        if wait:
            wait = float(-(-wait // 1))  # the Bot API speaks in whole seconds
            sender.wait_until = now + round(wait * 1e9)
            sender.told_at = 0
            return "flood", wait
        chance = self.random.random()
        for kind in ("fail", "drop", "cut", "hang"):
            chance -= getattr(behaviour, kind)
            if chance < 0:
                return kind, 0.0
        return "ok", 0.0

    def report(self) -> dict[str, Any]:
        return {
            "arrived": self.arrived,
            "taken": len(self.taken),
            "twice": sum(count > 1 for count in self.taken.values()),
            "answers": dict(self.answers),
            "senders": {name: sender.arrived for name, sender in self.senders.items()},
            "exceeded": self.exceeded,
            "inside": self.inside,
            "two_hands": self.two_hands,
            "open": self.open,
        }

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    began: int


class Connection:
    """One connection: requests in turn until the peer leaves."""

    def __init__(self, books: Books, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.books, self.reader, self.writer = books, reader, writer

    async def serve(self) -> None:
        try:
            while (request := await self._read()) is not None:
                if not await self._handle(request):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass  # the peer left, which is its right
        finally:
            self.writer.close()

    async def _read(self) -> Request | None:
        first = await self.reader.read(1)
        if not first:
            return None
        began = time.monotonic_ns()
        head = (first + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(target)
        return Request(method, url.path, dict(parse_qsl(url.query)), headers, body, began)

    async def _handle(self, request: Request) -> bool:
        """Answer; False when the connection is over."""
        if request.path.startswith("/bot"):
            token, _, method = request.path[4:].partition("/")
            if method != "sendMessage":
                await self._send(
                    200, {"ok": True, "result": {"id": 1, "is_bot": True, "username": "witness"}}
                )
                return True
            body = json.loads(request.body)
            return await self._message(
                request, token.partition(":")[0], str(body["chat_id"]), str(body["text"])
            )
        if request.path.startswith("/hook/"):
            body = json.loads(request.body)
            name = request.path.removeprefix("/hook/")
            return await self._message(request, name, str(body.get("to", "")), str(body["text"]))
        await self._control(request)
        return True

    async def _message(self, request: Request, sender: str, to: str, text: str) -> bool:
        books = self.books
        books.two_hands += books.under_way[text] > 0
        books.under_way[text] += 1
        try:
            return await self._judge(request, sender, to, text)
        finally:
            books.under_way[text] -= 1
            if not books.under_way[text]:
                del books.under_way[text]

    async def _judge(self, request: Request, sender: str, to: str, text: str) -> bool:
        books = self.books
        behaviour = books.behaviour(sender)
        latency = books.random.uniform(*behaviour.latency)
        before = latency * books.random.random()
        if latency:
            await asyncio.sleep(before)
        answer, wait = books.arrive(sender, text, request.began)
        key = request.headers.get("webhook-id", "")
        moments = [time.monotonic_ns(), time.time_ns()]
        await books.ledger.write([*moments, sender, to, text, key, answer, request.began])
        await self._hold(behaviour)
        await books.tell()
        if answer in {"drop", "cut"}:
            self.writer.transport.abort()
            return False
        if answer == "hang":
            await self.reader.read()  # until the caller gives up
            return False
        if latency:
            await asyncio.sleep(latency - before)
        await self._reply(request, sender, text, answer, wait)
        return True

    async def _hold(self, behaviour: Behaviour) -> None:
        books = self.books
        if behaviour.hold and not books.released.is_set():
            books.open += 1
            await books.tell()
            await books.released.wait()
            books.open -= 1

    async def _reply(self, request: Request, sender: str, text: str, answer: str, wait: float) -> None:
        if answer == "fail":
            await self._send(500, {"ok": False, "error_code": 500, "description": "Internal Server Error"})
        elif answer == "flood":
            seconds = max(1, int(-(-wait // 1)))
            told = {"ok": False, "error_code": 429, "description": "Too Many Requests",
                    "parameters": {"retry_after": seconds}}  # fmt: skip
            known = self.books.senders[sender]
            says = self.books.behaviour(sender).says
            if says is not None:
                told["parameters"] = {"retry_after": int(says)} if says.lstrip("-").isdigit() else {}
            header = str(seconds) if says is None else says
            await self._send(429, told, {"Retry-After": header} if header else {})
            known.told_at = known.told_at or time.monotonic_ns()
        elif request.path.startswith("/bot"):
            await self._send(200, {"ok": True, "result": {"message_id": self.books.arrived, "text": text}})
        else:
            await self._send(200, {"id": str(self.books.arrived)})

    async def _control(self, request: Request) -> None:
        books = self.books
        if request.path == "/report":
            await self._send(200, books.report())
        elif request.path == "/wait":
            await self._wait(request.query)
        elif request.path == "/behave":
            wanted = json.loads(request.body)
            sender = str(wanted.pop("sender", ""))
            if "latency" in wanted:
                wanted["latency"] = tuple(wanted["latency"])
            books.behaviours[sender] = Behaviour(**wanted)
            if books.behaviours[sender].hold:
                books.released.clear()
            await self._send(200, {})
        elif request.path == "/release":
            books.released.set()
            for behaviour in books.behaviours.values():
                behaviour.hold = False
            await self._send(200, {})
        else:
            await self._send(404, {"error": "no such address"})

    async def _wait(self, query: dict[str, str]) -> None:
        books = self.books
        goals = {name: int(query[name]) for name in ("taken", "arrived", "open") if name in query}

        def reached() -> bool:
            now = {"taken": len(books.taken), "arrived": books.arrived, "open": books.open}
            return all(now[name] >= goal for name, goal in goals.items())

        async with books.changed:
            try:
                async with asyncio.timeout(float(query.get("within", "30"))):
                    await books.changed.wait_for(reached)
            except TimeoutError:
                pass  # the report says how far it came
        await self._send(200, {"reached": reached(), **books.report()})

    async def _send(self, status: int, body: dict[str, Any], extra: dict[str, str] | None = None) -> None:
        payload = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **(extra or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"HTTP/1.1 {status} Witness\r\n{lines}\r\n".encode() + payload)
        await self.writer.drain()


def _limit(text: str) -> tuple[int, float]:
    most, _, seconds = text.partition("/")
    return int(most), float(seconds)


def _latency(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low), float(high or low)


async def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.witness", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--limit", type=_limit, action="append", default=[], help="N/SECONDS, only counted")
    parser.add_argument("--latency", type=_latency, default=(0.0, 0.0), help="seconds, or LOW-HIGH")
    parser.add_argument("--flood-every", type=int, default=0)
    parser.add_argument("--flood-for", type=float, default=2.0)
    for share in ("fail", "drop", "cut", "hang"):
        parser.add_argument(f"--{share}", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    books = Books(Ledger(given.ledger), given.limit, given.seed)
    books.behaviours[""] = Behaviour(
        given.latency, given.fail, given.drop, given.cut, given.hang, given.flood_every, given.flood_for
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(books, reader, writer).serve()

    server = await asyncio.start_server(serve, "127.0.0.1", given.port, limit=1 << 20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
