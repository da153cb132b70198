"""The fast lane, byte by byte: whichever way a request takes, the answer is the same."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from paceline.api import fast, server
from paceline.engine.keys import SYSTEM
from paceline.model.errors import UnavailableError
from tests.contracts.test_api_fast_support import ACCEPTED, LATER, Place, opened, same


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path) as place:
        yield place


async def test_the_second_request_takes_the_lane_and_is_answered_alike(place: Place) -> None:
    talk = await place.learned(place.request())
    second = await talk.ask(place.request())
    assert place.taken == 1
    assert same(second) == same(await place.ordinary(place.request()))
    assert json.loads(second.partition(b"\r\n\r\n")[2])["state"] == "scheduled"
    assert await place.stored() == 3


async def test_another_connection_profits_from_its_first_request_on(place: Place) -> None:
    await place.learned(place.request())
    talk = await place.talk()
    for n in range(1, 4):
        assert (await talk.ask(place.request())).startswith(ACCEPTED)
        assert place.taken == n


WRONG: list[dict[str, Any]] = [
    {"prioritie": 1}, {"tenant": "no such!"}, {"channel": "pigeon"}, {"channel": None}, {"delay": "1y1"},
    {"account": "none"}, {"payload": {"deep": json.loads("[" * 98 + "]" * 98)}, "x": [[]]},
]  # fmt: skip


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b'"text"', b'{"a":"\xff"}', b'{"a":NaN}', b"[" * 200, b'{"a":' * 150 + b"1" + b"}" * 150,
    *(json.dumps(LATER | wrong).encode() for wrong in WRONG),
])  # fmt: skip
async def test_what_is_wrong_is_answered_alike(place: Place, body: bytes) -> None:
    good = json.dumps(LATER).encode().ljust(max(len(body), 64))
    talk = await place.learned(place.request(good))
    bad = place.request(body.ljust(len(good)))
    answer = await talk.ask(bad)
    assert answer.startswith(b"HTTP/1.1 4")
    assert same(answer) == same(await place.ordinary(bad))
    assert (await talk.ask(place.request(good))).startswith(ACCEPTED)  # the connection is as good as before
    assert (place.taken, await place.stored()) == (1, 2)


async def test_a_key_that_was_revoked_opens_nothing(place: Place) -> None:
    key = str((await place.service.keys.create(SYSTEM, "shop", "sender", None))["key"])
    talk = await place.learned(place.request(key=key))
    assert (await talk.ask(place.request(key=key))).startswith(ACCEPTED)
    await place.service.keys.revoke(SYSTEM, "shop")
    answer = await talk.ask(place.request(key=key))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert same(answer) == same(await place.ordinary(place.request(key=key)))
    assert await place.stored() == 2


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Host: localhost", b"Host: evil.example"), 403),
        ((b"Host: localhost", b"Host: localhost\r\nOrigin: http://evil.example"), 403),
        ((b"Host: localhost", b"Host: localhost\r\nSec-Fetch-Site: cross-site"), 403),
        ((b"Bearer ", b"Bearer x"), 401),
        ((b"Authorization: Bearer ", b"X: "), 401),
        ((b"application/json", b"text/plain"), 415),
        ((b"/messages ", b"/messages?wiat=1 "), 422),
        ((b"/messages ", b"/messages/x "), 405),
        ((b"POST", b"PUT"), 405),
    ],
)
async def test_a_head_that_is_refused_is_refused_each_time(
    place: Place, change: tuple[bytes, bytes], status: int
) -> None:
    talk = await place.learned(place.request())
    answers = [await talk.ask(place.request().replace(*change)) for _ in range(3)]
    assert {same(answer) for answer in answers} == {
        same(await place.ordinary(place.request().replace(*change)))
    }
    assert answers[0].startswith(b"HTTP/1.1 %d " % status)
    assert (place.taken, await place.stored()) == (0, 1)


@pytest.mark.parametrize(
    "headers",
    [
        (b"Expect: 100-continue",),
        (b"Connection: Upgrade", b"Upgrade: h2c"),
        (b"TE: trailers",),
        (b"Trailer: x",),
    ],
)
async def test_a_head_with_special_wishes_is_never_learned(place: Place, headers: tuple[bytes, ...]) -> None:
    for _ in range(3):
        talk = await place.talk()
        talk.say(place.request(None, *headers))
        await asyncio.sleep(0.05)
        status = (
            b"400" if b"Upgrade: h2c" in headers else b"202"
        )  # the server takes what follows for another protocol
        assert b"HTTP/1.1 " + status in await talk.reader.read(1000)
        talk.writer.close()
    assert place.taken == 0


async def test_a_body_in_chunks_is_taken_each_time(place: Place) -> None:
    raw = json.dumps(LATER).encode()
    chunked = place.request(b"", b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    talk = await place.talk()
    for _ in range(3):
        assert (await talk.ask(chunked, b"%x\r\n" % len(raw), raw, b"\r\n0\r\n\r\n")).startswith(ACCEPTED)
    assert (place.taken, await place.stored()) == (0, 3)


# -- arrivals


async def test_requests_may_arrive_in_any_pieces(place: Place) -> None:
    request = place.request()
    talk = await place.learned(request)
    for at in range(1, len(request), 7):
        talk.say(request[:at])
        await asyncio.sleep(0.002)
        assert (await talk.ask(request[at:])).startswith(ACCEPTED)
    for byte in request:
        talk.say(bytes([byte]))
        await asyncio.sleep(0)
    assert (await talk.hear()).startswith(ACCEPTED)
    taken = place.taken
    assert (await talk.ask(request)).startswith(ACCEPTED)
    assert place.taken == taken + 1


async def test_a_known_head_inside_another_requests_body_is_body(place: Place) -> None:
    request = place.request()
    talk = await place.learned(request)
    whole = place.request({"payload": request.decode()})
    head = whole.index(b"\r\n\r\n") + 4
    cut = whole.index(b"\\r\\n", head)
    talk.say(whole[:cut])
    await asyncio.sleep(0.02)
    assert (await talk.ask(whole[cut:])).startswith(ACCEPTED)
    # A body that is not JSON but, from its second piece on, a known request to the byte.
    talk.say(place.request(b"?" + request)[: -len(request)])
    await asyncio.sleep(0.02)
    assert (await talk.ask(request)).startswith(b"HTTP/1.1 400 ")
    assert (place.taken, await place.stored()) == (0, 2)


@pytest.mark.parametrize("new", [False, True])
async def test_a_known_request_inside_another_requests_head_is_head(place: Place, new: bool) -> None:
    talk = await place.learned(place.request())
    talk = await place.talk() if new else talk
    talk.say(b"GET /health/live HTTP/1.1\r\nX-Long: ")
    await asyncio.sleep(0.02)
    assert (await talk.ask(place.request())).startswith(b"HTTP/1.1 200 ")
    assert (place.taken, await place.stored()) == (0, 1)


@pytest.mark.parametrize("pause", [0, 0.02])
async def test_answers_come_in_the_order_of_the_requests(place: Place, pause: float) -> None:
    talk = await place.learned(place.request())
    get = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    place.gate.clear()
    for part in (place.request(), get, place.request(), get, get, place.request()):
        talk.say(part)
        await asyncio.sleep(pause)
    assert place.taken == (1 if pause else 0)
    place.gate.set()
    heard = [(await talk.hear()).split()[1] for _ in range(6)]
    assert heard == [b"202", b"200", b"202", b"200", b"200", b"202"]
    assert await place.stored() == 4


async def test_much_behind_an_open_request_waits_its_turn(place: Place) -> None:
    talk = await place.learned(place.request())
    place.gate.clear()
    talk.say(place.request())
    await asyncio.sleep(0.02)
    for _ in range(1000):
        talk.say(place.request())
    await asyncio.sleep(0.1)
    place.gate.set()
    for _ in range(1001):
        assert (await talk.hear()).startswith(ACCEPTED)
    assert await place.stored() == 1000  # a page


@pytest.mark.parametrize("known", [False, True])
async def test_two_requests_in_one_segment_are_two(place: Place, known: bool) -> None:
    talk = await (place.learned(place.request()) if known else place.talk())
    talk.say(place.request(), place.request())
    assert [(await talk.hear())[:12] for _ in range(2)] == [ACCEPTED[:12]] * 2
    assert (await talk.ask(place.request())).startswith(ACCEPTED)
    assert await place.stored() == 3 + known


async def test_an_empty_line_behind_a_request_is_no_part_of_it(place: Place) -> None:
    talk = await place.talk()
    assert (await talk.ask(place.request(), b"\r\n")).startswith(ACCEPTED)
    for taken in (0, 1, 2):
        assert (await talk.ask(place.request())).startswith(ACCEPTED)
        assert place.taken == taken


async def test_a_request_that_waits_is_never_learned(place: Place) -> None:
    talk = await place.talk()
    for _ in range(3):
        line = b"POST /api/v1/messages?wait=0.05 HTTP/1.1"
        assert (await talk.ask(place.request(line=line))).startswith(ACCEPTED)
    assert place.taken == 0


# -- ends of connections


@pytest.mark.parametrize("close", [b"close", b"Close", b"keep-alive, close"])
async def test_connection_close_closes(place: Place, close: bytes) -> None:
    for _ in range(3):
        talk = await place.talk()
        talk.say(place.request(None, b"Connection: " + close))
        answer = await talk.ends()
        assert answer.startswith(ACCEPTED)
        assert b"\r\nconnection: close\r\n" in answer
    assert place.taken == 0


async def test_http_1_0_closes(place: Place) -> None:
    for _ in range(3):
        talk = await place.talk()
        talk.say(place.request(line=b"POST /api/v1/messages HTTP/1.0"))
        assert (await talk.ends()).startswith(ACCEPTED)
    assert place.taken == 0


async def test_what_is_declared_too_large_is_refused(place: Place) -> None:
    for size in (b"100001", b"9" * 18, b"9" * 30):
        for _ in range(2):
            talk = await place.learned(place.request())
            talk.say(place.request(b"{}", b"Content-Length: " + size))
            talk.writer.write_eof()
            assert (await talk.ends())[:12] in {b"HTTP/1.1 413", b"HTTP/1.1 400"}
    assert place.taken == 5  # only the good ones, each connection's first


async def test_a_wrong_length_ends_one_request_and_starts_the_next(place: Place) -> None:
    request = place.request()
    talk = await place.learned(request)
    talk.say(request[:-3])
    await asyncio.sleep(0.02)
    assert place.taken == 0
    assert (await talk.ask(request[-3:])).startswith(ACCEPTED)
    talk.say(request, b"rubbish\r\n\r\n")
    heard = await talk.ends()
    assert b"HTTP/1.1 400 " in heard
    assert place.taken == 0


async def test_a_body_is_as_long_as_its_head_says(place: Place) -> None:
    raw = json.dumps(LATER).encode()
    request = place.request(raw + b"  ")
    talk = await place.learned(request)
    talk.say(request[:-2])
    await asyncio.sleep(0.05)
    assert place.taken == 0
    assert (await talk.ask(b"  ")).startswith(ACCEPTED)
    talk.say(request, b"  ")
    heard = await talk.ends()
    assert b"HTTP/1.1 400 " in heard
    assert place.taken == 0


async def test_a_client_that_leaves_is_not_waited_for_and_its_message_is_stored_once(place: Place) -> None:
    talk = await place.learned(place.request())
    place.gate.clear()
    talk.say(place.request(), b"")
    await asyncio.sleep(0.02)
    talk.say(place.request())
    await asyncio.sleep(0.02)
    talk.writer.transport.abort()
    await asyncio.sleep(0.02)
    place.gate.set()
    await asyncio.sleep(0.05)
    assert (place.taken, await place.stored()) == (1, 2)
    assert not place.server.server_state.connections


async def test_a_server_that_stops_answers_first(place: Place) -> None:
    talk, idle = await place.learned(place.request()), await place.learned(place.request())
    place.gate.clear()
    talk.say(place.request())
    await asyncio.sleep(0.02)
    talk.say(place.request())
    place.server.end()
    assert await idle.ends() == b""
    await asyncio.sleep(0.3)
    place.gate.set()
    answer = await talk.ends()
    assert answer.startswith(ACCEPTED)
    assert answer.count(b"HTTP/1.1") == answer.count(b"\r\nconnection: close\r\n") == 1
    assert place.taken == 2  # the first of the second connection too


async def test_a_connection_that_rests_is_closed_and_one_in_use_is_not(place: Place) -> None:
    place.server.config.timeout_keep_alive = 1
    talk = await place.learned(place.request())
    for _ in range(4):
        await asyncio.sleep(0.5)
        assert (await talk.ask(place.request())).startswith(ACCEPTED)
    place.gate.clear()
    talk.say(place.request())
    await asyncio.sleep(1.5)
    place.gate.set()
    assert (await talk.hear()).startswith(ACCEPTED)
    begun = asyncio.get_running_loop().time()
    assert await talk.ends(5) == b""
    assert 0.7 < asyncio.get_running_loop().time() - begun < 2
    assert place.taken == 5


# -- what only the store knows


async def test_a_key_that_was_used_is_answered_alike(place: Place) -> None:
    body = {"idempotency_key": "once"}
    talk = await place.learned(place.request(body))
    again = await talk.ask(place.request(body))
    assert json.loads(again.partition(b"\r\n\r\n")[2])["duplicate"] is True
    assert same(again) == same(await place.ordinary(place.request(body)))
    other = place.request(body | {"delay": "2h"})
    conflict = await talk.ask(other)
    assert conflict.startswith(b"HTTP/1.1 409 ")
    assert same(conflict) == same(await place.ordinary(other))
    assert (place.taken, await place.stored()) == (2, 1)


async def test_a_store_that_fails_is_asked_once_and_told_alike(place: Place) -> None:
    talk = await place.learned(place.request())
    place.error = UnavailableError("the disk is full")
    adds = place.adds
    answer = await talk.ask(place.request())
    assert (place.taken, place.adds) == (1, adds + 1)
    assert answer.startswith(b"HTTP/1.1 503 ")
    place.error = UnavailableError("the disk is full")
    assert same(answer) == same(await place.ordinary(place.request()))
    assert (await talk.ask(place.request())).startswith(ACCEPTED)
    assert await place.stored() == 2


# -- what the lane is made of


async def test_only_so_many_heads_are_remembered() -> None:
    lane = fast.Lane()
    for n in range(5000):
        lane.learn(b"%d" % n, 1, lambda raw, then: True)
    assert len(lane.heads) == 2000
    assert b"4999" in lane.heads


def test_another_uvicorn_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        def __init__(self) -> None:
            self.other = 1

    assert not fast.fits(Bare, Bare)
    assert not fast.fits(object, object)
    assert fast.fits(HttpToolsProtocol, RequestResponseCycle)
    monkeypatch.setattr(fast, "HttpToolsProtocol", Bare)
    chosen: type = fast.protocol()
    assert chosen is Bare
    monkeypatch.setitem(sys.modules, "paceline.api.fast", None)
    assert server._protocol() == "auto"
