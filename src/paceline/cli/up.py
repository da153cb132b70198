"""``paceline up``: the server."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from paceline.model.errors import InvalidError, PacelineError, Problem

if TYPE_CHECKING:
    from paceline.config import Settings


def up(
    *,
    host: str | None = None,
    port: int | None = None,
    data: Path | None = None,
    store: str | None = None,
    outbox: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    role: str | None = None,
    processes: int | None = None,
    config: Path | None = None,
    setting: Annotated[list[str] | None, Parameter(name="--set", negative="", consume_multiple=False)] = None,
) -> int:
    """Start the server. It runs until Ctrl-C, lets calls in flight finish, and loses nothing. A second Ctrl-C
    does not wait for them: messages whose channel cannot repeat safely are then told as uncertain.

    On first start it makes an admin key and prints the path of its file. Every setting can also be given as
    environment PACELINE_NAME or in paceline.toml.

    Args:
        host: Address to listen on. Default: 127.0.0.1, this machine only.
        port: Port to listen on. Default: 8080.
        data: Folder of the store and the keys. Default: data.
        store: URL of another store than the SQLite file in the data folder, such as
            postgresql://user@host/database. A password is better kept in PACELINE_STORE.
        outbox: URL of an application's database whose outbox is relayed; see paceline outbox. May be given again.
        role: Of several nodes on one PostgreSQL store, one with the role api sends nothing; one with the role sender
            sends its share and takes no messages, it answers /health and /metrics alone. Default: all, both.
        processes: Run so many nodes on this machine, which share a store in PostgreSQL and take as many ports from --port
            on. Without --role the first takes messages and sends, the others send. One that dies is started again.
            Default: 1.
        config: Read this file instead of ./paceline.toml.
        setting: Any other setting, as name=value. May be given again.
    """
    from paceline.config import load

    arguments: dict[str, Any] = _pairs(setting or [])
    named = {"host": host, "port": port, "data": data, "store": store, "outbox": outbox, "role": role,
             "processes": processes}  # fmt: skip
    arguments |= {name: value for name, value in named.items() if value is not None}
    settings = load(arguments, os.environ, config)
    if settings.processes > 1:
        return _several(settings, arguments, config)
    _check_folder(settings.data, settings.origin("data"))
    _check_port(settings.host, settings.port, settings.origin("port"))

    from paceline import wiring

    return int(wiring.serve(settings, {}) or 0)


def _several(settings: "Settings", arguments: dict[str, Any], config: Path | None) -> int:
    from paceline.cli import processes

    processes.check(settings)
    _check_folder(settings.data, settings.origin("data"))
    for port in processes.ports(settings):
        _check_port(settings.host, port, settings.origin("port"))
    return processes.run(settings, arguments, config)


def _pairs(given: list[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise InvalidError([Problem("/set", f"{one!r} must be name=value, for example log_level=debug")])
        pairs[name.strip()] = value
    return pairs


def _check_folder(folder: Path, origin: str) -> None:
    """Say at once, and plainly, when the data folder cannot be one."""
    named = f"{origin}: {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except FileExistsError:
        raise InvalidError([Problem("/data", f"{named} is a file, and must be a folder")]) from None
    except NotADirectoryError:
        raise InvalidError([Problem("/data", f"{named} lies below a file, and must be a folder")]) from None
    except OSError as error:
        raise PacelineError(
            f"the data folder {folder} cannot be made: {error.strerror}. Choose another one with --data"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PacelineError(
            f"the data folder {folder} cannot be written to. Change its permissions, or choose another one"
            " with --data"
        )


def _check_port(host: str, port: int, origin: str) -> None:
    """Find out whether the address is free before anything is opened. (The server still binds for itself.)"""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidError([Problem("/host", f"{host!r} is no address of this machine: {error}")]) from error
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except PermissionError as error:
            raise PacelineError(f"port {port} ({origin}) may not be used: {error.strerror}") from error
        except OSError as error:
            raise PacelineError(
                f"{host}:{port} ({origin}) is not free: {error.strerror}. Choose another port with --port,"
                " or stop what listens there"
            ) from error
