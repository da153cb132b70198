"""Many senders, few calls: single messages are added to the store together, without anyone waiting for it.

A call begins with the first message of a turn of the event loop and with every few more, so that the store is
already at work on some while others are still being read and checked. Calls that end together, because they
shared a commit, are told of together.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from paceline.engine.intake import Prepared
from paceline.model.messages import Added

log = structlog.get_logger("paceline.engine")

EAGER = 16
"""Messages that are worth a call of their own before the turn of the event loop is over."""

Then = Callable[[Prepared, Added | BaseException], None]
"""Told what became of a message: that it is on disk, or why it is not."""
Waiting = list[tuple[Prepared, Then]]


class Gatherer:
    """Adds prepared messages to the store in as few calls as possible, and as soon as possible."""

    def __init__(
        self,
        begin: Callable[[Sequence[Prepared]], "asyncio.Future[list[Added]]"],
        added: Callable[[Sequence[Prepared], Sequence[Added]], None],
    ) -> None:
        """`begin` starts to store a batch; `added` is told what is on disk before any sender is."""
        self._begin = begin
        self._added = added
        self._waiting: Waiting = []
        self._stored: list[tuple[Waiting, Sequence[Added]]] = []

    def add(self, prepared: Prepared) -> "asyncio.Future[Added]":
        """A future that is done once the message is on disk."""
        future: asyncio.Future[Added] = asyncio.get_running_loop().create_future()
        self.give(prepared, partial(_resolve, future))
        return future

    def give(self, prepared: Prepared, then: Then) -> None:
        """Call `then` once the message is on disk."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        waiting.append((prepared, then))
        if len(waiting) >= EAGER:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        try:
            self._begin([prepared for prepared, _ in batch]).add_done_callback(partial(self._done, batch))
        except Exception as error:  # noqa: BLE001 - each sender gets it as its own
            _fail(batch, error)

    def _done(self, batch: Waiting, stored: "asyncio.Future[list[Added]]") -> None:
        error = stored.exception()
        if error is not None:
            _fail(batch, error)
            return
        if not self._stored:
            # The others of the same commit are done in this turn of the loop: they stand in line before it.
            asyncio.get_running_loop().call_soon(self._tell_stored)
        self._stored.append((batch, stored.result()))

    def _tell_stored(self) -> None:
        stored, self._stored = self._stored, []
        waiting = [each for batch, _ in stored for each in batch]
        answers = [each for _, answers in stored for each in answers]
        self._added([prepared for prepared, _ in waiting], answers)
        for (prepared, then), answer in zip(waiting, answers, strict=True):
            _tell(then, prepared, answer)


def _fail(batch: Waiting, error: BaseException) -> None:
    for prepared, then in batch:
        _tell(then, prepared, error)


def _tell(then: Then, prepared: Prepared, answer: Added | BaseException) -> None:
    try:
        then(prepared, answer)
    except Exception:
        log.exception("a sender could not be told", message=prepared.row.id)  # the others must be


def _resolve(future: "asyncio.Future[Added]", _prepared: Prepared, answer: Added | BaseException) -> None:
    if future.done():  # its sender may have gone away
        return
    if isinstance(answer, BaseException):
        future.set_exception(answer)
    else:
        future.set_result(answer)
