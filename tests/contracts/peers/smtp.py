"""A real SMTP server (aiosmtpd) on loopback that fails at the point of the dialogue it is told to."""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

CUT = "cut"
HANG = "hang"
CUT_IN_BODY = "cut in body"


@dataclass
class Got:
    """One mail as it was taken."""

    sender: str
    options: list[str]
    recipients: list[str]
    data: bytes
    connection: int


@dataclass
class Script:
    """What to answer at each step; a text is the reply, `CUT` and `HANG` are deeds; None is the usual reply.

    Lists are used up, one entry a time; after that the usual reply follows.
    """

    greeting: str | None = None
    hello: str | None = None
    login: str | None = None
    mail: list[str | None] = field(default_factory=list)
    rcpt: dict[str, str] = field(default_factory=dict)
    data: list[str | None] = field(default_factory=list)
    dot: list[str | None] = field(default_factory=list)


class SmtpPeer:
    """Counts connections, keeps what it took, and plays a script."""

    def __init__(
        self, script: Script | None = None, *, tls: ssl.SSLContext | None = None, **options: Any
    ) -> None:
        self.script = script or Script()
        self.got: list[Got] = []
        self.connections = 0
        self.commands: list[str] = []
        self.logins: list[tuple[str, str]] = []
        self.asked = asyncio.Event()
        self.closed = asyncio.Event()
        self.options = options
        self.tls = tls
        self.implicit_tls = False
        self.servers: list[_Server] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            self._connected, "127.0.0.1", 0, ssl=self.tls if self.implicit_tls else None
        )
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for server in self.servers:
            if server.transport is not None:
                cast("asyncio.Transport", server.transport).abort()
            if server.task is not None:
                server.task.cancel()
        await asyncio.gather(*(s.task for s in self.servers if s.task is not None), return_exceptions=True)
        await self._listener.wait_closed()

    def _connected(self) -> "_Server":
        self.connections += 1
        server = _Server(self, self.connections)
        self.servers.append(server)
        return server

    def drop_all(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for server in self.servers:
            if server.transport is not None:
                server.transport.close()


class _Server(SMTP):
    def __init__(self, peer: SmtpPeer, number: int) -> None:
        options: dict[str, Any] = {"enable_SMTPUTF8": True, "ident": "peer", "auth_require_tls": False}
        super().__init__(
            _Handler(peer, number),
            hostname="peer.test",
            authenticator=self._judge,
            tls_context=None if peer.implicit_tls else peer.tls,
            loop=asyncio.get_running_loop(),
            **(options | peer.options),
        )
        self.peer = peer
        self.number = number
        self.task: asyncio.Task[None] | None = None
        self._greeted = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.task = self._handler_coroutine

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.peer.closed.set()

    def _judge(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.peer.logins.append((data.login.decode(), data.password.decode()))
        reply = self.peer.script.login
        return AuthResult(success=reply is None, handled=False, message=reply)

    async def push(self, status: Any) -> None:
        if not self._greeted:
            self._greeted = True
            greeting = self.peer.script.greeting
            if greeting in (CUT, HANG):
                await deed(self, greeting)
            if greeting is not None:
                status = greeting
        await super().push(status)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's name
        script = self.peer.script
        reply = script.data.pop(0) if script.data else None
        if reply == CUT_IN_BODY:
            await self.push("354 go on")
            await self._reader.readline()
            await deed(self, CUT)
        elif reply in (CUT, HANG):
            await deed(self, reply)
        elif reply is not None:
            await self.push(reply)
        else:
            await super().smtp_DATA(arg)


async def deed(server: _Server, what: str | None) -> None:
    """Cut the connection or never answer; either way the dialogue ends here."""
    if what == CUT:
        cast("asyncio.Transport", server.transport).abort()
    await asyncio.Event().wait()


class _Handler:
    def __init__(self, peer: SmtpPeer, number: int) -> None:
        self.peer = peer
        self.number = number

    async def _play(self, server: _Server, reply: str | None, usual: str) -> str:
        if reply in (CUT, HANG):
            await deed(server, reply)
        return usual if reply is None else reply

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        self.peer.commands.append(f"EHLO {hostname}")
        session.host_name = hostname
        if self.peer.script.hello is not None:
            return [await self._play(server, self.peer.script.hello, "")]
        return responses

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        script = self.peer.script
        self.peer.asked.set()
        reply = await self._play(server, script.mail.pop(0) if script.mail else None, "250 OK")
        if reply[0] == "2":
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self._play(server, self.peer.script.rcpt.get(address), "250 OK")
        if reply[0] == "2":
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_RSET(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope
    ) -> str:
        self.peer.commands.append("RSET")
        return "250 OK"

    async def handle_QUIT(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope
    ) -> str:
        self.peer.commands.append("QUIT")
        return "221 bye"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: _Server, session: Session, envelope: Envelope
    ) -> str:
        script = self.peer.script
        assert envelope.mail_from is not None and isinstance(envelope.original_content, bytes)
        reply = script.dot.pop(0) if script.dot else None
        if reply is None or reply in (CUT, HANG):
            self.peer.got.append(
                Got(
                    envelope.mail_from,
                    list(envelope.mail_options),
                    list(envelope.rcpt_tos),
                    envelope.original_content,
                    self.number,
                )
            )
        return await self._play(server, reply, "250 2.0.0 OK: queued as 4Xy7Q")


class RawSmtpPeer:
    """A peer that says given lines whatever it hears, for what no real server would say."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = deque(lines)
        self.heard: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            writer.write(self.lines.popleft())
            body = False
            while line := await reader.readline():
                self.heard.append(line)
                if body and line != b".\r\n":
                    continue
                if not self.lines:
                    break
                said = self.lines.popleft()
                body = said.startswith(b"354")
                writer.write(said)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
