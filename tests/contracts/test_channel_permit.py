"""A call asks once more whether it may leave, when its connection is there and nothing is written yet."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.channels.base import NotOursError, may_leave, permit
from paceline.channels.outgoing import HttpClient, networks
from paceline.channels.smtp import Smtp
from paceline.channels.webhook import Webhook
from paceline.model.outcomes import Accepted, Outcome
from tests.contracts.peers.http import HttpPeer
from tests.contracts.peers.messages import NOW, account, message
from tests.contracts.peers.smtp import SmtpPeer
from tests.contracts.test_engine_support import running


class Leave:
    """What calls ask; it notes whether the peer had a connection by then."""

    def __init__(self) -> None:
        self.given = True
        self.connections: list[int] = []
        self.count: Callable[[], int] = lambda: 0

    def __call__(self) -> bool:
        self.connections.append(self.count())
        return self.given


@pytest.fixture
def leave() -> Iterator[Leave]:
    made = Leave()
    token = permit.set(made)
    yield made
    permit.reset(token)


async def test_no_request_is_written_by_who_may_not_send(leave: Leave) -> None:
    http = HttpClient(networks(["127.0.0.0/8"]))
    channel = Webhook(http, lambda: NOW)
    async with HttpPeer() as peer:
        leave.count = lambda: peer.connections

        async def send() -> Any:
            permit.set(leave)
            return await channel.send(message({"text": "x"}, peer.url), account(), 5)

        assert isinstance(await asyncio.create_task(send()), Accepted)
        leave.given = False
        with pytest.raises(NotOursError):
            await asyncio.create_task(send())
        leave.given = True
        assert isinstance(await asyncio.create_task(send()), Accepted)
        assert len(peer.seen) == 2 and len(leave.connections) == 3
    await http.close()


async def test_no_mail_is_begun_by_who_may_not_send(leave: Leave) -> None:
    channel = Smtp()
    async with SmtpPeer() as peer:
        sender = account(
            host="127.0.0.1", port=peer.port, security="none", **{"from": "Shop <shop@example.org>"}
        )
        leave.count = lambda: peer.connections

        async def send() -> Any:
            permit.set(leave)
            return await channel.send(message({"subject": "a", "text": "b"}, "ann@example.com"), sender, 5)

        leave.given = False
        with pytest.raises(NotOursError):
            await asyncio.create_task(send())
        assert peer.got == [] and not any(line.upper().startswith("MAIL") for line in peer.commands)
        leave.given = True
        assert isinstance(await asyncio.create_task(send()), Accepted)
        assert len(peer.got) == 1 and leave.connections[0] >= 1
    await channel.close()


async def test_a_call_that_may_not_leave_costs_no_attempt_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as engine:
        send, asked = engine.script.send, 0

        async def connecting(*given: Any) -> Outcome:
            nonlocal asked
            asked += 1
            may_send[0] = asked > 1  # lost while the connection was made
            may_leave()
            return await send(*given)

        may_send = [True]
        engine.core.attempts.may_send = lambda: may_send[0]
        monkeypatch.setattr(engine.script, "send", connecting)
        id_ = await engine.send()
        async with asyncio.timeout(5):
            while not asked:
                await asyncio.sleep(0.01)
        assert engine.script.sent == []
        may_send[0] = True
        engine.core.dispatcher.wake()
        view = await engine.ended(id_)
        assert (view["state"], view["attempts"], len(engine.script.sent)) == ("completed", 1, 1)
