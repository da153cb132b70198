"""The processes of the demonstration: the server, a mail catcher, a webhook receiver; none outlives it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import IO, Final, Self

from paceline.cli.server import Server
from paceline.clock import SystemClock
from paceline.config import PREFIX
from paceline.model.errors import PacelineError

EXAMPLES: Final = Path(__file__).resolve().parents[3] / "examples"
_PATIENCE_S: Final = 30.0
_GRACE_S: Final = 25.0
_PR_SET_PDEATHSIG: Final = 1


class Stage:
    """Starts the processes, and stops every one of them, whatever happens."""

    def __init__(self, data: Path, port: int) -> None:
        """Start nothing yet."""
        self.data = data
        self.port = port
        self.mail_port = 0
        self.hook_port = 0
        self._children: list[subprocess.Popen[str]] = []
        self._log: IO[str] | None = None

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key_file(self) -> Path:
        """Where the server wrote its admin key."""
        return self.data / "admin.key"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.data / "server.log"

    @property
    def mails(self) -> Path:
        """Where the caught mails lie."""
        return self.data / "mails"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, flood_every: int) -> Server:
        """Start everything; answers the server once it is ready."""
        self._prepare()
        self._log = self.log_file.open("a", encoding="utf-8")
        catcher = ["mail_catcher.py", "--port", "0", "--folder", str(self.mails), "--watch"]
        self.mail_port = self._helper(catcher)
        receiver = [
            "webhook_receiver.py",
            "--port",
            "0",
            "--file",
            str(self.data / "webhooks.jsonl"),
            "--watch",
        ]
        self.hook_port = self._helper([*receiver, "--flood-every", str(flood_every)])
        command = [
            sys.executable,
            "-m",
            "paceline.cli.main",
            "up",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        child = self._child([*command, "--data", str(self.data)], self._environment(), self._log)
        server = Server(self.address)
        clock, pause = SystemClock(), Event()
        end = clock.now() + round(_PATIENCE_S * 1000)
        while not server.ready():
            if child.poll() is not None:
                raise PacelineError(f"the server did not start. It says: {self._last_words()}")
            if clock.now() > end:
                raise PacelineError(f"the server is not ready after {_PATIENCE_S:g} s; see {self.log_file}")
            pause.wait(0.05)
        server.close()
        return Server(self.address, self.key_file.read_text("utf-8").strip(), str(self.key_file))

    def alive(self) -> bool:
        """Whether all of them still run."""
        return all(child.poll() is None for child in self._children)

    def stop(self) -> None:
        """Stop the server first, with time for the calls in flight, then the helpers."""
        with _undisturbed():
            children, self._children = list(reversed(self._children)), []
            for child in children:
                if child.stdin is not None:
                    with suppress(OSError):
                        child.stdin.close()
                child.terminate()
                try:
                    child.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                if child.stdout is not None:
                    child.stdout.close()
            if self._log is not None:
                self._log.close()

    def _prepare(self) -> None:
        if not EXAMPLES.is_dir():
            raise PacelineError(
                "the demonstration needs the folder 'examples' of the sources; run it from there"
            )
        try:
            self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.data / ".gitignore").write_text("*\n", "utf-8")
            # So that no settings of the current folder, and no other store, are used by accident.
            (self.data / "paceline.toml").touch()
        except OSError as error:
            raise PacelineError(f"{self.data} cannot be used: {error.strerror}") from error

    def _environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        own = {"OUTGOING_ALLOW": "127.0.0.0/8", "CONFIG": str(self.data / "paceline.toml")}
        return {**kept, **{PREFIX + name: value for name, value in own.items()}}

    def _helper(self, command: Sequence[str]) -> int:
        """Start one of the examples; it prints the port it took."""
        path = str(EXAMPLES / command[0])
        child = self._child([sys.executable, path, *command[1:]], os.environ, subprocess.PIPE)
        line = child.stdout.readline() if child.stdout else ""
        if not line.strip().isdigit():
            raise PacelineError(f"{command[0]} did not start; see {self.log_file}")
        return int(line)

    def _child(
        self, command: Sequence[str], environment: Mapping[str, str], output: int | IO[str]
    ) -> subprocess.Popen[str]:
        child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process alone: it stops the others in order
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads run yet
        )
        self._children.append(child)
        return child

    def _last_words(self) -> str:
        lines = self.log_file.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"nothing; see {self.log_file}"


def free_port(wanted: int) -> int:
    """`wanted`, or the next port after it that is free on this machine."""
    for port in range(wanted, min(wanted + 200, 65_536)):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise PacelineError(f"no port from {wanted} on is free; name another one with --port")


class _undisturbed:  # noqa: N801 - reads like a statement
    """While the processes are stopped a second Ctrl-C must not leave one behind."""

    def __enter__(self) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """In the child, on Linux: be told to stop when the demonstration is killed and can tell nobody."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
