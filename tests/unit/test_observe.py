"""Logs: one line each whatever stands in it, nothing that acts on a terminal, and no secrets."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from paceline.observe import configure_logging

NASTY = "a\nb\r\n\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028\x00\x7fz"


class WrongError(Exception):
    """Its words came from outside."""


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def written(monkeypatch: pytest.MonkeyPatch, form: str) -> str:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("info", form)
    log = structlog.get_logger("test")
    log.warning("told", account=NASTY, nested={"deep": [NASTY]}, token="c4nary", error=WrongError(NASTY))
    log.warning(NASTY)
    try:
        raise WrongError(NASTY)
    except WrongError as error:
        log.exception("failed", channel=NASTY)
        structlog.get_logger("test").error("incident", exc_info=error)
    return stream.getvalue()


def test_content_in_a_log_for_people_cannot_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(monkeypatch, "text")
    assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []
    assert "WrongError: a" in text and "Traceback" in text
    assert "\nb" not in text  # a line of content is never a line of the log
    assert "c4nary" not in text


def test_a_log_for_programs_is_one_line_of_json_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(monkeypatch, "json")
    lines = [json.loads(line) for line in text.split("\n") if line]
    assert [line["event"] for line in lines if line["event"] in {"told", "failed", "incident"}] == [
        "told",
        "failed",
        "incident",
    ]
    assert len(lines) == 4
    assert [sign for sign in text if not sign.isprintable() and sign != "\n"] == []
    for line in lines:
        for value in line.values():
            assert not [sign for sign in str(value) if not sign.isprintable() and sign != "\n"]
    assert lines[0]["token"] == "[redacted]"
    assert "WrongError: a" in lines[2]["exception"]


def test_each_line_is_written_at_once_with_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else lines of processes that share the stream run into each other."""
    pieces: list[str] = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            pieces.append(text)
            return len(text)

    monkeypatch.setattr("sys.stderr", Stream())
    configure_logging("info", "json")
    structlog.get_logger("test").warning("told", account="a")
    (piece,) = pieces
    assert json.loads(piece)["event"] == "told" and piece.endswith("}\n")
