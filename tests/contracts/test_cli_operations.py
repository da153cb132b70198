"""Back-up, restore, hold and schema as a person uses them, on a server that runs and on one that does not."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.cli.server import Server
from paceline.model.errors import ConflictError, InvalidError, PacelineError
from tests.contracts.test_cli_support import Running, receiver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with receiver() as hook:
        running = Running(tmp_path_factory.mktemp("ops"), hook)
        done = running.run("accounts", "set", "bot", "--channel", "telegram-bot", "--set", "token=1:secret")
        assert done.returncode == 0, done.stderr
        yield running
        assert running.stop() == 0


@pytest.fixture
def api(server: Running) -> Iterator[Server]:
    opened = Server(server.environment["PACELINE_SERVER"], (server.data / "admin.key").read_text().strip())
    yield opened
    opened.close()


def test_the_server_backs_up_into_its_own_folder_under_a_name(server: Running) -> None:
    made = server.json("backup", "first")
    assert made["path"] == str(server.data / "backups" / "first.db")
    assert (made["keys"], made["messages"]) == (False, 0)
    assert Path(made["path"]).stat().st_mode & 0o777 == 0o600
    assert not Path(made["path"] + ".keys").exists()
    said = server.run("backup", "second", "--with-keys")
    assert said.returncode == 0 and "whoever has both files" in said.stderr
    keys = server.data / "backups" / "second.db.keys"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert set(json.loads(keys.read_text())) == {"secret.key", "admin.key"}
    without = server.run("backup")
    assert "Not in it: secret.key" in without.stderr
    again = server.run("backup", "first")
    assert again.returncode == 1 and "exists already" in again.stderr


def test_nobody_writes_elsewhere_through_the_server(server: Running, api: Server) -> None:
    before = {path for path in server.folder.rglob("*") if path.is_file()}
    for name in ("../x", "/tmp/x", "a/b", "..", ".hidden", "", "a:b", 5, "x" * 200):
        with pytest.raises(InvalidError) as refused:
            api.post("/backups", {"name": name})
        assert refused.value.problems[0].field == "/name"
    with pytest.raises(InvalidError):
        api.post("/backups", {"path": "/tmp/x"})
    assert server.run("backup", "../x").returncode == 2
    assert {path for path in server.folder.rglob("*") if path.is_file()} == before


def test_a_back_up_is_for_admins_of_the_whole_installation(server: Running, api: Server) -> None:
    for role, tenant in (("operator", None), ("admin", "acme")):
        key = api.post("/keys", {"name": f"{role}-{tenant}", "role": role, "tenant": tenant})["key"]
        other = Server(api.address, key)
        for method in ("POST", "GET"):
            with pytest.raises(PacelineError, match=r"admin|installation"):
                other.call(method, "/backups", {} if method == "POST" else None)
        other.close()


def test_back_ups_are_listed_newest_first(server: Running, api: Server) -> None:
    api.post("/backups", {"name": "listed", "keys": True})
    newest = api.get("/backups")["items"][0]
    assert (newest["name"], newest["keys"]) == ("listed.db", True)
    assert newest["bytes"] > 0 and newest["made_at"].endswith("Z")


def test_a_data_folder_is_copied_and_put_back_without_the_server(server: Running, tmp_path: Path) -> None:
    own = {**server.environment, "PACELINE_SERVER": ""}
    file, target = tmp_path / "copy.db", tmp_path / "second"
    made = server.run("backup", str(file), "--data", str(server.data), "--with-keys", **own)
    assert made.returncode == 0 and made.stdout == f"{file}\n"
    back = server.run("restore", str(file), "--data", str(target))
    assert back.returncode == 0 and "starts on hold" in back.stderr
    for name in ("secret.key", "admin.key"):
        assert (target / name).read_text() == (server.data / name).read_text()
        assert (target / name).stat().st_mode & 0o777 == 0o600
    again = server.run("restore", str(file), "--data", str(target))
    assert again.returncode == 1 and "--replace" in again.stderr
    busy = server.run("restore", str(file), "--data", str(server.data), "--replace")
    assert busy.returncode == 1 and "in use by process" in busy.stderr
    missing = server.run("restore", str(tmp_path / "none.db"), "--data", str(target))
    assert missing.returncode == 2 and "there is no file" in missing.stderr


def test_other_keys_are_refused_or_kept(server: Running, tmp_path: Path) -> None:
    file, target = tmp_path / "copy.db", tmp_path / "second"
    server.run("backup", str(file), "--data", str(server.data), "--with-keys")
    target.mkdir()
    (target / "secret.key").write_text("another")
    refused = server.run("restore", str(file), "--data", str(target))
    assert refused.returncode == 1 and "another key than the copy's" in refused.stderr
    assert not (target / "paceline.db").exists()
    assert server.run("restore", str(file), "--data", str(target), "--replace").returncode == 0
    (kept,) = target.glob("secret.key.replaced-*")
    assert kept.read_text() == "another"


def test_without_its_key_a_copy_says_what_is_missing(server: Running, tmp_path: Path) -> None:
    file, target = tmp_path / "copy.db", tmp_path / "second"
    server.run("backup", str(file), "--data", str(server.data))
    back = server.run("restore", str(file), "--data", str(target))
    assert "secret.key" in back.stderr and "admin.key" in back.stderr
    (target / "secret.key").write_bytes(base64.b64encode(bytes(32)))
    environment = {"PACELINE_SERVER": "http://127.0.0.1:9", "PACELINE_DATA": str(target)}
    found = {one["name"]: one for one in json.loads(server.run("doctor", "--json", **environment).stdout)}
    assert found["credentials"]["status"] == "fail" and "default/" in found["credentials"]["detail"]
    assert found["hold"]["status"] == "fail" and "paceline release" in found["hold"]["advice"]


def test_hold_and_release_on_the_command_line(server: Running, api: Server) -> None:
    try:
        held = server.run("hold", "--reason", "moving")
        assert held.returncode == 0 and "moving" in held.stdout
        status = server.run("status")
        assert status.returncode == 1
        assert "ON HOLD since" in status.stdout and "paceline release" in status.stdout
        assert server.json("status", code=1)["hold"]["cause"] == "asked"
        sent = server.json("send", "--channel", "webhook", "--to", server.hook, "--payload", "{}")
        why = server.run("messages", "why", sent["id"])
        assert "everything is on hold" in why.stdout
        asked = server.run("release")
        assert asked.returncode == 2 and "add --yes" in asked.stderr
        counted = server.json("release", "--dry-run", "--cancel-before", "2090-01-01T00:00:00Z")
        assert (counted["waiting"], counted["would_cancel"]) == (1, 1)
        wrong = server.run("release", "--yes", "--cancel-before", "yesterday")
        assert wrong.returncode == 2 and "--cancel-before: must be a time" in wrong.stderr
        assert api.get("/hold")["held"] is True
    finally:
        done = server.run("release", "--yes", "--cancel-before", "2090-01-01T00:00:00Z")
    assert done.returncode == 0 and "1 message cancelled" in done.stdout
    assert server.run("status").returncode == 0
    with pytest.raises(ConflictError, match="nothing is on hold"):
        api.post("/hold/release", {})
    assert server.run("release", "--yes").returncode == 1


def test_the_schema_is_told_and_moved_by_hand(server: Running, tmp_path: Path) -> None:
    whole = server.run("store", "check", "--data", str(server.data))
    assert whole.returncode == 0 and "is whole: schema" in whole.stdout
    facts = server.json("store", "check", "--data", str(server.data))
    assert facts["schema"] == facts["newest_schema"]
    busy = server.run("store", "migrate", "--data", str(server.data))
    assert busy.returncode == 1 and "in use by process" in busy.stderr
    file = tmp_path / "data" / "paceline.db"
    file.parent.mkdir()
    server.run("backup", str(file), "--data", str(server.data))
    done = server.json("store", "migrate", "--data", str(file.parent))
    assert (done["from"], done["to"], done["backup"]) == (facts["schema"], facts["schema"], None)
    wrong = server.run("store", "migrate", "--to", "99", "--data", str(file.parent))
    assert wrong.returncode == 2 and "there is no schema 99" in wrong.stderr
    none = server.run("store", "check", "--data", str(tmp_path / "none"))
    assert none.returncode == 1 and "there is no database" in none.stderr
