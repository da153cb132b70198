"""A call that blocks the event loop is named while it does, and its end is told."""

import threading
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from paceline.channels.base import Channel, Outgoing, SendingAccount
from paceline.clock import SystemClock
from paceline.engine import heartbeat as module
from paceline.engine.attempts import Attempts, Ended
from paceline.engine.heartbeat import Heartbeat
from paceline.model.messages import HandedOver
from paceline.model.outcomes import Accepted, Outcome


class Blocking(Channel):
    """Holds the loop until somebody has said so."""

    name = "blocking"

    def __init__(self, told: threading.Event) -> None:
        self.told = told

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        assert self.told.wait(20)
        return Accepted()


class _Backoffs:
    backoff = None


class _Directory:
    def __init__(self, channel: Channel) -> None:
        self.channels = {channel.name: channel}
        self.accounts = {"default/a": Any}

    def queue(self, _name: str) -> Any:
        return _Backoffs()


class _Log:
    """Lets go of the loop as soon as the blockade is told."""

    def __init__(self, told: threading.Event, over: threading.Event) -> None:
        self.told, self.over = told, over
        self.lines: list[dict[str, Any]] = []

    def error(self, event: str, **more: Any) -> None:
        self.lines.append({"event": event, **more})
        (self.over if "again" in event else self.told).set()


async def test_a_channel_that_blocks_the_loop_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told, over = threading.Event(), threading.Event()
    log = _Log(told, over)
    monkeypatch.setattr(module, "log", log)
    attempts = Attempts(cast("Any", _Directory(Blocking(told))), SystemClock(), lambda: 0.5)
    monkeypatch.setattr(attempts, "_sender", lambda _account: SendingAccount("default", "a", {}))
    ended: list[Ended] = []
    heartbeat = Heartbeat(attempts, SystemClock(), every=0.01, patience=0.02)
    message = HandedOver(
        1, 1, 0, "default/a", "default", "q", "blocking", "", "kind", None, "{}", None, 3, 60_000, None, "",
        None, 0, None, 0, 0, 1,
    )  # fmt: skip
    attempts.begin(message, cast("Any", None), ended.append)
    await attempts.drain(20)
    heartbeat.stop()
    assert over.wait(20) and len(ended) == 1
    first = log.lines[0]
    assert "the event loop is blocked" in first["event"]
    assert (first["channel"], first["account"], first["kind"]) == ("blocking", "default/a", "kind")
    assert log.lines[-1]["event"] == "the event loop runs again"


async def test_a_loop_at_rest_is_left_alone() -> None:
    attempts = Attempts(cast("Any", _Directory(Blocking(threading.Event()))), SystemClock(), lambda: 0.5)
    with capture_logs() as lines:
        heartbeat = Heartbeat(attempts, SystemClock(), every=0.001, patience=0.001)
        heartbeat.stop()
        heartbeat._thread.join(20)
    assert lines == []
