"""Checks of the store, the clock and the keys in it."""

from typing import Any

import msgspec

from paceline.engine.account_documents import KIND as ACCOUNT
from paceline.engine.account_documents import from_document
from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned
from paceline.model.errors import PacelineError

LEAST_SQLITE = (3, 51, 3)
"""The first release without a bug that could corrupt a write-ahead log."""
MOST_WAL = 256 * 1024**2
STEP_MS = 2000
"""A difference between wall clock and running clock that no time service makes unseen."""
OLD_KEY_MS = 365 * 86_400_000


async def writes(patient: Patient) -> Said:
    """The store takes what is to be written."""
    await patient.core.store.health()
    if patient.core.dispatcher.away:
        return failed(
            "it cannot write now",
            "Check the disk: it may be full, gone or read-only. Sending goes on by itself afterwards.",
        )
    return passed("it writes" if patient.running else "it can be read")


async def version(patient: Patient) -> Said:
    """Older releases can damage the file."""
    health = await patient.core.store.health()
    if health.get("engine") != "sqlite":
        return passed("not used")
    text = str(health["version"])
    numbers = tuple(int(part) for part in text.split(".") if part.isdigit())
    if numbers < LEAST_SQLITE:
        return failed(
            f"version {text} can corrupt the file; {'.'.join(map(str, LEAST_SQLITE))} does not",
            "Install a newer apsw: pip install --upgrade apsw",
        )
    return passed(f"version {text}")


async def durability(patient: Patient) -> Said:
    """Whether 'yes' means on disk."""
    mode = (await patient.core.store.health()).get("durability", "full")
    if mode != "full":
        return warned(
            f"{mode}: what was acknowledged in the last moments before a power cut may be lost",
            "Use the full mode unless you can send those again.",
        )
    return passed("full: a message is acknowledged after its flush")


async def log_size(patient: Patient) -> Said:
    """The write-ahead log shrinks by itself unless somebody reads for very long."""
    health = await patient.core.store.health()
    if health.get("flush_failed"):
        return failed(
            "the disk failed to flush the database: the log is kept whole from now on, and grows",
            "Nothing is lost: restart soon, then the log is read from its beginning. Have the disk looked at.",
        )
    wal = health.get("wal_bytes")
    if not isinstance(wal, int):
        return passed("not used")
    words = f"{wal / 1024**2:.1f} MiB"
    if wal > MOST_WAL:
        return warned(
            words, "Close other programs that hold the database open; it shrinks when nobody reads it."
        )
    return passed(words)


async def clock(patient: Patient) -> Said:
    """Limits do not follow the wall clock while the process lives, and correct for it at a start."""
    core = patient.core
    advice = "Limits are kept. Let a time service keep the clock, so that it is not set by hand."
    ahead = core.clock.ahead()
    if abs(ahead) > STEP_MS:
        text = f"the wall clock was moved by {ahead / 1000:+.1f} s since the start; times shown are the old clock's"
        return warned(text, advice + " A restart takes the new time over.")
    moved = core.gates.moves.latest
    if abs(moved) > STEP_MS:
        return warned(f"it was moved by {moved / 1000:+.1f} s before the last start", advice)
    return passed("it was not moved")


async def credentials(patient: Patient) -> Said:
    """Every account's secrets can be decrypted."""
    core = patient.core
    lost = []
    documents = await core.store.documents(ACCOUNT)
    for document in documents:
        try:
            from_document(document, core.directory.channels, core.vault)
        except (PacelineError, ValueError, msgspec.MsgspecError):
            lost.append(f"{document.tenant}/{document.name}")
    if lost:
        return failed(
            f"those of {few(lost)} cannot be decrypted: secret.key is not the one they were stored with",
            "Put the right secret.key back, or set the secrets of these accounts again.",
        )
    return passed(f"those of {len(documents):,} accounts can be read" if documents else "there are none")


async def api_keys(patient: Patient) -> Said:
    """A key that nobody changed for a year is known to more people than it should be."""
    core = patient.core
    rows: list[Any] = await core.store.documents("key")
    if not rows:
        return warned("there is no key: nobody can sign in", "A start with an empty store makes one.")
    old = [row.name for row in rows if row.updated_at < core.clock.now() - OLD_KEY_MS]
    if old:
        return warned(
            f"older than a year: {few(old)}",
            "Make a new one (paceline keys create), use it, then: paceline keys revoke NAME",
        )
    return passed(f"{len(rows):,}, none older than a year")
