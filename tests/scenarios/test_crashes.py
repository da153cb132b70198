"""What the server promised holds when it is killed at any moment (rules 1 to 4)."""

import shutil
import time
from pathlib import Path

import pytest

from tests.scenarios.kills import storm
from tests.scenarios.server import NotAnsweredError, Server, Witness, drained, text_body, until
from tests.scenarios.traced import Traced

pytestmark = pytest.mark.every_store

STRACE = shutil.which("strace")


def test_ten_kills_break_no_promise(tmp_path: Path) -> None:
    figures = storm(tmp_path, kills=10, seed=11)
    print("\n".join(figures.lines()))
    assert figures.broken == []
    assert figures.acknowledged > 500
    assert figures.uncertain > 0  # else no kill met a call, and the run has shown nothing


@pytest.mark.usual
def test_after_a_crash_what_may_have_gone_out_is_told_and_the_rest_is_sent(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, concurrency=2)
        witness.behave("", hold=True)
        hook = {
            "channel": "webhook",
            "to": f"http://127.0.0.1:{witness.port}/hook/h",
            "payload": {"text": "hook"},
        }
        once = server.send_all([hook, *(text_body("bot", f"b{n}") for n in range(5))])
        witness.wait(open=3)
        server.kill()
        witness.release()
        server.start()
        witness.wait(taken=6)
        drained(server, 20)
        states = [server.get(id_)["state"] for id_ in once]
        assert states == ["completed", "uncertain", "uncertain", "completed", "completed", "completed"]
        told = server.get(once[1])
        assert told["error"]["class"] == "uncertain" and told["error"]["code"] == "crash"
        server.stop()
        arrivals = witness.arrivals()
    assert sorted(a.text for a in arrivals) == ["b0", "b1", "b2", "b3", "b4", "hook", "hook"]
    assert {a.key for a in arrivals if a.text == "hook"} == {once[0]}


@pytest.mark.only_sqlite
@pytest.mark.skipif(STRACE is None, reason="NOT PROVEN HERE: strace is missing, so nobody saw the flushes")
def test_yes_is_said_and_a_call_is_made_only_after_the_flush(tmp_path: Path) -> None:
    """kill -9 cannot tell a flush from a write that the system still keeps in memory; its calls can."""
    traced = Traced(tmp_path / "calls")
    with Witness(tmp_path) as witness, Server(tmp_path, prefix=traced.prefix) as server:
        server.start()
        server.account("bot", witness, 1000)
        server.api("POST", "/accounts/bot/pause")
        before_intake = traced.mark()
        server.send(**text_body("bot", "flushed"))
        after_intake = traced.mark()
        server.api("POST", "/accounts/bot/resume")
        witness.wait(taken=1)
        after_call = traced.mark()
        server.stop()
    until(traced.whole, "strace has written everything")
    assert traced.flushes_before("HTTP/1.1 202", before_intake, after_intake) == 1
    # The resumed account is one flush, the mark another.
    assert traced.flushes_before("sendMessage", after_intake, after_call) == 2


def test_a_message_is_in_one_hand_however_people_move_it(tmp_path: Path) -> None:
    """Every message is moved between flows and accounts again and again, until it has gone."""
    with Witness(tmp_path, "--latency", "0.005-0.03") as witness, Server(tmp_path) as server:
        server.start()
        for number in range(3):
            server.account(f"a{number}", witness, 1000 + number, concurrency=4, limits=["40/s"])
        ids = server.send_all([text_body(f"a{n % 3}", f"m{n}") for n in range(360)])
        left, turn, deadline = ids, 0, time.monotonic() + 30
        while left and time.monotonic() < deadline:
            turn += 1
            for part in (left[::2], left[1::2]):
                change = {"priority": turn % 5} if part is left[1::2] else {"account": f"a{turn % 3}"}
                order = {"action": "patch", "ids": part or left, "set": change}
                server.api("POST", "/messages/actions", order)
            waiting = server.api("GET", "/messages?state=pending&limit=1000")["items"]
            left = [message["id"] for message in waiting]
        report = witness.wait(taken=360)
        assert (report["twice"], report["two_hands"]) == (0, 0)
        drained(server, 30)
        report = witness.report()
        assert server.count("completed") == 360
    assert (report["taken"], report["arrived"], report["twice"], report["two_hands"]) == (360, 360, 0, 0)
    assert turn > 3


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path: Path) -> None:
    """It dies before its second commit of new messages, and right after its first one."""
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        for point, expected in (("before-intake:2", 0), ("after-intake:1", 3500)):
            server.start()
            server.account("bot", witness, 1000, enabled=False)
            server.stop()
            server.broken = f"die-at={point}"
            server.start()
            if not expected:
                server.send(**text_body("bot", "the first commit"))
            with pytest.raises(NotAnsweredError):
                server.api("POST", "/messages/batch", {"messages": [text_body("bot", "b")] * 3500})
            server.kill()
            server.broken = ""
            server.start()
            assert server.count("pending") == expected + 1
            server.stop()


def test_a_killed_server_answers_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.start()
        server.kill()
        with pytest.raises(NotAnsweredError):
            server.ask("GET", "/health/live")
