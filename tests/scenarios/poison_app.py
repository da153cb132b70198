"""An application with handlers, some of which end the process that runs them. Started again and again by `poison`.

    python -m tests.scenarios.poison_app FOLDER [--break NAME]

Each start sends what `FOLDER/plan.json` holds (known messages are not sent again), waits until everything has ended, writes what
became of it to `FOLDER/result.json`, and ends with code 0. Every run of a handler is in `FOLDER/ledger` before it
does anything.
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from paceline import Job, Paceline

PAUSE_S = 0.02
"""Long enough that a poison meets its neighbours under way."""


def end_by_exit() -> None:
    os._exit(9)


def end_by_fault() -> None:
    ctypes.string_at(0)  # a wild pointer, as a broken extension would follow


def end_by_kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # what the system does to whoever takes all its memory


def end_by_abort() -> None:
    os.abort()


POISONS = {"exit": end_by_exit, "fault": end_by_fault, "memory": end_by_kill, "abort": end_by_abort}


class Ledger:
    """Who ran when, flushed before the run goes on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii")

    def note(self, job: Job, what: str) -> None:
        line = {"id": job.id, "kind": job.kind, "number": job.number, "pid": os.getpid(), "what": what}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def application(folder: Path) -> Paceline:
    app = Paceline(data=folder / "data", grace=5, log_level="error")
    ledger = Ledger(folder / "ledger")

    async def work(job: Job) -> str:
        ledger.note(job, "begun")
        await asyncio.sleep(PAUSE_S)
        ledger.note(job, "done")
        return "worked"

    app.handler("work", repeat_is_safe=True)(work)
    app.handler("once")(work)

    def poison(kind: str) -> None:
        async def ends_the_process(job: Job) -> None:
            ledger.note(job, "begun")
            await asyncio.sleep(PAUSE_S / 2)
            POISONS[kind.removeprefix("once-")]()

        app.handler(kind, repeat_is_safe=not kind.startswith("once-"))(ends_the_process)

    for kind in POISONS:
        poison(kind)
        poison("once-" + kind)
    return app


async def run(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())  # with idempotency keys: sending twice sends once
    async with application(folder) as app:
        (batch,) = await app.send_many(plan, channel="handler")
        ids = [batch.ids[index] for index in range(len(plan))]
        found: list[dict[str, Any]] = []
        for id_ in ids:
            seen = (await app.wait(id_, 50)).raw
            found.append(
                {name: seen[name] for name in ("id", "kind", "state", "attempts", "error", "history")}
            )
        (folder / "result.json").write_text(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--break", dest="broken", default="")
    given = parser.parse_args()
    if given.broken:
        from bench.faults.breaks_poison import BREAKS

        BREAKS[given.broken]()
    asyncio.run(run(given.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
