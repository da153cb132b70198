"""What the network experiments take out of the server, one guard each."""

from collections.abc import Callable
from typing import Any

from paceline.channels import outgoing, smtp_session, telegram_bot, webhook
from paceline.channels.handler import HandlerChannel
from paceline.channels.smtp import Smtp
from paceline.channels.telegram_bot import TelegramBot


def _cut_is_temporary() -> None:
    def maybe_sent(text: str) -> outgoing.NotSentError:
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
    "cut-is-temporary": _cut_is_temporary,
    "dot-is-forgotten": _dot_is_forgotten,
    "uncertain-is-repeated": _uncertain_is_repeated,
}
