"""One SMTP connection and the few idle ones kept for each account, over aiosmtplib."""

import asyncio
import ssl
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any, Final, cast

import aiosmtplib

from paceline.channels.base import may_leave
from paceline.channels.smtp_message import Mail, domain_of
from paceline.channels.smtp_replies import Phase

IDLE: Final = 30.0
"""Seconds an unused connection is kept; servers may close after five minutes (RFC 5321, section 4.5.3.2.7)."""

MOST_MAILS: Final = 100
"""Mails over one connection; common servers end it somewhere above."""

MOST_IDLE: Final = 8
"""Unused connections kept for one account."""

_MECHANISMS: Final = ("plain", "login", "cram-md5")
_THEIRS: Final = (
    aiosmtplib.SMTPException,
    OSError,
    ValueError,
)  # ValueError: also text that cannot be encoded


class RefusedError(Exception):
    """The server answered something else than hoped for."""

    def __init__(self, phase: Phase, code: int, text: str) -> None:
        """Keep what the table needs."""
        super().__init__()
        self.phase = phase
        self.code = code
        self.text = text


class BrokenError(Exception):
    """The dialogue broke off: no connection, cut, time-out, nonsense.

    `written` tells that the final dot may have reached the server: only then may the mail have been taken.
    """

    def __init__(self, code: str, text: str, *, written: bool = False) -> None:
        """Keep what the outcome needs."""
        super().__init__()
        self.code = code
        self.text = text
        self.written = written

    @property
    def up(self) -> bool | None:
        """As in `Temporary`: no link, no answer; a dialogue that makes no sense tells nothing."""
        return None if self.code == "smtp" else False


class NotOfferedError(Exception):
    """The server lacks what the account's settings or the mail ask for."""

    def __init__(self, code: str, text: str) -> None:
        """Keep what the outcome needs."""
        super().__init__()
        self.code = code
        self.text = text


