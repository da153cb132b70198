"""Wide limits of a PostgreSQL store: set with what they have to count already, looked at, and cleaned up after.

The statements are in ``sql/postgres/wide.sql``; who takes and gives places is in `postgres_places`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from paceline.model.errors import InvalidError, Problem
from paceline.model.wide import Use, Wide
from paceline.stores.base import Document
from paceline.stores.postgres_session import Session, columns

MOST_PLACES: Final = 1_000_000
"""So many places a limit may have: each is a row, of about 150 bytes, as soon as it was used once."""
_SPARE: Final = 5_000
"""So many places are made with the limit; the others as they are needed."""
_WAIT_MS: Final = 700
"""How long to wait for the commits of others, while nobody begins a new one."""
_FREELY: Final = (
    "enable_seqscan",
    "enable_bitmapscan",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_material",
)
"""Ways of reading that the small statements of the writer do without: here much may have to be read."""


def check(limits: Sequence[Wide]) -> None:
    """Refuse what would have too many places.

    Raises:
        InvalidError: a limit has.
    """
    for limit in limits:
        if limit.maximum > MOST_PLACES:
            raise InvalidError([
                Problem("/limit", f"the maximum of a limit that nodes share may be {MOST_PLACES:,}, since each place "
                        "of it is kept; a smaller one with a shorter window does the same")
            ])  # fmt: skip


class Change(msgspec.Struct, frozen=True):
    """What becomes of wide limits and of the document that says so, together; nothing unless `after` is the newest revision."""

    limits: Sequence[Wide]
    dropped: Sequence[str]
    put: Sequence[Document]
    removed: tuple[str, str, str] | None
    after: int | None


class Changed(msgspec.Struct, frozen=True):
    """The revision of the documents and that of wide limits after a change, and whether there was what was removed."""

    revision: int
    wide: int
    gone: bool


async def change(session: Session, schema: str, wanted: Change, now: int) -> Changed:
    """Set limits anew, in the transaction of a commit. No other node commits before this one has."""
    await session.connection.execute(f"SET LOCAL lock_timeout = {_WAIT_MS}")
    await session.run("lock_members", schema)  # nobody joins who does not know of it
    await session.rows("lock_fences")
    newest: int = await session.value("wide_revision")
    if wanted.after not in (None, newest):
        return Changed(0, newest, gone=False)
    revision, gone = 0, False
    if wanted.put or wanted.removed:
        revision = await session.value("next_revision")
    if wanted.put:
        await session.run("put", *columns(wanted.put, 5), revision)
    if wanted.removed:
        gone = await session.value("remove", *wanted.removed, revision) > 0
    for setting in _FREELY:
        await session.connection.execute(f"SET LOCAL {setting} = on")
    for name in wanted.dropped:
        number = await session.value("drop_wide", name)
        if number is not None:
            await session.run("drop_places", number)
    for limit in wanted.limits:
        await _set(session, limit, now)
    for setting in _FREELY:
        await session.connection.execute(f"SET LOCAL {setting} = off")
    return Changed(revision, await session.value("next_wide_revision"), gone)


async def _set(session: Session, limit: Wide, now: int) -> None:
    number = await session.value("set_wide", *msgspec.structs.astuple(limit))
    await session.run("drop_places", number)
    await session.run("seed_places", number, now)
    if not limit.recipient and not limit.group:
        made = await session.value("made_places", number) or 0
        if made < min(limit.maximum, _SPARE):
            await session.run("spare_places", number, made, min(limit.maximum, _SPARE))


async def known(session: Session) -> tuple[int, list[Wide]]:
    """The revision and the limits. Read in this order, the limits are at least as new."""
    revision: int = await session.value("wide_revision")
    return revision, [Wide(*row) for row in await session.rows("all_wide")]


async def use(session: Session, names: Sequence[str], now: int) -> dict[str, Use]:
    """How much of the limits is used at `now`."""
    return {name: Use(used, until) for name, used, until in await session.rows("wide_use", list(names), now)}


class Cleaner:
    """Goes through the recipients and groups that have places, a few at a time, and forgets those that are idle."""

    def __init__(self) -> None:
        """Begin with the first."""
        self._after: tuple[int, bytes] = (0, b"")

    async def look(
        self, session: Session, free_before: int, most: int
    ) -> tuple[list[tuple[int, bytes]], bool]:
        """The idle ones among the next `most`, and whether there are others behind them."""
        rows = await session.rows("idle_places", *self._after, free_before, most)
        more = len(rows) == most
        self._after = (rows[-1][0], rows[-1][1]) if more else (0, b"")
        return [(rule, key) for rule, key, idle in rows if idle], more


async def forget(session: Session, keys: Sequence[tuple[int, bytes]], free_before: int) -> int:
    """Forget those of these keys that are still idle; answers how many."""
    rules, texts = [rule for rule, _ in keys], [key for _, key in keys]
    gone: int = await session.value("forget_places", rules, texts, free_before)
    return gone
