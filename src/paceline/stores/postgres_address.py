"""Where a PostgreSQL store is: the URL that people write, taken apart and checked before anything is dialled."""

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import msgspec

from paceline.model.errors import InvalidError, Problem

SCHEME = "postgresql"
DEFAULT_SCHEMA = "paceline"

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_FORM = "must be postgresql://USER@HOST:PORT/DATABASE, with ?schema=NAME for another schema than 'paceline'"


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

    Raises:
        InvalidError: it cannot be such a URL. The text never repeats the URL: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
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
    query = urlencode([(key, value) for key, value in options if key != "schema"])
    dsn = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return Address(dsn, schema, _shown(parts.username, parts.hostname, port, parts.path, schema))


def _shown(user: str | None, host: str | None, port: int | None, path: str, schema: str) -> str:
    who = f"{unquote(user)}@" if user else ""
    where = f"[{host}]" if host and ":" in host else host or ""
    at = f":{port}" if port else ""
    tail = "" if schema == DEFAULT_SCHEMA else f"?schema={schema}"
    return f"{SCHEME}://{who}{where}{at}{path}{tail}"
