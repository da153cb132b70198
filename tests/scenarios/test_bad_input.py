"""Bad input changes nothing, and one bad item does not touch the others (rule 10)."""

from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.server import Server, Witness, drained, text_body

pytestmark = [pytest.mark.every_store, pytest.mark.usual]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"to": None}, "/to"),
    ({"to": "not a chat"}, "/to"),
    ({"text": "x" * 5000}, "/text"),
    ({"priority": 11}, "/priority"),
    ({"account": "nobody"}, "/account"),
    ({"channel": "pigeon"}, "/channel"),
    ({"scheduled_at": "2020-01-01T00:00:00Z"}, "/scheduled_at"),
    ({"expires_at": "tomorrow"}, "/expires_at"),
    ({"max_attempts": 0}, "/max_attempts"),
    ({"prioriti": 3}, "/prioriti"),
]


def test_one_bad_item_in_a_batch_does_not_touch_the_others(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness, Server(tmp_path) as server:
        server.start()
        server.account("bot", witness, 1000, concurrency=4)
        for change, field in BAD:
            reply = server.ask("POST", "/api/v1/messages", text_body("bot", "bad") | change)
            assert reply.status == 422, (change, reply.body)
            assert field in [error["field"] for error in reply.json["errors"]], reply.json
        assert server.all_messages() == []
        messages = []
        for index, (change, _) in enumerate(BAD):
            messages += [text_body("bot", f"good-{index}"), text_body("bot", "bad") | change]
        answer = server.api("POST", "/messages/batch", {"messages": [*messages, "no object"]})
        assert [each["index"] for each in answer["accepted"]] == list(range(0, 20, 2))
        rejected = {
            each["index"]: [error["field"] for error in each["errors"]] for each in answer["rejected"]
        }
        assert sorted(rejected) == [*range(1, 20, 2), 20]
        for index, (_, field) in enumerate(BAD):
            assert field in rejected[2 * index + 1]
        witness.wait(taken=10)
        drained(server, 20)
        assert len(server.all_messages()) == 10
        report = witness.report()
    assert (report["arrived"], report["taken"]) == (10, 10)


def test_a_batch_that_is_none_stores_nothing(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        server.start()
        for body in ("[]", '{"messages": []}', '{"messages": [1', "", '{"messages": [{}], "defaults": 7}'):
            with server.line() as line:
                reply = line.ask_raw("POST", "/api/v1/messages/batch", body.encode())
            assert reply.status in {400, 422}, (body, reply.body)
            assert reply.headers["content-type"] == "application/problem+json"
        assert server.all_messages() == []
