"""What each node of `paceline up --processes` is started with, and how its end is told."""

import signal
from pathlib import Path
from typing import Any

import pytest

from paceline.cli import main
from paceline.cli.processes import check, how, orders_of
from paceline.config import load
from paceline.model.errors import InvalidError

STORE = "postgresql://127.0.0.1/queue"


def ordered(environ: dict[str, str] | None = None, **given: Any) -> list[tuple[Any, Any]]:
    arguments = {"store": STORE, "processes": 3, **given}
    orders = orders_of(load(arguments, environ or {}), arguments, Path("here.toml"))
    assert all(o.arguments["processes"] == 1 and o.config == "here.toml" for o in orders)
    assert all(o.arguments["store"] == STORE for o in orders)
    return [(o.arguments["role"], o.arguments["port"]) for o in orders]


def test_the_first_takes_messages_and_each_has_its_port() -> None:
    assert ordered() == [("all", 8080), ("sender", 8081), ("sender", 8082)]
    assert ordered(port=0) == [("all", 0), ("sender", 0), ("sender", 0)]


def test_a_role_that_was_said_is_that_of_all() -> None:
    assert [role for role, _ in ordered(role="all")] == ["all"] * 3
    assert [role for role, _ in ordered({"PACELINE_ROLE": "sender"})] == ["sender"] * 3


def test_what_a_node_is_told_wins_over_the_environment() -> None:
    environ = {"PACELINE_PROCESSES": "3", "PACELINE_PORT": "9000", "PACELINE_STORE": STORE}
    settings = load({}, environ)
    for number, order in enumerate(orders_of(settings, {}, None)):
        own = load(order.arguments, environ)
        assert (own.processes, own.port, own.store) == (1, 9000 + number, STORE)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"store": None}, "share a store in PostgreSQL"),
        ({"store": "sqlite:///queue.db"}, "share a store in PostgreSQL"),
        ({"port": 65_534}, "leaves too few"),
    ],
)
def test_where_several_cannot_be_is_said(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidError, match=text):
        check(load({"store": STORE, "processes": 3, **given}, {}))


def test_as_many_ports_as_there_are_suffice() -> None:
    check(load({"store": STORE, "processes": 3, "port": 65_533}, {}))


@pytest.mark.parametrize("option", ["--processes 2", "--set processes=2"])
def test_both_ways_to_say_it_are_heard(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.run(["up", *option.split()]) == 2
    assert "2 processes share a store in PostgreSQL" in capsys.readouterr().err


def test_an_end_is_told_in_words() -> None:
    assert how(3) == "with exit code 3"
    assert how(-signal.SIGKILL) == "by SIGKILL"
    assert how(-200) == "by signal 200"
