"""The settings of one process: defaults, then `paceline.toml`, then the environment, then arguments.

A later place wins over an earlier one. Each value remembers where it came from, and a name that nobody knows
is refused with the name that was probably meant.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec

from paceline.model.durations import parse_duration
from paceline.model.errors import InvalidError, Problem
from paceline.model.nodes import PARTITIONS

FILE_NAME: Final = "paceline.toml"
PREFIX: Final = "PACELINE_"
CLIENT_VARIABLES: Final = frozenset({"SERVER", "KEY", "KEY_FILE", "CONFIG", "DEBUG"})
"""Read by the command line and the client, not settings of a server."""

Network = IPv4Network | IPv6Network

_UNITS: Final = {"": 1, "b": 1, "k": 1024, "kb": 1000, "kib": 1024, "m": 1024**2, "mb": 1000**2,
                 "mib": 1024**2, "g": 1024**3, "gb": 1000**3, "gib": 1024**3}  # fmt: skip
_SIZE: Final = re.compile(r"\s*([0-9]{1,15})\s*([a-z]*)\s*", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%\-\[\]]{1,253}", re.ASCII)
# What container platforms put into the environment beside a service that happens to be called 'paceline'.
_NOT_OURS: Final = re.compile(r"PACELINE_(?:SERVICE_.*|PORT_[0-9]+_.*)", re.ASCII)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one process runs with. Durations are in seconds, sizes in bytes.

    Attributes:
        host: address to listen on; 0.0.0.0 opens the server to the network.
        port: port to listen on; 0 takes a free one.
        data: folder of the store, the keys and the logs.
        store: URL of another store than the SQLite file in `data`: sqlite:///PATH or postgresql://USER@HOST/DATABASE.
        store_wait: how long a PostgreSQL server that cannot be reached is waited for at the start.
        outbox: URLs of the outboxes in applications' databases that are relayed: postgresql://USER@HOST/DATABASE or
            sqlite:///FILE, with ?schema= and &tenant=.
        role: of several nodes on one store, `api` sends nothing, `sender` sends what falls to it and takes no
            messages, `all` does both.
        processes: how many nodes `paceline up` runs on this machine; more than one take a store in PostgreSQL.
        lease: how long a node that cannot be heard keeps what it sends before others follow it.
        outgoing_allow: networks that webhooks and base URLs may reach besides public ones.
        log_level: least level that is logged.
        log_format: `auto` writes text on a terminal and JSON elsewhere.
        max_body: largest request that is read.
        in_flight: most provider calls under way at once.
        grace: how long calls in flight may finish when the process stops.
        longest_wait: how much of a provider's 'wait so long' is waited at most.
        threads_min: threads kept for plain Python handlers.
        threads_max: most threads for plain Python handlers.
        trace_retention: how long the trace of a message is kept.
        origins: where each value that is not a default came from.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    data: Path = Path("data")
    store: str | None = None
    store_wait: float = 60.0
    outbox: tuple[str, ...] = ()
    role: str = "all"
    processes: int = 1
    lease: float = 5.0
    outgoing_allow: tuple[Network, ...] = ()
    log_level: str = "info"
    log_format: str = "auto"
    max_body: int = 16 * 1024 * 1024
    in_flight: int = 2000
    grace: float = 20.0
    longest_wait: float = 7 * 86_400.0
    threads_min: int = 10
    threads_max: int = 100
    trace_retention: float = 7 * 86_400.0
    origins: Mapping[str, str] = msgspec.field(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where a value came from: ``default``, ``file paceline.toml``, ``environment PACELINE_PORT``..."""
        if name not in NAMES:
            raise KeyError(name)
        return self.origins.get(name, "default")

    @property
    def address(self) -> str:
        """The URL at which a client on this machine reaches the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - reads, never binds
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def shown(self) -> dict[str, dict[str, Any]]:
        """Every value with its origin, ready for JSON, the password of a store's URL left out."""
        return {
            name: {"value": _plain(name, getattr(self, name)), "origin": self.origin(name)} for name in NAMES
        }


_OPTIONS: Final = frozenset({"host", "port", "data", "store", "outbox", "role", "processes"})
"""Settings that have an option of their own; the others are given with --set."""
NAMES: Final = tuple(name for name in Settings.__struct_fields__ if name != "origins")


