"""intake: messages over HTTP, each answered after its flush, against a bare echo on the same server.

The client is `wrk` where it is installed: on a machine with two cores a client in Python takes half a core away
from the server that is measured, and more so from the one that uses two threads.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.load import Load, free_port, request, wrk

CONNECTIONS = 64
BODY = {"channel": "webhook", "to": "https://example.com/hook", "text": "Order shipped. " * 12, "delay": "1h"}


async def run(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Echo and intake in turn, in short rounds, so that both see the same machine; medians."""
    seconds, rounds = (1, 1) if quick else (2, 7)
    echo_port, port = free_port(), free_port()
    echo = await _start("-m", "bench.echo", str(echo_port))
    server = await _start(
        "-m", "paceline.cli.main", "up", "--port", str(port), "--data", str(folder / "data")
    )
    try:
        key = await _ready(port, folder / "data" / "admin.key")
        await _ready(echo_port, None)
        body = msgspec.json.encode(BODY)
        batch = msgspec.json.encode({"messages": [BODY] * 1000})
        echoes, singles, ratios = [await _rate(echo_port, request("/", body, ""), seconds)], [], []
        for _ in range(rounds):
            singles.append(await _rate(port, request("/api/v1/messages", body, key), seconds))
            echoes.append(await _rate(echo_port, request("/", body, ""), seconds))
            ratios.append(singles[-1] / (sum(echoes[-2:]) / 2))
        batches = [
            1000 * await _rate(port, request("/api/v1/messages/batch", batch, key), seconds * 2, 4)
            for _ in range(1 if quick else 3)
        ]
    finally:
        for process in (echo, server):
            process.send_signal(signal.SIGTERM)
            await process.wait()
    return [
        {"name": "echo, bare", "value": median(echoes), "unit": "requests/s"},
        {"name": "intake, single", "value": median(singles), "unit": "messages/s",
         "ratio": round(median(ratios), 3), "of": "echo, bare", "goal": ">= 0.6"},
        {"name": "intake, batches of 1,000", "value": median(batches), "unit": "messages/s",
         "goal": ">= 15,000"},
    ]  # fmt: skip


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parent.parent))
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL
    )


async def _ready(port: int, key_file: Path | None) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            if key_file is None:
                return ""
            key = key_file.read_text().strip()
            # Listening comes before recovery: one request that is answered says that it is over.
            await Load(port, request("/api/v1/messages", msgspec.json.encode(BODY), key), 1).run(0.1)
            return key
        except (OSError, FileNotFoundError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _rate(port: int, raw: bytes, seconds: float, connections: int = CONNECTIONS) -> float:
    await Load(port, raw, connections).run(0.3)
    if shutil.which("wrk"):
        return await wrk(port, raw, connections, seconds)
    return await Load(port, raw, connections).run(seconds)
