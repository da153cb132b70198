"""How the wall clock was moved between runs, and what times that were written down before it mean on today's scale.

Within a run time never steps. Between two runs on one boot of the machine a move shows, and is remembered: what
the journal says of earlier runs has to be read on the scale of each run for as long as a window may need it.
"""

import msgspec
import structlog

from paceline.clock import NOISE_MS, Clock, boot_reading
from paceline.engine.audit_clock import step_document
from paceline.model.messages import AccountNote
from paceline.pacing.windows import NEVER
from paceline.stores.base import Document, Store

KEPT_MS = 32 * 86_400_000
"""A little longer than the longest window there is."""
MOST_MOVES = 100

log = structlog.get_logger("paceline.recovery")


class Move(msgspec.Struct, frozen=True):
    """The run that began at `began`, on its own scale, found the clock moved by `shift` milliseconds.

    A shift of 0 stands for a restart of the machine, of which nobody knows. `waits` are the flood waits noted by then, as (account, recipient, group, until): they are on older scales.
    """

    began: int
    shift: int
    waits: tuple[tuple[str, str, str, int], ...] = ()


class Moves(msgspec.Struct, frozen=True):
    """All moves that still matter, oldest first. `latest` is what the present run found, 0 for nothing."""

    moves: tuple[Move, ...] = ()
    latest: int = 0

    @property
    def reach(self) -> int:
        """How far, in milliseconds, a time that was written down may lie from where it belongs today."""
        return sum(abs(move.shift) for move in self.moves)

    def today(self, moment: int, now: int) -> int:
        """A moment of the journal on today's scale: where it may be of several runs, the latest it can be."""
        found: list[int] = []
        last, total, most = now, 0, 0
        for move in reversed(self.moves):
            if move.began <= moment <= last:
                found.append(moment + total)
            last = move.began - move.shift if move.shift else NEVER
            total += move.shift
            most = max(most, total)
        if moment <= last:
            found.append(moment + total)
        return min(max(found, default=moment + most), now)

    def wait(self, note: AccountNote) -> int:
        """When a flood wait is over, on today's scale."""
        until = note.flood_until or 0
        known = (note.account, note.recipient, note.group, until)
        return until + sum(move.shift for move in self.moves if known in move.waits)


class _Known(msgspec.Struct):
    boot: str
    offset: int
    moves: tuple[Move, ...] = ()


async def clock_moves(store: Store, clock: Clock) -> Moves:
    """What is known of moves of the wall clock; one since the last run on this boot is found out and kept."""
    found = [msgspec.json.decode(document.body, type=_Known) for document in await store.documents("clock")]
    known = found[0] if found else _Known("", 0)
    reading = boot_reading()
    if reading is None:
        return Moves(known.moves)
    boot, wall_offset = reading
    offset = wall_offset - clock.ahead()  # somebody may have set the wall clock since ours was anchored to it
    now = clock.now()
    shift = offset - known.offset if known.boot == boot else 0
    moves = known.moves
    if known.boot != boot:
        if found:
            moves = (*moves, Move(now, 0))
    elif abs(shift) <= NOISE_MS:
        offset -= shift  # the same as before: noise must not add up
        shift = 0
    else:
        log.warning("the wall clock was moved since the last run", ms=shift)
        waits = tuple(
            (note.account, note.recipient, note.group, note.flood_until)
            for note in await store.notes()
            if note.flood_until is not None
        )
        moves = (*moves, Move(now, shift, waits))
    moves = tuple(move for move in moves if move.began > now - KEPT_MS)[-MOST_MOVES:]
    body = msgspec.json.encode(_Known(boot, offset, moves)).decode()
    documents = [Document("clock", "", "boot", body, now)]
    if shift:
        documents.append(step_document(now, shift))  # for an audit, which looks further back than limits do
    await store.put(documents)
    return Moves(moves, shift)
