"""Answers that last: the event stream and the export. The engine behind them is a script."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import structlog

from paceline.api.app import App, build
from paceline.api.server import Server
from paceline.config import Settings
from paceline.engine.events import StreamEvent
from paceline.model.errors import InvalidError, Problem
from tests.contracts.test_api_support import Client, Scripted, raw, served

EVENTS = "/api/v1/events"
EXPORT = "/api/v1/messages/export"


@pytest.fixture
def script() -> Scripted:
    return Scripted()


@pytest.fixture
async def served_app(script: Scripted) -> AsyncIterator[tuple[Client, App]]:
    async with served(script, Settings()) as pair:
        yield pair


def event(id_: int, text: str = "x") -> StreamEvent:
    return StreamEvent(id_, "message-sent", "", "", "", "", {"id": text})


def listen(call: Client, query: str = "", **headers: str) -> "aiohttp.client._RequestContextManager":
    url = f"http://127.0.0.1:{call.port}{EVENTS}{query}"
    sent = {
        "Authorization": "Bearer viewer",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return call.session.get(url, headers=sent)


async def frames(response: aiohttp.ClientResponse, count: int) -> list[str]:
    return [(await response.content.readuntil(b"\n\n")).decode() for _ in range(count)]


async def test_events_stand_on_the_wire_as_the_standard_says(
    served_app: tuple[Client, App], script: Scripted
) -> None:
    async with listen(served_app[0]) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        for one in (event(7, "line\nbreak\r\u2028"), None, event(8)):
            script.events.put_nowait(one)
        told = await frames(response, 4)
    assert told[0] == "retry: 3000\n\n"
    assert told[1].split("\n")[:2] == ["id: 7", "event: message-sent"]
    assert json.loads(told[1].split("\n")[2].removeprefix("data: ")) == {"id": "line\nbreak\r\u2028"}
    assert told[2].startswith(":")
    assert told[3] == 'id: 8\nevent: message-sent\ndata: {"id":"x"}\n\n'


async def test_filters_and_the_last_id_reach_the_engine(
    served_app: tuple[Client, App], script: Scripted
) -> None:
    query = "?types=message-sent,alert&types=queue-status&queue=q&account=a&campaign=c&last_event_id=5"
    async with listen(served_app[0], query, Last_Event_ID="9") as response:
        await frames(response, 1)
    async with listen(served_app[0], "?last_event_id=5") as response:
        await frames(response, 1)
    _, types, *rest = script.calls[0]
    assert set(types) == {"message-sent", "alert", "queue-status"}
    assert rest == ["q", "a", "c", "9"]
    assert script.calls[1][1:] == (None, None, None, None, "5")


@pytest.mark.parametrize(
    ("query", "field"),
    [("types=message-sendt", "/types"), ("last_event_id=x", "/last_event_id"), ("queue=a&queue=b", "/queue"),
     ("type=alert", "/type")],
)  # fmt: skip
async def test_a_wrong_filter_is_refused_before_the_stream_begins(
    served_app: tuple[Client, App], query: str, field: str
) -> None:
    assert (await served_app[0]("GET", f"{EVENTS}?{query}")).fields() == [field]


async def test_a_listener_that_leaves_is_forgotten(served_app: tuple[Client, App], script: Scripted) -> None:
    async with listen(served_app[0]) as response:
        script.events.put_nowait(event(1))
        await frames(response, 2)
        assert script.listeners == 1
        response.close()
    assert await asyncio.wait_for(script.events.get(), 5) is None  # put by the closed subscription
    assert script.listeners == 0


async def test_a_stream_ends_when_the_server_stops(served_app: tuple[Client, App], script: Scripted) -> None:
    call, app = served_app
    async with listen(call) as response:
        await frames(response, 1)
        app.stop()
        assert await response.content.read() == b""
    assert script.listeners == 0


async def test_the_server_stops_at_once_with_listeners(script: Scripted) -> None:
    app = build(script, Settings())  # type: ignore[arg-type]  # a script in place of the engine
    server = Server(app, "127.0.0.1", 0)
    server.listen()
    running = asyncio.ensure_future(server.serve())
    async with aiohttp.ClientSession() as session:
        async with listen(Client(session, server.port, None)) as response:
            await frames(response, 1)
            server.end()
            assert await response.content.read() == b""
        await asyncio.wait_for(running, 2)


# -- export

ROWS: list[dict[str, Any]] = [
    {"id": "1", "to": "+491701234567", "text": "=HYPERLINK(1)", "priority": 5, "metadata": {"a": "é"}},
    {"id": "2", "to": ["a@example.org", "b@example.org"], "subject": "-1\n+2", "error": {"class": "permanent", "code": "@x"}},
]  # fmt: skip


async def test_an_export_as_lines_is_without_loss(served_app: tuple[Client, App], script: Scripted) -> None:
    script.pages = [ROWS[:1], ROWS[1:]]
    answer = await served_app[0]("GET", EXPORT + "?format=jsonl&state=failed")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="messages.jsonl"'
    assert [json.loads(line) for line in answer.body.splitlines()] == ROWS


async def test_an_export_as_csv_is_safe_in_a_spreadsheet(
    served_app: tuple[Client, App], script: Scripted
) -> None:
    script.pages = [ROWS]
    answer = await served_app[0]("GET", EXPORT + "?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    first, second = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
    assert (first["to"], first["text"], first["metadata"]) == ("+491701234567", "'=HYPERLINK(1)", '{"a":"é"}')
    assert second["to"] == "a@example.org, b@example.org"
    assert (second["subject"], second["error_class"], second["error_code"]) == ("'-1\n+2", "permanent", "'@x")


async def test_an_empty_export_is_an_empty_file(served_app: tuple[Client, App]) -> None:
    assert (await served_app[0]("GET", EXPORT + "?format=jsonl")).body == b""
    assert (await served_app[0]("GET", EXPORT + "?format=csv")).body.count(b"\n") == 1


@pytest.mark.parametrize("query", ["", "?format=xlsx", "?format=csv&format=jsonl"])
async def test_an_export_needs_its_format(served_app: tuple[Client, App], query: str) -> None:
    assert (await served_app[0]("GET", EXPORT + query)).fields() == ["/format"]


async def test_a_wrong_filter_of_an_export_is_a_problem_and_no_file(
    served_app: tuple[Client, App], script: Scripted
) -> None:
    script.error = InvalidError([Problem("/state", "is none")])
    assert (await served_app[0]("GET", EXPORT + "?format=csv&state=x")).fields() == ["/state"]


async def test_an_export_that_breaks_off_is_seen_to_be_broken(
    served_app: tuple[Client, App], script: Scripted
) -> None:
    script.pages, script.error = [ROWS], OSError("gone")
    request = f"GET {EXPORT}?format=jsonl HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n\r\n"
    with structlog.testing.capture_logs() as logs:
        answer = await raw(served_app[0].port, request.encode())
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert len(logs) == 1