def load(
    arguments: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """The settings that hold: arguments over environment over file over defaults.

    Args:
        arguments: by name; None means not given.
        environ: usually `os.environ`.
        file: must exist when given; otherwise PACELINE_CONFIG or `paceline.toml` in the current folder, if any.

    Raises:
        InvalidError: every problem found, each with the setting's name and the place it was read from.
    """
    environ = environ or {}
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, raw, origin, written in _given(arguments or {}, environ, file, problems):
        reader = _READERS.get(name)
        if reader is None:
            what = f"there is no setting '{name[:60]}'" if origin.startswith("file ") else "no such setting"
            problems.append(Problem(f"/{name}", f"{origin}: {what}{_meant(written, name)}"))
            continue
        try:
            values[name] = reader(raw)
        except ValueError as error:
            problems.append(Problem(f"/{name}", f"{origin}: {error}"))
        origins[name] = origin
    if not problems:
        settings = Settings(**values, origins=origins)
        if settings.threads_min <= settings.threads_max:
            return settings
        origin = origins.get("threads_min") or origins["threads_max"]
        problems.append(
            Problem(
                "/threads_min",
                f"{origin}: threads_min ({settings.threads_min}) must not be more than"
                f" threads_max ({settings.threads_max})",
            )
        )
    raise InvalidError(problems)


def config_file(environ: Mapping[str, str], file: Path | None) -> tuple[Path, str] | None:
    """The file that holds settings and who named it; None where nobody did and none lies here."""
    if file is not None:
        return file, "--config"
    if environ.get(f"{PREFIX}CONFIG"):
        return Path(environ[f"{PREFIX}CONFIG"]), f"environment {PREFIX}CONFIG"
    return (Path(FILE_NAME), "") if Path(FILE_NAME).is_file() else None


def _given(
    arguments: Mapping[str, Any], environ: Mapping[str, str], file: Path | None, problems: list[Problem]
) -> list[tuple[str, Any, str, Callable[[str], str]]]:
    """Everything that was given, the weakest place first: name, value, origin, how its place writes names."""
    given: list[tuple[str, Any, str, Callable[[str], str]]] = []
    found = config_file(environ, file)
    if found is not None:
        path, named_by = found
        for key, value in _read(path, named_by, problems).items():
            given.append((key.replace("-", "_"), value, f"file {path}", str))
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name == variable or name in CLIENT_VARIABLES or _NOT_OURS.fullmatch(variable):
            continue
        if name == "PORT" and "://" in environ[variable]:
            continue  # also from a container platform
        given.append((name.lower(), environ[variable], f"environment {variable}", _as_variable))
    for name, value in arguments.items():
        if value is not None:
            name = name.replace("-", "_")
            given.append((name, value, f"option {_as_option(name)}", _as_option))
    return given


def _read(path: Path, named_by: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        problems.append(Problem("/config", f"{named_by}: there is no file {path}"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("/config", f"file {path} cannot be read: {error}"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem("/config", f"file {path} is not valid TOML: {error}"))
    return {}


def _meant(written: Callable[[str], str], name: str) -> str:
    close = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{written(close[0])}'?"
    return f"; there are {', '.join(written(known) for known in NAMES)}"


def _as_variable(name: str) -> str:
    return PREFIX + name.upper()


def _as_option(name: str) -> str:
    return f"--{name}" if name in _OPTIONS else f"--set {name}"


def _wrong(raw: object, wanted: str) -> NoReturn:
    shown = repr(raw)
    raise ValueError(f"{shown if len(shown) < 60 else shown[:56] + '...'} must be {wanted}")


def _integer(least: int, most: int, raw: object) -> int:
    wanted = f"a whole number from {least:,} to {most:,}"
    if isinstance(raw, str) and re.fullmatch(r"\s*[0-9][0-9_]{0,17}\s*", raw, re.ASCII):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
        _wrong(raw, wanted)
    return raw


def _seconds(least: float, most: float, raw: object) -> float:
    try:
        return parse_duration(raw, least=math.ceil(least * 1000), most=round(most * 1000)) / 1000
    except ValueError as error:
        raise ValueError(f"{str(raw)[:60]!r} {error}") from None


def _bytes(least: int, most: int, raw: object) -> int:
    if isinstance(raw, str):
        match = _SIZE.fullmatch(raw.lower())
        if match is None or match[2] not in _UNITS:
            _wrong(raw, "a size such as 1048576, '512KiB' or '16MiB'")
        raw = int(match[1]) * _UNITS[match[2]]
    return _integer(least, most, raw)


def _choice(choices: tuple[str, ...], raw: object) -> str:
    text = raw.strip().lower() if isinstance(raw, str) else raw
    if text not in choices:
        _wrong(raw, f"one of {', '.join(choices)}")
    return str(text)


def _host(raw: object) -> str:
    if not isinstance(raw, str) or not _HOST.fullmatch(raw.strip()):
        _wrong(raw, "a host name or an address such as 127.0.0.1")
    return raw.strip().strip("[]")


def _path(raw: object) -> Path:
    if not isinstance(raw, str | Path) or not str(raw).strip() or "\0" in str(raw):
        _wrong(raw, "the path of a folder")
    return Path(raw).expanduser()


def _store(raw: object) -> str | None:
    if not isinstance(raw, str):
        _wrong(raw, "a URL such as sqlite:///data/paceline.db or postgresql://user@host/database")
    if raw.strip() and not re.match(r"[a-z][a-z0-9+.-]*:", raw.strip()):
        _wrong(raw, "a URL such as sqlite:///data/paceline.db or postgresql://user@host/database")
    return raw.strip() or None


def _outboxes(raw: object) -> tuple[str, ...]:
    given = raw.split() if isinstance(raw, str) else raw
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        _wrong(
            raw, "URLs such as postgresql://user@host/database or sqlite:///app.db, with spaces between them"
        )
    if not all(re.match(r"(postgres|postgresql|sqlite):///?", one) for one in given):
        raise ValueError("must be URLs such as postgresql://user@host/database or sqlite:///app.db")
    return tuple(dict.fromkeys(given))


def _networks(raw: object) -> tuple[Network, ...]:
    if isinstance(raw, str):
        raw = re.split(r"[,\s]+", raw.strip(", \t\n")) if raw.strip(", \t\n") else []
    if not isinstance(raw, list | tuple):
        _wrong(raw, "networks such as '127.0.0.0/8, 10.1.0.0/16'")
    networks = []
    for part in raw:
        if isinstance(part, IPv4Network | IPv6Network):
            networks.append(part)
            continue
        try:
            networks.append(
                ip_network(part if isinstance(part, str) else _wrong(part, "a text"), strict=True)
            )
        except ValueError as error:
            raise ValueError(
                f"{str(part)[:60]!r} is not a network such as 127.0.0.0/8 or fd00::/8 ({error})"
            ) from None
    return tuple(networks)


_DAY: Final = 86_400.0
_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "host": _host,
    "port": partial(_integer, 0, 65_535),
    "data": _path,
    "store": _store,
    "store_wait": partial(_seconds, 0, _DAY),
    "outbox": _outboxes,
    "role": partial(_choice, ("all", "api", "sender")),
    "processes": partial(_integer, 1, PARTITIONS),
    "lease": partial(_seconds, 1, 300),
    "outgoing_allow": _networks,
    "log_level": partial(_choice, ("debug", "info", "warning", "error")),
    "log_format": partial(_choice, ("auto", "text", "json")),
    "max_body": partial(_bytes, 1024, 1024**3),
    "in_flight": partial(_integer, 1, 1_000_000),
    "grace": partial(_seconds, 0, 3600),
    "longest_wait": partial(_seconds, 1, 3650 * _DAY),
    "threads_min": partial(_integer, 1, 10_000),
    "threads_max": partial(_integer, 1, 10_000),
    "trace_retention": partial(_seconds, 60, 400 * _DAY),
}


def _plain(name: str, value: Any) -> Any:
    if name == "outgoing_allow":
        return [str(network) for network in value]
    if name == "data":
        return str(value)
    if name == "outbox":
        return [_without_password(url) for url in value]
    if name == "store" and value:
        return _without_password(value)
    return value


def _without_password(url: str) -> str:
    return re.sub(r"(//[^:/@]*:)[^/]*@", r"\1***@", url) if urlsplit(url).password else url
