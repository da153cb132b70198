"""The client's calls inside one process: the engine itself, without HTTP between."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paceline.client_link import Json
from paceline.client_types import Event, Handlers, RefusedError
from paceline.config import Settings

if TYPE_CHECKING:
    from paceline.engine.keys import Caller
    from paceline.engine.service import Service


class EmbeddedLink:
    """A store that this process owns while the client is open."""

    def __init__(self, settings: Settings, handlers: Handlers) -> None:
        """Open nothing yet; `handlers` may still grow until then."""
        self._settings = settings
        self._handlers = handlers
        self._service: Service | None = None
        self._caller: Caller | None = None

    async def open(self) -> None:
        """Open the store, recover what a crash left, and start to send."""
        from paceline import wiring
        from paceline.engine.keys import Caller

        self._quiet()
        self._caller = Caller(tenant=None, role="admin", name="embedded")
        self._service = await wiring.open_service(self._settings, self._handlers)

    def _quiet(self) -> None:
        """Leave an application's own logging alone; without any, log warnings to standard error, no chatter."""
        import structlog

        from paceline.observe import configure_logging

        if not structlog.is_configured():
            chosen = self._settings.origin("log_level") != "default"
            configure_logging(self._settings.log_level if chosen else "warning", self._settings.log_format)

    async def close(self) -> None:
        """Let calls in flight finish, and give the store back."""
        service, self._service = self._service, None
        if service is not None:
            await service.close(self._settings.grace)

    async def submit(self, body: Json, wait: float | None) -> Json:
        """Take one message in."""
        service, caller = self._parts()
        with _translated():
            receipt = await service.messages.submit(caller, body)
            if wait is not None:
                ended = await service.messages.wait(receipt.id, wait)
                if ended is not None:
                    return {**ended, "duplicate": receipt.duplicate}
            eta, why = service.messages.outlook(receipt)
            return {
                "id": receipt.id,
                "state": receipt.state,
                "eta": eta,
                "why": why,
                "duplicate": receipt.duplicate,
            }

    async def submit_batch(self, bodies: Sequence[Json], defaults: Json) -> Json:
        """Take many in."""
        service, caller = self._parts()
        with _translated():
            return await service.messages.submit_batch(caller, list(bodies), defaults)

    async def wait(self, id_: str, seconds: float) -> Json | None:
        """The whole message once it has ended."""
        service, caller = self._parts()
        with _translated():
            await service.messages.get(caller, id_)  # so that an unknown id is an error, not patience
            return await service.messages.wait(id_, seconds)

    async def message(self, verb: str, id_: str, body: Json | None = None) -> Json:
        """One message: get, why, trace, patch, retry, cancel, settle, delete."""
        service, caller = self._parts()
        with _translated():
            match verb:
                case "get" | "why" | "trace":
                    return await _call(service.messages, verb, caller, id_)
                case "patch":
                    return await service.actions.patch(caller, id_, body or {})
                case "settle":
                    return await service.actions.settle(caller, id_, (body or {}).get("as"))
                case _:
                    return await _call(service.actions, verb, caller, id_)

    async def batch(self, id_: str) -> Json:
        """How far a batch is."""
        service, caller = self._parts()
        with _translated():
            return await service.messages.batch(caller, id_)

    async def find(self, query: Mapping[str, list[str]], cursor: str | None, limit: int) -> Json:
        """A page of messages."""
        service, caller = self._parts()
        with _translated():
            return await service.messages.find(caller, query, cursor, limit)

    async def act(self, body: Json, dry_run: bool) -> Json:
        """One action on many messages."""
        service, caller = self._parts()
        with _translated():
            return await service.actions.act(caller, body, dry_run)

    async def account(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One account: get, put, delete, pause, resume, probe, test, queue."""
        service, caller = self._parts()
        given = (body or {},) if verb in {"put", "test"} else ()
        with _translated():
            if verb == "queue":
                return await service.queues.account_queue(caller, name)
            return await _call(service.accounts, verb, caller, name, *given)

    async def accounts(self, cursor: str | None, limit: int) -> Json:
        """A page of accounts."""
        service, caller = self._parts()
        with _translated():
            return await service.accounts.list(caller, cursor, limit)

    async def limit(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One limit: get, put, delete."""
        service, caller = self._parts()
        given = (body or {},) if verb == "put" else ()
        with _translated():
            return await _call(service.limits, verb, caller, name, *given)

    async def limits(self) -> list[Json]:
        """Every limit."""
        service, caller = self._parts()
        with _translated():
            found: Any = await service.limits.list(caller)
        return list(found["items"] if isinstance(found, dict) else found)

    async def queue(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One queue: put, pause, resume, empty, clean."""
        service, caller = self._parts()
        queues, given = service.queues, body or {}
        with _translated():
            match verb:
                case "put":
                    return await queues.put(caller, name, given)
                case "clean":
                    return await queues.clean(caller, name, given["grace"], given["type"])
                case _:
                    return await _call(queues, verb, caller, name)

    async def queues(self) -> Json:
        """Counts of every queue."""
        service, caller = self._parts()
        with _translated():
            return await service.queues.status(caller)

    async def template(self, verb: str, name: str, body: Json | None = None) -> Json:
        """One template: get, put, delete, preview."""
        service, caller = self._parts()
        given = (body or {},) if verb in {"put", "preview"} else ()
        with _translated():
            return await _call(service.templates, verb, caller, name, *given)

    async def templates(self) -> list[Json]:
        """Every template."""
        service, caller = self._parts()
        with _translated():
            found: Any = await service.templates.list(caller)
        return list(found["items"] if isinstance(found, dict) else found)

    async def overview(self) -> Json:
        """Totals and rates."""
        service, caller = self._parts()
        with _translated():
            return await service.watch.overview(caller)

    async def events(
        self, types: frozenset[str] | None, query: Mapping[str, str | None]
    ) -> AsyncIterator[Event]:
        """What happens from now on."""
        service, caller = self._parts()
        with _translated():
            stream = service.watch.subscribe(
                caller,
                set(types) if types else None,
                query.get("queue"),
                query.get("account"),
                query.get("campaign"),
                None,
            )
            try:
                async for event in stream:
                    if event is not None:
                        yield Event(str(event.id), event.type, event.data)
            finally:
                close = getattr(stream, "aclose", None)
                if close is not None:
                    await close()

    def _parts(self) -> "tuple[Service, Caller]":
        if self._service is None or self._caller is None:
            raise RuntimeError("the client is closed")
        return self._service, self._caller


async def _call(noun: object, verb: str, *args: Any) -> Json:
    """One verb of the engine; an empty object where it answers nothing."""
    answer: Json | None = await getattr(noun, verb)(*args)
    return {} if answer is None else answer


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """The engine's refusal of a role, as the client names it."""
    from paceline.engine.keys import DeniedError

    try:
        yield
    except DeniedError as error:
        raise RefusedError(str(error)) from error
