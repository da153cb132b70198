"""The SMTP channel against a real SMTP server that fails on demand."""

import asyncio
import base64
import email
import email.policy
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest

from paceline.channels import smtp_session
from paceline.channels.smtp import Smtp
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)
from tests.contracts.peers.certificates import contexts
from tests.contracts.peers.http import closed_port
from tests.contracts.peers.messages import SECRET, account, message
from tests.contracts.peers.smtp import CUT, CUT_IN_BODY, HANG, RawSmtpPeer, Script, SmtpPeer

TO = "ann@example.com"
MAIL = {"subject": "Hello", "text": "Dear Ann"}


@pytest.fixture
async def smtp() -> AsyncIterator[Smtp]:
    channel = Smtp()
    yield channel
    await channel.close()


def sender(port: int, **more: Any) -> Any:
    return account(
        **({"host": "127.0.0.1", "port": port, "security": "none", "from": "Shop <shop@example.org>"} | more)
    )


def taken(*, refused: dict[str, str] | None = None, reply: str = "2.0.0 OK: queued as 4Xy7Q") -> Accepted:
    result: dict[str, Any] = {"message_id": "<0199c0ffee01@example.org>", "reply": reply}
    return Accepted("4Xy7Q", result | ({"refused": refused} if refused else {}))


CUT_BEFORE = Temporary("cut", "the connection was cut", up=False)
SLOW_BEFORE = Temporary("timeout", "the server did not answer in time", up=False)

