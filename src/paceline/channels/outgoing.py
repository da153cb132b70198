"""The one outgoing HTTP client: where it may connect, how long and how much it takes, and what was sent."""

import asyncio
import email.utils
import math
import re
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from yarl import URL

from paceline.channels.addresses import Networks, check_url, may_reach_text, networks
from paceline.channels.base import may_leave
from paceline.model.outcomes import Accepted, Outcome, Temporary

__all__ = [
    "LONGEST_WAIT_MS",
    "UNREADABLE",
    "Answer",
    "HttpClient",
    "MaybeSentError",
    "Networks",
    "NotSentError",
    "RefusedAddressError",
    "check_url",
    "networks",
    "retry_after_ms",
]

LARGEST_BODY: Final = 65_536
"""How much of an answer is read, in bytes; the rest is dropped together with the connection."""

KEEP_ALIVE: Final = 4.0
"""Seconds an idle connection is kept. Below the 5 s after which common servers close theirs: a request that
meets such a close on its way is lost with its outcome unknown, and a new handshake is cheaper than that."""

CONNECT: Final = 10.0
"""Seconds that resolving, waiting for a free connection, connecting and TLS may take together."""

PER_HOST: Final = 512
"""Connections to one host and port at a time."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading an answer as JSON may raise: it is not JSON, not UTF-8, or nested without end."""

LONGEST_WAIT_MS: Final = 36_500 * 86_400_000
"""A century: longer waits are told as this long. How much of a wait is waited is decided elsewhere."""

_OUT_OF_REACH: Final = frozenset({"dns", "connect", "connect-timeout", "tls"})
_NEVER_CEIL: Final = 1e9  # aiohttp rounds time-outs up to whole seconds from here on: past our deadline
_SECONDS = re.compile(r"\s*([0-9]{1,18})(?:\.[0-9]*)?\s*", re.ASCII)


class Answer(msgspec.Struct, frozen=True):
    """What the peer answered.

    Attributes:
        headers: by name, in any case.
        body: at most `LARGEST_BODY` bytes, as they came: nothing is decompressed.
        whole: False where the body was longer, or the connection was cut or the time ran out within it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True


class NotSentError(Exception):
    """Not a byte of the request has reached the peer.

    `code` is one of ``dns``, ``connect``, ``connect-timeout``, ``tls``, ``url``, ``deadline``, ``closed`` and
    ``address-refused``. Neither text nor code holds the URL: that may carry a secret.
    """

    def __init__(self, code: str, text: str) -> None:
        """Keep both parts for the outcome."""
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def up(self) -> bool | None:
        """As in `Temporary`: the peer is out of reach, or we did not even try."""
        return False if self.code in _OUT_OF_REACH else None


class RefusedAddressError(NotSentError):
    """The host leads to an address that requests may not reach."""

    def __init__(self) -> None:
        """Name no address: what internal names resolve to is nobody's business."""
        super().__init__(
            "address-refused",
            "the host leads to a private, loopback or otherwise reserved address; "
            "an operator can allow it by PACELINE_OUTGOING_ALLOW",
        )


class MaybeSentError(Exception):
    """The request was written, at least in part, and no answer came: the peer may have acted."""

    def __init__(self, text: str, *, up: bool | None = False) -> None:
        """Keep the text and what it tells of the peer for the outcome, see `Unknown`."""
        super().__init__(text)
        self.text = text
        self.up = up


class _RefusedSocketError(OSError):
    """Carries the refusal through aiohttp, which collects OSErrors over the addresses of a host."""

    def __init__(self) -> None:
        super().__init__("address refused")


