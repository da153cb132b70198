"""Checks of an installation: what is wrong or soon will be, and what to do about it. Changes nothing.

Each check is on its own: one that fails to look says so, and the others go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from paceline.engine import (
    doctor_folder,
    doctor_messages,
    doctor_nodes,
    doctor_outbox,
    doctor_sending,
    doctor_store,
)
from paceline.engine.core import Core
from paceline.engine.doctor_findings import Check, Finding, Patient, Said, failed, warned

PATIENCE_S = 15.0
"""The longest that one check may take."""

log = structlog.get_logger("paceline.doctor")


class Row(msgspec.Struct, frozen=True):
    """A check by its name. `running`: only the process that sends can tell. `asked`: only when asked for. `shared`: about
    nodes, for a store that several can share.
    """

    name: str
    check: Check
    running: bool = False
    asked: bool = False
    shared: bool = False


FOLDER = (
    ("data folder", doctor_folder.folder),
    ("file system", doctor_folder.file_system),
    ("free disk", doctor_folder.disk),
    ("admin.key", doctor_folder.admin_key),
    ("secret.key", doctor_folder.secret_key),
)


def _of_folder(check: Callable[[Path], Said]) -> Check:
    return lambda patient: asyncio.to_thread(check, patient.folder)  # a disk that hangs holds up nothing else


CHECKS = (
    Row("store", doctor_store.writes),
    Row("SQLite", doctor_store.version),
    Row("durability", doctor_store.durability),
    Row("write-ahead log", doctor_store.log_size),
    *(Row(name, _of_folder(check)) for name, check in FOLDER),
    Row("credentials", doctor_store.credentials),
    Row("keys", doctor_store.api_keys),
    Row("clock", doctor_store.clock, running=True),
    Row("nodes", doctor_nodes.nodes, shared=True),
    Row("silent nodes", doctor_nodes.silent, shared=True),
    Row("partitions", doctor_nodes.partitions, shared=True),
    Row("suspect nodes", doctor_nodes.suspect, shared=True),
    Row("clocks of nodes", doctor_nodes.clocks, shared=True),
    Row("versions of nodes", doctor_nodes.versions, shared=True),
    Row("time zones", doctor_folder.zones),
    Row("open files", doctor_folder.open_files, running=True),
    Row("event loop", doctor_sending.blocked, running=True),
    Row("hold", doctor_sending.hold),
    Row("scheduler", doctor_sending.scheduler, running=True),
    Row("refused accounts", doctor_sending.refused),
    Row("flood waits", doctor_sending.flooded),
    Row("open circuits", doctor_sending.down, running=True),
    Row("paused", doctor_sending.paused),
    Row("limits", doctor_sending.limits),
    Row("concurrency", doctor_sending.concurrency),
    Row("providers", doctor_sending.reach, running=True, asked=True),
    Row("outboxes", doctor_outbox.outboxes, running=True),
    Row("stuck calls", doctor_messages.stuck),
    Row("overdue messages", doctor_messages.overdue, running=True),
    Row("uncertain messages", doctor_messages.uncertain),
    Row("quarantined messages", doctor_messages.quarantined),
    Row("messages without an account", doctor_messages.orphans),
    Row("missing channels and functions", doctor_messages.missing),
)


async def examine(
    core: Core,
    settings_facts: Mapping[str, Any],
    *,
    running: bool = True,
    reach: bool = False,
    relays: Sequence[Any] = (),
) -> list[Finding]:
    """Every check with what it found.

    Args:
        core: the engine.
        settings_facts: settings by name (``data``: the data folder).
        running: this is the process that sends; else what only that one can tell is left out.
        reach: also connect to each account's provider.
        relays: those of the outboxes.
    """
    patient = Patient(core, settings_facts, running, relays)
    rows = [
        row
        for row in CHECKS
        if (running or not row.running)
        and (reach or not row.asked)
        and (core.store.nodes is not None or not row.shared)
    ]
    return [finding(row.name, await _look(row.name, row.check(patient))) for row in rows]


async def examine_folder(place: Path) -> list[Finding]:
    """What can be told of a data folder without its store."""
    return [finding(name, await _look(name, asyncio.to_thread(check, place))) for name, check in FOLDER]


def only_running() -> list[str]:
    """What can be checked only while the server runs."""
    return [row.name for row in CHECKS if row.running]


def finding(name: str, said: Said) -> Finding:
    """One line of the answer; `ok` is whether it passed."""
    return {"name": name, "status": said.status, "ok": said.status == "pass", "detail": said.detail,
            "advice": said.advice}  # fmt: skip


async def _look(name: str, look: Awaitable[Said]) -> Said:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await look
    except TimeoutError:
        return warned(f"could not be checked within {PATIENCE_S:g} s", "Try again when less is going on.")
    except Exception as error:
        log.exception("a check failed to look", check=name)
        return failed(
            f"could not be checked: {type(error).__name__}: {error}"[:300],
            "See to the store and the disk first.",
        )
