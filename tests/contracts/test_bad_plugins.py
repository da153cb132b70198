"""Channels and functions that break every rule: each message ends in a state that tells, and the process lives on."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from paceline.channels.base import Outgoing, SendingAccount
from paceline.channels.handler import Job
from paceline.engine import attempts
from paceline.model.outcomes import Accepted, Outcome
from tests.contracts.bad_place import placed
from tests.contracts.test_engine_support import ADMIN, Engine, running

Deed = Callable[[Outgoing], Awaitable[Any]]


class CustomError(BaseException):
    """Neither an Exception nor an exit."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def raising(error: BaseException) -> Deed:
    async def deed(_message: Outgoing) -> Outcome:
        raise error

    return deed


def giving(value: Any) -> Deed:
    async def deed(_message: Outgoing) -> Any:
        return value

    return deed


async def spoiling(message: Outgoing) -> Outcome:
    message.content.clear()  # type: ignore[attr-defined]  # not its business
    message.progress(float("nan"), "\x1b[2J")
    message.progress(50, "half")
    return Accepted("x" * 100_000, {"deep": [[[1]]]})


DEEDS: list[tuple[str, Deed, str, str | None]] = [
    ("returns nothing", giving(None), "uncertain", "channel-bug"),
    ("returns a text", giving("ok"), "uncertain", "channel-bug"),
    ("returns the class", giving(Accepted), "uncertain", "channel-bug"),
    ("raises", raising(ValueError("a\nb\x1b[31m")), "uncertain", "channel-bug"),
    ("raises what cannot speak", raising(MuteError()), "uncertain", "channel-bug"),
    ("raises SystemExit", raising(SystemExit(3)), "uncertain", "channel-bug"),
    ("raises KeyboardInterrupt", raising(KeyboardInterrupt()), "uncertain", "channel-bug"),
    ("raises its own kind", raising(CustomError()), "uncertain", "channel-bug"),
    ("raises CancelledError", raising(asyncio.CancelledError()), "uncertain", "cut-off"),
    ("raises a group", raising(BaseExceptionGroup("g", [SystemExit(1)])), "uncertain", "channel-bug"),
    ("spoils what it is given", spoiling, "completed", None),
]  # fmt: skip


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as engine:
        yield engine


def behave(engine: Engine, deed: Deed) -> None:
    """The scripted channel does this once, and then what it is told to."""
    usual = engine.script.send

    async def send(message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        engine.script.send = usual  # type: ignore[method-assign]  # back to good manners
        return await deed(message)  # type: ignore[no-any-return]  # that is the point

    engine.script.send = send  # type: ignore[method-assign]  # bad manners


@pytest.mark.parametrize(("deed", "state", "code"), [row[1:] for row in DEEDS], ids=[row[0] for row in DEEDS])
async def test_a_channel_without_manners_harms_one_message(
    engine: Engine, deed: Deed, state: str, code: str | None
) -> None:
    behave(engine, deed)
    ended = await engine.ended(await engine.send())
    assert (ended["state"], (ended["error"] or {}).get("code")) == (state, code)
    assert "Traceback" not in str(ended)
    assert (await engine.ended(await engine.send()))["state"] == "completed"
    assert len(engine.core.dispatcher.attempts) == 0


async def test_a_channel_that_does_not_answer_in_time_is_cut_off(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.05)
    behave(engine, lambda _message: asyncio.Event().wait())
    ended = await engine.ended(await engine.send(timeout=0.1))
    assert (ended["state"], ended["error"]["code"]) == ("uncertain", "cut-off")
    assert (await engine.ended(await engine.send()))["state"] == "completed"


async def test_an_answer_after_the_deadline_still_counts(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cancelled, said that it had succeeded, and that is what became of the message."""
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.05)

    async def late(_message: Outgoing) -> Outcome:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return Accepted("late")

    behave(engine, late)
    ended = await engine.ended(await engine.send(timeout=0.1))
    assert (ended["state"], ended["result"]["reference"]) == ("completed", "late")


async def test_a_channel_that_ignores_its_end_does_not_hold_up_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "PATIENCE_S", 0.05)
    free, ignored = asyncio.Event(), asyncio.Event()

    async def deaf(_message: Outgoing) -> Outcome:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                ignored.set()
        return Accepted("at last")

    behave(engine, deaf)
    stuck = await engine.send(timeout=0.1)
    await ignored.wait()
    told = await engine.service.messages.get(ADMIN, stuck)
    assert told["state"] == "processing"
    await engine.account("a1", shared=True)
    assert (await engine.ended(await engine.send(account="a1")))["state"] == "completed"
    free.set()
    assert (await engine.ended(stuck))["state"] == "completed"


# -- functions


async def leaky(job: Job) -> str:
    """Leaves a task behind that fails when nobody looks."""

    async def later() -> None:
        raise ValueError("nobody looks")

    asyncio.get_running_loop().create_task(later())
    return "done"


def ending(job: Job) -> None:
    raise SystemExit(1)


async def cancelled(job: Job) -> None:
    raise asyncio.CancelledError


async def cancelling(job: Job) -> None:
    """Cancels the very task that carries it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


FUNCTIONS: list[tuple[str, Callable[[Job], Any], str, str | None]] = [
    ("leaky", leaky, "completed", None),
    ("ending", ending, "failed", "SystemExit"),
    ("cancelled", cancelled, "failed", "CancelledError"),
    ("cancelling", cancelling, "uncertain", "cut-off"),
    ("nothing", lambda job: None, "completed", None),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_functions_without_manners_harm_one_message_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with placed(tmp_path, caplog) as place:
        channel: Any = place.service.core.directory.channels["handler"]
        for name, function, state, code in FUNCTIONS:
            channel.register(name, function)
            body = {"channel": "handler", "kind": name, "max_attempts": 1}
            ended = (await place.api("POST", "/messages?wait=20", body)).json
            assert (ended["state"], (ended["error"] or {}).get("code")) == (state, code), ended
            good = {"channel": "handler", "kind": "echo", "payload": 5}
            assert (await place.api("POST", "/messages?wait=20", good)).json["result"]["value"] == 5
        gc.collect()
        caplog.clear()  # the loop says that an exception was never retrieved: it was the function's own task
