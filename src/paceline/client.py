"""What an application imports: the same calls to a server over HTTP, and to an engine inside the process.

    async with Paceline("http://127.0.0.1:8080", key="pk_...") as app:
        receipt = await app.send(channel="smtp", to="ada@example.com", subject="Hello", text="It works")

    app = Paceline(data="data")  # the engine in this process, its store in this folder

Without an event loop the same calls are behind `app.sync`: `app.sync.send(...)`. Every refusal is an error of
`paceline.model.errors`; nothing was changed when one is raised.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from paceline.client_groups import Accounts, Limits, Queues, Templates
from paceline.client_link import Json, Link, body_of, texts_of
from paceline.client_sync import Sync
from paceline.client_types import Batch, Event, Message, Receipt, Why, batch_of, message_of, receipt_of
from paceline.config import Settings, load
from paceline.model.errors import InvalidError, PacelineError, Problem

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_SLICE: Final = 10_000

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Paceline:
    """A client. Use it as an async context manager, or let the first call open it and `close` it yourself."""

    def __init__(
        self,
        server: str | None = None,
        *,
        key: str | None = None,
        data: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """Connect to nothing yet.

        Args:
            server: address of a server; default: PACELINE_SERVER, else http://127.0.0.1:8080.
            key: its key; default: PACELINE_KEY.
            data: instead of a server: run the engine in this process, with its store in this folder.
            settings: settings of that engine by name, as in `paceline.config.Settings`.
        """
        self._handlers: dict[str, Callable[..., Any] | tuple[Callable[..., Any], bool]] = {}
        self._settings: Settings | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Lock | None = None
        self.accounts = Accounts(self._ready)
        self.limits = Limits(self._ready)
        self.queues = Queues(self._ready)
        self.templates = Templates(self._ready)
        if data is not None:
            if server is not None or key is not None:
                raise InvalidError(
                    [Problem("/data", "is for an engine in this process; leave server and key out")]
                )
            from paceline.client_embedded import EmbeddedLink

            self._settings = load({**settings, "data": data}, os.environ)
            self._link: Link = EmbeddedLink(self._settings, self._handlers)
            return
        if settings:
            raise InvalidError(
                [
                    Problem(f"/{name}", "is for an engine in this process: give data as well")
                    for name in settings
                ]
            )
        from paceline.client_http import HttpLink

        address = server or os.environ.get("PACELINE_SERVER") or DEFAULT_SERVER
        self._link = HttpLink(address, key or os.environ.get("PACELINE_KEY"))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, or open the store and start to send; the first call does it by itself."""
        await self._ready()

    async def close(self) -> None:
        """Close. An engine lets calls in flight finish first; what waits is on disk."""
        if self._loop is not None:
            self._loop = None
            await self._link.close()

    @cached_property
    def sync(self) -> Sync:
        """The same calls for code without an event loop: each waits for its answer."""
        return Sync(self)

    def handler(self, kind: str, *, repeat_is_safe: bool = False) -> Callable[[Handler], Handler]:
        """Make a function the handler of messages of a kind: `channel="handler"`, `kind=kind`.

        It gets a `paceline.Job` with `id`, `payload`, `metadata`, `number` and `progress(percent, step)`. It may
        be async; a plain one runs in a thread. What it returns is the message's result; what it raises is tried
        again (`paceline.Retry` says when, `paceline.Fail` says never).

        Args:
            kind: as the messages name it.
            repeat_is_safe: running it twice for one message does no harm. Then a message whose run was cut off,
                by its time-out or by a crash, is run again; otherwise it becomes uncertain and waits for a person.

        Raises:
            PacelineError: the client has no engine, or the engine is open already.
        """
        if self._settings is None:
            raise PacelineError("handlers run where the engine runs: make this client with data=FOLDER")
        if self._loop is not None:
            raise PacelineError("register handlers before the engine is opened")

        def register(function: Handler) -> Handler:
            self._handlers[kind] = (function, repeat_is_safe)
            return function

        return register

    def run(self) -> int:
        """Run the engine, its handlers and the HTTP server until Ctrl-C; answers the exit code."""
        if self._settings is None:
            raise PacelineError("only an engine in this process can run: make this client with data=FOLDER")
        if self._loop is not None:
            raise PacelineError("the engine runs in this process already")
        from paceline import wiring

        return int(wiring.serve(self._settings, self._handlers))

    async def send(
        self,
        *,
        channel: str,
        to: str | Sequence[str] | None = None,
        text: str | None = None,
        wait: float | None = None,
        **fields: Any,
    ) -> Receipt:
        """Take one message in. It is on disk when this returns.

        Args:
            channel: how to send: smtp, webhook, telegram-bot, handler...
            to: the recipient; several only for e-mail.
            text: the body, if it is plain text.
            wait: seconds to wait for its end, at most 60; the receipt then holds the whole message.
            fields: every other field of a message: subject, html, payload, template, variables, account, queue,
                priority, scheduled_at (text or datetime), delay, idempotency_key, metadata, kind...

        Raises:
            InvalidError: a field is wrong; each problem names one.
            ConflictError: the idempotency key was used for another body.
            UnavailableError: the server is away, or cannot write.
        """
        body = body_of({"channel": channel, "to": to, "text": text, **fields})
        return receipt_of(await (await self._ready()).submit(body, wait))

    async def send_many(self, messages: Iterable[Mapping[str, Any]], **defaults: Any) -> list[Batch]:
        """Take many messages in, a batch for each 10,000; a bad one is in `rejected` and holds nothing back."""
        link = await self._ready()
        bodies = [body_of(one) for one in messages]
        batches = []
        for start in range(0, len(bodies), _SLICE):
            made = batch_of(await link.submit_batch(bodies[start : start + _SLICE], body_of(defaults)))
            batches.append(made)
        return batches

    async def get(self, id: str) -> Message:  # noqa: A002 - what everybody calls it
        """One message in full."""
        return message_of(await (await self._ready()).message("get", id))

    async def why(self, id: str) -> list[Why]:  # noqa: A002 - as get
        """The chain of reasons why it waits; empty when it does not."""
        answer = await (await self._ready()).message("why", id)
        known = Why.__struct_fields__
        return [Why(**{k: v for k, v in one.items() if k in known}) for one in answer.get("reasons") or ()]

    async def trace(self, id: str) -> Json:  # noqa: A002 - as get
        """What happened to it, with times."""
        return await (await self._ready()).message("trace", id)

    async def wait(self, id: str, seconds: float = 60) -> Message:  # noqa: A002 - as get
        """The message once it has ended.

        Raises:
            TimeoutError: it has not, within that time; it is sent later all the same.
        """
        found = await (await self._ready()).wait(id, seconds)
        if found is None:
            raise TimeoutError(f"message {id} has not ended within {seconds:g} s")
        return message_of(found)

    async def retry(self, id: str) -> Message:  # noqa: A002 - as get
        """Send it again, or now instead of later."""
        return await self._changed("retry", id)

    async def cancel(self, id: str) -> Message:  # noqa: A002 - as get
        """Withdraw it before it is sent."""
        return await self._changed("cancel", id)

    async def change(self, id: str, **changes: Any) -> Message:  # noqa: A002 - as get
        """Change `priority`, `scheduled_at`, `account` or `expires_at` while it waits."""
        return await self._changed("patch", id, body_of(changes, keep_none=True))

    async def settle(self, id: str, outcome: str) -> Message:  # noqa: A002 - as get
        """Say what became of an uncertain one: completed, failed, or pending to send it again."""
        return await self._changed("settle", id, {"as": outcome})

    async def delete(self, id: str) -> None:  # noqa: A002 - as get
        """Remove one that has ended or waits."""
        await (await self._ready()).message("delete", id)

    async def find(self, *, limit: int | None = None, **filters: Any) -> AsyncGenerator[Message, None]:
        """The messages that match, the newest first: ``find(state="failed", queue=["email", "sms"])``."""
        query = {name: texts_of(value) for name, value in filters.items() if value is not None}
        cursor: str | None = None
        left = limit if limit is not None else -1
        link = await self._ready()
        while left:
            page = await link.find(query, cursor, 1000 if left < 0 else min(left, 1000))
            for one in page["items"]:
                yield message_of(one)
            left -= len(page["items"]) if left > 0 else 0
            cursor = page.get("next")
            if not cursor:
                return

    async def act(
        self, action: str, *, dry_run: bool = False, expect: int | None = None, **what: Any
    ) -> Json:
        """Retry, cancel, delete or patch many: `ids=[...]` or `filter={...}`, and `set={...}` for patch."""
        body = {"action": action, **what} | ({} if expect is None else {"expect": expect})
        return await (await self._ready()).act(body, dry_run)

    async def batch(self, id: str) -> Json:  # noqa: A002 - as get
        """How far a batch is: counts by state, progress, eta."""
        return await (await self._ready()).batch(id)

    async def overview(self) -> Json:
        """Totals, rates and times."""
        return await (await self._ready()).overview()

    async def events(
        self,
        *types: str,
        queue: str | None = None,
        account: str | None = None,
        campaign: str | None = None,
    ) -> AsyncGenerator[Event, None]:
        """What happens from now on, for as long as somebody listens: ``async for event in app.events()``."""
        link = await self._ready()
        query = {"queue": queue, "account": account, "campaign": campaign}
        stream = link.events(frozenset(types) or None, query)
        try:
            async for event in stream:
                yield event
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _changed(self, verb: str, id_: str, body: Json | None = None) -> Message:
        link = await self._ready()
        answer = await link.message(verb, id_, body)
        return message_of(answer if "state" in answer else await link.message("get", id_))

    async def _ready(self) -> Link:
        """The open link. It belongs to the event loop that opened it."""
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._opening is None:
            return self._link
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError(
                "this client was opened in another event loop; close it there, or make a second one"
            )
        if self._opening is None:
            self._opening = asyncio.Lock()
        opening = self._opening
        async with opening:
            if self._loop is None:
                await self._link.open()
                self._loop = loop
            self._opening = None
        return self._link


def send(
    *, channel: str, to: str | Sequence[str] | None = None, text: str | None = None, **fields: Any
) -> Receipt:
    """Send one message with one line, to the server of PACELINE_SERVER with the key of PACELINE_KEY.

    It blocks until the message is on disk; inside an event loop use ``await Paceline().send(...)``.
    """
    app = Paceline()
    try:
        receipt: Receipt = app.sync.send(channel=channel, to=to, text=text, **fields)
        return receipt
    finally:
        app.sync.close()
