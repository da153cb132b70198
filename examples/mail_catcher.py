"""A mail server that delivers nothing: it keeps every mail as a file.

    python examples/mail_catcher.py --port 2525 --folder mails

It speaks enough of SMTP (RFC 5321) for real clients, on this machine only. With port 0 it takes a free port and
prints which. With --watch it ends when its standard input is closed, so that it never outlives who started it.
"""

import argparse
import asyncio
import re
import sys
from pathlib import Path

MOST_BYTES = 25 * 1024 * 1024
_ADDRESS = re.compile(r"(?:FROM|TO):\s*<([^<>]*)>", re.IGNORECASE)


class Catcher:
    """One mail server; `count` is how many mails lie in its folder."""

    def __init__(self, folder: Path) -> None:
        """Go on counting where an earlier run stopped."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.count = max(
            (int(p.name[:5]) for p in folder.glob("[0-9]*.eml") if p.name[:5].isdigit()), default=0
        )

    async def serve(self, port: int) -> asyncio.Server:
        """Listen on this machine."""
        return await asyncio.start_server(self._talk, "127.0.0.1", port, limit=1 << 20)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _Dialogue(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client went away, or sent a line without an end
        finally:
            writer.close()

    def keep(self, sender: str, recipients: list[str], data: bytes) -> Path:
        """Write one mail, under a name that tells its number and its recipient."""
        self.count += 1
        readable = re.sub(r"[^A-Za-z0-9.@+-]", "_", recipients[0])[:80]
        path = self.folder / f"{self.count:05}-{readable}.eml"
        envelope = f"X-Envelope-From: {sender}\r\nX-Envelope-To: {', '.join(recipients)}\r\n".encode()
        path.write_bytes(envelope + data)
        return path


class _Dialogue:
    def __init__(self, catcher: Catcher, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._catcher, self._reader, self._writer = catcher, reader, writer
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        await self._say("220 mail catcher: everything is kept, nothing is delivered")
        while line := await self._reader.readline():
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            match verb.upper():
                case "EHLO":
                    await self._say("250-catcher", f"250-SIZE {MOST_BYTES}", "250-8BITMIME", "250 SMTPUTF8")
                case "HELO":
                    await self._say("250 catcher")
                case "MAIL":
                    await self._mail(rest)
                case "RCPT":
                    await self._rcpt(rest)
                case "DATA":
                    await self._data()
                case "RSET":
                    self._sender, self._recipients = None, []
                    await self._say("250 forgotten")
                case "NOOP":
                    await self._say("250 still here")
                case "QUIT":
                    await self._say("221 bye")
                    return
                case _:
                    await self._say("502 not known here")

    async def _mail(self, rest: str) -> None:
        found = _ADDRESS.match(rest)
        if found is None:
            await self._say("501 write MAIL FROM:<address>")
            return
        self._sender, self._recipients = found[1], []
        await self._say("250 go on")

    async def _rcpt(self, rest: str) -> None:
        found = _ADDRESS.match(rest)
        if self._sender is None or found is None or not found[1]:
            await self._say("503 MAIL first, then RCPT TO:<address>")
            return
        self._recipients.append(found[1])
        await self._say("250 go on")

    async def _data(self) -> None:
        if self._sender is None or not self._recipients:
            await self._say("503 MAIL and RCPT first")
            return
        await self._say("354 end with a single dot")
        lines, size = [], 0
        while (line := await self._reader.readline()) != b".\r\n":
            if not line:
                return
            size += len(line)
            if size <= MOST_BYTES:
                lines.append(line.removeprefix(b".") if line.startswith(b".") else line)
        if size > MOST_BYTES:
            await self._say("552 too large")
        else:
            path = self._catcher.keep(self._sender, self._recipients, b"".join(lines))
            await self._say(f"250 queued as {path.name[:5]}")
        self._sender, self._recipients = None, []

    async def _say(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self._writer.drain()


async def stdin_closed() -> None:
    """Return when whoever started this process is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while await reader.read(1024):
        pass


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=2525)
    parser.add_argument("--folder", type=Path, default=Path("mails"))
    parser.add_argument("--watch", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()
    server = await Catcher(options.folder).serve(options.port)
    if not options.watch:
        told = f"mails to 127.0.0.1:{server.sockets[0].getsockname()[1]} are kept in {options.folder}; Ctrl-C stops it"
        print(told, file=sys.stderr)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await (stdin_closed() if options.watch else server.serve_forever())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
