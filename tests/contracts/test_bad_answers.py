"""Providers that answer nonsense: each message ends in a state that tells, in time, and the next one goes out."""

import asyncio
import datetime as dt
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.channels.outgoing import HttpClient, networks
from paceline.channels.telegram_bot import TelegramBot
from paceline.channels.webhook import Webhook
from paceline.model.outcomes import Accepted, Outcome, Permanent, Temporary, Unknown
from tests.contracts.bad_place import Place, placed
from tests.contracts.peers.certificates import contexts
from tests.contracts.peers.http import Act, Drip, HttpPeer, Raw, Reply
from tests.contracts.peers.messages import NOW, account, message

LOOPBACK = networks(["127.0.0.0/8"])
TOKEN = "123456:" + "A" * 35
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LATE = Unknown("no answer came within 0.3 s", up=False)
LATE_SOMEWHERE = Unknown("no answer came within 0.3 s")
NO_HTTP = Unknown("the answer is not valid HTTP")
UNREAD = Unknown("the answer has status 200 but cannot be read")
TAKEN = Accepted("", {"status": 200})
BOMB = gzip.compress(b'{"ok":true,"result":{"message_id":1}}' + b" " * 50_000_000)

ANSWERS: list[tuple[str, Act, Outcome, Outcome]] = [
    ("a byte now and then, in the head", Drip(b"HTTP/1.1 200 O", b"K"), LATE, LATE_SOMEWHERE),
    ("a header now and then", Drip(HEAD, b"X-A: b\r\n"), LATE, LATE_SOMEWHERE),
    ("a byte now and then, in the body", Drip(HEAD + b"Content-Length: 999\r\n\r\n"), UNREAD, TAKEN),
    ("a body without end", Drip(HEAD + b"\r\n", b" " * 60_000, 0.001), UNREAD, TAKEN),
    ("go on, go on", Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LATE, LATE_SOMEWHERE),
    ("a head without end", Drip(HEAD, b"X" * 60_000, 0.001), NO_HTTP, NO_HTTP),
    ("a compressed bomb", Reply(200, BOMB, {"Content-Encoding": "gzip"}), UNREAD, TAKEN),
    ("a bomb of another kind", Reply(200, BOMB, {"Content-Encoding": "br, gzip, gzip"}), UNREAD, TAKEN),
    ("deep brackets", Reply(200, b'{"ok":' + b"[" * 60_000), UNREAD, TAKEN),
    ("no UTF-8", Reply(200, b'{"ok":true,"result":"\xff\xfe"}'), UNREAD, TAKEN),
    ("half a character", Reply(200, b'{"ok":true,"result":{"message_id":"\\ud800"}}'), UNREAD, TAKEN),
    ("two lengths", Raw(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), NO_HTTP, NO_HTTP),
    ("an unknown encoding of the body", Raw(HEAD + b"Transfer-Encoding: zebra\r\n\r\n{}"), UNREAD, TAKEN),
    ("no such status", Raw(b"HTTP/1.1 999 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
     Temporary("telegram-999", "HTTP status 999", up=False), Temporary("http-999", "the receiver answered with status 999")),
    ("another protocol", Raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
     Unknown("HTTP status 101", "telegram-101"), Permanent("http-101", "the receiver answered with status 101")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "bots", "hooks"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
async def test_an_answer_that_is_none_costs_little_and_tells(act: Act, bots: Outcome, hooks: Outcome) -> None:
    client = HttpClient(LOOPBACK)
    bot, hook = TelegramBot(client), Webhook(client, lambda: NOW)
    async with HttpPeer(usual=act) as peer:
        own = account(token=TOKEN, base_url=peer.url)
        tracemalloc.start()
        try:
            async with asyncio.timeout(10):
                told = await bot.send(message({"text": "x"}, "1"), own, 0.3)
                also = await hook.send(message({"payload": 1}, peer.url), account(), 0.3)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
            await client.close()
    assert (told, also) == (bots, hooks)


async def test_an_expired_certificate_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    server, trusting = contexts(tmp_path, expired=True)
    client = HttpClient(LOOPBACK, tls=trusting)
    async with HttpPeer(tls=server) as peer:
        sent = await Webhook(client, lambda: NOW).send(message({"payload": 1}, peer.url), account(), 5)
        told = await TelegramBot(client).send(
            message({"text": "x"}, "1"), account(token=TOKEN, base_url=peer.url), 5
        )
        await client.close()
    text = "no trusted TLS connection could be made"
    assert (sent, told) == (Temporary("tls", text), Temporary("tls", text, up=False))
    assert peer.seen == []


# -- through the whole system


@pytest.fixture
async def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Place]:
    async with placed(tmp_path, caplog, outgoing_allow=LOOPBACK) as place:
        yield place


def refusal(code: int, **more: Any) -> bytes:
    return json.dumps({"ok": False, "error_code": code, "description": "no", **more}).encode()


ENDS: list[tuple[str, Act, str, str, str]] = [
    ("an error inside a 200", Reply(200, refusal(400)), "failed", "permanent", "telegram-400"),
    ("HTML", Reply(200, b"<html>ok</html>"), "uncertain", "uncertain", "unknown"),
    ("nothing", Reply(200, b""), "uncertain", "uncertain", "unknown"),
    ("ten megabytes", Reply(200, b"[" + b"1," * 5_000_000), "uncertain", "uncertain", "unknown"),
    ("500 after taking it", Reply(500, b""), "failed", "temporary", "telegram-500"),
    ("a redirect to a private address", Reply(302, b"", {"Location": "http://10.0.0.1/"}), "pending", "account-stopped",
     "telegram-302"),
    ("wait until the next century", Reply(429, refusal(429, parameters={"retry_after": 3_000_000_000})), "pending",
     "rate-limited", "telegram-429"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("act", "state", "kind", "code"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
async def test_what_a_provider_says_is_the_state_of_the_message(
    place: Place, act: Act, state: str, kind: str, code: str
) -> None:
    async with HttpPeer(act, usual=Reply(200, b'{"ok":true,"result":{"message_id":7}}')) as peer:
        await place.api(
            "PUT",
            "/accounts/one",
            {"channel": "telegram-bot", "settings": {"token": TOKEN, "base_url": peer.url}},
        )
        body = {"channel": "telegram-bot", "account": "one", "to": "1", "text": "x", "max_attempts": 1}
        id_ = (await place.api("POST", "/messages", body)).json["id"]
        told: dict[str, Any] = {}
        while told.get("state") != state or not told.get("history") or not told["history"][0]["finished_at"]:
            told = (await place.api("GET", f"/messages/{id_}")).json
        (attempt,) = told["history"]
        assert (attempt["outcome"], attempt["code"]) == (kind, code), told
        if state != "pending":
            # The account is not to blame: the next one goes out, and two may get the same number from the provider.
            ends = [(await place.api("POST", "/messages?wait=20", body)).json for _ in range(2)]
            assert [(end["state"], end["result"]["reference"]) for end in ends] == [("completed", "7")] * 2
            return
        why = (await place.api("GET", f"/messages/{id_}/why")).json
        account_ = (await place.api("GET", "/accounts/one")).json
        assert why["reasons"][0]["kind"] in {"stopped", "flood-wait"}
        if account_["state"] == "flooded":  # a wait is at most a week, and says when it ends
            until = dt.datetime.fromisoformat(why["reasons"][0]["until"])
            assert until < dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
            assert len(peer.seen) == 1
        else:
            assert account_["state"] == "unhealthy"
            assert "telegram-302" in why["reasons"][0]["text"]
