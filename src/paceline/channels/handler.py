"""Your own Python functions as a channel: a message of a kind is handed to the function of that kind."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from paceline.channels.base import Channel, Outgoing, SendingAccount
from paceline.channels.texts import told
from paceline.model.errors import Problem
from paceline.model.outcomes import Accepted, Outcome, Permanent, Temporary, Unknown

LARGEST_RESULT: Final = 1_048_576
"""Bytes of JSON a function may return; a larger result is kept as the beginning of its text."""

Function = Callable[["Job"], Any]
"""What can be registered: takes a `Job`; plain or async."""


class Runner(Protocol):
    """Where plain functions run, so that they never block the event loop: a pool of threads."""

    def run(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Call `function` with `args` elsewhere; awaiting gives what it returns."""
        ...


class Job(msgspec.Struct, frozen=True):
    """What a function gets.

    Attributes:
        id: stable over retries.
        kind: what it was registered for.
        number: which try this is, from 1.
        progress: call it with percent 0..100 and a label of the step, from any thread.
    """

    id: str
    kind: str
    payload: Any
    metadata: Mapping[str, Any]
    number: int
    progress: Callable[[float, str], None]


class Retry(Exception):  # noqa: N818 - users raise it as a request, not as an error
    """Raise it to be called again later, after `seconds` if given, else after the usual back-off."""

    def __init__(
        self, seconds: float | None = None, text: str = "the function asked to be called again"
    ) -> None:
        """Keep both for the outcome."""
        super().__init__(text)
        self.seconds = seconds
        self.text = text


class Fail(Exception):  # noqa: N818 - as Retry
    """Raise it to end the message as failed: no later try can help."""

    def __init__(self, text: str, code: str = "fail") -> None:
        """Keep both for the outcome."""
        super().__init__(text)
        self.text = text
        self.code = code


class _Raised(msgspec.Struct, frozen=True):
    """What a function raised, carried as a value: some exceptions would end the thread or the loop."""

    error: BaseException


class HandlerChannel(Channel):
    """Hands messages to registered functions. What they return is the result, what they raise the outcome.

    A function that is still running when the time is up may have done its work: that is unknown, unless it
    was registered as safe to repeat. A plain function cannot be stopped; its thread ends when it does.
    """

    name = "handler"
    needs_account = False
    default_queue = "notification"
    bodies = frozenset({"payload"})
    body_required = frozenset()

    def __init__(self, pool: Runner) -> None:
        """Run plain functions in `pool` and async ones in the event loop."""
        self._pool = pool
        self._functions: dict[str, tuple[Function, bool]] = {}

    def register(self, kind: str, function: Function, *, repeat_is_safe: bool = False) -> None:
        """Hand messages of `kind` to `function`, replacing an earlier one.

        Args:
            kind: as the messages name it.
            function: plain or async.
            repeat_is_safe: running it twice does no harm, so that what a time-out, a cut or a crash left open
                is simply tried again.
        """
        if not callable(function):
            raise TypeError(f"what handles {kind!r} must be callable")
        self._functions[kind] = (function, repeat_is_safe)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that have a function, in the order of their registration."""
        return tuple(self._functions)

    def may_repeat(self, kind: str | None) -> bool:
        """See `Channel.may_repeat`: as its function was registered; no where this process has no such function."""
        found = self._functions.get(kind or "")
        return found is not None and found[1]

    def check(self, to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check`. No recipient is needed."""
        return [Problem("/to", "must be one at most")] if len(to) > 1 else []

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.send`."""
        kind = message.kind or ""
        found = self._functions.get(kind)
        if found is None:
            text = f"no function is registered for the kind {told(kind)!r} in this process"
            return Temporary("no-handler", text, counts=False)
        function, repeat_is_safe = found
        job = Job(
            message.id,
            kind,
            message.content.get("payload"),
            message.metadata,
            message.number,
            _reporter(message.progress),
        )
        try:
            async with asyncio.timeout(deadline):
                return _outcome(await self._run(function, job))
        except TimeoutError:
            text = f"the function was still running after {deadline:g} s"
            return Temporary("timeout", text) if repeat_is_safe else Unknown(text, "timeout")

    async def _run(self, function: Function, job: Job) -> Any:
        if _is_async(function):
            return await _call_here(function, job)
        try:
            returned = await self._pool.run(_call, function, job)
        except Exception as error:  # noqa: BLE001 - the pool is not ours: whatever fails there was not the function
            return Temporary("no-thread", f"the function could not be started: {_words(error)}")
        if inspect.isawaitable(returned):
            return await _call_here(_give, returned)
        return returned


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - not whether it is callable, but how
    )


def _call(function: Function, job: Job) -> Any:
    """Call a plain function in its thread; nothing it raises may end that thread."""
    try:
        return function(job)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are the point
        return _Raised(error)


async def _call_here(function: Callable[[Any], Awaitable[Any]], given: Any) -> Any:
    """Await an async function; nothing it raises may end the loop, and only a real cancellation passes."""
    task = asyncio.current_task()
    try:
        return await function(given)
    except GeneratorExit as error:
        if not _runs(task):
            raise  # nobody runs this any more: it is being thrown away
        return _Raised(error)
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        return _Raised(error)
    except BaseException as error:  # noqa: BLE001 - as in _call
        return _Raised(error)


def _runs(task: "asyncio.Task[Any] | None") -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False


async def _give(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _outcome(returned: Any) -> Outcome:
    if isinstance(returned, _Raised):
        return _raised(returned.error)
    if isinstance(returned, Outcome):
        return returned
    try:
        result = msgspec.to_builtins(returned, str_keys=True)
        if len(msgspec.json.encode(result)) <= LARGEST_RESULT:
            return Accepted(result=result)
    except Exception:  # noqa: BLE001, S110 - any value may come back, and any of its methods may fail
        pass
    return Accepted(result=_words(returned))


def _raised(error: BaseException) -> Outcome:
    if isinstance(error, Fail):
        return Permanent(told(error.code), told(error.text))
    if isinstance(error, Retry):
        wait = error.seconds
        usable = isinstance(wait, (int, float)) and math.isfinite(wait) and wait >= 0
        return Temporary(
            "retry", told(error.text), math.ceil(wait * 1000) if usable and wait is not None else None
        )
    return Temporary(type(error).__name__, _words(error))


def _words(thing: object) -> str:
    """Some text for anything, even for what fails to give one."""
    try:
        text = str(thing) if isinstance(thing, BaseException) else repr(thing)
    except Exception:  # noqa: BLE001 - as above
        text = ""
    return told(text) or type(thing).__name__


def _reporter(report: Callable[[float, str], None]) -> Callable[[float, str], None]:
    """`report`, made safe to call from any thread: the engine's own is for the event loop only."""
    loop = asyncio.get_running_loop()

    def progress(percent: float, step: str = "") -> None:
        if not 0 <= percent <= 100:
            raise ValueError("percent must be between 0 and 100")
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            report(percent, step)
        else:
            loop.call_soon_threadsafe(report, percent, step)

    return progress