FAULTS: list[tuple[str, Script, Outcome]] = [
    ("taken", Script(), taken()),
    ("greeting 421", Script(greeting="421 4.7.0 busy"), RateLimited(None, "account", "smtp-421-4.7.0", "421 4.7.0 busy")),
    ("greeting 450", Script(greeting="450 later"), Temporary("smtp-450", "450 later", up=False)),
    ("greeting 554", Script(greeting="554 5.7.1 you are listed"), AccountStopped("smtp-554-5.7.1", "554 5.7.1 you are listed")),
    ("cut for a greeting", Script(greeting=CUT), Temporary("connect", "no connection could be made", up=False)),
    ("no greeting", Script(greeting=HANG), SLOW_BEFORE),
    ("cut for a hello", Script(hello=CUT), CUT_BEFORE),
    ("MAIL 421", Script(mail=["421 4.7.28 rate limited"]), RateLimited(None, "account", "smtp-421-4.7.28", "421 4.7.28 rate limited")),
    ("MAIL 450 4.7", Script(mail=["450 4.7.1 too fast"]), RateLimited(None, "account", "smtp-450-4.7.1", "450 4.7.1 too fast")),
    ("MAIL 451 4.7", Script(mail=["451 4.7.500 server busy"]), RateLimited(None, "account", "smtp-451-4.7.500", "451 4.7.500 server busy")),
    ("MAIL 454 4.7.0", Script(mail=["454 4.7.0 later"]), RateLimited(None, "account", "smtp-454-4.7.0", "454 4.7.0 later")),
    ("MAIL 451", Script(mail=["451 4.3.0 disk"]), Temporary("smtp-451-4.3.0", "451 4.3.0 disk", up=True)),
    ("MAIL 530", Script(mail=["530 5.7.0 login first"]), AccountStopped("smtp-530-5.7.0", "530 5.7.0 login first")),
    ("MAIL 552", Script(mail=["552 5.3.4 too big"]), Permanent("smtp-552-5.3.4", "552 5.3.4 too big")),
    ("MAIL quota", Script(mail=["550 5.4.5 daily quota"]), RateLimited(None, "account", "smtp-550-5.4.5", "550 5.4.5 daily quota")),
    ("MAIL cut", Script(mail=[CUT]), CUT_BEFORE),
    ("MAIL hang", Script(mail=[HANG]), SLOW_BEFORE),
    ("RCPT unknown", Script(rcpt={TO: "550 5.1.1 no such user"}), Permanent("smtp-550-5.1.1", "550 5.1.1 no such user")),
    ("RCPT without enhanced code", Script(rcpt={TO: "553 bad name"}), Permanent("smtp-553", "553 bad name")),
    ("RCPT full", Script(rcpt={TO: "452 4.2.2 mailbox full"}), Temporary("smtp-452-4.2.2", "452 4.2.2 mailbox full", up=True)),
    ("RCPT greylisted", Script(rcpt={TO: "451 4.7.1 Greylisted, try later"}), Temporary("smtp-451-4.7.1", "451 4.7.1 Greylisted, try later", 60_000, up=True)),
    ("RCPT enhanced code of another class", Script(rcpt={TO: "450 5.1.1 odd"}), Temporary("smtp-450", "450 5.1.1 odd", up=True)),
    ("RCPT 421", Script(rcpt={TO: "421 4.3.2 shutting down"}), RateLimited(None, "account", "smtp-421-4.3.2", "421 4.3.2 shutting down")),
    ("RCPT cut", Script(rcpt={TO: CUT}), CUT_BEFORE),
    ("RCPT hang", Script(rcpt={TO: HANG}), SLOW_BEFORE),
    ("DATA 451", Script(data=["451 4.3.0 no"]), Temporary("smtp-451-4.3.0", "451 4.3.0 no", up=True)),
    ("DATA 554", Script(data=["554 5.5.1 no valid recipients"]), Permanent("smtp-554-5.5.1", "554 5.5.1 no valid recipients")),
    ("DATA cut", Script(data=[CUT]), CUT_BEFORE),
    ("DATA hang", Script(data=[HANG]), SLOW_BEFORE),
    ("after dot 250", Script(dot=["250 fine"]), Accepted("<0199c0ffee01@example.org>", {"message_id": "<0199c0ffee01@example.org>", "reply": "fine"})),
    ("after dot 451", Script(dot=["451 4.3.0 later"]), Temporary("smtp-451-4.3.0", "451 4.3.0 later", up=True)),
    ("after dot 554", Script(dot=["554 5.7.1 spam"]), Permanent("smtp-554-5.7.1", "554 5.7.1 spam")),
    ("after dot 421", Script(dot=["421 4.7.0 busy"]), RateLimited(None, "account", "smtp-421-4.7.0", "421 4.7.0 busy")),
    ("after dot cut", Script(dot=[CUT]), Unknown("the mail was handed over, then: the connection was cut", up=False)),
    ("after dot hang", Script(dot=[HANG]), Unknown("the mail was handed over, and no reply came in time", up=False)),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
async def test_faults(smtp: Smtp, script: Script, expected: Outcome) -> None:
    hangs = HANG in repr(script)
    async with SmtpPeer(script) as peer:
        outcome = await smtp.send(message(MAIL, TO), sender(peer.port), 0.4 if hangs else 5)
        # The next mail goes through, whatever became of the connection.
        script.greeting = script.hello = None
        script.rcpt.clear()
        again = await smtp.send(message(MAIL, TO), sender(peer.port), 5)
    assert outcome == expected
    assert again == taken()


async def test_a_peer_that_cuts_within_a_large_body_took_nothing(smtp: Smtp) -> None:
    big = {"text": "x" * 5_000_000}
    async with SmtpPeer(Script(data=[CUT_IN_BODY])) as peer:
        outcome = await smtp.send(message(big, TO), sender(peer.port), 10)
    assert outcome == CUT_BEFORE
    assert peer.got == []


async def test_a_peer_that_stops_reading_a_large_body_took_nothing(smtp: Smtp) -> None:
    stopped = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 peer\r\n")
        for reply in (b"250 peer\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(reply)
        writer.transport.pause_reading()  # type: ignore[attr-defined] # a transport of a socket can
        await stopped.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await smtp.send(message({"text": "x" * 5_000_000}, TO), sender(port), 1.5)
        stopped.set()
    assert outcome == SLOW_BEFORE


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ((b"HTTP/1.1 400 Bad Request\r\n",), Temporary),
        ((b"220 x\r\n", b"250 x\r\n", b"what\r\n"), Temporary),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 go?\r\n"), Temporary),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n", b"what\r\n"), Unknown),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n", b"354 x\r\n"), Unknown),
        ((b"220 x\r\n", b"250 x\r\n", b"250 x\r\n", b"250 x\r\n", b"354 x\r\n"), Unknown),
    ],
)
async def test_senseless_replies(smtp: Smtp, lines: tuple[bytes, ...], kind: type) -> None:
    async with RawSmtpPeer(*lines) as peer:
        outcome = await smtp.send(message(MAIL, TO), sender(peer.port), 5)
    assert type(outcome) is kind


