"""E-mail over SMTP submission (RFC 5321, RFC 6409), one transaction a message."""

import asyncio
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from paceline.channels.base import Channel, Outgoing, SendingAccount, Setting
from paceline.channels.smtp_message import Mail, build_mail, check_mail, sender_problem
from paceline.channels.smtp_replies import Phase, of_all, read_reply
from paceline.channels.smtp_session import (
    AllRefusedError,
    BrokenError,
    NotOfferedError,
    Pool,
    RefusedError,
    Session,
)
from paceline.channels.texts import line_problem, told
from paceline.model.errors import Problem
from paceline.model.outcomes import Accepted, AccountStopped, Outcome, Permanent, Temporary, Unknown

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?", re.ASCII)
_QUEUED = re.compile(r"(?:queued as|\bid=)\s*<?([A-Za-z0-9._@-]{4,100})", re.IGNORECASE)
_BIG: Final = 200_000  # characters of content from which building a mail would hold up the loop


class Smtp(Channel):
    """Sends mail through a server that knows the account. SMTP has no idempotency key.

    A cut before the final dot is certain: nothing was taken. After the dot the outcome is unknown. Sent again,
    a mail has the same Message-ID, by which some receivers drop repeats; none promises to.
    """

    name = "smtp"
    default_queue = "email"
    many_recipients = True
    bodies = frozenset({"subject", "text", "html", "attachments"})
    body_required = frozenset({"text", "html"})
    settings = (
        Setting("host", required=True, help="name or address of the server"),
        Setting("port", "integer", default=587, least=1, most=65535, help="587 STARTTLS, 465 TLS, 25 plain"),
        Setting(
            "security",
            "choice",
            choices=("starttls", "tls", "none"),
            default="starttls",
            help="how it is encrypted",
        ),
        Setting("verify", "boolean", default=True, help="refuse a server whose certificate is not trusted"),
        Setting("username", help="empty: no login"),
        Setting("password", secret=True),
        Setting("from", required=True, help="the sender where a message names none: Shop <shop@example.com>"),
        Setting("hello", help="the name given in EHLO; default: the domain of from"),
        Setting("timeout", "number", default=30, least=1, most=600, help="seconds to wait for each reply"),
    )

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Connect to nothing yet; `tls` replaces the system's trusted authorities."""
        self._tls = tls
        self._unverified: ssl.SSLContext | None = None
        self._pool = Pool()

    def check(self, to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check`."""
        return check_mail(to, content)

    def check_settings(self, settings: Mapping[str, Any]) -> list[Problem]:
        """See `Channel.check_settings`."""
        problems: list[Problem | None] = []
        host = settings.get("host")
        if not isinstance(host, str) or (not _HOST.fullmatch(host) and not _is_address(host)):
            problems.append(Problem("/host", "must be a host name or an address"))
        elif (
            settings.get("security") == "none"
            and settings.get("password")
            and not (host == "localhost" or (_is_address(host) and ip_address(host).is_loopback))
        ):
            problems.append(Problem("/security", "must not be none where a password is sent over a network"))
        wrong = sender_problem(settings.get("from"))
        if wrong is not None:
            problems.append(Problem("/from", wrong))
        for field in ("username", "password", "hello"):
            value = settings.get(field)
            if value:
                problem = line_problem(f"/{field}", value, 500)
                if problem is None and field == "hello" and not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", value):
                    problem = Problem("/hello", "must be a host name")
                problems.append(problem)
        if settings.get("password") and not settings.get("username"):
            problems.append(Problem("/username", "must be given beside a password"))
        return [problem for problem in problems if problem is not None]

    async def send(self, message: Outgoing, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.send`."""
        dialogue = _Dialogue()
        try:
            async with asyncio.timeout(deadline):
                try:
                    mail = await _build(message, account.settings["from"])
                except ValueError:
                    return Permanent("bad-mail", "the fields make no valid mail")
                return await self._deliver(mail, account, dialogue)
        except TimeoutError:
            return dialogue.timed_out()
        finally:
            if dialogue.session is not None:
                dialogue.session.drop()

    async def probe(self, account: SendingAccount, deadline: float) -> Outcome:
        """Connect, greet, start TLS, log in, part."""
        return await self._greet(account, account.settings, deadline)

    async def reach(self, account: SendingAccount, deadline: float) -> Outcome:
        """See `Channel.reach`: as `probe`, without logging in."""
        return await self._greet(account, {**account.settings, "username": ""}, deadline)

    async def _greet(self, account: SendingAccount, settings: Mapping[str, Any], deadline: float) -> Outcome:
        session = self._session(settings)
        try:
            async with asyncio.timeout(deadline):
                await session.open()
                await session.quit()
        except TimeoutError:
            return Temporary("timeout", "the server did not answer in time", up=False)
        except (RefusedError, BrokenError, NotOfferedError) as error:
            return _failed(error, account)
        finally:
            session.drop()
        return Accepted()

    async def forget(self, account: SendingAccount) -> None:
        """See `Channel.forget`."""
        self._pool.forget((account.tenant, account.name))

    async def close(self) -> None:
        """See `Channel.close`."""
        await self._pool.close()

    async def _deliver(self, mail: Mail, account: SendingAccount, dialogue: "_Dialogue") -> Outcome:
        key = (account.tenant, account.name)
        while True:
            session = self._pool.take(key)
            reused = session is not None
            try:
                if session is None:
                    session = self._session(account.settings)
                    dialogue.session = session
                    await session.open()
                dialogue.session = session
                reply, refused = await session.deliver(mail)
            except (RefusedError, BrokenError, NotOfferedError, AllRefusedError) as error:
                if reused and _gone_stale(error, dialogue):
                    # The server closed an idle connection: nothing of this mail has left yet.
                    dialogue.end()
                    continue
                if session is not None and _of_use(error, session):
                    dialogue.session = None
                    self._pool.restore(key, session)
                return _failed(error, account)
            dialogue.session = None
            self._pool.keep(key, session)
            return _accepted(mail, reply, refused)

    def _session(self, settings: Mapping[str, Any]) -> Session:
        if settings.get("verify", True) or settings.get("security") == "none":
            return Session(settings, self._tls)
        if self._unverified is None:
            self._unverified = ssl.create_default_context()
            self._unverified.check_hostname = False
            self._unverified.verify_mode = ssl.CERT_NONE
        return Session(settings, self._unverified)


class _Dialogue:
    """The session a call is using, so that whatever ends the call also ends it."""

    def __init__(self) -> None:
        self.session: Session | None = None

    def end(self) -> None:
        if self.session is not None:
            self.session.drop()
            self.session = None

    def timed_out(self) -> Outcome:
        if self.session is not None and self.session.phase is Phase.AFTER_DOT:
            return Unknown("the mail was handed over, and no reply came in time", up=False)
        # Without a session its time went by here, before the server was asked at all.
        return Temporary(
            "timeout", "the server did not answer in time", up=None if self.session is None else False
        )


async def _build(message: Outgoing, default_from: str) -> Mail:
    content = message.content
    size = len(content.get("text") or "") + len(content.get("html") or "")
    size += sum(len(attachment["content"]) for attachment in content.get("attachments") or ())
    if size > _BIG:
        return await asyncio.to_thread(build_mail, message, default_from)
    return build_mail(message, default_from)


def _gone_stale(error: Exception, dialogue: _Dialogue) -> bool:
    """True where a kept connection turned out to be closed before it took anything of the mail."""
    session = dialogue.session
    if session is None or session.phase is not Phase.MAIL:
        return False
    return isinstance(error, BrokenError) or (isinstance(error, RefusedError) and error.code == 421)


def _of_use(error: Exception, session: Session) -> bool:
    """True where the dialogue can go on with another mail after this one was refused."""
    if isinstance(error, BrokenError) or not session.alive or session.phase < Phase.MAIL:
        return False
    return not isinstance(error, RefusedError) or (400 <= error.code <= 599 and error.code != 421)


def _failed(error: Exception, account: SendingAccount) -> Outcome:
    secrets = (account.settings.get("password") or "",)
    if isinstance(error, RefusedError):
        return read_reply(error.phase, error.code, error.text, secrets)
    if isinstance(error, AllRefusedError):
        return of_all(read_reply(Phase.RECIPIENT, *reply, secrets) for reply in error.refused.values())
    if isinstance(error, NotOfferedError):
        if error.code == "smtp-no-utf8":
            return Permanent(error.code, error.text)
        return AccountStopped(error.code, error.text)
    if isinstance(error, BrokenError):
        if error.written:
            return Unknown(f"the mail was handed over, then: {error.text}", up=error.up)
        return Temporary(error.code, error.text, up=error.up)
    raise error


def _accepted(mail: Mail, reply: str, refused: Mapping[str, tuple[int, str]]) -> Accepted:
    queued = _QUEUED.search(reply)
    result: dict[str, Any] = {"message_id": mail.message_id, "reply": told(reply)}
    if refused:
        result["refused"] = {address: told(f"{code} {text}") for address, (code, text) in refused.items()}
    return Accepted(queued[1] if queued else mail.message_id, result)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
