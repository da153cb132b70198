"""The audit over stores that the real engine made: clean as they are, broken when a line is changed by hand."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest

from paceline.cli import main
from paceline.clock import ManualClock
from paceline.model.checks import print_time
from paceline.stores.base import Filter
from tests.contracts.stores.audited import START, Audited, made
from tests.contracts.test_engine_support import Engine, running


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Made once: every test works on a copy."""
    folder = tmp_path_factory.mktemp("stored")
    names = made(folder)
    return folder / "queue.db", names


@pytest.fixture
def store(
    stored: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Audited:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PACELINE_")]:
        monkeypatch.delenv(name)
    shutil.copy(stored[0], tmp_path / "copy.db")
    return Audited(tmp_path / "copy.db", stored[1], capsys)


def test_what_the_engine_made_is_clean_and_was_looked_at(store: Audited) -> None:
    code, view = store.audit()
    assert (code, view["verdict"]) == (0, "clean")
    looked = {check["name"]: check["looked_at"] for check in view["checks"]}
    assert list(looked) == [
        "windows", "places", "quotas", "hand-overs", "order", "endings", "times", "counts", "days", "file",
    ]  # fmt: skip
    assert looked["windows"]["limits"] == 2
    assert looked["windows"]["wide limits"] == 2
    assert looked["quotas"]["sends"] == 12
    assert looked["hand-overs"]["messages that a person revived"] == 2
    assert looked["order"]["first hand-overs"] >= 12
    slow = next(
        one for one in view["limits"] if one["scope"] == "account default/slow" and one["limit"] == "3/10s"
    )
    assert (slow["sends"], slow["most_places_taken"], slow["maximum"]) == (12, 3, 3)
    assert slow["most_surely_in_a_window"] == 3


def test_the_store_is_not_touched_and_nothing_is_left_beside_it(store: Audited) -> None:
    before = store.file.read_bytes(), store.file.stat().st_mtime_ns
    assert store.audit()[0] == 0
    assert (store.file.read_bytes(), store.file.stat().st_mtime_ns) == before
    assert [path.name for path in store.file.parent.iterdir()] == ["copy.db"]


def test_a_start_moved_into_a_full_window_is_found_in_both_senses(store: Audited) -> None:
    fourth = store.id("paced", 3)
    moment = "handed_over = handed_over - 9500, started = started - 9500, finished = finished - 9500"
    store.change(f"UPDATE attempt SET {moment} WHERE message = ?", fourth)
    found = store.found()
    assert {"windows", "places"} <= set(found)
    window = found["windows"][0]
    assert "account default/slow: 4 sends arrived within less than 10s" in window["what"]
    assert window["limit"] == "3/10s"
    assert store.names["paced"][3] in window["messages"]
    assert "started while 3 of 3 places were occupied" in found["places"][0]["what"]


def test_a_start_a_moment_too_early_is_found(store: Audited) -> None:
    store.change("UPDATE attempt SET started = started - 1 WHERE message = ?", store.id("paced", 3))
    assert "places" in store.found()


def test_an_attempt_that_is_missing_is_found(store: Audited) -> None:
    store.change("DELETE FROM attempt WHERE message = ? AND number = 2", store.id("retried"))
    assert store.found()["hand-overs"][0]["what"] == "attempt 1 is followed by attempt 3"


def test_a_last_attempt_that_is_missing_is_found(store: Audited) -> None:
    store.change("DELETE FROM attempt WHERE message = ?", store.id("paced", 5))
    found = store.found()
    assert found["endings"][0]["what"] == "is completed, and attempt 1 is missing"
    assert found["endings"][0]["messages"] == [store.names["paced"][5]]


def test_a_first_attempt_that_is_missing_is_found(store: Audited) -> None:
    store.change("DELETE FROM attempt WHERE message = ? AND number = 1", store.id("retried"))
    assert "are missing, though older ones" in store.found()["hand-overs"][0]["what"]


def test_an_attempt_that_stands_twice_is_found(store: Audited) -> None:
    columns = (
        'flow, account, recipient, "group", handed_over, started, finished, outcome, code, text, reference'
    )
    store.change(
        f"INSERT INTO attempt (message, number, {columns}) SELECT message, 2, {columns} FROM attempt"
        " WHERE message = ?", store.id("accepted"),
    )  # fmt: skip
    found = store.found()
    assert found["hand-overs"][-1]["what"] == "went on after attempt 1, by which it was sent"
    assert found["endings"][0]["what"] == "the journal has attempt 2, the message knows of 1"


def test_another_outcome_is_found(store: Audited) -> None:
    store.change("UPDATE attempt SET outcome = 'Temporary' WHERE message = ?", store.id("accepted"))
    found = store.found()
    assert found["endings"][0]["what"] == "is completed, but its last attempt ended as Temporary"


def test_a_hand_over_after_unknown_without_a_revival_is_found(store: Audited) -> None:
    store.change("UPDATE entry SET attempts = 2 WHERE id = ?", store.id("sent again"))
    assert "and nobody asked for it" in store.found()["hand-overs"][0]["what"]


def test_a_count_that_is_off_is_found(store: Audited) -> None:
    store.change("UPDATE tally SET count = count + 1 WHERE state = 5 AND sender = 'default/slow'")
    assert "13 messages are counted as completed last sent by default/slow, there are 12" in store.found()["counts"][0]["what"]  # fmt: skip


def test_figures_of_a_day_that_are_too_small_are_found(store: Audited) -> None:
    store.change("UPDATE daily SET completed = completed - 1 WHERE account = 'default/slow'")
    assert "11 completed, by the journal 12" in store.found()["days"][0]["what"]


def test_messages_whose_turns_were_swapped_are_found(store: Audited) -> None:
    one, two = store.id("paced", 4), store.id("paced", 10)
    store.change(
        "UPDATE attempt SET (handed_over, started, finished) = (SELECT handed_over, started, finished FROM attempt"
        " AS other WHERE other.message = ?1 + ?2 - attempt.message) WHERE message IN (?1, ?2)", one, two,
    )  # fmt: skip
    found = store.found()
    assert found["order"][0]["messages"][0] == store.names["paced"][4]
    assert "order" not in store.found("--reordered")


def test_a_send_before_its_time_is_found(store: Audited) -> None:
    store.change("UPDATE entry SET due_at = due_at + 3600000 WHERE id = ?", store.id("accepted"))
    assert store.found()["times"][0]["what"] == "was handed over before it was due"


def test_a_quota_that_was_set_lower_than_what_was_sent_is_found(store: Audited) -> None:
    store.change(
        "UPDATE document SET body = json_set(body, '$.quota.day', 5), updated_at = 0 WHERE name = 'slow'"
    )
    assert "sends in one day" in store.found()["quotas"][0]["what"]


def test_a_wide_limit_that_was_exceeded_is_found(store: Audited) -> None:
    body = '{"scope": {"queue": "notification"}, "limit": "2/10s"}'
    store.change("UPDATE document SET body = ?, updated_at = 0 WHERE kind = 'limit' AND name = 'all'", body)
    found = store.found()
    assert found["windows"][0]["what"].startswith("limit all: 3 sends arrived within less than 10s")


def test_a_limit_set_afterwards_is_held_against_nobody(store: Audited) -> None:
    body = '{"scope": {"queue": "notification"}, "limit": "2/10s"}'
    later = START + 400 * 86_400_000
    store.change(
        "UPDATE document SET body = ?, updated_at = ? WHERE kind = 'limit' AND name = 'all'", body, later
    )
    code, view = store.audit()
    assert code == 0
    rule = next(one for one in view["limits"] if one["scope"] == "limit all")
    assert (rule["sends"], rule["before_it_was_set"] > 12) == (0, True)
    assert "from before the present limit was set" in view["checks"][0]["notes"][0]


def test_leftovers_are_found(store: Audited) -> None:
    store.change("DELETE FROM message WHERE id = ?", store.id("accepted"))
    assert store.found()["file"][0]["what"] == "1 times: entry without its message"


def test_an_index_that_lost_a_row_is_found_by_the_check_of_the_file(store: Audited) -> None:
    connection = apsw.Connection(str(store.file))
    connection.pragma("writable_schema", True)
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, '(1, 4)', '(1, 4, 5)') WHERE name = 'entry_due'"
    )
    connection.close()
    assert "missing from index entry_due" in store.found()["file"][0]["what"]
    assert store.found("--no-integrity") == {}