class HttpClient:
    """Sends requests over kept connections, to allowed addresses only; follows no redirect and uses no proxy.

    Where a name leads is checked on the very address the socket is about to connect to, so a name that
    resolves to another address the second time gains nothing.
    """

    def __init__(
        self,
        allow: Networks = (),
        *,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        connect: float = CONNECT,
        per_host: int = PER_HOST,
    ) -> None:
        """Connect to nothing yet.

        Args:
            allow: networks that may be reached besides public ones.
            tls: how certificates are verified; None for the system's authorities.
            resolver: how names are resolved; None for the system's way.
            connect: seconds, see `CONNECT`.
            per_host: see `PER_HOST`.
        """
        self.allow = allow
        self._tls = tls
        self._resolver = resolver
        self._connect = connect
        self._per_host = per_host
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def post(self, url: str | URL, body: bytes, headers: Mapping[str, str], within: float) -> Answer:
        """POST `body` and read the answer within `within` seconds.

        Raises:
            NotSentError: nothing was sent (`RefusedAddressError` where the address is not allowed).
            MaybeSentError: it was sent, and what became of it is not known.
            NotOursError: this process may not send any more; nothing was sent.
        """
        return await self._ask("POST", url, body, headers, within)

    async def get(self, url: str | URL, within: float) -> Answer:
        """GET; raises as `post` does."""
        return await self._ask("GET", url, None, {}, within)

    async def head(self, url: str | URL, within: float) -> Answer:
        """HEAD; raises as `post` does."""
        return await self._ask("HEAD", url, None, {}, within)

    async def reach(self, url: str, within: float) -> Outcome:
        """Whether anything answers at the beginning of this URL; its path and query are left out."""
        try:
            await self.head(URL(url).origin().with_path("/"), within)
        except NotSentError as error:
            return Temporary(error.code, error.text, up=error.up)
        except MaybeSentError as error:
            return Temporary("no-answer", error.text, up=error.up)
        except ValueError:
            return Temporary("url", "the URL is not valid")
        return Accepted()

    async def close(self) -> None:
        """Close every connection; the client cannot be used afterwards."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(
        self, method: str, url: str | URL, body: bytes | None, headers: Mapping[str, str], within: float
    ) -> Answer:
        if self._closed:
            raise NotSentError("closed", "Paceline is shutting down")
        if within <= 0:
            raise NotSentError("deadline", "no time was left to send")
        try:
            response = await self._open_session().request(
                method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=_timeouts(within, self._connect),
            )
        # What is caught first can only be raised before anything is written. The connect time-out is always
        # shorter than the total one, so that running out of the total one means: after.
        except aiohttp.ConnectionTimeoutError:
            raise NotSentError("connect-timeout", "no connection could be made in time") from None
        except aiohttp.ClientConnectorError as error:
            raise _connect_error(error) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise NotSentError("url", "the URL is not valid") from None
        except TimeoutError:
            raise MaybeSentError(f"no answer came within {within:g} s") from None
        except aiohttp.ClientResponseError:
            raise MaybeSentError("the answer is not valid HTTP", up=None) from None
        except (aiohttp.ClientError, OSError):
            raise MaybeSentError("the connection was cut before an answer came") from None
        return await _read(response)

    def _open_session(self) -> aiohttp.ClientSession:
        session = self._session
        loop = asyncio.get_running_loop()
        if session is not None and loop is self._loop:
            return session
        connector = aiohttp.TCPConnector(
            limit=0,
            limit_per_host=self._per_host,
            keepalive_timeout=KEEP_ALIVE,
            resolver=self._resolver,
            ssl=self._tls if self._tls is not None else True,
            socket_factory=self._make_socket,
        )
        self._loop = loop
        self._session = aiohttp.ClientSession(
            connector=connector,
            # Answers are small; refusing compression makes a bomb a plain oversized body.
            headers={"User-Agent": "Paceline", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Request,
            auto_decompress=False,
            trust_env=False,
        )
        return self._session

    def _make_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_reach_text(str(address[0]), self.allow):
            raise _RefusedSocketError
        return socket.socket(family, kind, protocol)


class _Request(aiohttp.ClientRequest):
    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Once the connection is there, and nothing is written yet."""
        may_leave()
        return await super().send(conn)


@lru_cache(maxsize=256)
def _timeouts(within: float, connect: float) -> aiohttp.ClientTimeout:
    """The time-outs of one request; `connect` strictly before the total."""
    bound = min(connect, within * 0.9)
    return aiohttp.ClientTimeout(
        total=within, connect=bound, sock_connect=bound, sock_read=None, ceil_threshold=_NEVER_CEIL
    )


def _connect_error(error: aiohttp.ClientConnectorError) -> NotSentError:
    if isinstance(error.os_error, _RefusedSocketError):
        return RefusedAddressError()
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return NotSentError("dns", "the host name could not be resolved")
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return NotSentError("tls", "no trusted TLS connection could be made")
    return NotSentError("connect", f"no connection could be made: {error.os_error.strerror or 'refused'}")


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """Read the bounded body. The status is known, so that whatever happens from here on is an answer."""
    content = response.content
    body = b""
    whole = True
    try:
        while not content.at_eof():
            body += await content.read(LARGEST_BODY + 1 - len(body))
            if len(body) > LARGEST_BODY:
                body, whole = body[:LARGEST_BODY], False
                break
    except (aiohttp.ClientError, OSError):
        whole = False
    finally:
        if content.at_eof() and whole:
            response.release()
        else:
            response.close()
    return Answer(response.status, response.headers, body, whole)


def retry_after_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """What ``Retry-After`` asks for (RFC 9110, section 10.2.3: seconds or a date), at least 1 s.

    None where the header is missing or makes no sense.
    """
    text: Any = headers.get("Retry-After")
    if not text:
        return None
    seconds = _SECONDS.fullmatch(text)
    if seconds is not None:
        wait = int(seconds[1]) * 1000 + (1000 if "." in text else 0)
    else:
        try:
            moment = email.utils.parsedate_to_datetime(text)
            wait = math.ceil(moment.timestamp() * 1000) - now_ms
        except (ValueError, TypeError, OverflowError):
            return None
    return max(1000, min(wait, LONGEST_WAIT_MS))
