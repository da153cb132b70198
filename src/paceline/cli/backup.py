"""``paceline backup`` and ``paceline restore``: a copy of the database, and back."""

import os
from pathlib import Path
from typing import Any

from paceline.cli.options import USUAL, Common, Switch
from paceline.cli.show import note, plural, put, put_json, safe
from paceline.clock import SystemClock
from paceline.config import Settings, load
from paceline.model.errors import InvalidError, PacelineError, Problem


def backup(
    file: Path | None = None,
    /,
    *,
    data: Path | None = None,
    with_keys: Switch = False,
    common: Common = USUAL,
) -> None:
    """Copy the database to a new file, whether or not the server runs. Sending goes on meanwhile.

    It copies the data folder of this machine's settings. With --server or PACELINE_SERVER that server does it, in
    the folder `backups` of its own data folder. The copy starts on hold wherever it is put.

    Args:
        file: The copy to make; with a server only a name. Default: paceline-TIME.db, in the data folder's backups.
        data: Folder of the store and the keys. Default: that of the settings.
        with_keys: Write secret.key and admin.key into FILE.keys beside it. Without them nobody can read the secrets
            of accounts in the copy; with them, whoever has the two files can.
    """
    if data is None and (common.server or os.environ.get("PACELINE_SERVER")):
        made = _by_server(file, with_keys, common)
    else:
        made = _by_hand(file, load({"data": data}, os.environ), with_keys=with_keys)
    if common.json:
        put_json(made)
        return
    put(made["path"])
    note(
        f"{plural(made['messages'], 'message')}, {made['waiting']:,} waiting, {made['bytes'] / 1024**2:.1f} MiB."
    )
    if made["keys"]:
        note(f"The keys are in {safe(made['path'])}.keys: whoever has both files can read everything.")
    else:
        note(
            "Not in it: secret.key, which opens the secrets of accounts. Keep a copy of it apart, or --with-keys."
        )


def restore(
    file: Path,
    /,
    *,
    data: Path | None = None,
    keys: Path | None = None,
    replace: Switch = False,
    json: Switch = False,
) -> None:
    """Put a copy into a data folder, checked. The server that is started there is on hold until it is released.

    Args:
        file: The copy.
        data: The folder to put it into. Default: that of the settings.
        keys: The copy's key files. Default: FILE.keys, if it is there.
        replace: The folder holds a database: keep that under another name, and put the copy in its place.
        json: Print JSON for programs instead of text for people.
    """
    from paceline import wiring
    from paceline.engine.backups import check_keys, facts_view, keys_path, put_keys, read_keys

    settings = load({"data": data}, os.environ)
    if not file.is_file():
        raise InvalidError([Problem("/file", f"there is no file {file}")])
    if keys is None and keys_path(file).is_file():
        keys = keys_path(file)
    found = read_keys(keys) if keys is not None else {}
    _make_folder(settings.data)
    if not replace:
        check_keys(found, settings.data)
    now = SystemClock().now()
    facts, aside = wiring.make_files(settings).restore(file, now, replace=replace)
    written = put_keys(found, settings.data, now)
    if json:
        put_json({"data": str(settings.data), "keys": written, "replaced": str(aside) if aside else None,
                  **facts_view(facts)})  # fmt: skip
        return
    put(f"{plural(facts.messages, 'message')} restored to {safe(str(settings.data))}")
    if aside is not None:
        note(f"The database that was there is now {safe(str(aside))}.")
    _tell_keys(settings)
    note("It starts on hold and sends nothing: look at what waits, then say: paceline release")


def _by_server(file: Path | None, with_keys: bool, common: Common) -> Any:
    if file is not None and file.name != str(file):
        raise InvalidError(
            [
                Problem(
                    "/file",
                    f"{file} is a path, and the copy is made by a server: give a name alone, or --data"
                    " for a copy of a data folder of this machine",
                )
            ]
        )
    body: dict[str, Any] = {"keys": bool(with_keys)} | ({} if file is None else {"name": file.name})
    with common.open() as server:
        return server.post("/backups", body)


def _by_hand(file: Path | None, settings: Settings, *, with_keys: bool) -> dict[str, Any]:
    from paceline import wiring
    from paceline.engine.backups import FOLDER, default_name, facts_view, save_keys

    now = SystemClock().now()
    if file is None:
        file = settings.data / FOLDER / default_name(now)
        if settings.data.is_dir():
            file.parent.mkdir(exist_ok=True, mode=0o700)
    elif file.is_dir():
        file = file / default_name(now)
    facts = wiring.make_files(settings).copy(file, now)
    if with_keys:
        save_keys(settings.data, file)
    return {"name": file.name, "path": str(file), "keys": bool(with_keys), **facts_view(facts)}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PacelineError(f"the data folder {folder} cannot be made: {error.strerror}") from None


def _tell_keys(settings: Settings) -> None:
    if not (settings.data / "secret.key").is_file():
        note(
            f"Not in the copy: secret.key. Put the original's into {safe(str(settings.data))} before the start; else the"
            " secrets of accounts cannot be read."
        )
    if not (settings.data / "admin.key").is_file():
        note(
            "Not in the copy: admin.key. The keys of the original go on working; name one with PACELINE_KEY."
        )
