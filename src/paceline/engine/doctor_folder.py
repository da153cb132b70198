"""Checks of the data folder and of the machine below it."""

import os
import shutil
import stat
import sys
import zoneinfo
from pathlib import Path

from paceline.engine.doctor_findings import Patient, Said, failed, few, passed, warned

LEAST_FREE = 1024**3
ALMOST_NONE = 64 * 1024**2
SPARE_FILES = 100
"""Open files besides the connections of calls: the store's, the listening socket, people's requests."""
MOUNTS = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "9p", "ncpfs", "gpfs",
     "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.ceph", "fuse.rclone", "davfs", "beegfs"}
)  # fmt: skip


def folder(place: Path) -> Said:
    """It is there, and this user may write in it; nobody else should be able to look in."""
    if not place.is_dir():
        return failed(f"{place} is no folder", "Choose another one with PACELINE_DATA, or put it back.")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        return failed(f"{place} cannot be written to", "Change its permissions or owner.")
    mode = stat.S_IMODE(place.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return warned(f"{place} is open to others (mode {mode:03o})", f"Run: chmod 700 {place}")
    return passed(str(place))


def disk(place: Path) -> Said:
    """Room on the file system of the data folder."""
    free = shutil.disk_usage(place).free
    words = f"{free / 1024**3:.1f} GiB free" if free >= LEAST_FREE else f"{free / 1024**2:.0f} MiB free"
    advice = "Make room, or clean old messages: paceline queues clean QUEUE"
    if free < ALMOST_NONE:
        return failed(words, advice)
    return warned(words, advice) if free < LEAST_FREE else passed(words)


def private(path: Path) -> Said:
    """A key file is there and only its owner can read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        if path.name == "secret.key":
            text = f"{path} is missing: after the next start no stored password or token can be read"
            return failed(text, "Put the file back from a copy before you restart.")
        return warned(f"{path} is missing", "Nothing needs it but the command line: name another key there.")
    if os.name == "posix" and mode & 0o077:
        return failed(f"{path} can be read by others (mode {mode:03o})", f"Run: chmod 600 {path}")
    return passed(f"mode {mode:03o}")


def admin_key(place: Path) -> Said:
    """The first key."""
    return private(place / "admin.key")


def secret_key(place: Path) -> Said:
    """What passwords and tokens are encrypted with."""
    return private(place / "secret.key")


def file_system(place: Path) -> Said:
    """The store needs locks and shared memory that network file systems do not give faithfully."""
    kind = file_system_of(place)
    if kind is None:
        return passed("not known on this system")
    if kind in NETWORK:
        return failed(
            f"the data lies on a network file system ({kind}): its locks cannot be trusted",
            "Move the data folder to a local disk while the server is stopped.",
        )
    return passed(kind)


def file_system_of(place: Path) -> str | None:
    """The type of the file system that holds the place; None where the system does not tell."""
    try:
        text = MOUNTS.read_text("utf-8", "replace")
    except OSError:
        return None
    wanted = place.resolve()
    found: tuple[int, str] | None = None
    for line in text.splitlines():
        before, _, behind = line.partition(" - ")
        point = Path(before.split(" ")[4].replace("\\040", " "))
        # Of two mounts on one place the later one is seen.
        if (wanted == point or point in wanted.parents) and (found is None or len(point.parts) >= found[0]):
            found = (len(point.parts), behind.split(" ")[0])
    return found[1] if found else None


async def open_files(patient: Patient) -> Said:
    """Each call under way needs a connection, and each connection a file."""
    if sys.platform == "win32":
        return passed("not bounded on this system")
    import resource

    core = patient.core
    calls = sum(spec.concurrency or core.dispatcher.in_flight for spec in core.directory.accounts.values())
    need = min(calls, core.dispatcher.in_flight) + SPARE_FILES
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most in (-1, resource.RLIM_INFINITY) or most >= need:
        return passed(f"{need:,} are needed at most")
    return warned(
        f"this process may open {most:,} files, and its accounts' calls need up to {need:,}",
        f"Raise the limit (ulimit -n {need}, or LimitNOFILE= of the service), or lower concurrency.",
    )


async def zones(patient: Patient) -> Said:
    """Quotas are counted by the calendar of a zone."""
    used = {spec.quota.zone for spec in patient.core.directory.accounts.values() if spec.quota}
    missing = sorted(zone for zone in used if not _known(zone))
    advice = "Install the system's time zone data, or: pip install tzdata"
    if missing:
        return failed(f"no data for {few(missing)}, which quotas are counted in", advice)
    if not _known("Europe/Berlin"):
        return warned("this machine has no time zone data, so quotas can only be counted in UTC", advice)
    return passed(few(sorted(used)) or "there")


def _known(zone: str) -> bool:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
