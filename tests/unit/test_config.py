"""Settings: which place wins, what is refused, and what the refusal says."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from paceline.config import NAMES, Settings, load
from paceline.model.errors import InvalidError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(
    arguments: dict[str, Any] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> str:
    with pytest.raises(InvalidError) as caught:
        load(arguments or {}, environ or {}, file)
    return str(caught.value)


def test_nothing_given_is_all_defaults() -> None:
    settings = load({}, {})
    assert settings == Settings()
    assert {settings.origin(name) for name in NAMES} == {"default"}


def test_a_later_place_wins_and_each_value_knows_where_it_came_from(empty_folder: Path) -> None:
    (empty_folder / "paceline.toml").write_text('port = 1\nhost = "::1"\nlog-level = "debug"\ndata = "d"\n')
    settings = load(
        {"port": 3, "store": None}, {"PACELINE_PORT": "2", "PACELINE_HOST": "0.0.0.0", "PATH": "/bin"}
    )
    assert (settings.port, settings.host, settings.log_level, settings.data) == (
        3,
        "0.0.0.0",
        "debug",
        Path("d"),
    )
    assert settings.origin("port") == "option --port"
    assert settings.origin("host") == "environment PACELINE_HOST"
    assert settings.origin("log_level") == "file paceline.toml"
    assert settings.origin("store") == "default"


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("PACELINE_PORT", "0", "port", 0),
        ("PACELINE_MAX_BODY", "16MiB", "max_body", 16 * 1024**2),
        ("PACELINE_MAX_BODY", "2 MB", "max_body", 2_000_000),
        ("PACELINE_MAX_BODY", "65536", "max_body", 65_536),
        ("PACELINE_GRACE", "1m", "grace", 60.0),
        ("PACELINE_GRACE", "0", "grace", 0.0),
        ("PACELINE_IN_FLIGHT", "2_000", "in_flight", 2000),
        ("PACELINE_LOG_LEVEL", "WARNING", "log_level", "warning"),
        ("PACELINE_STORE", "", "store", None),
        ("PACELINE_STORE", "sqlite:///x.db", "store", "sqlite:///x.db"),
        ("PACELINE_HOST", "[::1]", "host", "::1"),
        ("PACELINE_TRACE_RETENTION", "7d", "trace_retention", 604_800.0),
        ("PACELINE_OUTGOING_ALLOW", "", "outgoing_allow", ()),
        ("PACELINE_OUTGOING_ALLOW", "127.0.0.0/8", "outgoing_allow", (ip_network("127.0.0.0/8"),)),
        (
            "PACELINE_OUTGOING_ALLOW",
            "127.0.0.0/8, fd00::/8 10.0.0.1",
            "outgoing_allow",
            (ip_network("127.0.0.0/8"), ip_network("fd00::/8"), ip_network("10.0.0.1/32")),
        ),
    ],
)
def test_the_environment_is_read(variable: str, text: str, name: str, value: object) -> None:
    assert getattr(load({}, {variable: text}), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("PACELINE_PORT", "eighty", "'eighty' must be a whole number from 0 to 65,535"),
        ("PACELINE_PORT", "65536", "must be a whole number from 0 to 65,535"),
        ("PACELINE_PORT", "-1", "must be a whole number"),
        ("PACELINE_PORT", "1.5", "must be a whole number"),
        ("PACELINE_PORT", "", "must be a whole number"),
        ("PACELINE_PORT", "٣", "must be a whole number"),
        ("PACELINE_HOST", "a b", "must be a host name or an address"),
        ("PACELINE_HOST", "", "must be a host name or an address"),
        ("PACELINE_DATA", " ", "must be the path of a folder"),
        ("PACELINE_MAX_BODY", "16 apples", "must be a size such as"),
        ("PACELINE_MAX_BODY", "1", "from 1,024"),
        ("PACELINE_GRACE", "nan", "'nan' must be seconds"),
        ("PACELINE_GRACE", "-5", "'-5' must be seconds"),
        ("PACELINE_GRACE", "9h", "'9h' must be between 0s and 1h"),
        ("PACELINE_LOG_LEVEL", "loud", "'loud' must be one of debug, info, warning, error"),
        ("PACELINE_STORE", "postgres", "must be a URL such as"),
        ("PACELINE_OUTGOING_ALLOW", "everything", "'everything' is not a network such as"),
        ("PACELINE_OUTGOING_ALLOW", "10.0.0.1/8", "is not a network"),
        ("PACELINE_IN_FLIGHT", "0", "from 1 to"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_would_be_right(variable: str, text: str, said: str) -> None:
    told = refusal(environ={variable: text})
    assert f"environment {variable}" in told
    assert said in told


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        ({"prot": 1}, {}, "option --set prot: no such setting; did you mean '--port'?"),
        (
            {},
            {"PACELINE_PROT": "1"},
            "environment PACELINE_PROT: no such setting; did you mean 'PACELINE_PORT'?",
        ),
        ({}, {"PACELINE_OUTGOINGALLOW": ""}, "did you mean 'PACELINE_OUTGOING_ALLOW'?"),
        ({}, {"PACELINE_ZZZ": ""}, "no such setting; there are PACELINE_HOST, PACELINE_PORT"),
        (
            {"threads_min": 50, "threads_max": 20},
            {},
            "threads_min (50) must not be more than threads_max (20)",
        ),
    ],
)
def test_an_unknown_setting_is_refused_with_what_was_meant(
    arguments: dict[str, Any], environ: dict[str, str], said: str
) -> None:
    assert said in refusal(arguments, environ)


def test_every_problem_is_told_at_once() -> None:
    told = refusal({"port": "x"}, {"PACELINE_GRACE": "y", "PACELINE_HOTS": "z"})
    assert all(part in told for part in ("--port", "PACELINE_GRACE", "PACELINE_HOST"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prot = 1", "file p.toml: there is no setting 'prot'; did you mean 'port'?"),
        ("port = true", "file p.toml: True must be a whole number"),
        ("host = 1", "file p.toml: 1 must be a host name"),
        ("outgoing_allow = [1]", "file p.toml"),
        ("port = ", "file p.toml is not valid TOML"),
        ("[server]\nport = 1", "there is no setting 'server'"),
    ],
)
def test_a_bad_file_names_itself(content: str, said: str, empty_folder: Path) -> None:
    (empty_folder / "p.toml").write_text(content)
    assert said in refusal(file=Path("p.toml"))


def test_a_file_that_was_named_must_be_there() -> None:
    assert "--config: there is no file x.toml" in refusal(file=Path("x.toml"))
    assert "environment PACELINE_CONFIG: there is no file y" in refusal(environ={"PACELINE_CONFIG": "y"})


def test_a_folder_in_place_of_the_file_is_told(empty_folder: Path) -> None:
    (empty_folder / "p.toml").mkdir()
    assert "cannot be read" in refusal(file=Path("p.toml"))


def test_variables_of_the_client_and_of_container_platforms_are_left_alone() -> None:
    environ = {
        "PACELINE_SERVER": "http://127.0.0.1:1", "PACELINE_KEY": "k", "PACELINE_KEY_FILE": "f", "PACELINE_DEBUG": "1",
        "PACELINE_SERVICE_HOST": "10.0.0.1", "PACELINE_PORT": "tcp://10.0.0.1:8080",
        "PACELINE_PORT_8080_TCP_ADDR": "10.0.0.1",
    }  # fmt: skip
    assert load({}, environ) == Settings()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("fd00::1", "http://[fd00::1]:8080"),
        ("localhost", "http://localhost:8080"),
    ],
)
def test_the_address_is_one_that_a_client_can_use(host: str, address: str) -> None:
    assert load({"host": host}).address == address


def test_what_is_shown_has_no_password() -> None:
    shown = load({"store": "postgresql://user:secret@127.0.0.1/db"}).shown()
    assert shown["store"] == {"value": "postgresql://user:***@127.0.0.1/db", "origin": "option --store"}
    assert shown["port"] == {"value": 8080, "origin": "default"}
    assert set(shown) == set(NAMES)


def test_an_unknown_name_has_no_origin() -> None:
    with pytest.raises(KeyError):
        load({}).origin("prot")
