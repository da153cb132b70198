"""What the disk experiments take out of the server, one guard each; and a small log, so that a short run sees all."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from paceline.engine import secrets
from paceline.engine.dispatcher import Dispatcher
from paceline.model.errors import UnavailableError
from paceline.model.messages import Added, HandedOver, Mark
from paceline.pacing.lane import Release
from paceline.stores import sqlite_checkpoint, sqlite_schema, sqlite_writer
from paceline.stores.base import StoredMessage
from paceline.stores.sqlite_writer import Call, Kind, Writer


def small_log() -> None:
    """No break: checkpoints and new logs come after dozens of pages, not thousands."""
    sqlite_checkpoint.PAGES = sqlite_writer.PAGES = 200
    sqlite_writer._IDLE_CHECKPOINT_PAGES = 50
    sqlite_checkpoint.RESTART_PAGES = sqlite_writer.RESTART_PAGES = 400


def _synchronous(how: str) -> None:
    small_log()
    for module in (sqlite_schema,):
        usual = module._set_up_writer

        def set_up(connection: Any, usual: Callable[[Any], None] = usual) -> None:
            usual(connection)
            connection.pragma("synchronous", how)

        module._set_up_writer = set_up


def _mark_not_flushed() -> None:
    small_log()
    usual = Writer._transact

    def transact(self: Writer, calls: Sequence[Call]) -> Exception | None:
        marks = all(call.kind in {Kind.HAND_OVER, Kind.SETTLE} for call in calls)
        self._session.connection.pragma("synchronous", "normal" if marks else "full")
        return usual(self, calls)

    Writer._transact = transact


def _ack_before_commit() -> None:
    small_log()
    usual = Writer.submit

    def submit(self: Writer, kind: Kind, work: Any, rows: int) -> asyncio.Future[Any]:
        future = usual(self, kind, work, rows)
        if kind is not Kind.ADD:
            return future
        early: asyncio.Future[Any] = self._loop.create_future()
        early.set_result([Added(row.id) for row in work.rows])
        return early

    Writer.submit = submit


def _call_without_mark() -> None:
    """What could not be marked is called all the same, as often as it is given out."""
    usual = Dispatcher._hand_over

    async def hand_over(self: Dispatcher, released: Sequence[Release], now: int) -> None:
        async def mark(marks: Sequence[Mark], now: int) -> list[HandedOver]:
            try:
                return await store(marks, now)
            except UnavailableError:
                rows = {row.id: row for row in await self.store.get([m.id for m in marks])}
                return [_as_handed_over(rows[m.id], m) for m in marks if m.id in rows]

        store = type(self.store).hand_over.__get__(self.store)
        self.store.hand_over = mark
        await usual(self, released, now)

    Dispatcher._hand_over = hand_over


def _as_handed_over(row: StoredMessage, mark: Mark) -> HandedOver:
    same = {name: getattr(row, name) for name in HandedOver.__struct_fields__ if hasattr(row, name)}
    return HandedOver(**(same | {"account": mark.account, "number": row.number + 1}))


def _names_not_flushed() -> None:
    small_log()
    secrets._flush_names = lambda _folder: None


def _errors_are_success() -> None:
    small_log()
    usual = Writer._serve

    def serve(self: Writer, calls: list[Call]) -> None:
        usual(self, calls)
        for call in calls:
            if call.kind is Kind.ADD and isinstance(call.answer, Exception):
                call.answer = [Added(row.id) for row in call.work.rows]

    Writer._serve = serve


def _no_going_on() -> None:
    usual = Writer._transact
    broken: list[Exception] = []

    def transact(self: Writer, calls: Sequence[Call]) -> Exception | None:
        if not broken and (error := usual(self, calls)) is not None:
            broken.append(error)
        return broken[0] if broken else None

    Writer._transact = transact


BREAKS: dict[str, Callable[[], None]] = {
    "small-log": small_log,
    "flush-never": lambda: _synchronous("off"),
    "flush-at-checkpoints": lambda: _synchronous("normal"),
    "mark-not-flushed": _mark_not_flushed,
    "call-without-mark": _call_without_mark,
    "errors-are-success": _errors_are_success,
    "no-going-on": _no_going_on,
    "names-not-flushed": _names_not_flushed,
    "ack-before-commit": _ack_before_commit,
}
