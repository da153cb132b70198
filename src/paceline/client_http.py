"""The client's calls over HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from paceline.client_link import Json
from paceline.client_types import Event, RefusedError, UnreachableError, error_of

_PATIENCE: Final = aiohttp.ClientTimeout(total=90, sock_connect=10)
_ENDLESS: Final = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_AGAIN: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_ENDED: Final = frozenset({"completed", "failed", "cancelled", "expired", "uncertain"})
Query = Mapping[str, str | int | Sequence[str]]


class HttpLink:
    """A server at an address."""

    def __init__(self, address: str, key: str | None) -> None:
        """Connect to nothing yet."""
        self.address = address.rstrip("/")
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session, in the loop that runs."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(headers=headers, timeout=_PATIENCE)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def submit(self, body: Json, wait: float | None) -> Json:
        """``POST /messages``."""
        query = {} if wait is None else {"wait": f"{min(wait, 60):g}"}
        return await self._object("POST", "/messages", body, query)

    async def submit_batch(self, bodies: Sequence[Json], defaults: Json) -> Json:
        """``POST /messages/batch``."""
        return await self._object("POST", "/messages/batch", {"messages": list(bodies), "defaults": defaults})

    async def wait(self, id_: str, seconds: float) -> Json | None:
        """Ask again and again, a little less often each time, until the message has ended."""
        pause = 0.05
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await self.message("get", id_)
                    if message["state"] in _ENDED:
                        return message
                    await asyncio.sleep(pause)
                    pause = min(1.0, pause * 1.4)
        except TimeoutError:
            return None

    async def message(self, verb: str, id_: str, body: Json | None = None) -> Json:
        """One message: get, why, trace, patch, retry, cancel, settle, delete."""
        path = f"/messages/{_part(id_)}"
        match verb:
            case "get":
                return await self._object("GET", path)
            case "why" | "trace":
                return await self._object("GET", f"{path}/{verb}")
            case "patch":
                return await self._object("PATCH", path, body)
            case "delete":
                return await self._object("DELETE", path)
            case _:
                return await self._object("POST", f"{path}/{verb}", body or {})

    async def batch(self, id_: str) -> Json:
        """``GET /batches/{id}``."""
        return await self._object("GET", f"/batches/{_part(id_)}")

    async def find(self, query: Mapping[str, list[str]], cursor: str | None, limit: int) -> Json:
        """``GET /messages``."""
        return await self._object("GET", "/messages", None, _page(query, cursor, limit))

    async def act(self, body: Json, dry_run: bool) -> Json:
        """``POST /messages/actions``."""
        return await self._object("POST", "/messages/actions", body, {"dry_run": "true"} if dry_run else {})

    async def account(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One account: get, put, delete, pause, resume, probe, test, queue."""
        path = f"/accounts/{_part(name)}"
        if verb in {"get", "put", "delete"}:
            return await self._object(verb.upper(), path, body)
        if verb == "queue":
            return await self._object("GET", f"{path}/queue")
        return await self._object("POST", f"{path}/{verb}", body or {})

    async def accounts(self, cursor: str | None, limit: int) -> Json:
        """``GET /accounts``."""
        return await self._object("GET", "/accounts", None, _page({}, cursor, limit))

    async def limit(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One limit: get, put, delete."""
        return await self._object(verb.upper(), f"/limits/{_part(name)}", body)

    async def limits(self) -> list[Json]:
        """``GET /limits``."""
        return list((await self._object("GET", "/limits"))["items"])

    async def queue(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One queue: put, pause, resume, empty, clean."""
        path = f"/queues/{_part(name)}"
        if verb == "put":
            return await self._object("PUT", path, body)
        return await self._object("DELETE" if verb == "empty" else "POST", f"{path}/{verb}", body)

    async def queues(self) -> Json:
        """``GET /queues/status``."""
        return await self._object("GET", "/queues/status")

    async def template(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One template: get, put, delete, preview."""
        path = f"/templates/{_part(name)}"
        if verb == "preview":
            return await self._object("POST", f"{path}/preview", body or {})
        return await self._object(verb.upper(), path, body)

    async def templates(self) -> list[Json]:
        """``GET /templates``."""
        return list((await self._object("GET", "/templates"))["items"])

    async def overview(self) -> Json:
        """``GET /stats/overview``."""
        return await self._object("GET", "/stats/overview")

    async def events(
        self, types: frozenset[str] | None, query: Mapping[str, str | None]
    ) -> AsyncIterator[Event]:
        """``GET /events``, taken up again after a cut where it stopped, for as long as somebody listens."""
        wanted = {name: value for name, value in query.items() if value is not None}
        if types:
            wanted["types"] = ",".join(sorted(types))
        last, failures = "", 0
        while True:
            try:
                async with contextlib.aclosing(self._stream(wanted, last)) as stream:
                    async for event in stream:
                        failures = 0
                        if event is not None:
                            last = event.id or last
                            yield event
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if failures == 0 and not last:
                    raise UnreachableError(f"no answer from {self.address}: {_words(error)}") from error
            await asyncio.sleep(_AGAIN[min(failures, len(_AGAIN) - 1)])
            failures += 1

    async def _stream(self, query: Query, last: str) -> AsyncGenerator[Event | None, None]:
        """The frames of one connection; None first, when it stands."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        url = self._url("/events")
        async with self._open.get(url, params=query, headers=headers, timeout=_ENDLESS) as response:
            if response.status >= 400:
                raise await _refusal(response)
            yield None
            fields: dict[str, str] = {}
            async for raw in response.content:
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if line:
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
                    continue
                if "data" in fields:
                    yield Event(
                        fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
                    )
                fields = {}

    async def _object(
        self, method: str, path: str, body: Json | None = None, query: Query | None = None
    ) -> Json:
        """The JSON of one answer; an empty object for an empty one."""
        try:
            async with self._open.request(method, self._url(path), json=body, params=query) as response:
                if response.status >= 400:
                    raise await _refusal(response)
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"no answer from {self.address}: {_words(error)}") from error
        answer: Json = json.loads(raw) if raw else {}
        return answer

    def _url(self, path: str) -> URL:
        return URL(f"{self.address}/api/v1{path}", encoded=True)

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is closed")
        return self._session


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    try:
        body = json.loads(await response.read())
    except ValueError:
        body = None
    if response.status == 401 and not (body or {}).get("detail"):
        return RefusedError("the server does not know this key")
    return error_of(response.status, body, response.headers.get("Retry-After"))


def _page(query: Mapping[str, list[str]], cursor: str | None, limit: int) -> dict[str, Any]:
    more: dict[str, Any] = (
        {"limit": str(limit)} if cursor is None else {"limit": str(limit), "cursor": cursor}
    )
    return {**query, **more}


def _part(text: str) -> str:
    return quote(text, safe="")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
