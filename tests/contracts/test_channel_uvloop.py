"""The channels on uvloop, which the server runs on: its transports and its errors are not asyncio's own."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from paceline.channels.outgoing import HttpClient, networks
from paceline.channels.smtp import Smtp
from paceline.channels.webhook import Webhook
from paceline.model.outcomes import Accepted, Outcome, Permanent, Temporary, Unknown
from tests.contracts.peers.http import Act, CutEarly, CutLate, Hang, HttpPeer, Raw, Reply, closed_port
from tests.contracts.peers.messages import NOW, account, message
from tests.contracts.peers.smtp import CUT, CUT_IN_BODY, HANG, Script, SmtpPeer


async def mail(script: Script, text: str = "Dear Ann") -> tuple[Outcome, int]:
    """The outcome of the second of two mails, sent over a connection that is already open, and how many arrived."""
    channel = Smtp()
    async with SmtpPeer(script) as peer:
        sender = account(host="127.0.0.1", port=peer.port, security="none", **{"from": "shop@example.org"})
        assert isinstance(
            await channel.send(message({"text": "first"}, "ann@example.com"), sender, 5), Accepted
        )
        outcome = await channel.send(message({"text": text}, "ann@example.com"), sender, 1)
        assert peer.connections == 1
        await channel.close()
    return outcome, len(peer.got)


MAILS: list[tuple[str, Script, str, type, int]] = [
    ("taken", Script(), "x", Accepted, 2),
    ("refused", Script(dot=[None, "554 5.7.1 spam"]), "x", Permanent, 1),
    ("cut before the dot", Script(data=[None, CUT]), "x", Temporary, 1),
    ("cut in a large body", Script(data=[None, CUT_IN_BODY]), "x" * 5_000_000, Temporary, 1),
    ("cut after the dot", Script(dot=[None, CUT]), "x", Unknown, 2),
    ("hang after the dot", Script(dot=[None, HANG]), "x", Unknown, 2),
]


@pytest.mark.parametrize(
    ("script", "text", "kind", "arrived"), [row[1:] for row in MAILS], ids=[row[0] for row in MAILS]
)
def test_smtp(script: Script, text: str, kind: type, arrived: int) -> None:
    outcome, number = uvloop.run(mail(script, text))
    assert (type(outcome), number) == (kind, arrived)


async def call(act: Act | None) -> Outcome:
    client = HttpClient(networks(["127.0.0.0/8"]))
    channel = Webhook(client, lambda: NOW)
    try:
        if act is None:
            return await channel.send(
                message({"payload": 1}, f"http://127.0.0.1:{await closed_port()}/"), account(), 1
            )
        async with HttpPeer(Reply(), act) as peer:
            await channel.send(message({"payload": 1}, peer.url), account(), 5)
            outcome = await channel.send(message({"payload": 1}, peer.url), account(), 0.3)
            assert peer.connections == 1
            return outcome
    finally:
        await client.close()


CALLS: list[tuple[str, Act | None, type]] = [
    ("taken", Reply(204, b""), Accepted),
    ("nobody there", None, Temporary),
    ("cut early", CutEarly(), Unknown),
    ("cut late", CutLate(), Unknown),
    ("hang", Hang(), Unknown),
    ("nonsense", Raw(b"nonsense\r\n\r\n"), Unknown),
]


@pytest.mark.parametrize(("act", "kind"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_http(act: Act | None, kind: type) -> None:
    run: Callable[[Coroutine[Any, Any, Outcome]], Outcome] = uvloop.run
    assert type(run(call(act))) is kind
