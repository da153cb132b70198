"""Functions of an application that misbehave: each has one outcome, and none takes the engine down with it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from paceline import Fail, Job, Paceline, Retry
from tests.contracts.test_engine_support import running as engine_running

WAIT_S = 20


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@asynccontextmanager
async def running(folder: Path, function: Callable[[Job], Any], **how: Any) -> AsyncIterator[Paceline]:
    app = Paceline(data=folder / "data", grace=how.pop("grace", 5))
    app.handler("job", **how)(function)
    app.handler("ping")(lambda _job: "pong")
    async with app:
        yield app


async def outcome(
    folder: Path, function: Callable[[Job], Any], timeout: float = 30, **how: Any
) -> tuple[str, str | None, int]:
    """State, code and attempts after one call; and the engine still works."""
    async with running(folder, function, **how) as app:
        receipt = await app.send(
            channel="handler", kind="job", timeout=timeout, max_attempts=1, wait=WAIT_S, payload={}
        )
        assert receipt.message is not None, "it has not ended"
        message = receipt.message
        ping = await app.send(channel="handler", kind="ping", wait=WAIT_S)
        assert ping.message is not None and ping.message.state == "completed"
    return message.state, (message.error or {}).get("code"), message.attempts


def raising(error: BaseException) -> Callable[[Job], Any]:
    def function(job: Job) -> None:
        raise error

    return function


def in_the_loop(function: Callable[[Job], Any]) -> Callable[[Job], Any]:
    async def there(job: Job) -> Any:
        return function(job)

    return there


def take_all_memory(job: Job) -> int:
    return len(bytearray(1 << 62))


RAISED: list[tuple[str, Callable[[Job], Any], tuple[str, str | None, int]]] = [
    ("returns nothing", lambda _job: None, ("completed", None, 1)),
    ("SystemExit", raising(SystemExit(3)), ("failed", "SystemExit", 1)),
    ("KeyboardInterrupt", raising(KeyboardInterrupt()), ("failed", "KeyboardInterrupt", 1)),
    ("CancelledError", raising(asyncio.CancelledError()), ("failed", "CancelledError", 1)),
    ("GeneratorExit", raising(GeneratorExit()), ("failed", "GeneratorExit", 1)),
    ("more memory than there is", take_all_memory, ("failed", "MemoryError", 1)),
    ("Fail", raising(Fail("no such customer", "customer")), ("failed", "customer", 1)),
    ("Retry", raising(Retry(1)), ("failed", "retry", 1)),
]


@pytest.mark.parametrize("there", [False, True], ids=["thread", "loop"])
@pytest.mark.parametrize(
    ("function", "expected"), [row[1:] for row in RAISED], ids=[row[0] for row in RAISED]
)
async def test_what_a_function_raises_is_its_outcome_and_no_more(
    tmp_path: Path, function: Callable[[Job], Any], expected: tuple[str, str | None, int], *, there: bool
) -> None:
    assert await outcome(tmp_path, in_the_loop(function) if there else function) == expected


@pytest.mark.parametrize(("safe", "state"), [(False, "uncertain"), (True, "failed")])
async def test_a_function_over_its_time_may_have_done_its_work(
    tmp_path: Path, safe: bool, state: str
) -> None:
    async def hangs(job: Job) -> None:
        await asyncio.Event().wait()

    assert await outcome(tmp_path, hangs, 0.1, repeat_is_safe=safe) == (state, "timeout", 1)


async def test_a_plain_function_that_returns_after_its_time_changes_nothing_any_more(tmp_path: Path) -> None:
    go, over = threading.Event(), threading.Event()

    def late(job: Job) -> str:
        go.wait(WAIT_S)
        over.set()
        return "too late"

    async with running(tmp_path, late) as app:
        receipt = await app.send(channel="handler", kind="job", timeout=0.1, wait=WAIT_S)
        assert receipt.message is not None and receipt.message.state == "uncertain"
        go.set()
        await asyncio.to_thread(over.wait, WAIT_S)
        ping = await app.send(channel="handler", kind="ping", wait=WAIT_S)
        assert ping.message is not None
        assert (await app.get(receipt.id)).state == "uncertain"


async def test_a_function_that_swallows_its_cancellation_tells_its_result_when_it_returns(
    tmp_path: Path,
) -> None:
    async def stubborn(job: Job) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "all the same"
        return "never"

    assert await outcome(tmp_path, stubborn, 0.1) == ("completed", None, 1)


async def test_a_function_that_never_heeds_its_cancellation_is_left_behind_at_the_end(tmp_path: Path) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def deaf(job: Job) -> str:
        begun.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    async with running(tmp_path, deaf, grace=0) as app:
        id_ = (await app.send(channel="handler", kind="job")).id
        await begun.wait()
    async with running(tmp_path, deaf) as app:
        assert (await app.get(id_)).state == "uncertain"
        free.set()


async def test_tasks_that_a_function_leaks_hold_nothing_up(tmp_path: Path) -> None:
    leaked: list[asyncio.Task[Any]] = []

    async def leaky(job: Job) -> str:
        leaked.append(asyncio.create_task(asyncio.Event().wait()))
        leaked.append(asyncio.create_task(asyncio.sleep(0, asyncio.CancelledError())))
        return "done"

    assert await outcome(tmp_path, leaky) == ("completed", None, 1)
    assert not leaked[0].done()
    leaked[0].cancel()


@pytest.mark.parametrize(
    ("safe", "state", "code"), [(False, "uncertain", "cut-off"), (True, "retrying", "cut-off")]
)
async def test_what_a_stop_cuts_off_is_run_again_only_where_that_is_safe(
    tmp_path: Path, safe: bool, state: str, code: str
) -> None:  # fmt: skip
    begun = asyncio.Event()

    async def long(job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(tmp_path, long, repeat_is_safe=safe, grace=0) as app:
        id_ = (await app.send(channel="handler", kind="job", backoff={"type": "fixed", "delay": 3600})).id
        await begun.wait()
    async with Paceline(data=tmp_path / "data") as app:
        message = await app.get(id_)
        assert (message.state, message.error["code"]) == (state, code)


async def test_a_message_without_its_function_is_held_until_it_is_there(tmp_path: Path) -> None:
    async with Paceline(data=tmp_path / "data") as app:
        heard = asyncio.Event()

        async def listen() -> None:
            async for _ in app.events("message-retrying"):
                heard.set()

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        id_ = (await app.send(channel="handler", kind="job", max_attempts=1)).id
        await asyncio.wait_for(heard.wait(), WAIT_S)
        listening.cancel()
        message = await app.get(id_)
        assert (message.state, message.error["code"], message.attempts) == ("retrying", "no-handler", 0)
    async with running(tmp_path, lambda _job: "here") as app:
        await app.retry(id_)
        assert (await app.wait(id_, WAIT_S)).state == "completed"


@pytest.mark.parametrize("returned", [SystemExit(2), RuntimeError("bug"), None, "accepted"])
async def test_a_channel_that_keeps_no_contract_costs_its_own_message_only(
    tmp_path: Path, returned: object
) -> None:
    async with engine_running(tmp_path) as engine:

        async def send(*_: object) -> Any:
            if isinstance(returned, BaseException):
                raise returned
            return returned

        proper, engine.script.send = engine.script.send, send  # type: ignore[method-assign, assignment]  # a plug-in of somebody's
        told = await engine.ended(await engine.send())
        assert (told["state"], told["error"]["code"]) == ("uncertain", "channel-bug")
        engine.script.send = proper  # type: ignore[method-assign]  # as above
        assert (await engine.ended(await engine.send()))["state"] == "completed"
