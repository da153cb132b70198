"""The webhook channel against a peer, its signatures checked by the reference library."""

import base64
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import standardwebhooks.webhooks

from paceline.channels.outgoing import LONGEST_WAIT_MS, HttpClient, networks
from paceline.channels.webhook import Webhook, sign
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from tests.contracts.peers.http import Act, CutEarly, CutLate, Hang, HttpPeer, Raw, Reply, closed_port
from tests.contracts.peers.messages import NOW, SECRET, account, message

KEY = "whsec_" + base64.b64encode(b"a key of twenty-four byt").decode()


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    client = HttpClient(networks(["127.0.0.0/8"]))
    yield client
    await client.close()


@pytest.fixture
def webhook(http: HttpClient) -> Webhook:
    return Webhook(http, lambda: NOW)


def says(status: int, more: str = "") -> str:
    return f"the receiver answered with status {status}{more}"


CUT = "the connection was cut before an answer came"

# label, what the receiver does, outcome for a URL of the message, outcome for the URL of the account (None: same)
ANSWERS: list[tuple[str, Act, Outcome, Outcome | None]] = [
    ("200", Reply(200, b'{"id":"r-1"}'), Accepted("r-1", {"status": 200}), None),
    ("201, number", Reply(201, b'{"id":7}'), Accepted("7", {"status": 201}), None),
    ("204, no body", Raw(b"HTTP/1.1 204 No Content\r\n\r\n"), Accepted("", {"status": 204}), None),
    ("200, HTML", Reply(200, b"<html>"), Accepted("", {"status": 200}), None),
    ("200, id is a list", Reply(200, b'{"id":[]}'), Accepted("", {"status": 200}), None),
    ("200, not UTF-8", Reply(200, b'{"id":"\xff"}'), Accepted("", {"status": 200}), None),
    ("200, ten MB", Reply(200, b"x" * 10_000_000), Accepted("", {"status": 200}), None),
    (
        "200, cut in the body",
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        Accepted("", {"status": 200}),
        None,
    ),
    (
        "429 with seconds",
        Reply(429, b"", {"Retry-After": "12"}),
        RateLimited(12_000, "recipient", "http-429", says(429)),
        RateLimited(12_000, "account", "http-429", says(429)),
    ),
    (
        "429 with a date",
        Reply(429, b"", {"Retry-After": "Thu, 09 Oct 2025 08:54:20 GMT"}),
        RateLimited(60_000, "recipient", "http-429", says(429)),
        RateLimited(60_000, "account", "http-429", says(429)),
    ),
    (
        "429 with a date gone by",
        Reply(429, b"", {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        RateLimited(1_000, "recipient", "http-429", says(429)),
        RateLimited(1_000, "account", "http-429", says(429)),
    ),
    (
        "429 with a senseless figure",
        Reply(429, b"", {"Retry-After": "99999999999999999"}),
        RateLimited(LONGEST_WAIT_MS, "recipient", "http-429", says(429)),
        RateLimited(LONGEST_WAIT_MS, "account", "http-429", says(429)),
    ),
    (
        "429 with words",
        Reply(429, b"", {"Retry-After": "-3 or so"}),
        RateLimited(None, "recipient", "http-429", says(429)),
        RateLimited(None, "account", "http-429", says(429)),
    ),
    (
        "503 with seconds",
        Reply(503, b"", {"Retry-After": "0"}),
        RateLimited(1_000, "recipient", "http-503", says(503)),
        RateLimited(1_000, "account", "http-503", says(503)),
    ),
    ("503", Reply(503), Temporary("http-503", says(503)), Temporary("http-503", says(503), up=False)),
    (
        "500",
        Reply(500, b"<html>a secret of the receiver"),
        Temporary("http-500", says(500)),
        Temporary("http-500", says(500), up=False),
    ),
    ("408", Reply(408), Temporary("http-408", says(408), up=True), None),
    ("425", Reply(425), Temporary("http-425", says(425), up=True), None),
    ("401", Reply(401), Permanent("http-401", says(401)), AccountStopped("http-401", says(401))),
    ("403", Reply(403), Permanent("http-403", says(403)), AccountStopped("http-403", says(403))),
    ("410", Reply(410), Permanent("http-410", says(410)), AccountStopped("http-410", says(410))),
    ("404", Reply(404), Permanent("http-404", says(404)), None),
    ("413", Reply(413), Permanent("http-413", says(413)), None),
    (
        "redirect to a private address",
        Reply(307, b"", {"Location": "http://127.0.0.1:1/"}),
        Permanent("http-307", says(307, "; redirects are not followed")),
        None,
    ),
    ("cut before the body", CutEarly(), Unknown(CUT), Unknown(CUT, up=False)),
    ("cut after the body", CutLate(), Unknown(CUT), Unknown(CUT, up=False)),
    ("not HTTP", Raw(b"220 mail ready\r\n\r\n"), Unknown("the answer is not valid HTTP"), None),
]


@pytest.mark.parametrize("own", [False, True], ids=["url of the message", "url of the account"])
@pytest.mark.parametrize(
    ("act", "free", "fixed"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS]
)
async def test_answers(
    webhook: Webhook, act: Act, free: Outcome, fixed: Outcome | None, *, own: bool
) -> None:
    async with HttpPeer(act) as peer:
        url = f"{peer.url}/hook"
        if own:
            outcome = await webhook.send(message({"payload": 1}), account(url=url), 5)
        else:
            outcome = await webhook.send(message({"payload": 1}, url), account(), 5)
    assert outcome == (fixed if own and fixed is not None else free)
    assert len(peer.seen) == 1


async def test_a_hanging_receiver_leaves_the_outcome_unknown(webhook: Webhook) -> None:
    async with HttpPeer(Hang()) as peer:
        outcome = await webhook.send(message({"payload": 1}, peer.url), account(), 0.2)
    assert outcome == Unknown("no answer came within 0.2 s")


async def test_a_body_that_never_ends_does_not_hide_the_status(webhook: Webhook) -> None:
    endless = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", close=False)
    async with HttpPeer(endless) as peer:
        outcome = await webhook.send(message({"payload": 1}, peer.url), account(), 0.2)
    assert outcome == Accepted("", {"status": 200})


async def test_a_refused_connection_is_temporary(webhook: Webhook) -> None:
    url = f"http://127.0.0.1:{await closed_port()}/"
    outcome = await webhook.send(message({"payload": 1}, url), account(), 5)
    assert isinstance(outcome, Temporary) and outcome.code == "connect"


BODIES: list[tuple[str, dict[str, Any], dict[str, Any], bool, Any]] = [
    ("object", {"payload": {"a": [1, None, "ü"]}}, {}, True, {"a": [1, None, "ü"]}),
    ("zero", {"payload": 0}, {}, True, 0),
    ("text", {"text": "hi"}, {}, False, {"id": "0199c0ffee01", "text": "hi"}),
    (
        "mail-like",
        {"subject": "s", "text": "t", "html": "<p>t"},
        {"order": 7},
        True,
        {
            "id": "0199c0ffee01",
            "to": "URL",
            "subject": "s",
            "text": "t",
            "html": "<p>t",
            "metadata": {"order": 7},
        },
    ),
]


@pytest.mark.parametrize(
    ("content", "metadata", "named", "expected"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
async def test_requests_and_signatures(
    webhook: Webhook,
    content: dict[str, Any],
    metadata: dict[str, Any],
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    named: bool,
) -> None:
    async with HttpPeer() as peer:
        url = f"{peer.url}/hook?x=1"
        sender = account(url=url, secret=KEY, authorization=f"Bearer {SECRET}")
        to = (url,) if named else ()
        assert webhook.check(to, content) == []
        await webhook.send(message(content, *to, metadata=metadata), sender, 5)
    (seen,) = peer.seen
    assert (seen.method, seen.path) == ("POST", "/hook?x=1")
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["webhook-id"] == "0199c0ffee01"
    assert seen.headers["webhook-timestamp"] == str(NOW // 1000)
    assert seen.headers["authorization"] == f"Bearer {SECRET}"
    body = json.loads(seen.body)
    if isinstance(expected, dict) and "to" in expected:
        expected = expected | {"to": url}
    assert body == expected
    # The reference library checks the age against its own clock, which is not what is tested here.
    monkeypatch.setattr(standardwebhooks.webhooks.Webhook, "_Webhook__verify_timestamp", _read_timestamp)
    verifier = standardwebhooks.webhooks.Webhook(KEY)
    assert verifier.verify(seen.body, seen.headers) == body
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        verifier.verify(seen.body + b" ", seen.headers)


def _read_timestamp(_: object, header: str) -> Any:
    return dt.datetime.fromtimestamp(float(header), tz=dt.UTC)


def test_two_keys_make_two_signatures() -> None:
    both = sign(f"{KEY} plain", "m", "1", b"{}").split(" ")
    assert both == [sign(KEY, "m", "1", b"{}"), sign("plain", "m", "1", b"{}")]


async def test_the_authorization_goes_to_the_account_s_own_url_alone(webhook: Webhook) -> None:
    async with HttpPeer() as own, HttpPeer() as other:
        sender = account(url=own.url, authorization=SECRET)
        await webhook.send(message({"payload": 1}, other.url), sender, 5)
        await webhook.send(message({"payload": 1}), sender, 5)
    assert "authorization" not in other.seen[0].headers
    assert own.seen[0].headers["authorization"] == SECRET


async def test_an_account_s_url_can_be_left_out_only_if_there_is_one(webhook: Webhook) -> None:
    outcome = await webhook.send(message({"payload": 1}), account(), 5)
    assert isinstance(outcome, Permanent) and outcome.code == "no-url"


async def test_connections_are_reused(webhook: Webhook) -> None:
    async with HttpPeer() as peer:
        for _ in range(10):
            await webhook.send(message({"payload": 1}, peer.url), account(), 5)
    assert (peer.connections, len(peer.seen)) == (1, 10)


async def test_an_address_that_is_not_allowed_is_not_called() -> None:
    client = HttpClient()
    webhook = Webhook(client, lambda: NOW)
    async with HttpPeer() as peer:
        free = await webhook.send(message({"payload": 1}, peer.url), account(), 5)
        own = await webhook.send(message({"payload": 1}), account(url=peer.url), 5)
        problems = webhook.check((peer.url,), {"payload": 1})
    await client.close()
    assert isinstance(free, Permanent) and free.code == "address-refused"
    assert isinstance(own, AccountStopped) and own.code == "address-refused"
    assert [problem.field for problem in problems] == ["/to"]
    assert peer.connections == 0


URL = "https://example.com/hook"


@pytest.mark.parametrize(
    ("to", "content", "field"),
    [
        ((URL, URL), {"payload": 1}, "/to"),
        (("",), {"payload": 1}, "/to"),
        (("http://169.254.169.254/latest/meta-data",), {"payload": 1}, "/to"),
        (("https://user:pass@example.com/",), {"payload": 1}, "/to"),
        ((URL + "\r\nX: y",), {"payload": 1}, "/to"),
        ((URL,), {}, "/payload"),
        ((URL,), {"text": ""}, "/text"),
        ((URL,), {"text": 5}, "/text"),
        ((URL,), {"payload": 1, "text": "hi"}, "/text"),
    ],
)
def test_bad_messages(webhook: Webhook, to: tuple[str, ...], content: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in webhook.check(to, content)] == [field]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"url": "http://10.1.2.3/"}, "/url"),
        ({"secret": "whsec_&&&"}, "/secret"),
        ({"secret": "a\nb"}, "/secret"),
        ({"authorization": "a\r\nX: y"}, "/authorization"),
        ({"authorization": "schlüssel"}, "/authorization"),
    ],
)
def test_bad_settings(webhook: Webhook, settings: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in webhook.check_settings(settings)] == [field]


def test_good_settings(webhook: Webhook) -> None:
    assert webhook.check_settings({}) == []
    assert webhook.check_settings({"url": URL, "secret": KEY, "authorization": "Bearer x"}) == []
