"""The HTTP server: uvicorn on a socket of ours, stopped by our own signal handling."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from paceline.api.app import App
from paceline.model.errors import PacelineError

BACKLOG = 4096
GRACE_S = 3
"""Seconds that open requests get to finish when the server stops."""


class ListenError(PacelineError):
    """The address cannot be listened on."""


class Server(uvicorn.Server):
    """Serves one application on one address."""

    def __init__(self, app: App, host: str, port: int) -> None:
        """Not listening yet; port 0 takes a free one."""
        self._app = app
        self._host = host
        self._wanted = port
        self._socket: socket.socket | None = None
        config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, lifespan="off", server_header=False,
            backlog=BACKLOG, timeout_graceful_shutdown=GRACE_S, http=_protocol(), ws="none", proxy_headers=False,
        )  # fmt: skip
        super().__init__(config)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1]) if self._socket else self._wanted

    def listen(self) -> None:
        """Take the address.

        Raises:
            ListenError: it is taken, or not ours to take; the text says what to do.
        """
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((self._host, self._wanted))
            taken.listen(BACKLOG)
        except (OSError, OverflowError) as error:
            taken.close()
            raise ListenError(
                f"cannot listen on {self._host}:{self._wanted} ({error.strerror if isinstance(error, OSError) else error}); "
                "choose another with --port, or stop the program that uses it"
            ) from None
        taken.setblocking(False)
        self._socket = taken

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `end`."""
        await super().serve(sockets or ([self._socket] if self._socket else None))

    def end(self) -> None:
        """Stop serving; streams and waits end at once, other open requests get a moment to finish."""
        self._app.stop()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the composition root's."""
        yield


def _protocol() -> "type[asyncio.Protocol] | str":
    try:
        from paceline.api.fast import protocol
    except ImportError:  # no httptools, or another uvicorn: slower, and otherwise the same
        return "auto"
    return protocol()
