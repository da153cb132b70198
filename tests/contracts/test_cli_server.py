"""The command line against a real server, started the way users start it."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.contracts.test_cli_support import Running, free_port, receiver

EVIL = "\x1b[31mred\x07 \u202eabc"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with receiver() as hook:
        running = Running(tmp_path_factory.mktemp("cli"), hook)
        try:
            for name, limit in (("hooks", "1000/s"), ("slow", "1/h")):
                made = running.run(
                    "accounts", "set", name, "--channel", "webhook", "--set", f"url={hook}", "--limit", limit
                )
                assert made.returncode == 0
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def waiting(server: Running) -> str:
    """The id of a message that waits for a limit of one an hour."""
    ids = [
        server.json("send", "--channel", "webhook", "--account", "slow", "--payload", "{}")["id"]
        for _ in range(3)
    ]
    return str(ids[-1])


def send(server: Running, *more: str, payload: str = "{}") -> subprocess.CompletedProcess[str]:
    return server.run("send", "--channel", "webhook", "--account", "hooks", "--payload", payload, *more)


def test_the_admin_key_is_private(server: Running) -> None:
    assert (server.data / "admin.key").stat().st_mode & 0o777 == 0o600


def test_send_and_wait_tells_the_end(server: Running) -> None:
    done = send(server, "--wait")
    assert done.returncode == 0
    assert re.fullmatch(r"[0-9a-z]{13}  completed\n", done.stdout)


def test_a_refused_message_ends_with_one_and_the_reason(server: Running) -> None:
    done = send(server, "--wait", payload='"refuse me"')
    assert done.returncode == 1
    assert "failed" in done.stdout
    assert "400" in done.stderr


def test_send_tells_when_it_leaves_and_what_to_do_next(server: Running, waiting: str) -> None:
    done = server.run("send", "--channel", "webhook", "--account", "slow", "--payload", "{}")
    assert done.returncode == 0
    assert "It leaves in " in done.stderr
    assert "paceline messages why " in done.stderr


def test_an_idempotency_key_sends_once(server: Running) -> None:
    first, second = (send(server, "--idempotency-key", "once", "--json") for _ in range(2))
    assert json.loads(first.stdout)["id"] == json.loads(second.stdout)["id"]
    assert json.loads(second.stdout)["duplicate"] is True
    refused = send(server, "--idempotency-key", "once", payload='{"other": 1}')
    assert refused.returncode == 1
    assert "idempotency key" in refused.stderr


def test_bad_input_names_the_option(server: Running) -> None:
    done = server.run("send", "--channel", "smtp", "--to", "nobody", "--text", "x")
    assert done.returncode == 2
    assert "error: --" in done.stderr
    done = server.run("send", "--channel", "smpt", "--to", "a@example.com", "--text", "x")
    assert done.returncode == 2
    assert "--channel" in done.stderr


@pytest.mark.parametrize("form", ["array", "lines"])
def test_messages_come_from_a_pipe(form: str, server: Running) -> None:
    bodies = [{"channel": "webhook", "account": "hooks", "payload": {"n": n}} for n in range(3)]
    bodies.insert(1, {"channel": "webhook", "account": "nobody", "payload": {}})
    text = json.dumps(bodies) if form == "array" else "\n".join(map(json.dumps, bodies))
    done = server.run("send", given=text)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    assert "3 messages taken in, 1 refused" in done.stderr
    assert "item 1: /account" in done.stderr


def test_why_tells_the_chain_in_words(server: Running, waiting: str) -> None:
    done = server.run("messages", "why", waiting)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{waiting} is pending.\n1. ")
    assert "1/h" in done.stdout
    assert re.search(r"ends in \d+ min", done.stdout)
    assert re.search(r"It leaves in .*, at .*, if nothing changes\.\n$", done.stdout)
    assert server.json("messages", "why", waiting)["reasons"]


def test_why_of_a_message_that_has_ended(server: Running) -> None:
    one = json.loads(send(server, "--wait", "--json").stdout)
    assert "It has ended" in server.run("messages", "why", one["id"]).stdout


def test_show_has_the_attempts(server: Running) -> None:
    one = json.loads(send(server, "--wait", "--json").stdout)
    done = server.run("messages", "show", one["id"])
    assert re.search(r"^state +completed$", done.stdout, re.MULTILINE)
    assert "ATTEMPT" in done.stdout
    assert "hooks" in done.stdout


def test_list_filters(server: Running, waiting: str) -> None:
    done = server.run("messages", "list", "--account", "slow", "--state", "pending", "--state", "retrying")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["ID", "STATE"]
    assert waiting in done.stdout
    assert all("pending" in line for line in lines[1:])
    assert server.run("messages", "list", "--q", "no such text anywhere").stderr == "No message matches.\n"
    assert server.run("messages", "list", "--state", "sent").returncode == 2
    assert len(server.json("messages", "list", "--limit", "2")) == 2


def test_cancel_and_retry(server: Running, waiting: str) -> None:
    one = server.json("send", "--channel", "webhook", "--account", "slow", "--payload", "{}")["id"]
    assert server.run("messages", "cancel", one).stdout == f"{one}  cancelled\n"
    again = server.run("messages", "cancel", one)
    assert (again.returncode, again.stdout) == (1, "")
    assert server.run("messages", "retry", one).stdout == f"{one}  pending\n"


def test_many_are_cancelled_only_by_somebody_who_is_sure(server: Running) -> None:
    for _ in range(2):
        server.run("send", "--channel", "webhook", "--account", "slow", "--kind", "many", "--payload", "{}")
    wanted = ("messages", "cancel", "--kind", "many")
    assert server.run(*wanted, "--dry-run").stdout == "2 messages would be cancelled.\n"
    asked = server.run(*wanted)
    assert asked.returncode == 2
    assert "add --yes" in asked.stderr
    code, seen = server.on_terminal(*wanted, columns=80, typed="no\n")
    assert code == 1
    assert "Nothing was changed." in seen
    code, seen = server.on_terminal(*wanted, columns=80, typed="yes\n")
    assert (code, "2 messages cancelled." in seen) == (0, True)


@pytest.mark.parametrize("command", ["messages show", "messages why", "messages cancel", "messages retry",
                                     "accounts show", "accounts pause", "limits remove", "queues pause", "keys revoke"])  # fmt: skip
def test_what_is_not_there_ends_with_three(command: str, server: Running) -> None:
    done = server.run(*command.split(), "zzzzzzzzzzzzz")
    assert done.returncode == 3
    assert done.stderr.startswith("error: there is no ")
    assert done.stdout == ""


def test_an_account_is_set_shown_paused_and_resumed(server: Running) -> None:
    make = ["accounts", "set", "mail", "--channel", "smtp", "--set", "host=127.0.0.1", "--set", "port=2525"]
    make += [
        "--set",
        "security=none",
        "--set",
        "from=News <news@example.com>",
        "--limit",
        "20/min",
        "--interval",
        "2s",
    ]
    assert server.run(*make).returncode == 0
    changed = server.run("accounts", "set", "mail", "--pool", "news")
    assert changed.stdout == "mail  ready  0 of 20/min, one every 2s\n"
    assert server.run("accounts", "set", "mail", "--limit", "none").stdout == "mail  ready  one every 2s\n"
    assert server.run("accounts", "set", "mail", "--limit", "20/min").returncode == 0
    shown = server.run("accounts", "show", "mail").stdout
    assert "127.0.0.1" in shown
    assert "news" in shown
    assert "20/min" in shown
    assert "one every 2s" in shown
    assert server.run("accounts", "pause", "mail").stdout == "mail  paused\n"
    assert re.search(r"^mail +paused", server.run("accounts", "list").stdout, re.MULTILINE)
    assert server.run("accounts", "resume", "mail").stdout == "mail  ready\n"
    probed = server.run("accounts", "probe", "mail")
    assert probed.returncode == 1
    assert "does not work" in probed.stdout


def test_a_new_account_needs_its_channel(server: Running) -> None:
    done = server.run("accounts", "set", "fresh", "--limit", "20/min")
    assert done.returncode == 2
    assert done.stderr == "error: --channel: is needed for a new account, for example --channel smtp\n"


def test_an_account_test_sends_one(server: Running) -> None:
    done = server.run("accounts", "test", "hooks")
    assert done.returncode == 0
    assert "completed" in done.stdout


def test_a_circuit_that_is_turned_off_stays_off_when_something_else_is_changed(server: Running) -> None:
    url = ["--channel", "webhook", "--set", "url=http://127.0.0.1:9/"]
    assert server.run("accounts", "set", "steady", *url, "--circuit", "null").returncode == 0
    assert server.run("accounts", "set", "steady", "--limit", "5/s").returncode == 0
    assert server.json("accounts", "show", "steady")["circuit"] is None
    assert server.run("accounts", "set", "steady", "--circuit", '{"after": 9}').returncode == 0
    shown = server.json("accounts", "show", "steady")
    assert shown["circuit"] == {"after": 9, "pause": "1s", "at_most": "1m"}


def test_a_wrong_setting_of_an_account_is_told(server: Running) -> None:
    done = server.run(
        "accounts", "set", "bad", "--channel", "smtp", "--set", "hots=x", "--limit", "20 apples"
    )
    assert done.returncode == 2
    assert "20 apples" in done.stderr
    assert "hots" in done.stderr


def test_limits_come_and_go(server: Running) -> None:
    assert server.run("limits", "set", "sms", "--limit", "100/s", "--queue", "sms").stdout == "sms  100/s\n"
    assert re.search(r"^sms +100/s +queue=sms", server.run("limits", "list").stdout, re.MULTILINE)
    assert server.run("limits", "remove", "sms").stdout == "sms  removed\n"


def test_queues_are_listed_paused_emptied_and_cleaned(server: Running) -> None:
    server.run(
        "send", "--channel", "webhook", "--account", "slow", "--queue", "log-processing", "--payload", "{}"
    )
    assert server.run("queues", "pause", "log-processing").stdout == "log-processing  paused\n"
    assert server.run("queues", "resume", "log-processing").stdout == "log-processing  resumed\n"
    listed = server.run("queues", "list").stdout
    assert re.search(r"^log-processing +1\b", listed, re.MULTILINE)
    assert "image-processing" not in listed
    assert "image-processing" in server.run("queues", "list", "--all").stdout
    assert server.run("queues", "empty", "log-processing").returncode == 2
    assert server.run("queues", "empty", "log-processing", "--yes").stdout == "1 message removed.\n"
    assert (
        server.run("queues", "clean", "log-processing", "--older-than", "0s").stdout
        == "0 messages removed.\n"
    )


def test_keys_are_made_used_and_revoked(server: Running) -> None:
    made = server.run("keys", "create", "looker", "--role", "viewer")
    key = made.stdout.strip()
    assert "not shown again" in made.stderr
    assert "looker" in server.run("keys", "list").stdout
    assert key not in server.run("keys", "list").stdout
    assert server.run("status", PACELINE_KEY=key).returncode == 0
    refused = server.run("queues", "pause", "email", PACELINE_KEY=key)
    assert refused.returncode == 1
    assert "--key-file" in refused.stderr
    assert server.run("keys", "revoke", "looker").stdout == "looker  revoked\n"
    gone = server.run("status", PACELINE_KEY=key)
    assert gone.returncode == 1
    assert "does not know the key from PACELINE_KEY" in gone.stderr


def test_a_wrong_key_is_told_with_the_place_it_came_from(server: Running) -> None:
    (server.folder / "wrong.key").write_text("pk_wrong\n")
    done = server.run("status", "--key-file", "wrong.key")
    assert done.returncode == 1
    assert "the server does not know the key from wrong.key" in done.stderr


def test_the_last_admin_key_stays(server: Running) -> None:
    done = server.run("keys", "revoke", "admin")
    assert done.returncode == 1
    assert "is the last admin key of the installation; make another one first" in done.stderr


def test_nothing_to_send_is_told(server: Running) -> None:
    done = server.run("send")
    assert done.returncode == 2
    assert "there is nothing to send in standard input" in done.stderr


def test_no_key_at_all_is_told(server: Running) -> None:
    done = server.run("status", PACELINE_KEY_FILE="", PACELINE_DATA="elsewhere")
    assert done.returncode == 1
    assert "a key is needed, and there is none in elsewhere/admin.key" in done.stderr


def test_the_queue_is_tested(server: Running) -> None:
    done = server.run("test-queue", "--channel", "webhook", "--account", "hooks", "--count", "3", "--wait")
    assert done.returncode == 0
    assert done.stdout.count("completed") == 3
    assert "3 messages sent." in done.stderr
    done = server.run(
        "test-queue", "--channel", "webhook", "--account", "slow", "--count", "2", "--wait", "--timeout", "1s"
    )
    assert done.returncode == 1
    assert "Why: paceline messages why" in done.stderr


def test_export_writes_all_that_match(server: Running) -> None:
    for number in range(3):
        send(server, "--kind", "exported", payload=json.dumps({"n": number}))
    lines = server.run("export", "--kind", "exported").stdout.splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["kind"] == "exported" for line in lines)
    done = server.run("export", "--kind", "exported", "--format", "csv", "--output", "out.csv")
    assert done.returncode == 0
    assert "3 lines written to out.csv" in done.stderr
    rows = list(csv.DictReader(io.StringIO((server.folder / "out.csv").read_text())))
    assert [row["kind"] for row in rows] == ["exported"] * 3
    again = server.run("export", "--output", "out.csv")
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert server.run("export", "--output", "out.csv", "--force").returncode == 0
    wrong = server.run("export", "--state", "sent", "--output", "new.csv")
    assert wrong.returncode == 2
    assert not list(server.folder.glob("new.csv*"))


def test_status_and_doctor_are_content(server: Running) -> None:
    done = server.run("status")
    assert done.returncode == 0
    assert done.stdout.startswith(f"http://127.0.0.1:{server.port} is ready\n")
    assert "hooks" in done.stdout
    assert server.json("status")["ready"] is True
    done = server.run("doctor")
    assert "ok   server" in done.stdout
    assert all(
        set(one) == {"name", "status", "ok", "detail", "advice"}
        for one in json.loads(server.run("doctor", "--json").stdout)
    )


def test_content_cannot_act_on_the_terminal(server: Running) -> None:
    bodies = json.dumps({"channel": "webhook", "account": "hooks", "payload": EVIL, "metadata": {"a": EVIL}})
    one = json.loads(server.run("send", "--json", given=bodies).stdout)
    for command in (
        ["messages", "show", one["id"]],
        ["messages", "list"],
        ["messages", "show", one["id"], "--json"],
    ):
        code, seen = server.on_terminal(*command, columns=120, NO_COLOR="1")
        assert code == 0
        assert not any(character in seen for character in "\x1b\x07\u202e")


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "messages list",
        "accounts list",
        "accounts show slow",
        "queues list",
        "limits list",
        "keys list",
        "doctor",
    ],
)
def test_forty_columns_are_enough(command: str, server: Running, waiting: str) -> None:
    _, seen = server.on_terminal(*command.split(), columns=40, NO_COLOR="1")
    assert seen
    assert max(map(len, seen.splitlines())) <= 40


def test_colour_is_for_terminals_that_want_it(server: Running) -> None:
    assert "\x1b[" in server.on_terminal("status", columns=80)[1]
    assert "\x1b[" not in server.on_terminal("status", columns=80, NO_COLOR="1")[1]
    assert "\x1b[" not in server.on_terminal("status", columns=80, TERM="dumb")[1]
    assert "\x1b[" not in server.run("status").stdout


def test_a_closed_pipe_ends_quietly(server: Running) -> None:
    command = f"{sys.executable} -m paceline.cli.main messages list --limit 1000 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False,
        env=server.environment, cwd=server.folder, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_second_server_on_the_same_folder_is_refused(server: Running) -> None:
    done = server.run("up", "--port", str(free_port()), "--data", str(server.data))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) <= 3


def test_a_server_that_is_no_paceline_is_told(server: Running) -> None:
    done = server.run("messages", "list", "--server", server.hook)
    assert done.returncode == 1
    assert "is no Paceline server" in done.stderr


def test_the_server_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    running = Running(tmp_path, "")
    connection = HTTPConnection("127.0.0.1", running.port)
    connection.request("GET", "/health/ready")
    assert connection.getresponse().status == 200
    connection.close()
    assert running.stop() in {0, 130}
