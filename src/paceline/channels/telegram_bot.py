"""Telegram bots: ``sendMessage`` of the Bot API, https://core.telegram.org/bots/api."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
from yarl import URL

from paceline.channels.base import Channel, Outgoing, SendingAccount, Setting
from paceline.channels.outgoing import (
    LONGEST_WAIT_MS,
    UNREADABLE,
    Answer,
    HttpClient,
    MaybeSentError,
    NotSentError,
    RefusedAddressError,
    check_url,
    retry_after_ms,
)
from paceline.channels.texts import body_problem, told
from paceline.model.errors import Problem
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Moved,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)

BASE_URL: Final = "https://api.telegram.org"

LONGEST_TEXT: Final = 4096
"""UTF-16 code units, counted after entities are parsed (Bot API, sendMessage, field text)."""

_MOST_MARKED_UP: Final = 4 * LONGEST_TEXT  # as typed, with mark-up that does not count
_TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{1,128}", re.ASCII)
_CHAT = re.compile(r"-?[1-9][0-9]{0,18}|@[A-Za-z][A-Za-z0-9_]{3,31}", re.ASCII)
_MARK_UP = re.compile(r"[<&*_`\[~|\\]")
_HEADERS: Final = {"Content-Type": "application/json"}
_OURS = frozenset({"chat_id"})


class _Reply(msgspec.Struct):
    """The envelope of every answer of the Bot API."""

    ok: bool
    result: Any = None
    error_code: int | None = None
    description: str = ""
    parameters: dict[str, Any] | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Reply).decode


class TelegramBot(Channel):
    """Sends through a bot's token. Telegram takes no idempotency key: a lost answer stays unknown."""

    name = "telegram-bot"
    default_queue = "telegram"
    bodies = frozenset({"text", "payload"})
    body_required = frozenset({"text", "payload"})
    settings = (
        Setting("token", required=True, secret=True, help="the bot's token, as 123456:ABC..."),
        Setting("base_url", "url", default=BASE_URL, help="where the Bot API answers"),
        Setting(
            "parse_mode",
            "choice",
            choices=("", "HTML", "MarkdownV2", "Markdown"),
            default="",
            help="how mark-up in the text is read; empty: plain text",
        ),
    )

    def __init__(self, http: HttpClient) -> None:
        """Send through `http`."""
        self._http = http

    def check(self, to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check`."""
        problems = []
        if len(to) != 1:
            problems.append(Problem("/to", "must be one chat"))
        elif not _CHAT.fullmatch(to[0]) or (to[0][0] != "@" and abs(int(to[0])) >= 1 << 63):
            problems.append(Problem("/to", "must be a chat id such as 123456 or -1001234, or a @name"))
        payload = content.get("payload")
        field = "/text"
        text = content.get("text")
        if payload is not None:
            if not isinstance(payload, Mapping):
                return [*problems, Problem("/payload", "must be an object of sendMessage parameters")]
            problems += [Problem(f"/payload/{key}", "is set by Paceline") for key in _OURS & payload.keys()]
            if text is None:
                field, text = "/payload/text", payload.get("text")
            elif "text" in payload:
                problems.append(Problem("/payload/text", "must not be given beside text"))
        problem = body_problem(field, text, _MOST_MARKED_UP)
        if problem is None and _units(str(text)) > LONGEST_TEXT and not _MARK_UP.search(str(text)):
            problem = Problem(field, _TOO_LONG)
        if problem is not None:
            problems.append(problem)
        return problems

    def check_settings(self, settings: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check_settings`."""
        problems = []
        token = settings.get("token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            problems.append(Problem("/token", "must look like 123456:ABC..., as BotFather gives it"))
        base = settings.get("base_url") or BASE_URL
        wrong = check_url(base, self._http.allow)
        if wrong is None and ("?" in base or "#" in base):
            wrong = "must not have a query or a fragment"
        if wrong is not None:
            problems.append(Problem("/base_url", wrong))
        return problems

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.send`."""
        settings = account.settings
        to = message.to[0]
        mode = settings.get("parse_mode")
        parameters: dict[str, Any] = {"chat_id": to if to[0] == "@" else int(to)}
        if mode:
            parameters["parse_mode"] = mode
        payload = message.content.get("payload")
        if payload:
            parameters.update(payload)
        text = message.content.get("text")
        if text is not None:
            parameters["text"] = text
        if not parameters.get("parse_mode") and _units(parameters.get("text") or "") > LONGEST_TEXT:
            return Permanent("text-too-long", _TOO_LONG)
        try:
            body = _encode(parameters)
        except (TypeError, ValueError, OverflowError):
            return Permanent("bad-payload", "the payload cannot be written as JSON")
        return await self._call("sendMessage", body, account, deadline)

    async def reach(self, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.reach`. The token is part of paths only, which are left out."""
        return await self._http.reach(account.settings.get("base_url") or BASE_URL, deadline)

    async def probe(self, account: SendingAccount, deadline: float) -> Outcome:
        """Ask ``getMe``: accepted where the token works; the reference is the bot's own name."""
        return await self._call("getMe", b"{}", account, deadline)

    async def _call(self, method: str, body: bytes, account: SendingAccount, deadline: float) -> Outcome:
        token = account.settings["token"]
        url = _url(account.settings.get("base_url") or BASE_URL, token, method)
        try:
            answer = await self._http.post(url, body, _HEADERS, deadline)
        except RefusedAddressError as error:
            return AccountStopped(error.code, error.text)
        except NotSentError as error:
            return Temporary(error.code, error.text, up=error.up)
        except MaybeSentError as error:
            return Unknown(error.text, up=error.up)
        return read_answer(answer, (token, token.partition(":")[2]))


def read_answer(answer: Answer, secrets: tuple[str, ...] = ()) -> Outcome:
    """What an answer of the Bot API means.

    The error envelope and its parameters: Bot API, "Making requests" and ResponseParameters; 401 and 404 are
    what it answers to a token it does not know. During ``retry_after`` every call of the bot is refused, so the
    whole account waits.
    """
    try:
        reply = _decode(answer.body)
    except UNREADABLE:
        reply = None
    if 200 <= answer.status < 300:
        if reply is None:
            return Unknown("the answer has status 200 but cannot be read")
        if reply.ok:
            return Accepted(_reference(reply.result, secrets))
    code = (reply and reply.error_code) or answer.status
    parameters = (reply and reply.parameters) or {}
    text = told((reply and reply.description) or f"HTTP status {answer.status}", secrets)
    name = f"telegram-{code}"
    moved = parameters.get("migrate_to_chat_id")
    if isinstance(moved, int) and moved:
        return Moved(str(moved), name, text)
    wait = _wait(parameters.get("retry_after"))
    if code == 429:
        if wait is None:
            wait = retry_after_ms(answer.headers, 0) if _has_seconds(answer.headers) else None
        return RateLimited(wait, "account", name, text)
    if code in (401, 404) or 300 <= code < 400:
        return AccountStopped(name, text)
    if 400 <= code < 500:
        return Permanent(name, text)
    if code >= 500:
        # With a figure it speaks for itself, and is waited for as it says.
        return Temporary(name, text, wait, up=False if wait is None else None)
    return Unknown(text, name)


def _wait(seconds: object) -> int | None:
    """A ``retry_after`` in milliseconds; None for a figure that makes no sense."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < 1e12:
        return None
    return min(math.ceil(seconds * 1000), LONGEST_WAIT_MS)


def _has_seconds(headers: Mapping[str, str]) -> bool:
    # A date would need a clock, and the Bot API never sends one.
    return headers.get("Retry-After", "").strip().isdigit()


def _reference(result: object, secrets: tuple[str, ...]) -> str:
    if not isinstance(result, dict):
        return ""
    value = result.get("message_id", result.get("username"))
    return "" if value is None else told(value, secrets)


def _units(text: str) -> int:
    """The length of `text` in UTF-16 code units."""
    if len(text) * 2 <= LONGEST_TEXT or text.isascii():
        return len(text)
    return len(text) + sum(sign > "\uffff" for sign in text)


@lru_cache(maxsize=1024)
def _url(base: str, token: str, method: str) -> URL:
    return URL(f"{base.rstrip('/')}/bot{token}/{method}", encoded=base.isascii())


_TOO_LONG = f"must be at most {LONGEST_TEXT} UTF-16 code units long"
