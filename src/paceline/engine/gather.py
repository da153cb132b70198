"""Many senders, few calls: single messages are added to the store together, without anyone waiting for it.

A call begins with the first message of a turn of the event loop and with every few more, so that the store is
already at work on some while others are still being read and checked.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from paceline.engine.intake import Prepared
from paceline.model.messages import Added

EAGER = 16
"""Messages that are worth a call of their own before the turn of the event loop is over."""

Waiting = list[tuple[Prepared, "asyncio.Future[Added]"]]


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

    def add(self, prepared: Prepared) -> "asyncio.Future[Added]":
        """A future that is done once the message is on disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Added] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((prepared, future))
        if len(self._waiting) >= EAGER:
            self._flush()
        return future

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
        answers = stored.result()
        self._added([prepared for prepared, _ in batch], answers)
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():  # its sender may have gone away
                future.set_result(answer)


def _fail(batch: Waiting, error: BaseException) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
