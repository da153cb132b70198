"""What the network experiments take out of the server, one guard each."""

import time
from collections.abc import Callable
from typing import Any

from paceline import wiring
from paceline.channels import outgoing, smtp_session, telegram_bot, webhook
from paceline.channels.handler import HandlerChannel, Job
from paceline.channels.smtp import Smtp
from paceline.channels.telegram_bot import TelegramBot
from paceline.config import Settings
from paceline.engine.attempts import Attempts
from paceline.engine.loop_watch import LoopWatch
from paceline.engine.service import Service
from paceline.engine.threads import ThreadPool
from paceline.model.messages import HandedOver


def handlers() -> None:
    """No break: the server gets functions that sleep in their thread, compute in it, or hold the event loop."""
    usual = wiring.make_service

    def make(settings: Settings, _given: Any = None) -> Service:
        return usual(settings, {"sleep": _sleep, "spin": _spin, "block": _block})

    wiring.make_service = make


def _sleep(job: Job) -> str:
    time.sleep(job.payload["seconds"])
    return "slept"


def _spin(job: Job) -> int:
    end, turns = time.monotonic() + job.payload["seconds"], 0
    while time.monotonic() < end:
        turns += sum(range(1000)) & 1
    return turns


async def _block(job: Job) -> str:
    time.sleep(job.payload["seconds"])
    return "blocked"


def _functions_in_the_loop() -> None:
    handlers()

    async def run(_self: ThreadPool, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    ThreadPool.run = run


def _no_loop_watch() -> None:
    handlers()
    LoopWatch.start = lambda _self, _loop: None


def _no_deadline() -> None:
    """A call may take for ever."""
    usual = Attempts._call

    async def call(self: Attempts, message: HandedOver) -> Any:
        message.timeout_ms = 600_000
        return await usual(self, message)

    Attempts._call = call


def _one_place_for_all() -> None:
    """Four calls under way over all accounts: who hangs takes the place of others."""
    usual = wiring.Options

    def options(**given: Any) -> Any:
        return usual(**given | {"in_flight": 4})

    wiring.Options = options


def _cut_is_temporary() -> None:
    def maybe_sent(text: str, **_more: Any) -> outgoing.NotSentError:
        return outgoing.NotSentError("connect", text)

    for module in (outgoing, telegram_bot, webhook):
        module.MaybeSentError = type("Never", (Exception,), {}) if module is not outgoing else maybe_sent


def _dot_is_forgotten() -> None:
    usual = smtp_session.Session._ours

    def ours(self: smtp_session.Session, error: Exception) -> Exception:
        told = usual(self, error)
        if isinstance(told, smtp_session.BrokenError):
            told.written = False
        return told

    smtp_session.Session._ours = ours


def _uncertain_is_repeated() -> None:
    for channel in (TelegramBot, Smtp, HandlerChannel):
        channel.repeat_is_safe = True


BREAKS: dict[str, Callable[[], Any]] = {
    "handlers": handlers,
    "functions-in-the-loop": _functions_in_the_loop,
    "no-loop-watch": _no_loop_watch,
    "no-deadline": _no_deadline,
    "one-place-for-all": _one_place_for_all,
    "cut-is-temporary": _cut_is_temporary,
    "dot-is-forgotten": _dot_is_forgotten,
    "uncertain-is-repeated": _uncertain_is_repeated,
}
