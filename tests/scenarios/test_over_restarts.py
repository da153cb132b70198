"""What was said before a restart holds after it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.ledger import taken_by_text
from tests.scenarios.server import Server, Witness, drained, text_body, until

pytestmark = [pytest.mark.every_store, pytest.mark.usual]


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_an_idempotency_key_is_known_after_a_kill(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000)
        message = text_body("bot", "once", idempotency_key="order-7")
        first = server.api("POST", "/messages", message)
        assert first["duplicate"] is False
        server.kill()
        server.start()
        again = server.api("POST", "/messages", message)
        assert (again["id"], again["duplicate"]) == (first["id"], True)
        batch = server.api("POST", "/messages/batch", {"messages": [message, text_body("bot", "other")]})
        assert batch["accepted"][0] == {"index": 0, "id": first["id"], "duplicate": True}
        assert server.ask("POST", "/api/v1/messages", {**message, "text": "changed"}).status == 409
        drained(server, 20)
        assert len(server.all_messages()) == 2
        server.kill()
        server.start()  # what was stored and not told to the loop would go out now
        drained(server, 20)
        assert witness.report()["arrived"] <= 2


def test_scheduled_and_expired_over_a_restart(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000)
        server.account("paused", witness, 1001)
        server.api("POST", "/accounts/paused/pause")
        due = datetime.now(UTC) + timedelta(seconds=3)
        early = server.send(**text_body("bot", "scheduled", scheduled_at=due.isoformat()))
        far = server.send(**text_body("bot", "far", delay="1h"))
        stale = server.send(**text_body("paused", "stale", expires_at=_in(1.0)))
        kept = server.send(**text_body("paused", "kept", expires_at=_in(3600)))
        server.kill()
        until(lambda: datetime.now(UTC) > due - timedelta(seconds=1.5), "one has expired while nobody looked")
        server.start()
        until(lambda: server.get(stale)["state"] == "expired", "it is told")
        server.api("POST", "/accounts/paused/resume")
        witness.wait(taken=2)
        until(lambda: server.count("completed") == 2, "their answers are written")
        assert server.get(far)["state"] == "scheduled"
        assert [server.get(id_)["state"] for id_ in (early, kept)] == ["completed", "completed"]
        taken = taken_by_text(witness.arrivals())
    assert set(taken) == {"scheduled", "kept"}
    assert taken["scheduled"][0].wall / 1e9 >= due.timestamp()


def _uncertain(server: Server, witness: Witness, count: int) -> list[str]:
    server.start()
    server.account("bot", witness, 1000, concurrency=count)
    witness.behave("", hold=True)
    ids = server.send_all([text_body("bot", f"m{n}") for n in range(count)])
    witness.wait(open=count)
    server.kill()
    witness.release()
    server.start()
    return ids


def test_an_uncertain_message_is_settled_by_hand(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        sent, refused, again = _uncertain(server, witness, 3)
        assert server.count("uncertain") == 3
        assert _settle(server, sent, "completed")["state"] == "completed"
        assert _settle(server, refused, "failed")["state"] == "failed"
        _settle(server, again, "pending")
        drained(server, 20)
        assert server.get(again)["state"] == "completed"
        assert server.ask("POST", f"/api/v1/messages/{sent}/settle", {"as": "pending"}).status == 409
        server.kill()
        server.start()
        assert [server.get(id_)["state"] for id_ in (sent, refused, again)] == [
            "completed",
            "failed",
            "completed",
        ]
        assert all(len(server.get(id_)["history"]) == 2 for id_ in (sent, refused, again))
    assert {text: len(found) for text, found in taken_by_text(witness.arrivals()).items()} == {
        "m0": 1, "m1": 1, "m2": 2,
    }  # fmt: skip


def _settle(server: Server, id_: str, as_: str) -> Any:
    return server.api("POST", f"/messages/{id_}/settle", {"as": as_})
