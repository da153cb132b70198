"""Limits, waits and turns as the receiver sees them, restarts included (rules 5, 7, 8)."""

import time
from pathlib import Path

import pytest

from tests.scenarios.ledger import by_sender
from tests.scenarios.restarts import restarts
from tests.scenarios.server import Server, Witness, drained, text_body

pytestmark = pytest.mark.every_store


@pytest.mark.usual
def test_no_window_is_exceeded_over_restarts(tmp_path: Path) -> None:
    figures = restarts(tmp_path, 11, [(4, 0.5), (16, 6.0)], 4, seed=3, between=(0.5, 1.5))
    print("\n".join(figures.lines()))
    assert figures.exceeded == figures.twice == 0
    assert figures.worst == {(4, 0.5): 4, (16, 6.0): 16}  # it went up to the limit, and not above
    assert figures.stopped + figures.killed >= 2


@pytest.mark.usual
def test_a_flood_wait_outlives_a_kill_and_costs_nothing(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, quota={"day": 10, "zone": "UTC"})
        witness.behave("1000", flood_next=4)
        with server.events("account-status") as happened:
            ids = server.send_all([text_body("bot", f"m{n}") for n in range(3)])
            assert next(happened)["state"] == "flooded"  # told after it was written
        assert server.api("GET", "/accounts/bot")["quota_left"] == {"day": 10}
        server.kill()
        server.start()
        answer = server.why(ids[0])
        assert [reason["kind"] for reason in answer["reasons"]] == ["flood-wait"]
        report = witness.wait(taken=3)
        drained(server, 20)
        assert [server.get(id_)["attempts"] for id_ in ids] == [1, 1, 1]
        assert server.api("GET", "/accounts/bot")["quota_left"] == {"day": 7}
    # One refusal and three sends: nobody knocked in between.
    assert (report["arrived"], report["inside"], report["twice"]) == (4, 0, 0)


def test_floods_are_waited_out_by_each_account_alone(tmp_path: Path) -> None:
    flags = ("--latency", "0.001-0.01", "--flood-every", "12", "--flood-for", "1")
    with Witness(tmp_path, *flags, limits=((20, 1.0),)) as witness, Server(tmp_path) as server:
        server.start()
        for number in range(4):
            server.account(f"a{number}", witness, 1000 + number, limits=["20/s"])
        server.send_all([text_body(f"a{n % 4}", f"m{n}") for n in range(120)])
        report = witness.wait(taken=120)
        drained(server, 20)
    assert report["answers"]["flood"] >= 8
    assert (report["inside"], report["exceeded"], report["twice"]) == (0, 0, 0)


def test_a_hung_account_slows_nobody(tmp_path: Path) -> None:
    with Witness(tmp_path, "--latency", "0.002-0.01") as witness, Server(tmp_path) as server:
        server.start("--set", "grace=0.2")
        for number in range(20):
            server.account(f"a{number}", witness, 1000 + number, concurrency=4)
        witness.behave("1000", hang=1.0)
        begun = time.monotonic()
        server.send_all([text_body(f"a{n % 20}", f"m{n}") for n in range(20 * 40)])
        witness.wait(taken=19 * 40 + 4)
        span = time.monotonic() - begun
        server.api("GET", "/messages?limit=1")
        # The hung calls are still under way; what they hold up is their own account's and nobody else's.
        waiting = server.api("GET", "/accounts/a0/queue")
        assert (waiting["processing"], waiting["pending"]) == (4, 36)
        others = [server.api("GET", f"/accounts/a{n}/queue")["pending"] for n in range(1, 20)]
        assert sum(others) == 0
        print(f"760 messages of 19 accounts in {span:.2f} s beside one that hangs")


def test_a_newcomer_waits_one_round(tmp_path: Path) -> None:
    with Witness(tmp_path, "--latency", "0.001-0.003") as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, interval="15ms")
        server.send_all([text_body("bot", f"c{n % 4}-{n}", campaign=f"c{n % 4}") for n in range(160)])
        witness.wait(arrived=20)
        server.send_all([text_body("bot", f"new-{n}", campaign="new") for n in range(8)])
        told = time.monotonic_ns()
        witness.wait(taken=168)
        drained(server, 20)
        arrivals = witness.arrivals()
    assert len(by_sender(arrivals)) == 1
    later = [a.text.partition("-")[0] for a in arrivals if a.monotonic > told]
    first = later.index("new")
    assert first <= 5  # four others, and the one that was on its way
    turns = later[first : first + 40]
    counts = [turns.count(name) for name in ("c0", "c1", "c2", "c3", "new")]
    assert counts == [8, 8, 8, 8, 8]
