"""The real server and the witness as processes: started, killed, stopped, and always ended by their process id."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from tests.contracts.stores import kinds
from tests.scenarios.ledger import Arrival, Limit, read_ledger

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
"""The longest that anything here is waited for before the run is called a failure."""


class NotAnsweredError(Exception):
    """The request may have been taken or not: no answer came."""


class Reply:
    """An answer that was read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Process:
    """A child whose first line that `knows` the port tells that it listens; its output is kept in a file."""

    running: ClassVar[set["Process"]] = set()
    """Started and not ended yet."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.log = log
        self.port = 0
        self._told = threading.Event()
        self._errors = log.open("ab")
        self.child = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip
        self.running.add(self)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as lines, self.log.open("ab") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if not self.port and (port := _port_in(line.decode("utf-8", "replace"))):
                    self.port = port
                    self._told.set()
        self._told.set()

    def listening(self) -> int:
        """Its port, once it listens."""
        if not self._told.wait(WAIT_S) or not self.port:
            self.end(signal.SIGKILL)
            raise AssertionError(f"the process did not start:\n{self.log.read_text('utf-8')[-3000:]}")
        return self.port

    def died(self, within: float) -> int | None:
        """The exit code of a process that ends by itself, or None when it lives on for so long."""
        try:
            return self.child.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def end(self, how: int, within: float = WAIT_S) -> int:
        """Send the signal and wait for the end, which is forced when the time is up; the exit code."""
        if self.child.poll() is None:
            self.child.send_signal(how)
        try:
            code = self.child.wait(within)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        self.running.discard(self)
        self._reader.join(WAIT_S)
        self._errors.close()
        return code


def _port_in(line: str) -> int:
    text = line.strip()
    if text.isdigit():
        return int(text)
    if "listens on http://" not in text:
        return 0
    return int(text.partition("listens on http://")[2].split()[0].rsplit(":", 1)[1].strip("/"))


def clean_environment() -> dict[str, str]:
    """Ours, without settings of Paceline, and with the tree to import from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
    paths = [*filter(None, kept.get("PYTHONPATH", "").split(os.pathsep)), str(ROOT)]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


