"""One node that ``paceline up --processes`` started: its orders come from its parent, and it ends when that is gone.

Run as a module, with a socket to the parent as standard input.
"""

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from paceline.cli.processes import LAST_S, STARTED, Orders
from paceline.config import load


def main() -> int:
    """Serve as the orders say; the exit code."""
    parent = _parent()
    with parent.makefile("rb") as lines:
        told = lines.readline()
    if not told:
        return 1  # the parent is gone already
    orders = msgspec.json.decode(told, type=Orders)
    settings = load(orders.arguments, os.environ, Path(orders.config) if orders.config else None)
    watch = threading.Thread(
        target=_watch, args=(parent, settings.grace), name="paceline-parent", daemon=True
    )
    watch.start()

    from paceline import wiring

    return wiring.serve(settings, {}, started=lambda: _tell(parent))


def _parent() -> socket.socket:
    """The socket to the parent; standard input is empty from here on."""
    parent = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return parent


def _tell(parent: socket.socket) -> None:
    with suppress(OSError):  # it is gone, which `_watch` notices as well
        parent.sendall(STARTED)


def _watch(parent: socket.socket, grace_s: float) -> None:
    """End like one that was told to as soon as the parent is gone; a loop that hangs then is not waited for."""
    with suppress(OSError):
        while parent.recv(1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s + LAST_S)
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