async def test_a_refused_connection_is_temporary(smtp: Smtp) -> None:
    outcome = await smtp.send(message(MAIL, TO), sender(await closed_port()), 5)
    assert outcome == Temporary("connect", "no connection could be made", up=False)


async def test_some_recipients_refused(smtp: Smtp) -> None:
    script = Script(rcpt={"no@example.com": "550 5.1.1 unknown", "full@example.com": "452 4.2.2 full"})
    async with SmtpPeer(script) as peer:
        everyone = message(MAIL, TO, "no@example.com", "full@example.com")
        outcome = await smtp.send(everyone, sender(peer.port), 5)
    assert outcome == taken(
        refused={"no@example.com": "550 5.1.1 unknown", "full@example.com": "452 4.2.2 full"}
    )
    assert [got.recipients for got in peer.got] == [[TO]]


@pytest.mark.parametrize(
    ("replies", "kind"),
    [
        (("550 5.1.1 no", "550 5.1.1 no"), Permanent),
        (("550 5.1.1 no", "452 4.2.2 full"), Temporary),
        (("452 4.2.2 full", "450 4.7.1 too fast"), RateLimited),
        (("450 4.7.1 too fast", "530 5.7.0 login"), AccountStopped),
    ],
)
async def test_all_recipients_refused(smtp: Smtp, replies: tuple[str, str], kind: type) -> None:
    async with SmtpPeer(Script(rcpt=dict(zip((TO, "bob@example.com"), replies, strict=True)))) as peer:
        outcome = await smtp.send(message(MAIL, TO, "bob@example.com"), sender(peer.port), 5)
        await smtp.close()
    assert type(outcome) is kind
    assert peer.got == []
    assert peer.commands[-2:] == ["RSET", "QUIT"]


async def test_a_connection_is_reused_and_ends_after_enough_mails(
    smtp: Smtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_session, "MOST_MAILS", 5)
    async with SmtpPeer() as peer:
        for _ in range(12):
            assert await smtp.send(message(MAIL, TO), sender(peer.port), 5) == taken()
    assert [got.connection for got in peer.got] == [1] * 5 + [2] * 5 + [3] * 2


async def test_an_idle_connection_ends(smtp: Smtp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_session, "IDLE", 0.01)
    async with SmtpPeer() as peer:
        await smtp.send(message(MAIL, TO), sender(peer.port), 5)
        await asyncio.wait_for(peer.closed.wait(), 5)
    assert peer.commands[-1] == "QUIT"


async def test_a_connection_closed_while_idle_is_replaced(smtp: Smtp) -> None:
    async with SmtpPeer() as peer:
        await smtp.send(message(MAIL, TO), sender(peer.port), 5)
        peer.drop_all()
        assert await smtp.send(message(MAIL, TO), sender(peer.port), 5) == taken()
    assert [got.connection for got in peer.got] == [1, 2]


@pytest.mark.parametrize("farewell", [CUT, "421 4.4.2 idle too long"])
async def test_a_connection_that_turns_out_closed_at_mail_is_replaced(smtp: Smtp, farewell: str) -> None:
    script = Script(mail=[None, farewell])
    async with SmtpPeer(script) as peer:
        await smtp.send(message(MAIL, TO), sender(peer.port), 5)
        assert await smtp.send(message(MAIL, TO), sender(peer.port), 5) == taken()
    assert [got.connection for got in peer.got] == [1, 2]


async def test_a_changed_account_gets_new_connections(smtp: Smtp) -> None:
    async with SmtpPeer() as peer:
        await smtp.send(message(MAIL, TO), sender(peer.port), 5)
        await smtp.forget(sender(peer.port))
        await smtp.send(message(MAIL, TO), sender(peer.port), 5)
    assert [got.connection for got in peer.got] == [1, 2]


async def test_a_cancelled_call_ends_its_connection(smtp: Smtp) -> None:
    async with SmtpPeer(Script(mail=[HANG])) as peer:
        call = asyncio.create_task(smtp.send(message(MAIL, TO), sender(peer.port), 60))
        await peer.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(peer.closed.wait(), 5)


