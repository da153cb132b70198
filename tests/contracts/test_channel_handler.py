"""The handler channel: what functions return and raise, in the loop and in threads."""

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from paceline.channels.handler import Fail, HandlerChannel, Job, Retry
from paceline.model.outcomes import Accepted, Moved, Outcome, Permanent, RateLimited, Temporary, Unknown
from tests.contracts.peers.messages import account, message


class Threads:
    """The smallest pool that fits the channel."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(4)

    def run(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self.executor, function, *args)


@pytest.fixture
def handlers() -> Iterator[HandlerChannel]:
    pool = Threads()
    yield HandlerChannel(pool)
    pool.executor.shutdown()


class Opaque:
    def __repr__(self) -> str:
        return "an opaque thing" + "!" * 1000


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def give(value: Any) -> Callable[[Job], Any]:
    return lambda job: value


def give_there(there: Callable[[Job], Awaitable[Any]]) -> Callable[[Job], Any]:
    """A plain function that looks plain, and gives something to await."""
    return lambda job: there(job)  # noqa: PLW0108 - hides that it is async


def fail(error: BaseException) -> Callable[[Job], Any]:
    def function(job: Job) -> None:
        raise error

    return function


OUTCOMES: list[tuple[str, Callable[[Job], Any], Outcome]] = [
    ("nothing", give(None), Accepted()),
    ("an object", give({"rows": 3, "of": [1, 2.5, "x", None]}), Accepted(result={"rows": 3, "of": [1, 2.5, "x", None]})),
    ("number keys", give({1: "a"}), Accepted(result={"1": "a"})),
    ("false", give(False), Accepted(result=False)),
    ("something that is not JSON", give(Opaque()), Accepted(result="an opaque thing" + "!" * 484 + "…")),
    ("a result that is too large", give(["x" * 2_000_000]), Accepted(result="['" + "x" * 497 + "…")),
    ("a list inside itself", give(endless()), Accepted(result="[[...]]")),
    ("half a character", give("a\ud83d"), Accepted(result="'a\\ud83d'")),
    ("an outcome", give(Moved("b", "c", "d")), Moved("b", "c", "d")),
    ("a limit", give(RateLimited(5_000)), RateLimited(5_000)),
    ("retry", fail(Retry()), Temporary("retry", "the function asked to be called again")),
    ("retry in a while", fail(Retry(1.5, "busy")), Temporary("retry", "busy", 1_500)),
    ("retry in a senseless while", fail(Retry(float("nan"))), Temporary("retry", "the function asked to be called again")),
    ("retry yesterday", fail(Retry(-5)), Temporary("retry", "the function asked to be called again")),
    ("fail", fail(Fail("no such customer", "customer")), Permanent("customer", "no such customer")),
    ("an error", fail(ValueError("bad\nthing")), Temporary("ValueError", "bad thing")),
    ("an error without words", fail(KeyError()), Temporary("KeyError", "KeyError")),
    ("an error that cannot speak", fail(MuteError()), Temporary("MuteError", "MuteError")),
    ("a time-out of its own", fail(TimeoutError("theirs")), Temporary("TimeoutError", "theirs")),
    ("SystemExit", fail(SystemExit(3)), Temporary("SystemExit", "3")),
    ("KeyboardInterrupt", fail(KeyboardInterrupt()), Temporary("KeyboardInterrupt", "KeyboardInterrupt")),
    ("CancelledError", fail(asyncio.CancelledError("mine")), Temporary("CancelledError", "mine")),
    ("StopIteration", fail(StopIteration(5)), Temporary("StopIteration", "5")),
]  # fmt: skip


@pytest.mark.parametrize("where", ["thread", "loop", "thread that gives a coroutine"])
@pytest.mark.parametrize(
    ("function", "expected"), [row[1:] for row in OUTCOMES], ids=[row[0] for row in OUTCOMES]
)
async def test_outcomes(
    handlers: HandlerChannel, function: Callable[[Job], Any], expected: Outcome, where: str
) -> None:
    async def there(job: Job) -> Any:
        await asyncio.sleep(0)
        return function(job)

    if "StopIteration" in repr(expected) and where != "thread":
        expected = Temporary("RuntimeError", "coroutine raised StopIteration")
    match where:
        case "thread":
            handlers.register("k", function)
        case "loop":
            handlers.register("k", there)
        case _:
            handlers.register("k", give_there(there))
    assert await handlers.send(message({}, kind="k"), account(), 5) == expected


class Caller:
    async def __call__(self, job: Job) -> str:
        return threading.current_thread().name


async def name_here(job: Job, more: str = "") -> str:
    return threading.current_thread().name


@pytest.mark.parametrize("function", [name_here, functools.partial(name_here, more="x"), Caller()])
async def test_async_functions_run_in_the_loop(handlers: HandlerChannel, function: Any) -> None:
    handlers.register("k", function)
    outcome = await handlers.send(message({}, kind="k"), account(), 5)
    assert outcome == Accepted(result=threading.current_thread().name)


async def test_what_a_function_gets(handlers: HandlerChannel) -> None:
    reports: list[tuple[float, str, str]] = []
    jobs = []

    def function(job: Job) -> str:
        jobs.append(job)
        job.progress(25, "reading")
        job.progress(100, "done")
        return threading.current_thread().name

    handlers.register("report", function)
    outcome = await handlers.send(
        message(
            {"payload": {"of": 7}},
            kind="report",
            number=3,
            metadata={"a": 1},
            progress=lambda percent, step: reports.append((percent, step, threading.current_thread().name)),
        ),
        account(),
        5,
    )
    (job,) = jobs
    assert (job.id, job.kind, job.payload, job.metadata, job.number) == (
        "0199c0ffee01",
        "report",
        {"of": 7},
        {"a": 1},
        3,
    )
    assert isinstance(outcome, Accepted) and outcome.result != threading.current_thread().name
    loop_thread = threading.current_thread().name
    assert reports == [(25, "reading", loop_thread), (100, "done", loop_thread)]


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
async def test_senseless_progress_is_refused(handlers: HandlerChannel, percent: float) -> None:
    handlers.register("k", lambda job: job.progress(percent, "x"))
    outcome = await handlers.send(message({}, kind="k"), account(), 5)
    assert outcome == Temporary("ValueError", "percent must be between 0 and 100")


async def test_no_function_for_the_kind(handlers: HandlerChannel) -> None:
    handlers.register("other", lambda job: None)
    outcome = await handlers.send(message({}, kind="k"), account(), 5)
    assert outcome == Temporary(
        "no-handler", "no function is registered for the kind 'k' in this process", counts=False
    )
    assert handlers.kinds == ("other",)


@pytest.mark.parametrize(
    ("safe", "expected"),
    [
        (False, Unknown("the function was still running after 0.05 s", "timeout")),
        (True, Temporary("timeout", "the function was still running after 0.05 s")),
    ],
)
@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_a_function_that_does_not_end(
    handlers: HandlerChannel, where: str, expected: Outcome, *, safe: bool
) -> None:
    end = threading.Event()

    async def here(job: Job) -> None:
        await asyncio.Event().wait()

    handlers.register("k", here if where == "loop" else lambda job: end.wait(10), repeat_is_safe=safe)
    outcome = await handlers.send(message({}, kind="k"), account(), 0.05)
    end.set()
    assert outcome == expected


async def test_a_function_that_ignores_the_end_of_time_still_tells_its_result(
    handlers: HandlerChannel,
) -> None:
    async def stubborn(job: Job) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return "done"

    handlers.register("k", stubborn)
    assert await handlers.send(message({}, kind="k"), account(), 0.05) == Accepted(result="done")


async def test_a_cancellation_is_passed_on(handlers: HandlerChannel) -> None:
    started = asyncio.Event()

    async def function(job: Job) -> None:
        started.set()
        await asyncio.Event().wait()

    handlers.register("k", function)
    call = asyncio.create_task(handlers.send(message({}, kind="k"), account(), 60))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_pool_that_is_closed_is_temporary() -> None:
    pool = Threads()
    pool.executor.shutdown()
    handlers = HandlerChannel(pool)
    handlers.register("k", lambda job: None)
    outcome = await handlers.send(message({}, kind="k"), account(), 5)
    assert isinstance(outcome, Temporary) and outcome.code == "no-thread"


def test_only_callables_are_registered(handlers: HandlerChannel) -> None:
    with pytest.raises(TypeError):
        handlers.register("k", 5)  # type: ignore[arg-type] # that is the point


def test_the_recipient_is_optional(handlers: HandlerChannel) -> None:
    assert handlers.check((), {}) == []
    assert handlers.check(("a",), {"payload": None}) == []
    assert [problem.field for problem in handlers.check(("a", "b"), {})] == ["/to"]
