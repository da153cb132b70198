"""Checks of a running installation: what is wrong or soon will be, and what to do about it. Changes nothing."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paceline.engine.core import Core
from paceline.engine.counting import Counted, by_state, counted
from paceline.engine.installation import Hold
from paceline.engine.keys import SYSTEM
from paceline.model.checks import print_time
from paceline.model.errors import PacelineError
from paceline.model.ids import to_text
from paceline.model.states import WAITING, State
from paceline.stores.base import Filter

LEAST_SQLITE = (3, 51, 3)
"""The first release without a bug that could corrupt a write-ahead log."""
MOST_WAL = 256 * 1024**2
LEAST_FREE = 1024**3
LATE_MS = 60_000
"""How far past its time-out a call may be before it counts as stuck."""
SHOWN = 5
PRIVATE_FILES = ("admin.key", "secret.key")

Finding = dict[str, Any]


async def examine(core: Core, settings_facts: Mapping[str, Any], hold: Hold | None = None) -> list[Finding]:
    """Every check with what it found; `settings_facts` are settings by name (``data``: the data folder)."""
    found = [*await _store(core), _clock(core), *_folder(settings_facts.get("data"))]
    found += [_hold(hold), _scheduler(core), *_accounts(core), _queues(core)]
    try:
        counts = await counted(core, SYSTEM)
        found += [await _stuck(core), _uncertain(counts), _orphans(core, counts)]
    except PacelineError as error:
        found.append(_finding("messages", False, f"they cannot be read: {error}", "See to the store first."))
    return found


def _finding(name: str, ok: bool, detail: str, advice: str = "") -> Finding:
    return {"name": name, "ok": ok, "detail": detail, "advice": "" if ok else advice}


async def _store(core: Core) -> list[Finding]:
    try:
        health = await core.store.health()
    except PacelineError as error:
        return [_finding("store", False, str(error), "Check the disk and the folder's rights, then restart.")]
    found = [_writable(core)]
    version = health.get("version")
    if health.get("engine") == "sqlite" and isinstance(version, str):
        current = _numbers(version) >= LEAST_SQLITE
        found.append(_finding("SQLite", current, f"version {version}", "Install a newer apsw."))
    wal, free = health.get("wal_bytes"), health.get("free_bytes")
    if isinstance(wal, int):
        advice = (
            "Close other programs that hold the database open; it shrinks by itself when nobody reads it."
        )
        found.append(_finding("write-ahead log", wal <= MOST_WAL, f"{wal / 1024**2:.1f} MiB", advice))
    if isinstance(free, int):
        advice = "Make room, or clean old messages: paceline queues clean QUEUE"
        found.append(_finding("free disk", free >= LEAST_FREE, f"{free / 1024**3:.1f} GiB free", advice))
    return found


def _writable(core: Core) -> Finding:
    away = core.dispatcher.away
    return _finding(
        "store", not away, "it cannot write now" if away else "it writes",
        "Check the disk: it may be full, gone or read-only. Sending goes on by itself afterwards.",
    )  # fmt: skip


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _clock(core: Core) -> Finding:
    moved = core.gates.shift
    detail = f"it was moved by {moved / 1000:.1f} s since the last run" if moved else "it was not moved"
    advice = "Limits were corrected for it. Let a time service keep the clock, so that it is not set by hand."
    return _finding("clock", not moved, detail, advice)


def _folder(place: object) -> list[Finding]:
    if not isinstance(place, (str, Path)):
        return []
    folder = Path(place)
    usable = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    found = [_finding("data folder", usable, str(folder), "Give the server's user the right to write there.")]
    for name in PRIVATE_FILES:
        try:
            mode = stat.S_IMODE((folder / name).stat().st_mode)
        except OSError:
            continue
        private = os.name != "posix" or not mode & 0o077
        found.append(_finding(name, private, f"mode {mode:03o}", f"Run: chmod 600 {folder / name}"))
    return found


def _hold(hold: Hold | None) -> Finding:
    detail = "nothing is held back" if hold is None else f"everything is on hold: {hold.text}"
    advice = "Look at what waits, then: paceline release (--cancel-before TIME cancels what was due before)"
    return _finding("hold", hold is None, detail, advice)


def _scheduler(core: Core) -> Finding:
    running = core.dispatcher.running
    detail = "messages are released" if running else "it is stopped: nothing is sent"
    return _finding("scheduler", running, detail, "Start it: POST /api/v1/scheduler/start")


def _accounts(core: Core) -> list[Finding]:
    now = core.clock.now()
    stopped, flooded = [], []
    for id_ in core.directory.accounts:
        gate = core.gates.account(id_)
        if gate is not None and gate.stopped:
            stopped.append(f"{id_} ({gate.stopped[:120]})")
        elif gate is not None and gate.blocked_until > now:
            flooded.append(f"{id_} until {print_time(gate.blocked_until)}")
    return [
        _finding(
            "refused accounts", not stopped, _few(stopped, "no account was refused by its provider"),
            "Mend the credentials or the account, then: paceline accounts resume NAME",
        ),
        _finding(
            "flood waits", not flooded, _few(flooded, "no provider asked to wait"),
            "They go on by themselves. If it happens often, give these accounts narrower limits.",
        ),
    ]  # fmt: skip


def _queues(core: Core) -> Finding:
    paused = sorted(spec.name for spec in core.directory.queues.values() if spec.paused)
    return _finding(
        "paused queues", not paused, _few(paused, "none"), "Resume one: paceline queues resume NAME"
    )


async def _stuck(core: Core) -> Finding:
    now = core.clock.now()
    rows = await core.store.find(Filter(state=(int(State.PROCESSING),)), None, 1000)
    late = [
        to_text(row.id)
        for row in rows
        if row.started_at is not None and row.started_at + row.timeout_ms + LATE_MS < now
    ]
    advice = "A channel does not keep its time; the log names it. A restart settles these messages."
    return _finding("stuck calls", not late, _few(late, "no call is past its time"), advice)


def _uncertain(counts: list[Counted]) -> Finding:
    many = by_state(counts)[State.UNCERTAIN.label]
    advice = (
        "Find out at the provider whether they arrived (GET /api/v1/messages?state=uncertain), then settle each: "
        "POST /api/v1/messages/ID/settle"
    )
    return _finding("uncertain messages", not many, f"{many:,} wait for a person" if many else "none", advice)


def _orphans(core: Core, counts: list[Counted]) -> Finding:
    """Waiting messages that no account can send."""
    held: dict[str, int] = {}
    for each in counts:
        if each.state not in WAITING:
            continue
        account, lane = each.key.account, each.key.lane
        if account and account not in core.directory.accounts:
            held[f"account {account}"] = held.get(f"account {account}", 0) + each.count
        elif lane not in core.directory.lanes:
            held[f"pool {lane}"] = held.get(f"pool {lane}", 0) + each.count
    detail = _few(
        [f"{count:,} for {what}" for what, count in sorted(held.items())], "every message has its account"
    )
    advice = "Put the account back, or move the messages: PATCH /api/v1/messages/ID with another account."
    return _finding("messages without an account", not held, detail, advice)


def _few(things: list[str], none: str) -> str:
    more = f" and {len(things) - SHOWN:,} more" if len(things) > SHOWN else ""
    return ", ".join(things[:SHOWN]) + more if things else none
