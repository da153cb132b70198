"""Stopping on request, and two processes on one folder."""

import signal
from pathlib import Path

import pytest

from tests.scenarios.server import WAIT_S, NotAnsweredError, Server, Witness, drained, text_body, until

pytestmark = [pytest.mark.every_store, pytest.mark.usual]


def test_sigterm_settles_the_calls_in_flight_and_keeps_the_rest(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, concurrency=3)
        witness.behave("", hold=True)
        ids = server.send_all([text_body("bot", f"m{n}") for n in range(10)])
        witness.wait(open=3)
        assert server.process is not None
        server.process.child.send_signal(signal.SIGTERM)
        until(lambda: not _answers(server), "it takes no connection any more")
        witness.release()
        assert server.process.died(WAIT_S) == 0  # not told again: a second signal ends the calls
        server.stop()
        arrived = witness.report()["arrived"]
        server.start()
        settled = [server.get(id_)["history"][0]["outcome"] for id_ in ids[:arrived]]
        assert settled == ["accepted"] * arrived
        drained(server, 20)
        report = witness.report()
        assert server.count("completed") == 10
    assert (report["taken"], report["twice"]) == (10, 0)


def _answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/health/live").status == 200
    except NotAnsweredError:
        return False


def test_a_call_longer_than_the_grace_is_told_as_uncertain(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start("--set", "grace=0.3")
        server.account("bot", witness, 1000)
        witness.behave("", hold=True)
        id_ = server.send(**text_body("bot", "held"))
        witness.wait(open=1)
        assert server.stop() == 0
        witness.release()
        server.start()
        assert server.get(id_)["state"] == "uncertain"
        assert witness.report()["arrived"] == 1


def test_who_is_told_twice_waits_for_no_call(tmp_path: Path) -> None:
    """The grace is longer than anybody here waits: only the second signal can end the calls."""
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start("--set", "grace=3600")
        server.account("bot", witness, 1000, concurrency=2)
        witness.behave("", hold=True)
        ids = server.send_all([text_body("bot", f"m{n}") for n in range(5)])
        witness.wait(open=2)
        assert server.process is not None
        server.process.child.send_signal(signal.SIGTERM)
        until(lambda: not _answers(server), "it takes no connection any more")
        assert server.process.child.poll() is None
        assert server.stop() == 0
        witness.release()
        server.start()
        drained(server, 20)
        states = [server.get(id_)["state"] for id_ in ids]
        assert states == ["uncertain", "uncertain", "completed", "completed", "completed"]
        assert witness.report()["twice"] == 0


@pytest.mark.only_sqlite  # on PostgreSQL it is another node
def test_a_second_process_on_the_same_data_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with Server(tmp_path) as first, Server(tmp_path / "second", first.data) as second:
        first.start()
        refused = second.spawn()
        assert refused.child.wait(30) == 1
        until(lambda: "\n" in second.log.read_text(), "it says why")
        said = second.log.read_text()
        assert f"is in use by process {first.pid}" in said
        assert "Traceback" not in said
        assert first.ask("GET", "/health/ready").status == 200
