"""What the command line says when something is wrong: one or two lines, an exit code, never a traceback."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from paceline import __version__
from paceline.cli import main
from paceline.cli.texts import messages_in, pairs
from paceline.config import NAMES
from paceline.model.errors import InvalidError

COMMANDS = [
    "up",
    "demo",
    "send",
    "status",
    "messages",
    "accounts",
    "limits",
    "queues",
    "nodes",
    "keys",
    "test-queue",
    "export",
    "audit",
    "hold",
    "release",
    "backup",
    "restore",
    "store",
    "doctor",
]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, no data folder, no server."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PACELINE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PACELINE_SERVER", f"http://127.0.0.1:{free_port()}")


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def paceline(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paceline.cli.main", *arguments]
    environment = {**os.environ, **more}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def said(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str, str]:
    code = main.run(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("stauts", 2, "there is no command 'stauts'; did you mean 'status'?"),
        ("messages lst", 2, "there is no command 'lst'; did you mean 'list'?"),
        ("xyzzy", 2, "there is no command 'xyzzy'; there are up, demo, send"),
        ("status --sever x", 2, "there is no option '--sever'; did you mean '--server'?"),
        ("messages show", 2, "MESSAGE"),
        ("up --port abc", 2, "--port"),
        ("up --port 99999999", 2, "--port: 99999999 must be a whole number from 0 to 65,535"),
        ("up --set prot=1", 2, "did you mean '--port'?"),
        ("up --set nonsense", 2, "must be name=value"),
        ("up --config missing.toml", 2, "there is no file missing.toml"),
        ("send --to ada@example.com --text hi", 2, "--channel: is needed"),
        ("send --channel webhook --payload {", 2, "--payload"),
        ("send --file missing.json", 2, "missing.json cannot be read: No such file"),
        ("send --channel smtp --text @missing", 2, "--text: missing cannot be read"),
        ("send --channel smtp --wait --timeout soon", 2, "--timeout"),
        ("accounts set news --channel smtp --set host", 2, "--set: 'host' must be name=value"),
        ("limits set x --limit 1/s", 2, "say what it limits"),
        ("queues clean email --older-than never", 2, "--older-than"),
        ("queues clean email --state done", 2, "--state"),
        ("keys create x --role king", 2, "--role"),
        ("messages retry", 2, "name one message by its id, or several by filters"),
        ("status --server nonsense", 2, "--server: 'nonsense' must be an address such as"),
        ("status --server http://user:pw@127.0.0.1", 2, "must be an address such as"),
        ("status --key-file missing.key", 2, "--key-file: missing.key cannot be read"),
        ("status", 4, "Start the server with: paceline up"),
        ("messages list", 4, "no answer from http://127.0.0.1:"),
        ("test-queue --channel webhook --to http://127.0.0.1/", 4, "no answer from"),
        ("export", 4, "no answer from"),
    ],
)
def test_a_mistake_is_told_in_a_line_with_its_exit_code(
    arguments: str, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got, out, err = said(capsys, arguments.split())
    assert (got, out) == (code, "")
    assert words in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2


def test_no_arguments_show_the_commands_and_are_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, [])
    assert code == 0
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, [command, "--help"])
    assert code == 0
    assert "Usage: paceline" in out


@pytest.mark.parametrize(
    "command",
    [
        "send",
        "status",
        "messages list",
        "messages show",
        "messages why",
        "messages retry",
        "messages cancel",
        "accounts set",
        "accounts list",
        "accounts show",
        "accounts pause",
        "accounts resume",
        "accounts test",
        "accounts probe",
        "limits set",
        "limits list",
        "limits remove",
        "queues list",
        "queues pause",
        "queues resume",
        "queues empty",
        "queues clean",
        "keys create",
        "keys list",
        "keys revoke",
        "test-queue",
        "export",
        "hold",
        "release",
        "backup",
        "doctor",
        "nodes",
    ],
)
def test_every_command_that_asks_a_server_has_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, [*command.split(), "--help"])
    assert "--json" in out
    assert "--server" in out


def test_the_page_of_the_command_line_names_every_command() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text("utf-8")
    named = set(re.findall(r"^\| `paceline ([^`]+)` \|", page, re.MULTILINE))
    nested = ("messages", "accounts", "limits", "queues", "keys", "store")
    groups = {name: main.build(name)[name] for name in nested}
    inner = {f"{name} {one}" for name, group in groups.items() for one in group if not one.startswith("-")}
    assert named == inner | (set(COMMANDS) - set(groups))


def test_the_page_of_settings_names_every_setting() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "getting-started.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(NAMES)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, ["--version"])[:2] == (0, f"paceline {__version__}\n")


def test_a_settings_file_that_is_wrong_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "paceline.toml").write_text("prot = 1")
    code, _, err = said(capsys, ["status"])
    assert code == 2
    assert "file paceline.toml: there is no setting 'prot'; did you mean 'port'?" in err


def test_a_data_folder_that_is_a_file_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        code, _, err = said(capsys, ["up", "--data", path])
        assert code == 2
        assert "must be a folder" in err


def test_a_port_in_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        code, _, err = said(capsys, ["up", "--port", str(port)])
    assert code == 1
    assert f"127.0.0.1:{port} (option --port) is not free" in err
    assert "--port" in err


def test_a_key_file_that_holds_no_key_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("two\nlines")
    code, _, err = said(capsys, ["status", "--key-file", "key"])
    assert code == 2
    assert "holds no key" in err


def test_doctor_tells_what_is_wrong_without_a_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "admin.key").write_text("k")
    (tmp_path / "data" / "admin.key").chmod(0o644)
    code, out, err = said(capsys, ["doctor"])
    assert (code, err) == (2, "")
    assert "Run: chmod 600 data/admin.key" in out
    assert "Start it with: paceline up" in out
    code, out, _ = said(capsys, ["doctor", "--json"])
    assert code == 2
    assert {one["name"]: one["ok"] for one in json.loads(out)}["server"] is False


def test_help_fits_forty_columns() -> None:
    for command in ([], ["send"], ["messages", "list"]):
        done = paceline(*command, "--help", COLUMNS="40")
        assert done.returncode == 0
        assert max(map(len, done.stdout.splitlines())) <= 40


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m paceline.cli.main send --help | true"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_starts_quickly() -> None:
    script = """
