"""Copies of the running store in the folder `backups` of the data folder, and the key files beside a copy."""

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from paceline.engine.core import Core
from paceline.engine.documents import Draft
from paceline.engine.keys import Caller, DeniedError
from paceline.engine.secrets import write_private
from paceline.model import checks
from paceline.model.errors import ConflictError, PacelineError
from paceline.stores.base import CopyFacts

FOLDER = "backups"
ENDING = ".db"
KEY_FILES = ("secret.key", "admin.key")
"""What opens the secrets of accounts, and what opens the API."""

log = structlog.get_logger("paceline.backups")


class Backups:
    """The verbs of backing up. Over the network nobody names a path: only a name in the one folder."""

    def __init__(self, core: Core, data: object) -> None:
        """`data` is the data folder; without one there is nowhere to write to."""
        self._core = core
        self._data = Path(data) if isinstance(data, (str, Path)) else None

    async def make(self, caller: Caller, body: Any) -> dict[str, Any]:
        """Copy the database while it is in use; answers once the copy is checked and on disk.

        Raises:
            InvalidError: the name cannot be one of a file.
            ConflictError: there is one of that name, or one is being made.
            UnavailableError: it cannot be written.
            DeniedError: the caller is no admin of the installation.
        """
        data = self._allowed(caller)
        draft = Draft(body, ("name", "keys"))
        name, keys = draft.take("name", _file_name), draft.take("keys", checks.check_boolean) is True
        draft.check()
        now = self._core.clock.now()
        if name is msgspec.UNSET:
            name = default_name(now)
        await asyncio.to_thread((data / FOLDER).mkdir, exist_ok=True, mode=0o700)
        target = data / FOLDER / name
        log.info("back-up begins", caller=caller.name, name=name)
        facts = await self._core.store.copy(target, now)
        if keys:
            await asyncio.to_thread(save_keys, data, target)
        log.info("back-up made", name=name, bytes=facts.bytes, messages=facts.messages)
        return {"name": name, "path": str(target), "keys": keys, **facts_view(facts)}

    async def list(self, caller: Caller) -> list[dict[str, Any]]:
        """The finished copies, newest first.

        Raises:
            DeniedError: the caller is no admin of the installation.
        """
        folder = self._allowed(caller) / FOLDER
        return await asyncio.to_thread(_listed, folder)

    def _allowed(self, caller: Caller) -> Path:
        caller.must("admin")
        if caller.tenant is not None:
            raise DeniedError(
                "a back-up holds everybody's messages: it takes a key of the whole installation"
            )
        if self._data is None:
            raise ConflictError("this server has no data folder to write a back-up into")
        return self._data


def default_name(now: int) -> str:
    """A file name that sorts by time."""
    return "paceline-" + checks.print_time(now).replace("-", "").replace(":", "").replace(".", "") + ENDING


def facts_view(facts: CopyFacts) -> dict[str, Any]:
    """What is in a copy, as JSON."""
    return {
        "bytes": facts.bytes, "schema": facts.version, "messages": facts.messages, "waiting": facts.waiting,
        "under_way": facts.under_way,
    }  # fmt: skip


def keys_path(copy: Path) -> Path:
    """The file beside a copy that holds the key files."""
    return copy.with_name(copy.name + ".keys")


def save_keys(data: Path, copy: Path) -> Path:
    """Write the key files of a data folder beside a copy, readable by the owner alone.

    Raises:
        PacelineError: there are none, or they cannot be written.
    """
    found = {}
    for name in KEY_FILES:
        try:
            found[name] = (data / name).read_text("ascii")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise PacelineError(f"{data / name} cannot be read: {error}") from None
    if "secret.key" not in found:
        raise PacelineError(f"there is no secret.key in {data}: the copy was made, but without keys")
    try:
        write_private(keys_path(copy), msgspec.json.encode(found))
    except OSError as error:
        raise PacelineError(f"{keys_path(copy)}: {error.strerror}; the copy has no keys") from None
    return keys_path(copy)


def read_keys(file: Path) -> Mapping[str, str]:
    """The key files that `save_keys` kept, by name.

    Raises:
        PacelineError: it is no such file.
    """
    try:
        found = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise PacelineError(f"{file} is not a file of keys made by a back-up: {error}") from None
    return {name: found[name] for name in KEY_FILES if name in found}


def check_keys(keys: Mapping[str, str], data: Path) -> None:
    """Refuse to put keys where others are: what those open would be lost.

    Raises:
        ConflictError: a data folder holds another key of the same name.
    """
    for name in _others(keys, data):
        raise ConflictError(f"{data / name} is another key than the copy's; move it away, or say --replace")


def put_keys(keys: Mapping[str, str], data: Path, now: int) -> list[str]:
    """Write key files into a data folder; answers their names. Others that are there are kept under another name."""
    for name in _others(keys, data):
        (data / name).replace(data / f"{name}.replaced-{now}")
    for name, text in keys.items():
        if not (data / name).exists():
            write_private(data / name, text.encode())
    return list(keys)


def _others(keys: Mapping[str, str], data: Path) -> list[str]:
    return [n for n in keys if (data / n).exists() and (data / n).read_text("ascii") != keys[n]]


def _file_name(value: object) -> str:
    name = checks.check_name(value)
    if name.startswith(".") or ":" in name:
        raise ValueError(
            "must be the name of a file: letters, digits and . _ @ + -, not beginning with a dot"
        )
    return name if name.endswith(ENDING) else name + ENDING


def _listed(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in folder.glob("*" + ENDING) if folder.is_dir() else ():
        try:
            about = path.stat()
        except OSError:
            continue  # removed at this moment
        if stat.S_ISREG(about.st_mode):
            made = checks.print_time(int(about.st_mtime * 1000))
            found.append({"name": path.name, "bytes": about.st_size, "made_at": made,
                          "keys": keys_path(path).exists()})  # fmt: skip
    return sorted(found, key=lambda each: (each["made_at"], each["name"]), reverse=True)
