"""The bare echo that intake is compared with: the same uvicorn, reads a JSON body, answers it."""

import os
import sys
from typing import Any

import msgspec

from paceline.api.server import Server


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Read, parse, answer."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    out = msgspec.json.encode(msgspec.json.decode(body))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(out)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": out})


def main() -> None:
    """Serve on the port given, with uvloop where it is."""
    server = Server(echo, "127.0.0.1", int(sys.argv[1]))
    server.config.http = "httptools"  # uvicorn as it comes, without the fast lane
    server.listen()
    try:
        import uvloop
    except ImportError:
        import asyncio

        asyncio.run(server.serve())
    else:
        uvloop.run(server.serve())


if __name__ == "__main__":
    import signal

    # Not sys.exit: raised inside one of uvloop's own calls it would be swallowed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    main()
