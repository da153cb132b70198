"""`paceline doctor` at a server, at a folder whose server is down, and at a server somewhere else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.engine.doctor import CHECKS
from tests.contracts.test_cli_support import Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("doctor"), "")
    try:
        yield running
    finally:
        running.stop()


def found(running: Running, *arguments: str, **more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = running.run("doctor", "--json", *arguments, **more)
    assert done.stderr == ""
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)}


def test_codes_follow_the_worst_finding(server: Running) -> None:
    code, sound = found(server)
    machine = {name for name, one in sound.items() if one["status"] != "pass"}
    assert machine <= {"free disk"}  # how much there is, is the machine's
    assert code == (2 if any(sound[name]["status"] == "fail" for name in machine) else len(machine))
    assert sound.keys() == {"settings", "server"} | {
        row.name for row in CHECKS if not row.asked and not row.shared
    }
    assert "providers" in found(server, "--reach")[1]
    assert server.run("queues", "pause", "sms").returncode == 0
    code, one_warning = found(server)
    assert (code if not machine else 1, one_warning["paused"]["status"]) == (1, "warn")
    assert "warn paused: queue sms" in server.run("doctor").stdout
    (server.data / "secret.key").chmod(0o644)
    code, one_failure = found(server)
    assert (code, one_failure["secret.key"]["status"]) == (2, "fail")
    (server.data / "secret.key").chmod(0o600)
    server.run("queues", "resume", "sms")


def test_a_server_that_runs_at_another_address(server: Running) -> None:
    environment = {"PACELINE_SERVER": "http://127.0.0.1:9", "PACELINE_DATA": str(server.data)}
    code, seen = found(server, **environment)
    assert (code, seen["server"]["status"], seen["store"]["status"]) == (2, "fail", "warn")
    assert f"in use by process {server.process.pid}" in seen["store"]["detail"]
    assert "--server" in seen["store"]["advice"]
    assert "scheduler" in seen["not checked"]["detail"]


def test_a_wrong_key_is_told(server: Running, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("pk_wrong")
    code, seen = found(server, "--key-file", str(tmp_path / "key"))
    assert code == 2 and "--key-file" in seen["server"]["advice"]
    assert "pk_wrong" not in str(seen)


def test_a_folder_whose_server_is_down(tmp_path: Path) -> None:
    running = Running(tmp_path, "")
    assert running.run("queues", "pause", "sms").returncode == 0
    running.stop()
    code, seen = found(running, PACELINE_DATA=str(running.data))
    assert code == 2 and seen["server"]["advice"] == "Start it with: paceline up"
    assert seen["paused"]["status"] == "warn" and "queue sms" in seen["paused"]["detail"]
    assert seen["quarantined messages"]["status"] == "pass"
    assert seen["not checked"]["status"] == "warn"
    (running.data / "paceline.db").write_bytes(b"not a database" * 100)
    code, seen = found(running, PACELINE_DATA=str(running.data))
    assert code == 2 and "not a SQLite database" in seen["store"]["detail"]
    assert seen["secret.key"]["status"] == "pass"
