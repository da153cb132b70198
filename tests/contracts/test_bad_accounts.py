"""Accounts that are deleted, paused, given another secret or bereft of their channel while messages wait: all held."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from paceline.channels.handler import HandlerChannel
from paceline.model.errors import ConflictError, InvalidError
from tests.contracts.bad_place import Place, placed
from tests.contracts.peers.http import HttpPeer, Reply
from tests.contracts.test_bad_answers import LOOPBACK, TOKEN
from tests.contracts.test_engine_support import ADMIN, Engine, running

TAKEN = Reply(200, b'{"ok":true,"result":{"message_id":7}}')


@pytest.fixture
async def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Place]:
    async with placed(tmp_path, caplog, outgoing_allow=LOOPBACK) as place:
        yield place


class Bot:
    """A bot's account with one message that waits for it."""

    def __init__(self, place: Place, peer: HttpPeer) -> None:
        self.place, self.peer, self.id = place, peer, ""

    async def put(self, token: str = TOKEN) -> None:
        settings = {"token": token, "base_url": self.peer.url}
        assert (
            await self.place.api("PUT", "/accounts/one", {"channel": "telegram-bot", "settings": settings})
        ).status == 200

    async def hold(self) -> None:
        """Let a message wait: its account is paused when it comes."""
        await self.put()
        assert (await self.place.api("POST", "/accounts/one/pause")).status == 200
        body = {"channel": "telegram-bot", "account": "one", "to": "1", "text": "x", "idempotency_key": "k"}
        self.id = (await self.place.api("POST", "/messages", body)).json["id"]

    async def why(self) -> tuple[str, list[tuple[str, str]]]:
        told = (await self.place.api("GET", f"/messages/{self.id}/why")).json
        return told["state"], [(reason["kind"], reason["text"]) for reason in told["reasons"]]

    async def ends(self) -> dict[str, Any]:
        ended = await self.place.service.messages.wait(self.id, 20)
        assert ended is not None
        return ended


@pytest.fixture
async def bot(place: Place) -> AsyncIterator[Bot]:
    async with HttpPeer(usual=TAKEN) as peer:
        bot = Bot(place, peer)
        await bot.hold()
        yield bot


async def test_a_paused_account_holds_what_waits_and_says_so(bot: Bot) -> None:
    assert await bot.why() == ("pending", [("paused", "account one is paused")])
    assert bot.peer.seen == []
    await bot.place.api("POST", "/accounts/one/resume")
    assert ((await bot.ends())["state"], len(bot.peer.seen)) == ("completed", 1)


async def test_a_deleted_account_holds_what_waits_until_it_is_back(bot: Bot) -> None:
    assert (await bot.place.api("DELETE", "/accounts/one")).status == 204
    gone = "account one is gone; move the message or put the account back"
    state, reasons = await bot.why()
    assert (state, reasons[-1][0]) == ("pending", "no-account")
    assert reasons[-1][1] in {gone, "no account of default/telegram-bot/default is there to send it"}
    assert (await bot.place.api("POST", f"/messages/{bot.id}/retry")).status in {200, 409}
    told = (await bot.place.api("GET", f"/messages/{bot.id}")).json
    assert (told["state"], told["attempts"], told["error"]) == ("pending", 0, None)
    new = {"channel": "telegram-bot", "account": "one", "to": "1", "text": "y"}
    assert "/account" in (await bot.place.api("POST", "/messages", new)).fields()
    await bot.put()
    assert ((await bot.ends())["state"], len(bot.peer.seen)) == ("completed", 1)


async def test_a_message_of_a_deleted_account_can_be_moved(bot: Bot) -> None:
    await bot.place.api("DELETE", "/accounts/one")
    settings = {"token": "654321:" + "B" * 35, "base_url": bot.peer.url}
    await bot.place.api("PUT", "/accounts/two", {"channel": "telegram-bot", "settings": settings})
    moved = await bot.place.api("PATCH", f"/messages/{bot.id}", {"account": "two"})
    assert moved.status == 200, moved.body
    assert ((await bot.ends())["state"], [seen.path for seen in bot.peer.seen]) == (
        "completed", [f"/bot654321:{'B' * 35}/sendMessage"]
    )  # fmt: skip