async def test_a_cancellation_that_a_library_swallows_is_not_lost(
    smtp: Smtp, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    async def deaf(*_: object, **__: object) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

    monkeypatch.setattr(aiosmtplib.SMTP, "mail", deaf)
    async with SmtpPeer() as peer:
        call = asyncio.create_task(smtp.send(message(MAIL, TO), sender(peer.port), 60))
        await waiting.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_peer_that_closes_with_its_go_on_took_nothing(smtp: Smtp) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 peer\r\n")
        for reply in (b"250 peer\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go\r\n"):
            await reader.readline()
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        outcome = await smtp.send(message(MAIL, TO), sender(port), 5)
    assert outcome == CUT_BEFORE


async def test_login(smtp: Smtp) -> None:
    async with SmtpPeer() as peer:
        good = await smtp.send(message(MAIL, TO), sender(peer.port, username="u", password=SECRET), 5)
        assert await smtp.probe(sender(peer.port, username="u", password=SECRET), 5) == Accepted()
    assert good == taken()
    assert peer.logins == [("u", SECRET)] * 2
    assert len(peer.got) == 1


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("535 5.7.8 wrong: " + SECRET, AccountStopped("smtp-535-5.7.8", "535 5.7.8 wrong: ***")),
        ("534 5.7.9 weak", AccountStopped("smtp-534-5.7.9", "534 5.7.9 weak")),
        ("454 4.7.0 later", RateLimited(None, "account", "smtp-454-4.7.0", "454 4.7.0 later")),
        ("454 later", RateLimited(None, "account", "smtp-454", "454 later")),
    ],
)
async def test_login_refused_once(smtp: Smtp, reply: str, expected: Outcome) -> None:
    async with SmtpPeer(Script(login=reply)) as peer:
        sending = sender(peer.port, username="u", password=SECRET)
        assert await smtp.send(message(MAIL, TO), sending, 5) == expected
        assert len(peer.logins) == 1
        assert await smtp.probe(sending, 5) == expected


@pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
async def test_encryption(tmp_path: Path, *, implicit: bool) -> None:
    server, client = contexts(tmp_path)
    security = "tls" if implicit else "starttls"
    for context, verify, expected in (
        (client, True, taken()),
        (None, False, taken()),
        (None, True, Temporary("tls", "no trusted TLS connection could be made", up=False)),
    ):
        smtp = Smtp(context)
        peer = SmtpPeer(tls=server)
        peer.implicit_tls = implicit
        async with peer:
            outcome = await smtp.send(
                message(MAIL, TO), sender(peer.port, security=security, verify=verify), 5
            )
            await smtp.close()
        assert outcome == expected


async def test_a_server_without_starttls_stops_the_account(smtp: Smtp) -> None:
    async with SmtpPeer() as peer:
        outcome = await smtp.send(message(MAIL, TO), sender(peer.port, security="starttls"), 5)
    assert outcome == AccountStopped("smtp-no-starttls", "the server does not offer STARTTLS")
    assert peer.got == []


async def sent(smtp: Smtp, content: dict[str, Any], *to: str) -> tuple[Any, Any]:
    """The mail as a receiver reads it, and what the server was told."""
    assert smtp.check(to, content) == []
    async with SmtpPeer() as peer:
        outcome = await smtp.send(message(content, *to), sender(peer.port), 10)
    assert isinstance(outcome, Accepted), outcome
    (got,) = peer.got
    return email.message_from_bytes(got.data, policy=email.policy.default), got