class Session:
    """A connection that has said hello and logged in."""

    def __init__(self, settings: Mapping[str, Any], tls: ssl.SSLContext | None) -> None:
        """Connect to nothing yet."""
        self.mails = 0
        self.phase = Phase.GREETING
        self._settings = settings
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None
        self._client = aiosmtplib.SMTP(
            hostname=settings["host"],
            port=int(settings.get("port") or 587),
            local_hostname=settings.get("hello") or domain_of(settings["from"]),
            timeout=float(settings.get("timeout") or 30),
            use_tls=settings.get("security") == "tls",
            start_tls=False,
            tls_context=tls,
        )

    @property
    def alive(self) -> bool:
        """False once the server has closed the connection, as far as we have heard."""
        return self._client.is_connected

    async def open(self) -> None:
        """Connect, say hello, start TLS, log in."""
        settings, client = self._settings, self._client
        try:
            await client.connect()
            self._go_on(Phase.HELLO)
            try:
                await client.ehlo()
            except aiosmtplib.SMTPHeloError:
                await client.helo()
            if (settings.get("security") or "starttls") == "starttls":
                self._go_on(Phase.TLS)
                if not client.supports_extension("starttls"):
                    raise NotOfferedError("smtp-no-starttls", "the server does not offer STARTTLS")
                await client.starttls(tls_context=self._tls)
                await client.ehlo()
            if settings.get("username"):
                self._go_on(Phase.LOGIN)
                await self._login(settings["username"], settings.get("password") or "")
        except _THEIRS as error:
            self.drop()
            raise self._ours(error) from None
        except BaseException:
            self.drop()
            raise
        transport, protocol = client.transport, client.protocol
        if transport is None or protocol is None:
            raise BrokenError("cut", "the connection was cut")
        transport = cast("asyncio.WriteTransport", transport)  # uvloop's transports do not derive from it
        transport.set_write_buffer_limits(0)  # drain() returns when the kernel has everything
        self._writer = asyncio.StreamWriter(transport, protocol, None, asyncio.get_running_loop())

    def _go_on(self, phase: Phase) -> None:
        """Enter a phase, unless the call was cancelled.

        Until Python 3.12 asyncio.wait_for, which waits for each reply, loses a cancellation that comes together
        with the reply.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        self.phase = phase

    async def _login(self, username: str, password: str) -> None:
        client = self._client
        offered = client.server_auth_methods
        # One try only: a server that counts failures counts each mechanism as one.
        mechanism = next((name for name in _MECHANISMS if name in offered), None)
        if mechanism is None:
            raise NotOfferedError("smtp-no-login", "the server offers no way to log in that is known here")
        if mechanism == "plain":
            await client.auth_plain(username, password)
        elif mechanism == "login":
            await client.auth_login(username, password)
        else:
            await client.auth_crammd5(username, password)

    async def deliver(self, mail: Mail) -> tuple[str, dict[str, tuple[int, str]]]:
        """One mail transaction: the final reply and the recipients that were refused, unless all were.

        Raises:
            RefusedError, BrokenError, NotOfferedError, AllRefusedError: the mail was not taken, or with
                `BrokenError.written` possibly was.
            NotOursError: this process may not send any more; the session is as it was.
        """
        may_leave()
        client = self._client
        self.mails += 1
        self._go_on(Phase.MAIL)
        try:
            options = []
            if client.supports_extension("size"):
                options.append(f"SIZE={mail.size}")
            if mail.utf8:
                if not client.supports_extension("smtputf8"):
                    raise NotOfferedError("smtp-no-utf8", "the server takes no addresses outside ASCII")
                options.append("SMTPUTF8")
            encoding = "utf-8" if mail.utf8 else "ascii"
            await client.mail(mail.sender, options=options, encoding=encoding)
            refused: dict[str, tuple[int, str]] = {}
            for recipient in mail.recipients:
                self._go_on(Phase.RECIPIENT)
                try:
                    await client.rcpt(recipient, encoding=encoding)
                except aiosmtplib.SMTPRecipientRefused as error:
                    if error.code == 421:
                        raise
                    refused[recipient] = (error.code, error.message)
            if len(refused) == len(mail.recipients):
                raise AllRefusedError(refused)
            self._go_on(Phase.DATA)
            reply = await client.execute_command(b"DATA")
            if reply.code != 354:
                raise RefusedError(self.phase, reply.code, reply.message)
            reply = await self._body(mail.data)
        except _THEIRS as error:
            raise self._ours(error) from None
        if not 200 <= reply.code <= 299:
            raise RefusedError(self.phase, reply.code, reply.message)
        return reply.message, refused

    async def _body(self, data: bytes) -> aiosmtplib.SMTPResponse:
        """Write the body, then the final dot: until the dot has been written no server may keep the mail."""
        writer, protocol = self._writer, self._client.protocol
        if writer is None or protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("no connection")
        self._go_on(Phase.DATA)
        # asyncio would take the bytes for a connection that it knows to be lost, and drop them.
        protocol.write(data)
        await writer.drain()
        self._go_on(Phase.DATA)
        protocol.write(b".\r\n")  # raises, and writes nothing, where a close has been heard of
        self.phase = Phase.AFTER_DOT
        # No time-out of its own: only the deadline ends this wait, because giving up here leaves the outcome open.
        return await protocol.read_response(timeout=None)

    async def reset(self) -> bool:
        """Forget a transaction that was refused; False where the connection is of no use any more."""
        try:
            return (await self._client.execute_command(b"RSET", timeout=5)).code == 250
        except (aiosmtplib.SMTPException, OSError):
            return False

    async def quit(self) -> None:
        """Part politely if that is quick, and close."""
        try:
            if self.alive:
                await self._client.quit(timeout=2)
        except (aiosmtplib.SMTPException, OSError):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        """Close without a word."""
        self._client.close()
        self._writer = None

    def _ours(self, error: Exception) -> Exception:
        """`error` as one of ours; texts are ours too, since theirs may repeat what we sent."""
        written = self.phase is Phase.AFTER_DOT
        if isinstance(error, aiosmtplib.SMTPResponseException):
            return RefusedError(self.phase, error.code, error.message)
        if isinstance(error, aiosmtplib.SMTPConnectTimeoutError):
            return BrokenError("connect-timeout", "no connection could be made in time")
        if isinstance(error, aiosmtplib.SMTPTimeoutError):
            return BrokenError("timeout", "the server did not answer in time", written=written)
        if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
            return BrokenError("tls", "no trusted TLS connection could be made", written=written)
        if isinstance(error, aiosmtplib.SMTPConnectError):
            return BrokenError("connect", "no connection could be made")
        if isinstance(error, OSError):
            return BrokenError("cut", "the connection was cut", written=written)
        return BrokenError("smtp", "the dialogue with the server failed", written=written)


class AllRefusedError(Exception):
    """Every recipient was refused."""

    def __init__(self, refused: Mapping[str, tuple[int, str]]) -> None:
        """Keep the reply to each."""
        super().__init__()
        self.refused = refused


class Pool:
    """Idle sessions by account, the most recently used first."""

    def __init__(self) -> None:
        """Start with none."""
        self._idle: dict[Hashable, list[tuple[Session, asyncio.TimerHandle]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def take(self, key: Hashable) -> Session | None:
        """A live idle session, or None."""
        idle = self._idle.get(key)
        while idle:
            session, timer = idle.pop()
            timer.cancel()
            if not idle:
                self._idle.pop(key, None)
            if session.alive:
                return session
            session.drop()
        return None

    def keep(self, key: Hashable, session: Session) -> None:
        """Keep a session for the next mail, or end it where it has served long enough."""
        idle = self._idle.setdefault(key, [])
        if self._closed or not session.alive or session.mails >= MOST_MAILS or len(idle) >= MOST_IDLE:
            if not idle:
                del self._idle[key]
            self._end(session)
            return
        timer = asyncio.get_running_loop().call_later(IDLE, self._expire, key, session)
        idle.append((session, timer))

    def _expire(self, key: Hashable, session: Session) -> None:
        idle = [entry for entry in self._idle.get(key, []) if entry[0] is not session]
        if idle:
            self._idle[key] = idle
        else:
            self._idle.pop(key, None)
        self._end(session)

    def restore(self, key: Hashable, session: Session) -> None:
        """Keep a session whose transaction was refused, once the server has forgotten it.

        Nobody waits for that: the outcome is known, and a server that hangs now must not change it.
        """
        self._start(self._restore(key, session))

    async def _restore(self, key: Hashable, session: Session) -> None:
        if await session.reset():
            self.keep(key, session)
        else:
            session.drop()

    def _end(self, session: Session) -> None:
        self._start(session.quit())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, key: Hashable) -> None:
        """End the idle sessions of an account."""
        for session, timer in self._idle.pop(key, []):
            timer.cancel()
            self._end(session)

    async def close(self) -> None:
        """End every idle session."""
        self._closed = True
        for key in list(self._idle):
            self.forget(key)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