async def test_what_waits_goes_with_the_new_secret(bot: Bot) -> None:
    fresh = "123456:" + "C" * 35
    await bot.put(fresh)
    assert await bot.why() == ("pending", [("paused", "account one is paused")])
    await bot.place.api("POST", "/accounts/one/resume")
    assert (await bot.ends())["state"] == "completed"
    assert [seen.path for seen in bot.peer.seen] == [f"/bot{fresh}/sendMessage"]


async def test_a_wrong_new_secret_changes_nothing(bot: Bot) -> None:
    answer = await bot.place.api(
        "PUT", "/accounts/one", {"channel": "telegram-bot", "settings": {"token": "nonsense"}}
    )
    assert answer.fields() == ["/settings/token"]
    assert b"nonsense" not in answer.body
    await bot.place.api("POST", "/accounts/one/resume")
    assert (await bot.ends())["state"] == "completed"
    assert [seen.path for seen in bot.peer.seen] == [f"/bot{TOKEN}/sendMessage"]


async def test_an_account_with_messages_waiting_does_not_change_its_channel(bot: Bot) -> None:
    body = {"channel": "smtp", "settings": {"host": "127.0.0.1", "from": "a@example.com"}}
    problem = (await bot.place.api("PUT", "/accounts/one", body)).is_problem(409)
    assert "move or cancel them before you change its channel or pool" in problem["detail"]
    assert (await bot.place.api("GET", "/accounts/one")).json["channel"] == "telegram-bot"
    assert (await bot.why())[0] == "pending"


async def test_a_channel_that_this_process_lacks_holds_what_waits(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        await engine.account("theirs", channel="other")
        await engine.service.accounts.pause(ADMIN, "theirs")
        id_ = await engine.send(channel="other", account="theirs")
        pooled = await engine.send(channel="other")
    poorer = Engine(tmp_path)
    del poorer.core.directory.channels["other"]
    await poorer.start()
    try:
        accounts = poorer.service.accounts
        lacking = "account theirs waits: this process has no channel 'other'"
        for action in (accounts.pause, accounts.resume):  # neither opens the way, and the secrets stay sealed
            assert (await action(ADMIN, "theirs"))["state"] == "paused"
            for each in (id_, pooled):
                told = await poorer.service.messages.why(ADMIN, each)
                assert told["state"] == "pending"
                assert ("paused", lacking) in [(r["kind"], r["text"]) for r in told["reasons"]]
        with pytest.raises(ConflictError, match="this process has no channel 'other'"):
            await accounts.probe(ADMIN, "theirs")
        with pytest.raises(InvalidError, match="no such channel"):
            await accounts.test(ADMIN, "theirs", {"to": "x", "text": "x"})
        assert (await poorer.service.messages.get(ADMIN, id_))["attempts"] == 0
    finally:
        await poorer.service.close(1)
    async with running(tmp_path) as engine:
        assert [(await engine.ended(each))["state"] for each in (id_, pooled)] == ["completed"] * 2


async def test_a_function_that_is_not_registered_is_waited_for_and_then_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kind without its function is held, whatever its attempts; once it is there, a person can send it at once."""
    async with placed(tmp_path, caplog) as place:
        body = {"channel": "handler", "kind": "later", "max_attempts": 1}
        settled = asyncio.Event()
        place.service.core.happenings.when_settled.append(lambda _ended: settled.set())
        id_ = (await place.api("POST", "/messages", body)).json["id"]
        async with asyncio.timeout(20):
            await settled.wait()
        held = (await place.api("GET", f"/messages/{id_}")).json
        assert held["state"] == "retrying"
        assert (held["attempts"], held["error"]["code"]) == (0, "no-handler")
        assert held["error"]["text"] == "no function is registered for the kind 'later' in this process"
        channel = place.service.core.directory.channels["handler"]
        assert isinstance(channel, HandlerChannel)
        channel.register("later", lambda job: "done")
        assert (await place.api("POST", f"/messages/{id_}/retry")).status == 200
        again = await place.service.messages.wait(id_, 20)
        assert again is not None and again["state"] == "completed"
