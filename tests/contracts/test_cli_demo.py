"""The demonstration: it shows what it says, goes on where it stopped, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.contracts.test_cli_support import free_port

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts demonstrations; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(data: Path, *more: str, port: int | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "paceline.cli.main", "demo", "--port", str(port or free_port())]
        process = subprocess.Popen(
            [*command, "--data", str(data), *more], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=data.parent,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def told(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=90)
    assert "Traceback" not in out
    return out


def left_behind(data: Path) -> list[str]:
    """The processes whose command line names this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(data) in line and "pytest" not in line:
            found.append(line)
    return found


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def test_it_sends_everything_once_and_a_second_run_loads_nothing(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "demo-data"
    process = start(data, "--once", "--messages", "10")
    out = told(process)
    assert process.returncode == 0
    assert "10 messages loaded from examples/contacts.csv" in out
    assert "All 10 messages have left" in out
    mails = sorted((data / "mails").iterdir())
    assert len(mails) == 8
    assert mails[0].name == "00001-contact001@example.com.eml"
    mail = message_from_bytes(mails[0].read_bytes())
    assert (mail["Subject"], mail["To"]) == ("Issue 7, for Contact 001", "contact001@example.com")
    assert len((data / "webhooks.jsonl").read_text().splitlines()) == 2
    process = start(data, "--once", "--messages", "10")
    out = told(process)
    assert process.returncode == 0
    assert "10 messages loaded by an earlier run" in out
    assert "Everything was sent by an earlier run" in out
    assert len(list((data / "mails").iterdir())) == 8
    assert left_behind(data) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_stops_cleanly_and_says_how_many_wait(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    data = tmp_path / "demo-data"
    process = start(data, "--messages", "100")
    read_until(process, " of 100 sent.")
    process.send_signal(number)
    out = told(process)
    assert process.returncode == 0
    assert "wait on disk" in out
    assert "No process is left." in out
    assert left_behind(data) == []


def test_a_taken_port_is_told_and_the_next_one_used(start: Start, tmp_path: Path) -> None:
    taken = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(taken), "--bind", "127.0.0.1"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            out = told(start(tmp_path / "demo-data", "--once", "--messages", "1", port=taken))
        finally:
            holder.kill()
    assert f"Port {taken} is taken" in out


@pytest.mark.skipif(
    sys.platform != "linux", reason="other systems tell a child nothing about its parent's end"
)
def test_a_killed_demonstration_leaves_no_process(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "demo-data"
    process = start(data, "--messages", "100")
    read_until(process, " of 100 sent.")
    process.kill()
    process.communicate(timeout=30)
    for _ in range(3000):
        if not left_behind(data):
            return
        threading.Event().wait(0.01)
    raise AssertionError(left_behind(data))


def test_a_folder_that_cannot_be_used_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = start(tmp_path / "file", "--once")
    assert "cannot be used" in told(process)
    assert process.returncode == 1
