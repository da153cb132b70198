"""What a copy of a store in use costs its writer: pages copied in steps beside VACUUM INTO.

    python -m bench.backup [--rows 300000] [--vacuum] [--polite]

The writer adds 50 messages a commit without pause; printed are its commits before, during and after the copy.
"""

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from pathlib import Path

import apsw

from paceline.model.messages import FlowKey, NewMessage
from paceline.stores.sqlite import SqliteStore
from paceline.stores.sqlite_copy import copy_database, stand_back

NOW = 1_750_000_000_000
FLOW = FlowKey("acme/chat/main", "acme", "", "chat", 5, "")
_next = iter(range(1, 1 << 40))


def row():
    return NewMessage(
        id=next(_next) << 22, flow=FLOW.number, state=2, due_at=NOW, turn=0, created_at=NOW, expires_at=None,
        tenant=FLOW.tenant, queue=FLOW.queue, channel="chat", account="", pool="main", recipient="ann@example.com",
        priority=5, max_attempts=3, timeout_ms=30_000, content='{"text":"' + "x" * 600 + '"}', trace_id="abc",
    )  # fmt: skip


def vacuum(source: Path, target: Path):
    reader = apsw.Connection(str(source))
    reader.execute("VACUUM INTO ?", (str(target),))
    reader.close()


async def main(rows: int, use_vacuum: bool, polite: bool):
    folder = Path(tempfile.mkdtemp(prefix="paceline-backup-"))
    source, target = folder / "a.db", folder / "b.db"
    store = SqliteStore(source)
    await store.open(NOW)
    for _ in range(rows // 1000):
        await store.add([row() for _ in range(1000)], [FLOW], NOW)
    print(f"{source.stat().st_size / 1024**2:.0f} MiB, {rows} messages")
    took: dict[str, list[float]] = {"before": [], "copying": [], "after": []}
    phase, wal, copied = "before", 0, threading.Event()
    seconds = [0.0]

    def copy():
        if polite:
            stand_back()
        begun = time.perf_counter()
        if use_vacuum:
            vacuum(source, target)
        else:
            copy_database(source, target, lambda _k, _n: [], NOW)
        seconds[0] = time.perf_counter() - begun
        copied.set()

    began = time.perf_counter()
    while len(took["after"]) < 400:
        start = time.perf_counter()
        await store.add([row() for _ in range(50)], [FLOW], NOW)
        took[phase].append((time.perf_counter() - start) * 1000)
        if phase == "copying":
            wal = max(wal, source.with_name("a.db-wal").stat().st_size)
        if phase == "before" and len(took[phase]) >= 400:
            phase = "copying"
            threading.Thread(target=copy).start()
        elif phase == "copying" and copied.is_set():
            phase = "after"
    print(f"copied in {seconds[0]:.1f} s, whole run {time.perf_counter() - began:.1f} s")
    for name, each in took.items():
        cuts = statistics.quantiles(each, n=100)
        print(
            f"{name:8} {len(each):6} commits  p50 {cuts[49]:6.2f}  p99 {cuts[98]:7.2f}  max {max(each):7.1f} ms"
        )
    print(
        f"log at most {wal / 1024**2:.0f} MiB while copying; copy {target.stat().st_size / 1024**2:.0f} MiB"
    )
    await store.close()
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.backup", description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--vacuum", action="store_true", help="VACUUM INTO instead of steps")
    parser.add_argument("--polite", action="store_true", help="in a thread that lets others go first")
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.vacuum, given.polite))
