"""One server as the command line sees it: where it is, which key opens it, and calls to it.

The standard library's HTTP is enough for one call after another, and starts several times faster than a
client made for many at once.
"""

import http.client
import json
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from paceline.client_types import RefusedError, UnreachableError, error_of
from paceline.model.errors import InvalidError, PacelineError, Problem

TIMEOUT: Final = 90.0
Query = Mapping[str, str | int | float | Sequence[str] | None]


class Server:
    """Calls to one server over one connection; errors are those of `paceline.model.errors`."""

    def __init__(self, address: str, key: str | None = None, key_from: str = "") -> None:
        """Connect to nothing yet. `key_from` says where the key was found, for error texts."""
        self.address = _checked(address)
        self.key_from = key_from
        self._key = key
        self._parts = urlsplit(self.address)
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, body: Any = None, query: Query | None = None) -> Any:
        """The JSON answer to one call below ``/api/v1``; None for an empty one."""
        response = self._request(method, "/api/v1" + path, body, query)
        raw = self._read(response)
        if response.status >= 400:
            raise self._error(response, raw)
        return _json(raw) if raw else None

    def get(self, path: str, query: Query | None = None) -> Any:
        """`call` with GET."""
        return self.call("GET", path, None, query)

    def post(self, path: str, body: Any = None, query: Query | None = None) -> Any:
        """`call` with POST."""
        return self.call("POST", path, {} if body is None else body, query)

    def pages(self, path: str, query: Query, most: int) -> Iterator[dict[str, Any]]:
        """The items of a paged list, at most `most` of them."""
        cursor: str | None = None
        while most > 0:
            page = self.get(path, {**query, "limit": min(most, 1000), "cursor": cursor})
            yield from page["items"][:most]
            most -= len(page["items"])
            cursor = page.get("next")
            if not cursor or not page["items"]:
                return

    def lines(self, path: str, query: Query) -> Iterator[bytes]:
        """The lines of a streamed answer, as they come."""
        response = self._request("GET", "/api/v1" + path, None, query)
        if response.status >= 400:
            raise self._error(response, self._read(response))
        try:
            while line := response.readline():
                yield line
        except (OSError, http.client.HTTPException) as error:
            self._unreachable(error)

    def ready(self) -> bool:
        """Whether messages are accepted and sent there now."""
        try:
            response = self._request("GET", "/health/ready", None, None)
            self._read(response)
        except UnreachableError:
            return False
        return response.status == 200

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _request(self, method: str, path: str, body: Any, query: Query | None) -> http.client.HTTPResponse:
        target = self._parts.path.rstrip("/") + path
        if pairs := [(k, v) for k, v in (query or {}).items() if v is not None and v != ()]:
            target += "?" + urlencode(pairs, doseq=True)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        kept = self._connection is not None
        while True:
            connection = self._connection or self._connect()
            try:
                connection.request(method, target, data, headers)
                return connection.getresponse()
            except http.client.RemoteDisconnected as error:
                # An idle connection that the server closed in the meantime: nothing was read of this call.
                self.close()
                if not kept or method != "GET":
                    self._unreachable(error)
                kept = False
            except (OSError, http.client.HTTPException) as error:
                self.close()
                self._unreachable(error)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        return self._connection

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self._unreachable(error)

    def _error(self, response: http.client.HTTPResponse, raw: bytes) -> PacelineError:
        body = _json(raw)
        error = error_of(response.status, body, response.headers.get("Retry-After"))
        if response.status == 401:
            if not self._key:
                return RefusedError(f"a key is needed, and there is none in {self.key_from}")
            return RefusedError(f"the server does not know the key from {self.key_from}")
        if not isinstance(body, dict):
            return PacelineError(f"{self.address} answered {response.status}, and is no Paceline server")
        return error

    def _unreachable(self, error: Exception) -> NoReturn:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreachableError(f"no answer from {self.address}: {words}") from error


def part(text: str) -> str:
    """A name or id as one step of a path."""
    return quote(text, safe="")


def open_server(address: str | None, key_file: Path | None) -> Server:
    """The server that the options, the environment or the settings name, with the key that was found.

    The address: ``--server``, PACELINE_SERVER, else host and port of the settings. The key: ``--key-file``,
    PACELINE_KEY, PACELINE_KEY_FILE, else ``admin.key`` in the settings' data folder.
    """
    address = address or os.environ.get("PACELINE_SERVER")
    key, key_from = _named_key(key_file)
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InvalidError(
            [Problem("/key-file", f"{key_from} holds no key: a key is one line of plain text")]
        )
    if address is None or key is None:
        from paceline.config import load

        settings = load({}, os.environ)
        address = address or settings.address
        if key is None:
            path = settings.data / "admin.key"
            key_from = str(path)
            try:
                key = path.read_text("ascii").strip()
            except (OSError, UnicodeDecodeError):
                key = None
    return Server(address, key, key_from)


def _named_key(key_file: Path | None) -> tuple[str | None, str]:
    if key_file is None:
        if os.environ.get("PACELINE_KEY"):
            return os.environ["PACELINE_KEY"].strip(), "PACELINE_KEY"
        if not os.environ.get("PACELINE_KEY_FILE"):
            return None, ""
        key_file = Path(os.environ["PACELINE_KEY_FILE"])
    try:
        return key_file.expanduser().read_text("utf-8").strip(), str(key_file)
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is not a text file"
        raise InvalidError([Problem("/key-file", f"{key_file} cannot be read: {words}")]) from error


def _checked(address: str) -> str:
    parts = urlsplit(address)
    try:
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise InvalidError(
            [Problem("/server", f"{address[:80]!r} must be an address such as http://127.0.0.1:8080")]
        )
    return address.rstrip("/")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
