"""When a database that is started counts as a copy, and what a copy knows of itself."""

from pathlib import Path

import pytest

from paceline.engine import installation
from paceline.engine.installation import (
    Hold,
    Installation,
    Place,
    RunFile,
    mark_copy,
    read,
    started,
    to_document,
)

HERE = Place("m1", "/data/paceline.db", 7)
KNOWN = Installation("abc", epoch=2, run=5, place=HERE)


def cause(known: Installation, here: Place | None, seen: int = 5) -> str | None:
    hold = started(known, here, seen, 1000).hold
    return hold.cause if hold else None


@pytest.mark.parametrize(
    ("machine", "path", "file", "expected"),
    [
        ("m1", "/data/paceline.db", 7, None),
        ("m1", "/other/paceline.db", 7, None),  # moved on its disk
        ("m1", "/data/paceline.db", 8, None),  # a new disk in the old place
        ("m1", "/other/paceline.db", 8, "copied"),
        ("m2", "/data/paceline.db", 7, "moved"),
        ("m2", "/other/paceline.db", 8, "moved"),
        ("", "/data/paceline.db", 7, None),
        ("", "/other/paceline.db", 7, None),  # the same volume under another name
        ("", "/data/paceline.db", 8, "copied"),  # containers agree on paths: only the file tells
    ],
)
def test_where_a_database_may_go_on(machine: str, path: str, file: int, expected: str | None) -> None:
    assert cause(KNOWN, Place(machine, path, file)) == expected


def test_a_database_that_is_behind_its_place_was_put_back() -> None:
    assert cause(KNOWN, HERE, seen=6) == "rolled-back"
    assert cause(KNOWN, HERE, seen=4) is None  # the process died between the two writes
    assert cause(KNOWN, HERE, seen=0) is None  # the file beside it is gone


def test_a_first_start_is_no_copy_and_every_start_counts() -> None:
    made = started(Installation("new"), HERE, 0, 1000)
    assert (made.hold, made.run, made.place) == (None, 1, HERE)
    assert started(made, HERE, 9, 1000).run == 10  # so that the next start does not doubt again


def test_a_hold_stays_until_it_is_released_wherever_the_database_goes() -> None:
    held = started(KNOWN, Place("m2", "/data/paceline.db", 7), 5, 1000)
    again = started(held, HERE, 6, 2000)
    assert again.hold == held.hold
    assert again.hold is not None and again.hold.since == 1000


def test_a_copy_knows_that_it_is_one_and_when_it_was_made() -> None:
    (document,) = mark_copy([to_document(KNOWN, 1)], 1_750_000_000_000)
    marked = read([document])
    assert marked.hold is not None and marked.hold.cause == "restored"
    assert marked.hold.copied_at == marked.hold.since == 1_750_000_000_000
    assert "2025-06-15T15:06:40" in marked.hold.text
    (later,) = mark_copy([document], 1_760_000_000_000)  # a copy of a copy: the original sent since the first
    assert read([later]).hold == marked.hold


def test_a_hold_that_a_person_asked_for_becomes_one_of_a_copy() -> None:
    asked = Installation("abc", hold=Hold("asked", "moving", 5))
    marked = read(mark_copy([to_document(asked, 1)], 1000))
    assert marked.hold is not None and marked.hold.cause == "restored"


def test_a_store_that_knows_nothing_of_itself_gets_an_id_of_its_own() -> None:
    assert read([]).id != read([]).id


def test_the_number_of_the_last_start_is_of_one_installation(tmp_path: Path) -> None:
    beside = RunFile(tmp_path / "a.db")
    assert beside.read("abc") == 0
    beside.write("abc", 7)
    assert (beside.read("abc"), beside.read("other")) == (7, 0)
    (tmp_path / "a.db.run").write_text("nonsense")
    assert beside.read("abc") == 0
    RunFile(tmp_path / "no folder" / "a.db").write("abc", 1)  # not being able to is no reason not to start


def test_the_machine_is_known_by_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tmp_path / "machine-id"
    monkeypatch.setattr(installation, "MACHINE_ID", machine)
    file = tmp_path / "a.db"
    assert installation.place_of(file, "abc") is None
    file.touch()
    place = installation.place_of(file, "abc")
    assert place is not None and place.machine == ""
    machine.write_text("0123456789abcdef\n")
    known = installation.place_of(file, "abc")
    assert known is not None and len(known.machine) == 16 and known.machine not in machine.read_text()
    assert known != installation.place_of(file, "another")
