"""A receiver of webhooks that now and then says 'too many': what a flood wait looks like from the other side.

    python examples/webhook_receiver.py --port 9000 --flood-every 20 --retry-after 5

Every request is appended to a file, one JSON object a line. Every so many it answers 429 with Retry-After, and
goes on answering so until that time has passed. On this machine only.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from aiohttp import web


class Receiver:
    """One receiver; `seen` are the ids it has taken."""

    def __init__(self, file: Path, flood_every: int, retry_after: float) -> None:
        """Take nothing yet."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._every, self._retry_after = file, flood_every, retry_after
        self._closed_until = 0.0
        self._left = flood_every
        self.seen: set[str] = set()

    async def take(self, request: web.Request) -> web.Response:
        """One webhook."""
        now = asyncio.get_running_loop().time()
        if self._every and self._left == 0:
            self._closed_until, self._left = now + self._retry_after, self._every
        if now < self._closed_until:
            wait = max(1, round(self._closed_until - now))
            return web.Response(status=429, headers={"Retry-After": str(wait)}, text="too many, wait")
        self._left -= 1
        body = await request.text()
        name = request.headers.get("webhook-id", "")
        line = json.dumps({"id": name, "again": name in self.seen, "body": body}, ensure_ascii=False)
        self.seen.add(name)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return web.Response(status=204)


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
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--file", type=Path, default=Path("webhooks.jsonl"))
    parser.add_argument("--flood-every", type=int, default=20, help="0: never")
    parser.add_argument("--retry-after", type=float, default=5)
    parser.add_argument("--watch", action="store_true", help="end when standard input is closed")
    options = parser.parse_args()
    app = web.Application()
    app.router.add_post("/{path:.*}", Receiver(options.file, options.flood_every, options.retry_after).take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    if not options.watch:
        told = f"webhooks to http://127.0.0.1:{runner.addresses[0][1]}/ go to {options.file}; Ctrl-C stops it"
        print(told, file=sys.stderr)
    print(runner.addresses[0][1], flush=True)
    try:
        await (stdin_closed() if options.watch else asyncio.Event().wait())
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
