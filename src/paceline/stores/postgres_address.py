"""Where a PostgreSQL store is: the URL that people write, taken apart and checked before anything is dialled."""

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import msgspec

from paceline.model.errors import InvalidError, Problem

SCHEME = "postgresql"
DEFAULT_SCHEMA = "paceline"

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_FORM = (
    "must be postgresql://USER@HOST:PORT/DATABASE, with ?schema=NAME for another schema than 'paceline', "
    "and HOST:PORT,HOST:PORT for a server and its standbys"
)
_PRIMARY = ("target_session_attrs", "primary")
"""Of several hosts the one that takes writes, now and after a standby was promoted."""


class Address(msgspec.Struct, frozen=True):
    """A schema of a database; `name` is what people are shown, `dsn` what the driver gets, password and all."""

    dsn: str
    schema: str
    name: str

    def __repr__(self) -> str:
        """Without the password: it may come to stand in a log."""
        return f"Address({self.name!r})"


def parse_address(url: str) -> Address:
    """Read ``postgresql://user:password@host:port/database?schema=paceline``; other options are the driver's.

    Several hosts, with commas between them, are a server and its standbys: the one that takes writes is used.

    Raises:
        InvalidError: it cannot be such a URL. The text never repeats the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        hosts = _hosts(parts.netloc)
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidError([Problem("/store", _FORM)]) from None
    if parts.scheme != SCHEME or parts.fragment or not parts.path.strip("/"):
        raise InvalidError([Problem("/store", _FORM)])
    if "password" in dict(options):
        raise InvalidError(
            [Problem("/store", "has the password as an option; it belongs behind the user: USER:PASSWORD@")]
        )
    schema = dict(options).get("schema", DEFAULT_SCHEMA)
    if not _SCHEMA.fullmatch(schema) or schema.startswith("pg_"):
        raise InvalidError(
            [Problem("/store", "schema must be lower-case letters, digits and _, and not begin with pg_")]
        )
    given = [(key, value) for key, value in options if key != "schema"]
    if len(hosts) > 1 and _PRIMARY[0] not in dict(given):
        given.append(_PRIMARY)
    dsn = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(given), ""))
    return Address(dsn, schema, _shown(parts.username, hosts, parts.path, schema))


def _hosts(place: str) -> list[str]:
    """Each host with its port as people are shown them, without user and password.

    Raises:
        ValueError: a port is none, or a host is missing where there are several.
    """
    found: list[str] = []
    each = place.rpartition("@")[2].split(",")
    for text in each:
        one = urlsplit(f"//{text}")
        host = one.hostname or ""
        if not host and len(each) > 1:
            raise ValueError(text)
        found.append((f"[{host}]" if ":" in host else host) + (f":{one.port}" if one.port else ""))
    return found


def _shown(user: str | None, hosts: list[str], path: str, schema: str) -> str:
    who = f"{unquote(user)}@" if user else ""
    tail = "" if schema == DEFAULT_SCHEMA else f"?schema={schema}"
    return f"{SCHEME}://{who}{','.join(hosts)}{path}{tail}"