async def test_the_headers_of_a_mail(smtp: Smtp) -> None:
    mail, got = await sent(
        smtp,
        {
            "from": "Änne Läufer <anne@example.net>",
            "reply_to": "help@example.net",
            "cc": ["cc@example.com"],
            "bcc": ["bcc@example.com", TO],
            "subject": "Grüße 👋 " + "sehr lang " * 20,
            "text": "a",
            "headers": {"X-Order": "7", "In-Reply-To": "<a@b>"},
            "unsubscribe_url": "https://example.net/u/" + "t" * 200,
        },
        TO,
        "Bob@Example.com",
    )
    assert got.sender == "anne@example.net"
    assert got.recipients == [TO, "Bob@Example.com", "cc@example.com", "bcc@example.com"]
    assert mail["From"] == "Änne Läufer <anne@example.net>"
    assert mail["To"] == "ann@example.com, Bob@Example.com"
    assert mail["Cc"] == "cc@example.com"
    assert mail["Bcc"] is None
    assert b"bcc@" not in got.data
    assert mail["Reply-To"] == "help@example.net"
    assert mail["Subject"].strip() == ("Grüße 👋 " + "sehr lang " * 20).strip()
    assert mail["Message-ID"] == "<0199c0ffee01@example.net>"
    assert mail["Date"].datetime.timestamp() == 1_760_000_000
    assert (mail["X-Order"], mail["In-Reply-To"]) == ("7", "<a@b>")
    assert mail["List-Unsubscribe"] == "<https://example.net/u/" + "t" * 200 + ">"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_the_parts_of_a_mail(smtp: Smtp) -> None:
    data = bytes(range(256)) * 20
    mail, _ = await sent(
        smtp,
        {
            "text": "plain",
            "html": "<p>rich</p>",
            "attachments": [
                {"filename": "Größe 1.bin", "content": base64.b64encode(data).decode()},
                {"filename": "a.pdf", "content": "JVBERg==", "content_type": "application/pdf"},
            ],
        },
        TO,
    )
    assert mail.get_body(("plain",)).get_content() == "plain\r\n"
    assert mail.get_body(("html",)).get_content() == "<p>rich</p>\r\n"
    files = [
        (part.get_filename(), part.get_content_type(), part.get_content()) for part in mail.iter_attachments()
    ]
    assert files == [("Größe 1.bin", "application/octet-stream", data), ("a.pdf", "application/pdf", b"%PDF")]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (".\r\nMAIL FROM:<x@y.z>\r\n", ".\nMAIL FROM:<x@y.z>\n"),
        ("a\n.\nb", "a\n.\nb\n"),
        ("a\r\n.\r\nb", "a\n.\nb\n"),
        ("a\r.\rb", "a\n.\nb\n"),
        ("..a\n.b", "..a\n.b\n"),
        ("x" * 1_000_000, "x" * 1_000_000 + "\n"),
        ("ünï\u2028😀", "ünï\u2028😀\n"),
        ("From me\nFrom you", "From me\nFrom you\n"),
    ],
    ids=["dot first", "LF dot", "CRLF dot", "CR dot", "dots", "one line of a megabyte", "Unicode", "From"],
)
async def test_bodies_arrive_as_they_were(smtp: Smtp, text: str, read: str) -> None:
    mail, got = await sent(smtp, {"text": text}, TO)
    assert mail.get_content().replace("\r\n", "\n") == read
    assert max(len(line) for line in got.data.split(b"\r\n")) <= 998
    assert b"\r" not in got.data.replace(b"\r\n", b"") and b"\n" not in got.data.replace(b"\r\n", b"")


async def test_addresses_outside_ascii(smtp: Smtp) -> None:
    mail, got = await sent(smtp, {"text": "a"}, "ann@bücher.example")
    assert got.recipients == ["ann@xn--bcher-kva.example"]
    assert "SMTPUTF8" not in got.options
    mail, got = await sent(smtp, {"subject": "ü", "text": "a"}, "用户@example.com")
    assert got.recipients == ["用户@example.com"]
    assert "SMTPUTF8" in got.options
    assert mail["To"] == "用户@example.com"
    async with SmtpPeer(enable_SMTPUTF8=False) as peer:
        outcome = await smtp.send(message(MAIL, "用户@example.com"), sender(peer.port), 5)
    assert outcome == Permanent("smtp-no-utf8", "the server takes no addresses outside ASCII")


INJECTIONS = [
    "a\r\nBcc: x@y.zz",
    "a\nb",
    "a\rb",
    "a\0b",
    "a\x0bb",
    "a\x85b",
    "a\u2028b",
    "=?utf-8?q?a=0ABcc:_x?=",
    "\ud83d",
]
FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/subject": lambda text: {"subject": text},
    "/from": lambda text: {"from": f"{text} <a@example.com>"},
    "/reply_to": lambda text: {"reply_to": f"{text} <a@example.com>"},
    "/headers/X-A": lambda text: {"headers": {"X-A": text}},
    "/attachments/0/filename": lambda text: {"attachments": [{"filename": text, "content": "QQ=="}]},
    "/cc/0": lambda text: {"cc": [f"{text}@example.com"]},
    "/bcc/0": lambda text: {"bcc": [f"a@{text}.com"]},
    "/unsubscribe_url": lambda text: {"unsubscribe_url": f"https://example.com/{text}"},
}  # fmt: skip


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.parametrize("field", FIELDS)
def test_no_field_takes_a_second_header(smtp: Smtp, field: str, text: str) -> None:
    if text.startswith("=?") and field in {"/cc/0", "/unsubscribe_url"}:
        return  # valid there, and never decoded: the next test looks at what becomes of it
    assert [problem.field for problem in smtp.check((TO,), {"text": "a"} | FIELDS[field](text))] == [field]