def test_a_damaged_file_is_told(store: Audited) -> None:
    data = bytearray(store.file.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    store.file.write_bytes(data)
    code, view = store.audit()
    assert (code, view["verdict"]) == (2, "not checked")
    assert "is damaged" in view["reason"]


def test_one_account_is_looked_at_alone(store: Audited) -> None:
    code, view = store.audit("--account", "slow")
    assert code == 0
    assert [check["name"] for check in view["checks"]] == ["windows", "places", "quotas"]
    assert view["checks"][0]["looked_at"]["sends"] == 12
    assert {one["scope"] for one in view["limits"]} == {"account default/slow"}
    code, view = store.audit("--account", "nobody")
    assert (code, view["verdict"]) == (2, "not checked")
    assert "there is no account 'nobody'" in view["reason"]


def test_from_a_moment_on_what_was_before_is_not_judged(store: Audited) -> None:
    store.change("UPDATE attempt SET started = started - 1 WHERE message = ?", store.id("paced", 3))
    last = apsw.Connection(str(store.file)).execute("SELECT max(finished) FROM attempt").get
    assert store.found("--since", print_time(last)) == {}
    view = store.audit("--since", print_time(last))[1]
    assert view["checks"][3]["looked_at"].get("messages", 0) <= 1


def test_a_journal_that_was_cleaned_is_clean_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def clean(engine: Engine) -> None:
        engine.advance(86_400)
        now = engine.clock.now()
        await engine.store.clean_journal(now - 80_000_000, 10)
        await engine.store.clean(Filter(state=(5,)), None, 10, 1000)
        await engine.ended(await engine.send())
        await engine.store.clean_journal(now - 80_000_000, 7)

    names = made(tmp_path, clean)
    capsys.readouterr()
    store = Audited(tmp_path / "queue.db", names, capsys)
    code, view = store.audit()
    assert code == 0
    looked = {check["name"]: check["looked_at"] for check in view["checks"]}
    assert looked["endings"]["endings whose attempt was cleaned"] > 0
    assert looked["hand-overs"]["messages that are gone"] > 0
    assert looked["days"]["figures"] > 0


def test_a_clock_that_was_set_back_between_two_runs_breaks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(clock: ManualClock, offset: int) -> None:
        monkeypatch.setattr("paceline.engine.moves.boot_reading", lambda: ("boot", offset))
        async with running(tmp_path, clock) as engine:
            if not offset:
                await engine.account("lim", limits=["1/10s"], pool="own")
            id_ = await engine.send(account="lim")
            engine.advance(5 if offset else 0)
            engine.advance(5 if offset else 0)
            await engine.ended(id_)

    asyncio.run(run(ManualClock(START), 0))
    asyncio.run(run(ManualClock(START - 5000), -5000))
    capsys.readouterr()
    store = Audited(tmp_path / "queue.db", {}, capsys)
    code, view = store.audit()
    assert code == 0
    assert "the wall clock was set back" in view["checks"][0]["notes"][-1]
    store.change("DELETE FROM document WHERE kind = 'clock-step'")
    assert "windows" in store.found(), "by the journal alone the sends were 5 s apart"


def test_a_running_server_is_audited_beside_its_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> int:
        async with running(tmp_path) as engine:
            await engine.ended(await engine.send())
            engine.script.free.clear()
            waiting = await engine.send()
            await engine.script.calls(2)
            code = await asyncio.to_thread(main.run, ["audit", str(tmp_path / "queue.db"), "--json"])
            engine.script.free.set()
            assert (await engine.ended(waiting))["state"] == "completed"
            return code

    assert asyncio.run(run()) == 0
    view = json.loads(capsys.readouterr().out)
    looked = {check["name"]: check["looked_at"] for check in view["checks"]}
    assert (looked["endings"]["messages"], looked["endings"]["messages under way"]) == (2, 1)


def test_a_copy_taken_with_its_log_is_read_with_it_and_not_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()

    async def run() -> None:
        async with running(tmp_path) as engine:
            await engine.ended(await engine.send())
            for name in ("queue.db", "queue.db-wal"):
                shutil.copy(tmp_path / name, copy / name)

    asyncio.run(run())
    before = (copy / "queue.db").read_bytes(), (copy / "queue.db-wal").read_bytes()
    capsys.readouterr()
    code, view = Audited(copy / "queue.db", {}, capsys).audit()
    assert (code, view["messages"]) == (0, 1)
    assert ((copy / "queue.db").read_bytes(), (copy / "queue.db-wal").read_bytes()) == before


# -- what cannot be checked


def refused(capsys: pytest.CaptureFixture[str], where: Path) -> str:
    assert main.run(["audit", str(where)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_a_store_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "paceline.db is not there" in refused(capsys, tmp_path)
    assert "none.db is not there" in refused(capsys, tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.db").write_text("hello" * 1000)
    assert "is not a SQLite database" in refused(capsys, tmp_path / "text.db")
    (tmp_path / "empty.db").touch()
    assert "is an empty database" in refused(capsys, tmp_path / "empty.db")


def test_somebody_elses_database_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = apsw.Connection(str(tmp_path / "theirs.db"))
    connection.execute("CREATE TABLE entry (id)")
    connection.close()
    assert "is a database of another program" in refused(capsys, tmp_path / "theirs.db")


@pytest.mark.parametrize(
    ("version", "words"), [(99, "by a newer Paceline (schema 99"), (0, "by an older Paceline")]
)
def test_another_schema_is_told(
    store: Audited, capsys: pytest.CaptureFixture[str], version: int, words: str
) -> None:
    connection = apsw.Connection(str(store.file))
    connection.pragma("user_version", version)
    connection.close()
    assert words in refused(capsys, store.file)


def test_a_moment_that_is_none_is_wrong_usage(store: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["audit", str(store.file), "--since", "yesterday"]) == 2
    assert "--since: must be a time with a zone" in capsys.readouterr().err


def test_the_text_names_checks_limits_and_findings(
    store: Audited, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["audit", str(store.file)]) == 0
    said = capsys.readouterr().out
    assert "account default/slow" in said
    assert said.endswith("clean: nothing that was looked at breaks a promise\n")
    store.change("UPDATE attempt SET outcome = 'Temporary' WHERE message = ?", store.id("accepted"))
    assert main.run(["audit", str(store.file)]) == 1
    said = capsys.readouterr().out
    words = " ".join(said.split())  # the line is wrapped at the width of the screen
    assert f"{store.names['accepted']} is completed, but its last attempt ended as Temporary" in words
    assert said.endswith("broken: endings\n") or "broken: endings, days" in said
