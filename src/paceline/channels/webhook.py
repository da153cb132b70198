"""Webhooks: a signed POST to a URL, as https://www.standardwebhooks.com specifies it."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from paceline.channels.base import Channel, Outgoing, SendingAccount, Setting
from paceline.channels.outgoing import (
    UNREADABLE,
    Answer,
    HttpClient,
    MaybeSentError,
    NotSentError,
    RefusedAddressError,
    check_url,
    retry_after_ms,
)
from paceline.channels.texts import body_problem, line_problem, told
from paceline.model.errors import Problem
from paceline.model.outcomes import (
    Accepted,
    AccountStopped,
    Outcome,
    Permanent,
    RateLimited,
    Temporary,
    Unknown,
)

_LARGEST_TEXT: Final = 1_000_000
_LONGEST_SECRET: Final = 1024
_TEMPORARY: Final = frozenset({408, 425})
_DOWN: Final = frozenset({500, 502, 503, 504})
_STOPPING: Final = frozenset({401, 403, 410})
_FIELDS: Final = ("subject", "text", "html")
_encode = msgspec.json.Encoder().encode


class Webhook(Channel):
    """POSTs JSON. The receiver gets the message's id as ``webhook-id`` and can drop repeats by it."""

    name = "webhook"
    needs_account = False
    repeat_is_safe = True
    bodies = frozenset({"payload", "subject", "text", "html"})
    body_required = frozenset({"payload", "text", "html"})
    settings = (
        Setting("url", "url", help="where to POST when a message names no URL itself"),
        Setting(
            "secret",
            secret=True,
            help="signs every request; whsec_... is base64, anything else is taken as it is; "
            "two with a space between them while you change over",
        ),
        Setting("authorization", secret=True, help="value of the Authorization header"),
    )

    def __init__(self, http: HttpClient, now_ms: Callable[[], int]) -> None:
        """Send through `http`; `now_ms` tells the wall time in milliseconds since 1970 for the signature."""
        self._http = http
        self._now_ms = now_ms

    def check(self, to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check`. No recipient is fine: the account may have a URL."""
        problems: list[Problem | None] = []
        if len(to) > 1:
            problems.append(Problem("/to", "must be one URL"))
        elif to:
            wrong = check_url(to[0], self._http.allow)
            if wrong is not None:
                problems.append(Problem("/to", wrong))
        if content.get("payload") is None:
            if content.get("text") is None and content.get("html") is None:
                problems.append(Problem("/payload", "must be given, or else text or html"))
            for field in _FIELDS:
                value = content.get(field)
                if value is not None:
                    problems.append(body_problem(f"/{field}", value, _LARGEST_TEXT))
        else:
            problems += [
                Problem(f"/{field}", "must not be given beside payload")
                for field in _FIELDS
                if content.get(field) is not None
            ]
        return [problem for problem in problems if problem is not None]

    def check_settings(self, settings: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check_settings`."""
        problems: list[Problem | None] = []
        url = settings.get("url")
        if url:
            wrong = check_url(url, self._http.allow)
            if wrong is not None:
                problems.append(Problem("/url", wrong))
        secret = settings.get("secret")
        if secret:
            problems.append(line_problem("/secret", secret, _LONGEST_SECRET))
            if problems[-1] is None:
                try:
                    _keys(secret)
                except ValueError:
                    problems.append(Problem("/secret", "must have base64 after whsec_"))
        authorization = settings.get("authorization")
        if authorization:
            problems.append(line_problem("/authorization", authorization, 4096))
            if isinstance(authorization, str) and not authorization.isascii():
                problems.append(Problem("/authorization", "must be ASCII"))
        return [problem for problem in problems if problem is not None]

    async def reach(self, account: SendingAccount, deadline: float) -> Outcome | None:
        """See `Channel.reach`. An account without a URL has no receiver of its own."""
        url = account.settings.get("url")
        return await self._http.reach(url, deadline) if url else None

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.send`."""
        settings = account.settings
        fixed = settings.get("url") or ""
        url = message.to[0] if message.to else fixed
        if not url:
            return Permanent("no-url", "neither the message nor the account names a URL")
        own = url == fixed
        try:
            body = _body(message)
        except (TypeError, ValueError, OverflowError):
            return Permanent("bad-payload", "the payload cannot be written as JSON")
        headers = self._headers(message.id, body, settings, authorized=own or not fixed)
        try:
            answer = await self._http.post(url, body, headers, deadline)
        except RefusedAddressError as error:
            return AccountStopped(error.code, error.text) if own else Permanent(error.code, error.text)
        except NotSentError as error:
            if error.code == "url":
                return Permanent(error.code, error.text)
            return Temporary(error.code, error.text, up=error.up if own else None)
        except MaybeSentError as error:
            return Unknown(error.text, up=error.up if own else None)
        return read_answer(answer, own, self._now_ms())

    def _headers(
        self, key: str, body: bytes, settings: Mapping[str, Any], *, authorized: bool
    ) -> dict[str, str]:
        moment = str(self._now_ms() // 1000)
        headers = {"Content-Type": "application/json", "webhook-id": key, "webhook-timestamp": moment}
        secret = settings.get("secret")
        if secret:
            headers["webhook-signature"] = sign(secret, key, moment, body)
        # Where the account has a URL of its own its credentials are for that one, not for whatever a message names.
        authorization = settings.get("authorization")
        if authorization and authorized:
            headers["Authorization"] = authorization
        return headers


def sign(secret: str, message: str, moment: str, body: bytes) -> str:
    """The ``webhook-signature`` header: version 1 is base64 of HMAC-SHA256 over id, second and body,
    once for each key.
    """
    signed = b"%s.%s.%s" % (message.encode(), moment.encode(), body)
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in _keys(secret)
    )


def read_answer(answer: Answer, own: bool, now_ms: int) -> Outcome:
    """What the receiver's status means (RFC 9110, section 15); `own` where the URL is the account's.

    The receiver's own words are not kept: they could be those of a host the sender may not read from.
    """
    status = answer.status
    name = f"http-{status}"
    text = f"the receiver answered with status {status}"
    if 200 <= status < 300:
        return Accepted(_reference(answer.body), {"status": status})
    wait = retry_after_ms(answer.headers, now_ms) if status in (429, 503) else None
    if status == 429 or wait is not None:
        return RateLimited(wait, "account" if own else "recipient", name, text)
    if status >= 500 or status in _TEMPORARY:
        # Where each message names its own URL, one receiver tells nothing of the others.
        down = own and status in _DOWN
        return Temporary(name, text, up=False if down else True if status in _TEMPORARY else None)
    if status in _STOPPING and own:
        return AccountStopped(name, text)
    if 300 <= status < 400:
        return Permanent(name, f"{text}; redirects are not followed")
    return Permanent(name, text)


def _body(message: Outgoing) -> bytes:
    payload = message.content.get("payload")
    if payload is not None:
        return _encode(payload)
    body: dict[str, Any] = {"id": message.id}
    if message.to:
        body["to"] = message.to[0]
    body |= {field: message.content[field] for field in _FIELDS if message.content.get(field) is not None}
    if message.metadata:
        body["metadata"] = message.metadata
    return _encode(body)


def _reference(body: bytes) -> str:
    if not body.lstrip().startswith(b"{"):
        return ""
    try:
        value = msgspec.json.decode(body, type=dict[str, Any]).get("id")
    except UNREADABLE:
        return ""
    return told(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


@lru_cache(maxsize=1024)
def _keys(secret: str) -> tuple[bytes, ...]:
    """The signing keys in `secret`, first the one that is preferred."""
    try:
        return tuple(
            base64.b64decode(part[6:], validate=True) if part.startswith("whsec_") else part.encode()
            for part in secret.split(" ")
            if part
        )
    except binascii.Error as error:
        raise ValueError("not base64") from error