async def test_an_encoded_word_in_an_address_or_url_stays_what_it_is(smtp: Smtp) -> None:
    word = "=?utf-8?q?a=0ABcc:_x?="
    _, got = await sent(smtp, {"text": "a", "unsubscribe_url": f"https://example.com/{word}"}, TO)
    assert f"List-Unsubscribe: <https://example.com/{word}>\r\n".encode() in got.data


BAD: list[tuple[str, tuple[str, ...], dict[str, Any], str]] = [
    ("no recipient", (), MAIL, "/to"),
    ("empty", ("",), MAIL, "/to"),
    ("the fourth of four", (TO, TO, TO, "x"), MAIL, "/to/3"),
    ("two at-signs", ("a@b@example.com",), MAIL, "/to"),
    ("two joined by a comma", ("a@example.com,b@example.com",), MAIL, "/to"),
    ("quoted with a comma", ('"a,b"@example.com',), MAIL, "/to"),
    ("quoted with a line break", ('"a\r\nb"@example.com',), MAIL, "/to"),
    ("with a name", ("Ann <ann@example.com>",), MAIL, "/to"),
    ("320 signs", ("a" * 310 + "@example.com",), MAIL, "/to"),
    ("local part of 65", ("a" * 65 + "@example.com",), MAIL, "/to"),
    ("right-to-left override", ("ann\u202e@example.com",), MAIL, "/to"),
    ("space", ("ann @example.com",), MAIL, "/to"),
    ("dot at the end", ("ann.@example.com",), MAIL, "/to"),
    ("two dots", ("a..b@example.com",), MAIL, "/to"),
    ("no domain", ("ann",), MAIL, "/to"),
    ("domain with a hyphen first", ("ann@-example.com",), MAIL, "/to"),
    ("angle brackets", ("<ann@example.com>",), MAIL, "/to"),
    ("101 recipients", (TO,) * 99, MAIL | {"cc": [TO, TO]}, "/to"),
    ("cc is a number", (TO,), MAIL | {"cc": 5}, "/cc"),
    ("bcc holds a number", (TO,), MAIL | {"bcc": [5]}, "/bcc/0"),
    ("no body", (TO,), {"subject": "s"}, "/text"),
    ("empty body", (TO,), {"text": ""}, "/text"),
    ("NUL in the body", (TO,), {"text": "a\0b"}, "/text"),
    ("NUL in the HTML", (TO,), {"html": "a\0b"}, "/html"),
    ("50 MB of HTML", (TO,), {"html": "<" * 50_000_000}, "/html"),
    ("subject too long", (TO,), MAIL | {"subject": "s" * 901}, "/subject"),
    ("subject is a list", (TO,), MAIL | {"subject": []}, "/subject"),
    ("headers is a list", (TO,), MAIL | {"headers": []}, "/headers"),
    ("a header of ours", (TO,), MAIL | {"headers": {"Bcc": "x@y.zz"}}, "/headers/Bcc"),
    ("a header of MIME", (TO,), MAIL | {"headers": {"Content-Type": "text/html"}}, "/headers/Content-Type"),
    ("a header with a colon", (TO,), MAIL | {"headers": {"X-A: b\r\nX-C": "d"}}, "/headers/X-A: b\r\nX-C"),
    ("unsubscribe without TLS", (TO,), MAIL | {"unsubscribe_url": "http://example.com/"}, "/unsubscribe_url"),
    ("attachments is an object", (TO,), MAIL | {"attachments": {}}, "/attachments"),
    ("an attachment is text", (TO,), MAIL | {"attachments": ["/etc/passwd"]}, "/attachments/0"),
    ("a path", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "QQ==", "path": "a"}]}, "/attachments/0/path"),
    ("climbing name", (TO,), MAIL | {"attachments": [{"filename": "../a", "content": "QQ=="}]}, "/attachments/0/filename"),
    ("name of dots", (TO,), MAIL | {"attachments": [{"filename": "..", "content": "QQ=="}]}, "/attachments/0/filename"),
    ("name with override", (TO,), MAIL | {"attachments": [{"filename": "a\u202egpj.exe", "content": "QQ=="}]}, "/attachments/0/filename"),
    ("bad base64", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "QQ="}]}, "/attachments/0/content"),
    ("not base64", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "Q Q =="}]}, "/attachments/0/content"),
    ("empty content", (TO,), MAIL | {"attachments": [{"filename": "a", "content": ""}]}, "/attachments/0/content"),
    ("content of bytes", (TO,), MAIL | {"attachments": [{"filename": "a", "content": b"QQ=="}]}, "/attachments/0/content"),
    ("bad type", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "QQ==", "content_type": "x"}]}, "/attachments/0/content_type"),
    ("a mail inside", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "QQ==", "content_type": "message/rfc822"}]}, "/attachments/0/content_type"),
    ("21 MB", (TO,), MAIL | {"attachments": [{"filename": "a", "content": "QUFB" * 7_340_032}]}, "/attachments"),
]  # fmt: skip


