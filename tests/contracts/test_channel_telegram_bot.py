"""The Telegram bot channel against a peer that answers as the Bot API does, and as it should not."""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paceline.channels.outgoing import HttpClient, networks
from paceline.channels.telegram_bot import TelegramBot
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from tests.contracts.peers.http import Act, CutEarly, CutLate, Hang, HttpPeer, Raw, Reply, closed_port
from tests.contracts.peers.messages import SECRET, account, message

TOKEN = f"1000:{SECRET}"


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(networks(["127.0.0.0/8"]))
    yield client
    await client.close()


@pytest.fixture
def bot(http: HttpClient) -> TelegramBot:
    return TelegramBot(http)


def answer(code: int, description: str = "why", status: int | None = None, **parameters: Any) -> Reply:
    body: dict[str, Any] = {"ok": False, "error_code": code, "description": description}
    if parameters:
        body["parameters"] = parameters
    return Reply(status or code, json.dumps(body).encode())


def sent(result: Any) -> Reply:
    return Reply(200, json.dumps({"ok": True, "result": result}).encode())


ANSWERS: list[tuple[str, Act, Outcome]] = [
    ("taken", sent({"message_id": 42}), Accepted("42")),
    ("taken, without an id", sent(True), Accepted("")),
    ("too fast", answer(429, retry_after=34), RateLimited(34_000, "account", "telegram-429", "why")),
    ("too fast, fraction", answer(429, retry_after=0.25), RateLimited(250, "account", "telegram-429", "why")),
    ("too fast, no figure", answer(429), RateLimited(None, "account", "telegram-429", "why")),
    (
        "too fast, figure in the header",
        Reply(429, b"<html>", {"Retry-After": "7"}),
        RateLimited(7_000, "account", "telegram-429", "HTTP status 429"),
    ),
    ("senseless figure", answer(429, retry_after=-5), RateLimited(None, "account", "telegram-429", "why")),
    ("figure is text", answer(429, retry_after="soon"), RateLimited(None, "account", "telegram-429", "why")),
    (
        "figure of a century",
        answer(429, retry_after=3_000_000_000),
        RateLimited(3_000_000_000_000, "account", "telegram-429", "why"),
    ),
    (
        "refused with status 200",
        answer(429, status=200, retry_after=2),
        RateLimited(2_000, "account", "telegram-429", "why"),
    ),
    ("group moved", answer(400, migrate_to_chat_id=-100123), Moved("-100123", "telegram-400", "why")),
    ("no such chat", answer(400, "chat not found"), Permanent("telegram-400", "chat not found")),
    ("blocked", answer(403), Permanent("telegram-403", "why")),
    ("too large", answer(413), Permanent("telegram-413", "why")),
    ("other refusal", answer(409), Permanent("telegram-409", "why")),
    ("unknown token", answer(401, "Unauthorized"), AccountStopped("telegram-401", "Unauthorized")),
    ("no such bot", answer(404, "Not Found"), AccountStopped("telegram-404", "Not Found")),
    (
        "not the API",
        Reply(302, b"", {"Location": "http://10.0.0.1/"}),
        AccountStopped("telegram-302", "HTTP status 302"),
    ),
    ("server error", answer(500), Temporary("telegram-500", "why", up=False)),
    ("gateway in HTML", Reply(502, b"<html>"), Temporary("telegram-502", "HTTP status 502", up=False)),
    ("away", Reply(503, b""), Temporary("telegram-503", "HTTP status 503", up=False)),
    ("away, with a figure", answer(503, retry_after=3), Temporary("telegram-503", "why", 3_000)),
    ("200 in HTML", Reply(200, b"<html>"), Unknown("the answer has status 200 but cannot be read")),
    ("200, empty", Reply(200, b""), Unknown("the answer has status 200 but cannot be read")),
    ("200, ten MB", Reply(200, b" " * 10_000_000), Unknown("the answer has status 200 but cannot be read")),
    (
        "200, cut in the body",
        Raw(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"ok":tr'),
        Unknown("the answer has status 200 but cannot be read"),
    ),
    ("not HTTP", Raw(b"garbage\r\n\r\n"), Unknown("the answer is not valid HTTP")),
    ("cut before the body", CutEarly(), Unknown("the connection was cut before an answer came", up=False)),
    ("cut after the body", CutLate(), Unknown("the connection was cut before an answer came", up=False)),
    (
        "token in the answer",
        answer(400, f"no /bot{TOKEN}/x\r\n\x1b[31m"),
        Permanent("telegram-400", "no /bot***/x [31m"),
    ),
]


@pytest.mark.parametrize(("act", "expected"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
async def test_answers(
    bot: TelegramBot, act: Act, expected: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with HttpPeer(act) as peer:
        outcome = await bot.send(
            message({"text": "hi"}, "77"), account(token=TOKEN, base_url=peer.url), deadline=5
        )
    assert outcome == expected
    assert len(peer.seen) == 1
    assert SECRET not in repr(outcome) + caplog.text


REQUESTS: list[tuple[str, dict[str, Any], str, dict[str, Any], dict[str, Any]]] = [
    ("a number", {"text": "hi"}, "77", {}, {"chat_id": 77, "text": "hi"}),
    ("a group", {"text": "hi"}, "-1001234", {}, {"chat_id": -1001234, "text": "hi"}),
    ("a name", {"text": "hi"}, "@news_channel", {}, {"chat_id": "@news_channel", "text": "hi"}),
    (
        "mark-up of the account",
        {"text": "<b>hi</b>"},
        "77",
        {"parse_mode": "HTML"},
        {"chat_id": 77, "parse_mode": "HTML", "text": "<b>hi</b>"},
    ),
    (
        "parameters",
        {"text": "hi", "payload": {"disable_notification": True, "parse_mode": "MarkdownV2"}},
        "77",
        {"parse_mode": "HTML"},
        {"chat_id": 77, "parse_mode": "MarkdownV2", "disable_notification": True, "text": "hi"},
    ),
    ("text in the payload", {"payload": {"text": "hi"}}, "77", {}, {"chat_id": 77, "text": "hi"}),
    ("emoji", {"text": "👍🏽 ünï"}, "77", {}, {"chat_id": 77, "text": "👍🏽 ünï"}),
]


@pytest.mark.parametrize(
    ("content", "to", "settings", "expected"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS]
)
async def test_requests(
    bot: TelegramBot, content: dict[str, Any], to: str, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert bot.check((to,), content) == []
    async with HttpPeer(usual=sent({"message_id": 1})) as peer:
        await bot.send(message(content, to), account(token=TOKEN, base_url=peer.url + "/", **settings), 5)
    (seen,) = peer.seen
    assert (seen.method, seen.path) == ("POST", f"/bot{TOKEN}/sendMessage")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["accept-encoding"] == "identity"
    assert json.loads(seen.body) == expected


async def test_a_hanging_peer_leaves_the_outcome_unknown(bot: TelegramBot) -> None:
    async with HttpPeer(Hang()) as peer:
        outcome = await bot.send(message({"text": "hi"}, "77"), account(token=TOKEN, base_url=peer.url), 0.2)
    assert outcome == Unknown("no answer came within 0.2 s", up=False)


async def test_a_refused_connection_is_temporary(bot: TelegramBot) -> None:
    base = f"http://127.0.0.1:{await closed_port()}"
    outcome = await bot.send(message({"text": "hi"}, "77"), account(token=TOKEN, base_url=base), 5)
    assert isinstance(outcome, Temporary)
    assert outcome.code == "connect"
    assert SECRET not in repr(outcome)


async def test_a_private_base_url_stops_the_account_and_is_not_called() -> None:
    client = HttpClient()
    async with HttpPeer() as peer:
        outcome = await TelegramBot(client).send(
            message({"text": "hi"}, "77"), account(token=TOKEN, base_url=peer.url), 5
        )
    await client.close()
    assert isinstance(outcome, AccountStopped)
    assert outcome.code == "address-refused"
    assert peer.connections == 0


async def test_connections_are_reused(bot: TelegramBot) -> None:
    async with HttpPeer(usual=sent({"message_id": 1})) as peer:
        for _ in range(20):
            await bot.send(message({"text": "hi"}, "77"), account(token=TOKEN, base_url=peer.url), 5)
    assert (peer.connections, len(peer.seen)) == (1, 20)


async def test_a_text_that_is_too_long_without_mark_up_is_never_sent(bot: TelegramBot) -> None:
    text = "a_" * 2049
    assert bot.check(("77",), {"text": text}) == []
    async with HttpPeer() as peer:
        outcome = await bot.send(message({"text": text}, "77"), account(token=TOKEN, base_url=peer.url), 5)
    assert isinstance(outcome, Permanent)
    assert peer.seen == []


async def test_probe_asks_who_the_bot_is(bot: TelegramBot) -> None:
    async with HttpPeer(sent({"id": 1000, "username": "shop_bot"}), answer(401)) as peer:
        works = await bot.probe(account(token=TOKEN, base_url=peer.url), 5)
        fails = await bot.probe(account(token=TOKEN, base_url=peer.url), 5)
    assert works == Accepted("shop_bot")
    assert isinstance(fails, AccountStopped)
    assert [seen.path for seen in peer.seen] == [f"/bot{TOKEN}/getMe"] * 2


BAD: list[tuple[str, tuple[str, ...], dict[str, Any], str]] = [
    ("no recipient", (), {"text": "hi"}, "/to"),
    ("two recipients", ("1", "2"), {"text": "hi"}, "/to"),
    ("empty recipient", ("",), {"text": "hi"}, "/to"),
    ("zero", ("0",), {"text": "hi"}, "/to"),
    ("line break", ("77\n",), {"text": "hi"}, "/to"),
    ("full-width digits", ("７７",), {"text": "hi"}, "/to"),
    ("too many digits", ("9999999999999999999",), {"text": "hi"}, "/to"),
    ("a path", ("77/../x",), {"text": "hi"}, "/to"),
    ("a name too short", ("@ab",), {"text": "hi"}, "/to"),
    ("a bidi override in a name", ("@abc\u202edef",), {"text": "hi"}, "/to"),
    ("no text", ("77",), {}, "/text"),
    ("empty text", ("77",), {"text": ""}, "/text"),
    ("blank text", ("77",), {"text": " \n\t"}, "/text"),
    ("text is a number", ("77",), {"text": 5}, "/text"),
    ("4097 signs", ("77",), {"text": "x" * 4097}, "/text"),
    ("2049 emoji are 4098 units", ("77",), {"text": "😀" * 2049}, "/text"),
    ("a megabyte", ("77",), {"text": "<" * 1_000_000}, "/text"),
    ("NUL", ("77",), {"text": "a\0b"}, "/text"),
    ("half an emoji", ("77",), {"text": "a\ud83d"}, "/text"),
    ("payload is a list", ("77",), {"text": "hi", "payload": []}, "/payload"),
    ("another chat in the payload", ("77",), {"text": "hi", "payload": {"chat_id": 5}}, "/payload/chat_id"),
    ("two texts", ("77",), {"text": "hi", "payload": {"text": "ho"}}, "/payload/text"),
]


@pytest.mark.parametrize(("to", "content", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_messages(bot: TelegramBot, to: tuple[str, ...], content: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in bot.check(to, content)] == [field]


@pytest.mark.parametrize("text", ["x" * 4096, "😀" * 2048, "👨‍👩‍👧‍👦", "a\u202eb", "e\u0301"])
def test_good_texts(bot: TelegramBot, text: str) -> None:
    assert bot.check(("77",), {"text": text}) == []


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"token": ""}, "/token"),
        ({"token": "abc"}, "/token"),
        ({"token": "1:a/../b"}, "/token"),
        ({"token": "1:a\r\nHost: x"}, "/token"),
        ({"token": TOKEN, "base_url": "http://10.0.0.1"}, "/base_url"),
        ({"token": TOKEN, "base_url": "ftp://api.example.com"}, "/base_url"),
        ({"token": TOKEN, "base_url": "https://api.example.com/?a=1"}, "/base_url"),
    ],
)
def test_bad_settings(bot: TelegramBot, settings: dict[str, Any], field: str) -> None:
    problems = bot.check_settings(settings)
    assert [problem.field for problem in problems] == [field]
    assert SECRET not in repr(problems)


@pytest.mark.parametrize(
    "settings", [{"token": "1000:TOKEN"}, {"token": TOKEN, "base_url": "http://127.0.0.1:8081/sub"}]
)
def test_good_settings(bot: TelegramBot, settings: dict[str, Any]) -> None:
    assert bot.check_settings(settings) == []
