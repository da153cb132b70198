"""Who crashed the process: messages that were under way at several crashes are tried apart from one another.

A message whose hand-over was open when the process ended is a suspect. One crash says little: it is sent again at
once, with all others. Whoever was under way at the next crash as well goes one at a time from then on, and for the
first seconds after the start with nothing beside it: so the one that ends the process again is known, and whoever
comes back from its call is cleared.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence

import msgspec
import structlog

from paceline.engine.attempts import Ended
from paceline.engine.dispatcher import Dispatcher
from paceline.engine.happenings import Happenings
from paceline.model.ids import to_text
from paceline.model.nodes import EVERY_PARTITION, partition_of_flow
from paceline.model.states import WAITING
from paceline.pacing.settle import WITHHELD
from paceline.stores.base import Attempt, Document, Store

CRASH, QUARANTINED = "crash", "quarantined"
"""The codes of a call that a crash cut off, and of the last one that a message had."""
MOST_CRASHES = 3
"""At so many crashes in a row during its calls a message is not sent again by itself."""
APART_FROM = 2
"""From so many crashes on a message is tried one at a time."""
ALONE_S = 5.0
"""How long after a start nothing goes beside suspects: bounds what a slow one can hold up."""
TEXT = "the process ended before the provider's answer was known"
KIND = "crash"
SLICE = 1000

log = structlog.get_logger("paceline.suspects")


def crashes_in_a_row(lines: Iterable[Attempt]) -> int:
    """How many of a message's last calls a crash cut off; `lines` is its journal, oldest first.

    A call that ended in any other way clears it, and so does an ending: who revives a message trusts it again.
    """
    count = 0
    for line in lines:
        if line.finished is None or line.outcome == WITHHELD:
            continue  # under way, or never begun
        count = count + 1 if line.code == CRASH and line.text == TEXT else 0
    return count


async def crashes_of(store: Store, ids: Sequence[int]) -> dict[int, int]:
    """Crashes in a row of each of these messages."""
    found: dict[int, int] = {}
    for start in range(0, len(ids), SLICE):
        part = ids[start : start + SLICE]
        journals: dict[int, list[Attempt]] = {id_: [] for id_ in part}
        for line in await store.attempts(part):
            journals[line.message].append(line)
        found |= {id_: crashes_in_a_row(lines) for id_, lines in journals.items()}
    return found


async def known_suspects(store: Store, owned: Collection[int] = EVERY_PARTITION) -> list[int]:
    """Messages of earlier crashes that still wait for their turn to be tried apart, in the partitions `owned`."""
    kept: list[int] = []
    for document in await store.documents(KIND):
        kept += msgspec.json.decode(document.body, type=list[int])
    if not kept:
        return []
    crashes = await crashes_of(store, kept)
    rows = [row for row in await store.get(kept) if row.state in WAITING]
    waiting = [row.id for row in rows if partition_of_flow(row.flow) in owned]
    return [id_ for id_ in waiting if crashes[id_] >= APART_FROM]


async def remember(store: Store, ids: Sequence[int], now: int, slot: int = 0) -> None:
    """Make durable whom to look at after the next crash; the journal knows how often each was met by one."""
    body = msgspec.json.encode(list(ids)).decode()
    name = f"suspects-{slot}" if slot else "suspects"  # each node has a list of its own
    await store.put([Document(KIND, "", name, body, now)])


class Suspects:
    """Keeps them apart while they are tried."""

    def __init__(self, dispatcher: Dispatcher, happenings: Happenings) -> None:
        """Nobody is suspected yet."""
        self._dispatcher = dispatcher
        self._agenda = dispatcher.agenda
        self._happenings = happenings
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> frozenset[int]:
        """Those that have not come back from a call yet."""
        return frozenset(self._agenda.scopes.suspects)

    def begin(self, ids: Iterable[int]) -> None:
        """Before the first send: these go one at a time, and for `ALONE_S` nothing else goes."""
        scopes = self._agenda.scopes
        scopes.suspects.update(ids)
        if not scopes.suspects:
            return
        log.warning(
            "messages that were under way at two crashes are tried one at a time",
            messages=[to_text(id_) for id_ in sorted(scopes.suspects)[:20]], count=len(scopes.suspects),
        )  # fmt: skip
        scopes.others.paused = True
        self._agenda.regate()
        self.stop()
        if self._ended not in self._happenings.when_settled:
            self._happenings.when_settled.append(self._ended)
        self._timer = asyncio.get_running_loop().call_later(ALONE_S, self._let_others_go)

    def forget(self) -> None:
        """Nobody is suspected here any more: others have this node's messages."""
        self._agenda.scopes.suspects.clear()
        if self._ended in self._happenings.when_settled:
            self._happenings.when_settled.remove(self._ended)
        self._let_others_go()

    def stop(self) -> None:
        """Forget the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ended(self, ended: Sequence[Ended]) -> None:
        """Who comes back from a call did not end the process."""
        suspects = self._agenda.scopes.suspects
        suspects.difference_update(each.message.id for each in ended if each.outcome is not None)
        if not suspects:
            self._happenings.when_settled.remove(self._ended)
            self._let_others_go()
            self._agenda.regate()

    def _let_others_go(self) -> None:
        self.stop()
        others = self._agenda.scopes.others
        others.paused = False
        self._agenda.stir(others)
        self._dispatcher.wake()