@pytest.mark.parametrize(("to", "content", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_messages(smtp: Smtp, to: tuple[str, ...], content: dict[str, Any], field: str) -> None:
    assert [problem.field for problem in smtp.check(to, content)] == [field]


@pytest.mark.parametrize(
    "address",
    [
        "a@b.test",
        "-a@example.com",
        "a+b_c.d@sub.example.co.uk",
        "o'neil@example.com",
        "用户@例子.测试",
        "a@xn--bcher-kva.de",
    ],
)
def test_good_addresses(smtp: Smtp, address: str) -> None:
    assert smtp.check((address,), MAIL) == []


GOOD = {"host": "mail.example.com", "from": "a@example.com"}


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"from": "a@example.com"}, "/host"),
        (GOOD | {"host": "a b"}, "/host"),
        (GOOD | {"from": "nobody"}, "/from"),
        (GOOD | {"from": "x\r\nBcc: y@z.zz <a@example.com>"}, "/from"),
        (GOOD | {"security": "none", "username": "u", "password": SECRET}, "/security"),
        (GOOD | {"password": SECRET}, "/username"),
        (GOOD | {"username": "u\n", "password": SECRET}, "/username"),
        (GOOD | {"hello": "a b"}, "/hello"),
    ],
)
def test_bad_settings(smtp: Smtp, settings: dict[str, Any], field: str) -> None:
    problems = smtp.check_settings(settings)
    assert [problem.field for problem in problems] == [field]
    assert SECRET not in repr(problems)


@pytest.mark.parametrize(
    "settings",
    [
        GOOD,
        GOOD | {"username": "u", "password": SECRET},
        GOOD | {"host": "127.0.0.1", "security": "none", "username": "u", "password": SECRET},
        GOOD | {"host": "::1", "security": "none"},
    ],
)
def test_good_settings(smtp: Smtp, settings: dict[str, Any]) -> None:
    assert smtp.check_settings(settings) == []


@pytest.mark.skipif(shutil.which("smtp-sink") is None, reason="needs smtp-sink, which comes with Postfix")
@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ((), Accepted),
        (("-q", "."), Unknown),
        (("-q", "data"), Temporary),
        (("-f", "rcpt"), Permanent),
        (("-r", "."), Temporary),
    ],
)
async def test_against_smtp_sink(smtp: Smtp, flags: tuple[str, ...], kind: type) -> None:
    port = await closed_port()
    process = await asyncio.create_subprocess_exec(
        "smtp-sink", *(("-u", "nobody") if os.geteuid() == 0 else ()), *flags, f"127.0.0.1:{port}", "16",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        outcome: Outcome = Temporary("connect", "")
        while isinstance(outcome, Temporary) and outcome.code == "connect":
            assert process.returncode is None
            outcome = await smtp.send(message(MAIL, TO), sender(port), 5)
        assert type(outcome) is kind
    finally:
        await smtp.close()
        if process.returncode is None:
            process.terminate()
        await process.communicate()