class Line:
    """One kept connection; not for two threads at once."""

    def __init__(self, port: int, key: str = "", timeout: float = WAIT_S) -> None:
        self._key = key
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """One request with a JSON body, or none.

        Raises:
            NotAnsweredError: no whole answer came.
        """
        return self.ask_raw(method, path, None if body is None else json.dumps(body).encode())

    def ask_raw(self, method: str, path: str, body: bytes | None) -> Reply:
        """One request with these bytes as its body."""
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NotAnsweredError(f"{method} {path}: {type(error).__name__}: {error}") from None

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Witness:
    """The witness in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, limits: tuple[Limit, ...] = ()) -> None:
        self.ledger, self.limits = folder / "ledger", limits
        given = [argument for n, s in limits for argument in ("--limit", f"{n}/{s}")]
        command = [sys.executable, "-m", "tests.scenarios.witness", "--ledger", str(self.ledger)]
        self._process = Process(
            [*command, *given, *arguments], folder / "witness.log", clean_environment(), ROOT
        )
        self.port = self._process.listening()

    def ask(self, method: str, path: str, body: Any = None, within: float = WAIT_S) -> Any:
        with Line(self.port, timeout=within + WAIT_S) as line:
            reply = line.ask(method, path, body)
        assert reply.status == 200, (path, reply.status, reply.body)
        return reply.json

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", "/report")
        return found

    def wait(self, within: float = WAIT_S, **goals: int) -> dict[str, Any]:
        """The report, as soon as so many texts were `taken`, requests `arrived`, or calls are `open`."""
        query = "&".join(f"{name}={goal}" for name, goal in goals.items())
        found: dict[str, Any] = self.ask("GET", f"/wait?within={within}&{query}", within=within)
        assert found["reached"], f"waited {within} s for {goals}: {found}"
        return found

    def behave(self, sender: str = "", **how: Any) -> None:
        self.ask("POST", "/behave", {"sender": sender, **how})

    def release(self) -> None:
        self.ask("POST", "/release", {})

    def arrivals(self) -> list[Arrival]:
        return read_ledger(self.ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.end(signal.SIGTERM)


class Server:
    """Paceline on a data folder of its own: the same folder at every start, another port each time."""

    def __init__(
        self, folder: Path, data: Path | None = None, prefix: tuple[str, ...] = (), broken: str = ""
    ) -> None:
        """`prefix` is a command to run it under, `broken` names what to break in it: `bench.faults.broken`."""
        self.folder = folder
        self.data = data or folder / "data"
        self.log = folder / "server.log"
        self.prefix = prefix
        self.broken = broken
        self.process: Process | None = None
        self.key = ""

    @property
    def port(self) -> int:
        assert self.process is not None
        return self.process.port

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.child.pid

    def spawn(self, *more: str) -> Process:
        """Begin to start; `start` does that and waits."""
        program = ["bench.faults.broken", self.broken, "--"] if self.broken else ["paceline.cli.main"]
        command = [*self.prefix, sys.executable, "-m", *program, "up", "--host", "127.0.0.1"]
        store = kinds.url_of(self.data)
        given = ["--port", "0", "--data", str(self.data), *(["--store", store] if store else []), *more]
        environment = clean_environment() | {"PACELINE_OUTGOING_ALLOW": "127.0.0.0/8"}
        self.process = Process([*command, *given], self.log, environment, self.folder)
        return self.process

    def start(self, *more: str) -> float:
        """Start and wait until it is ready; the seconds that took."""
        begun = time.monotonic()
        self.spawn(*more).listening()
        self.key = (self.data / "admin.key").read_text().strip()
        until(lambda: self.ask("GET", "/health/ready").status == 200, "the server is ready")
        return time.monotonic() - begun

    def start_moved(self, *more: str) -> None:
        """Start on a database that stood elsewhere before, and release it: such a one is held back."""
        self.spawn(*more).listening()
        self.key = (self.data / "admin.key").read_text().strip()

        def released() -> bool:
            self.ask("POST", "/api/v1/hold/release", {})
            return self.ask("GET", "/health/ready").status == 200

        until(released, "the server is released")

    def kill(self) -> None:
        """As a power cut for the process: no last words."""
        assert self.process is not None
        self.process.end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to end, as a person or an init system does; the exit code."""
        assert self.process is not None
        return self.process.end(signal.SIGTERM)

    def line(self, timeout: float = WAIT_S) -> Line:
        return Line(self.port, self.key, timeout)

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        with self.line(2 * WAIT_S) as line:
            return line.ask(method, path, body)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for what must succeed."""
        reply = self.ask(method, f"/api/v1{path}", body)
        assert 200 <= reply.status < 300, f"{method} {path}: {reply.status} {reply.body[:600]!r}"
        return reply.json if reply.body else None

    def send(self, **message: Any) -> str:
        """Send one message; its id, once that is acknowledged."""
        id_: str = self.api("POST", "/messages", message)["id"]
        return id_

    def send_all(self, messages: list[dict[str, Any]]) -> list[str]:
        """Send many; their ids."""
        found: list[str] = []
        for start in range(0, len(messages), 1000):
            answer = self.api("POST", "/messages/batch", {"messages": messages[start : start + 1000]})
            assert not answer["rejected"], answer["rejected"][:3]
            found += [each["id"] for each in answer["accepted"]]
        return found

    def get(self, id_: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/messages/{id_}")
        return found

    def why(self, id_: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/messages/{id_}/why")
        return found

    def count(self, *states: str) -> int:
        """How many messages are in these states, counted by a dry run."""
        order = {"action": "delete", "filter": {"state": list(states)}}
        return int(self.api("POST", "/messages/actions?dry_run=true", order)["matched"])

    def all_messages(self) -> list[dict[str, Any]]:
        """Every message in the store."""
        reply = self.ask("GET", "/api/v1/messages/export?format=jsonl")
        assert reply.status == 200, reply.body[:300]
        return [json.loads(line) for line in reply.body.splitlines()]

    def account(self, name: str, witness: Witness, number: int, **more: Any) -> None:
        """A bot whose sender the witness knows as `number`."""
        settings = {"token": f"{number}:secret", "base_url": f"http://127.0.0.1:{witness.port}"}
        self.api("PUT", f"/accounts/{name}", {"channel": "telegram-bot", "settings": settings, **more})

    @contextmanager
    def events(self, *types: str) -> Iterator[Iterator[dict[str, Any]]]:
        """What happens from now on, as it happens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            connection.request("GET", f"/api/v1/events?types={','.join(types)}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            yield (json.loads(line[6:]) for line in answer if line.startswith(b"data: "))
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.process.end(signal.SIGKILL if kind else signal.SIGTERM)
        if kind is not None and self.log.exists():
            print(f"--- end of {self.log}\n{self.log.read_text('utf-8', 'replace')[-4000:]}")


def until(holds: Callable[[], T], what: str, within: float = WAIT_S) -> T:
    """Ask again and again until the answer is true: for what a server tells only to those who ask."""
    deadline = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)
    return found


def drained(server: Server, within: float) -> None:
    """Nothing waits and nothing is under way."""
    live = ("pending", "scheduled", "retrying", "processing")
    until(lambda: not server.count(*live), "everything has ended", within)


def text_body(account: str, text: str, **more: Any) -> dict[str, Any]:
    return {"channel": "telegram-bot", "account": account, "to": "100", "text": text, **more}


def pause_of(chance: random.Random, low: float, high: float) -> None:
    """Let a random time pass: faults come at moments that nobody chose."""
    time.sleep(chance.uniform(low, high))