import resource, sys
from paceline.cli.main import run
run(["--help"])
used = resource.getrusage(resource.RUSAGE_SELF)
sys.stderr.write(str(used.ru_utime + used.ru_stime))
"""
    took = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
        )
        for _ in range(3)
    ]
    assert min(took) < 0.5  # 0.2 s on a quiet machine


def test_help_imports_no_engine_and_no_http_client() -> None:
    script = "import sys; from paceline.cli.main import run; run(['--help']); sys.stderr.write(' '.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stderr
    heavy = {"aiohttp", "starlette", "uvicorn", "apsw", "asyncio", "paceline.wiring", "paceline.client"}
    assert heavy.isdisjoint(modules.split())


def test_importing_the_package_is_light() -> None:
    script = "import sys; import paceline.model.states; print(' '.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert {"aiohttp", "paceline.client", "asyncio"}.isdisjoint(modules.split())


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("port=25", {"port": 25}),
        ("verify=false", {"verify": False}),
        ("from=News <news@example.com>", {"from": "News <news@example.com>"}),
        ("password=0123", {"password": "0123"}),
        ("token=12345", {"token": "12345"}),
        ("zip=0123", {"zip": "0123"}),
        ('headers:={"a": [1]}', {"headers": {"a": [1]}}),
        ("name=@@here", {"name": "@here"}),
        ("password=@secret.txt", {"password": "from the file"}),
        ("a=b=c", {"a": "b=c"}),
    ],
)  # fmt: skip
def test_settings_of_an_account_are_what_they_look_like(given: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("from the file\n")
    assert pairs("set", [given]) == value


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('{"to": "a"}', 1),
        ('[{"to": "a"}, {"to": "b"}]', 2),
        ('{"to": "a"}\n\n{"to": "b"}\n', 2),
        ('{"messages": [{"to": "a"}, 5], "defaults": {"channel": "smtp"}}', 2),
        ('\ufeff{"to": "a"}\r\n{"to": "b\u2028\x85"}\r\n', 2),
    ],
)
def test_messages_are_read_from_any_form_of_json(text: str, count: int) -> None:
    assert len(list(messages_in("file", text))) == count


@pytest.mark.parametrize("text", [
    "", "nonsense", '{"a": 1}\nnonsense', "{", "[" * 100_000, '{"a": 1}\n' + '{"a":' * 50_000, '{"a": NaN}',
    '{"a": {"b": 1, "b": 1}}',
])  # fmt: skip
def test_text_that_is_no_json_is_told(text: str) -> None:
    with pytest.raises(InvalidError, match=re.escape("not JSON")):
        list(messages_in("file", text))
