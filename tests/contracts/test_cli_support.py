"""A server started the way users start it, and the command line pointed at it. Not tests."""

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from paceline.cli.server import Server


class Running:
    """A server of its own, and the command line pointed at it."""

    def __init__(self, folder: Path, hook: str, **more: str) -> None:
        """`more` is for its environment."""
        self.folder, self.hook = folder, hook
        self.data = folder / "data"
        self.port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        self.environment = environment | {"PACELINE_OUTGOING_ALLOW": "127.0.0.0/8"} | more
        command = [
            sys.executable,
            "-m",
            "paceline.cli.main",
            "up",
            "--port",
            str(self.port),
            "--data",
            str(self.data),
        ]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.environment |= {"PACELINE_SERVER": f"http://127.0.0.1:{self.port}"}
        self.environment |= {"PACELINE_KEY_FILE": str(self.data / "admin.key")}
        server = Server(self.environment["PACELINE_SERVER"])
        for _ in range(2000):
            if server.ready():
                break
            if self.process.poll() is not None:
                raise RuntimeError((folder / "log").read_text())
            threading.Event().wait(0.01)
        server.close()

    def run(self, *arguments: str, given: str | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "paceline.cli.main", *arguments],
            capture_output=True, text=True, check=False, cwd=self.folder, env=self.environment | more, input=given,
            stdin=subprocess.DEVNULL if given is None else None, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        done = self.run(*arguments, "--json")
        assert (done.returncode, done.stderr) == (code, "")
        return json.loads(done.stdout)

    def on_terminal(self, *arguments: str, columns: int, typed: str = "", **more: str) -> tuple[int, str]:
        """Run on a pseudo terminal; answers the exit code and all that appeared on it."""
        master, slave = pty.openpty()
        environment = {
            **self.environment,
            "TERM": "xterm-256color",
            "COLUMNS": str(columns),
            "LINES": "24",
            **more,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "paceline.cli.main", *arguments],
            stdin=slave, stdout=slave, stderr=slave, cwd=self.folder, env=environment, close_fds=True,
        )  # fmt: skip
        os.close(slave)
        if typed:
            os.write(master, typed.encode())
        seen = b""
        while True:
            readable, _, _ = select.select([master], [], [], 30)
            try:
                piece = os.read(master, 65536) if readable else b""
            except OSError:
                piece = b""
            if not piece:
                break
            seen += piece
        os.close(master)
        return process.wait(30), seen.decode().replace("\r\n", "\n")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


class Hook(BaseHTTPRequestHandler):
    """Takes every webhook, except those that say 'refuse me'."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400 if b"refuse me" in body else 204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextmanager
def receiver() -> Iterator[str]:
    """The address of a receiver of webhooks."""
    taking = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=taking.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{taking.server_port}/"
    finally:
        taking.shutdown()
        taking.server_close()
        thread.join()
