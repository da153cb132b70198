"""What people and programs do with messages: send, look, wait, change."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from paceline.engine.attempts import Ended
from paceline.engine.core import Core
from paceline.engine.gather import Gatherer, Then
from paceline.engine.intake import Prepared
from paceline.engine.keys import Caller
from paceline.engine.outlook import reason_view
from paceline.engine.queries import parse_query
from paceline.engine.reading import read_message, whole_view
from paceline.engine.views import message_view, time_or_none, trace_view
from paceline.model import checks, ids
from paceline.model.errors import ConflictError, InvalidError, NotFoundError, Problem
from paceline.model.messages import Added, FlowKey
from paceline.model.states import ENDED, State
from paceline.stores.base import Filter, StoredMessage

MAX_BATCH = 10_000
LOOK_S = 0.5
"""How often somebody who waits for a message looks at it where another node may send it."""
CHUNK = 1000
"""Messages of a batch that are looked at before others get their turn."""
_LABELS = {int(state): state.label for state in State}
_FINAL = ENDED | {State.UNCERTAIN}


class Receipt(msgspec.Struct, frozen=True):
    """The answer to a sender, given after the message is on disk."""

    id: str
    state: str
    duplicate: bool = False
    new: Prepared | None = None


class Messages:
    """The verbs of messages."""

    def __init__(self, core: Core) -> None:
        """`core` holds the parts of the engine."""
        self._core = core
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._gatherer = Gatherer(self._begin, self._arrived)
        core.happenings.when_settled.append(self._settled)
        core.happenings.when_ended.append(self._over)

    # -- sending

    async def submit(self, caller: Caller, body: Mapping[str, Any]) -> Receipt:
        """Take one message in; it is on disk when this returns.

        Raises:
            InvalidError: the body is wrong; every problem is named.
            ConflictError: the idempotency key was used with another body.
        """
        core = self._core
        prepared = core.intake.prepare(body, self._tenant(caller, body), core.clock.now())
        added = await self._gatherer.add(prepared)
        row = prepared.row
        if added.duplicate:
            self.must_match(row.fingerprint, added)
            known = await core.store.get([added.id])
            return Receipt(
                ids.to_text(added.id), State(known[0].state).label if known else "completed", duplicate=True
            )
        return self.receipt(prepared)

    def take(self, caller: Caller, body: Mapping[str, Any], then: Then) -> None:
        """Begin to take one message in; `then` is called once it is on disk, or turns out to be there already.

        Raises:
            InvalidError: the body is wrong; every problem is named, and `then` is not called.
        """
        core = self._core
        self._gatherer.give(core.intake.prepare(body, self._tenant(caller, body), core.clock.now()), then)

    def receipt(self, prepared: Prepared) -> Receipt:
        """The answer for a message that was new."""
        return Receipt(ids.to_text(prepared.row.id), _LABELS[prepared.row.state], new=prepared)

    async def submit_batch(
        self, caller: Caller, bodies: Sequence[Any], defaults: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take up to 10,000 messages in. Bad ones are reported by index and hold nothing back.

        The good ones are stored together: all of them are on disk, or, whatever happens, none is.

        Raises:
            InvalidError: the batch as a whole is wrong (empty, too many, defaults that are no object).
        """
        if not 1 <= len(bodies) <= MAX_BATCH:
            raise InvalidError(
                [Problem("/messages", f"must hold 1 to {MAX_BATCH:,} messages, not {len(bodies):,}")]
            )
        if defaults is not None and not isinstance(defaults, Mapping):
            raise InvalidError([Problem("/defaults", "must be an object")])
        core = self._core
        batch = core.ids.next(core.clock.now())
        accepted: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        prepared: list[tuple[int, Prepared]] = []
        for index, body in enumerate(bodies):
            try:
                prepared.append((index, self._prepare(caller, body, defaults, batch)))
            except InvalidError as error:
                rejected.append({"index": index, "errors": problems_view(error)})
            if index % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        await self._add_batch(prepared, accepted, rejected)
        return {"batch": ids.to_text(batch), "accepted": accepted, "rejected": rejected}

    def _prepare(self, caller: Caller, body: Any, defaults: Mapping[str, Any] | None, batch: int) -> Prepared:
        if isinstance(body, list) and body and isinstance(body[0], Problem):
            raise InvalidError(body)
        if not isinstance(body, dict):
            raise InvalidError([Problem("", "must be an object")])
        if defaults:
            body = {**defaults, **body}
        core = self._core
        return core.intake.prepare(body, self._tenant(caller, body), core.clock.now(), batch)

    async def _add_batch(
        self,
        prepared: list[tuple[int, Prepared]],
        accepted: list[dict[str, Any]],
        rejected: list[dict[str, Any]],
    ) -> None:
        if not prepared:
            return
        answers = await self.add_all([each for _, each in prepared])
        for (index, each), added in zip(prepared, answers, strict=True):
            try:
                if added.duplicate:
                    self.must_match(each.row.fingerprint, added)
            except ConflictError as error:
                rejected.append(
                    {"index": index, "errors": [{"field": "/idempotency_key", "problem": str(error)}]}
                )
                continue
            item: dict[str, Any] = {"index": index, "id": ids.to_text(added.id)}
            if added.duplicate:
                item["duplicate"] = True
            accepted.append(item)

    async def add_all(self, prepared: Sequence[Prepared]) -> list[Added]:
        """Store messages that passed every check, all or, whatever happens, none; one answer each, in order."""
        answers = await self._begin(prepared)
        self._arrived(prepared, answers)
        return answers

    def _begin(self, prepared: Sequence[Prepared]) -> "asyncio.Future[list[Added]]":
        core = self._core
        flows = {p.row.flow: p.flow for p in prepared if p.row.flow not in core.gates.keys}
        return core.store.add([p.row for p in prepared], list(flows.values()), core.clock.now())

    def _arrived(self, prepared: Sequence[Prepared], answers: Sequence[Added]) -> None:
        pairs = zip(prepared, answers, strict=True)
        self._core.arrived([(each.row, each.flow) for each, added in pairs if not added.duplicate])

    def must_match(self, fingerprint: str | None, added: Added) -> None:
        """Refuse a key that was known, and stood for another body."""
        if added.fingerprint != fingerprint:
            raise ConflictError(
                f"this idempotency key was used for message {ids.to_text(added.id)} with another body; "
                "use a new key for a new message"
            )

    def _tenant(self, caller: Caller, body: Mapping[str, Any]) -> str:
        wanted = body.get("tenant")
        if wanted is None:
            return caller.own
        try:
            tenant = checks.check_name(wanted)
        except ValueError as error:
            raise InvalidError([Problem("/tenant", str(error))]) from None
        if not caller.sees(tenant):
            raise InvalidError(
                [Problem("/tenant", "this key belongs to another tenant; leave the field out")]
            )
        return tenant

    # -- looking

    async def get(self, caller: Caller, id_: str) -> dict[str, Any]:
        """One message in full.

        Raises:
            NotFoundError: there is none, or it is another tenant's.
        """
        return await whole_view(self._core, await read_message(self._core, caller, id_))

    def outlook(self, receipt: Receipt) -> tuple[str | None, list[dict[str, Any]]]:
        """Moment and reasons for a message that was just taken in, without asking the store."""
        if receipt.new is None:
            return None, []
        eta, reasons = self._core.outlook.first(receipt.new.row, receipt.new.flow)
        return time_or_none(eta), [reason_view(reason) for reason in reasons]

    async def why(self, caller: Caller, id_: str) -> dict[str, Any]:
        """Why a message waits, and when it goes."""
        row = await read_message(self._core, caller, id_)
        eta, reasons = await self._core.outlook.of(row, self._core.flow_key(row))
        return {
            "id": id_,
            "state": State(row.state).label,
            "eta": time_or_none(eta),
            "reasons": [reason_view(reason) for reason in reasons],
        }

    async def trace(self, caller: Caller, id_: str) -> dict[str, Any]:
        """Where a message's time went."""
        row = await read_message(self._core, caller, id_)
        callback = None
        if row.callback_url:
            found = await self._core.store.find(
                Filter(source=(f"callback:{id_}",), tenant=(row.tenant,)), None, 1
            )
            callback = found[0] if found else None
        return trace_view(row, await self._core.store.attempts([row.id]), callback)

    async def batch(self, caller: Caller, id_: str) -> dict[str, Any]:
        """How far a batch is: counts by state, progress 0-100, and when the last one goes."""
        number = ids.from_text(id_)
        wanted = Filter(
            batch=(number,) if number is not None else (-1,), tenant=(caller.tenant,) if caller.tenant else ()
        )
        counts = await self._core.store.count(wanted)
        total = sum(counts.values())
        if not total:
            raise NotFoundError(f"there is no batch '{id_[:40]}'")
        ended = sum(n for state, n in counts.items() if State(state) in _FINAL)
        waiting = msgspec.structs.replace(wanted, state=(State.PENDING, State.SCHEDULED, State.RETRYING))
        last = await self._core.store.find(waiting, None, 1)
        await self._core.know(row.flow for row in last)
        eta = (await self._core.outlook.of(last[0], self._core.flow_key(last[0])))[0] if last else None
        return {
            "id": id_,
            "total": total,
            "counts": {state.label: counts.get(state, 0) for state in State},
            "progress": round(100 * ended / total, 1),
            "eta": time_or_none(eta),
        }

    async def find(
        self, caller: Caller, query: Mapping[str, Sequence[str]], cursor: str | None, limit: int
    ) -> dict[str, Any]:
        """A page of messages, newest first.

        Raises:
            InvalidError: an unknown filter, or a cursor that is not one of ours.
        """
        before = None
        if cursor is not None:
            before = ids.from_text(cursor)
            if before is None:
                raise InvalidError([Problem("/cursor", "is not a cursor of this list")])
        rows = await self._core.store.find(
            parse_query(query, caller, self._core.directory.accounts), before, limit + 1
        )
        more = len(rows) > limit
        rows = rows[:limit]
        items = [message_view(row, self._core.progress.get(row.id)) for row in rows]
        return {"items": items, "next": ids.to_text(rows[-1].id) if more else None}

    async def export(
        self, caller: Caller, query: Mapping[str, Sequence[str]]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """All matching messages, a page at a time."""
        async for page in self._core.store.export(parse_query(query, caller, self._core.directory.accounts)):
            yield [message_view(row) for row in page]

    # -- waiting for the end

    async def wait(self, id_: str, seconds: float) -> dict[str, Any] | None:
        """The whole message once it has ended (or its outcome turned out uncertain); None when time is up."""
        number = ids.from_text(id_)
        if number is None:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(number, []).append(future)
        try:
            rows = await self._core.store.get([number])
            if rows and State(rows[0].state) not in _FINAL:
                async with asyncio.timeout(seconds):
                    rows = await self._until_final(number, future)
            await self._core.know(row.flow for row in rows)
            return await whole_view(self._core, rows[0]) if rows else None
        except TimeoutError:
            return None
        finally:
            waiting = self._waiters.get(number, [])
            waiting.remove(future)
            if not waiting:
                self._waiters.pop(number, None)

    async def _until_final(self, number: int, told: "asyncio.Future[None]") -> list[StoredMessage]:
        """The message as it ended. Of one that another node sends nobody tells here: then it is looked at."""
        if self._core.store.nodes is None:
            await told
            return await self._core.store.get([number])
        while True:
            await asyncio.wait([told], timeout=LOOK_S)
            rows = await self._core.store.get([number])
            if told.done() or not rows or State(rows[0].state) in _FINAL:
                return rows

    def _settled(self, ended: Sequence[Ended]) -> None:
        if self._waiters:
            for each in ended:
                if each.verdict.settlement.state in _FINAL:
                    self._over(each.message.id)

    def _over(self, number: int) -> None:
        for future in self._waiters.get(number, ()):
            if not future.done():
                future.set_result(None)


def problems_view(error: InvalidError) -> list[dict[str, str]]:
    """Problems as JSON."""
    return [{"field": each.field, "problem": each.problem} for each in error.problems]


__all__ = ["FlowKey", "Messages", "Receipt", "problems_view"]
