"""Moves a whole store into another, empty one: marked as unfinished until all of it was read back, then for good.

At no moment can both be started. While it is copied, the target says that it is unfinished and refuses to start. Then
the source is marked as moved, and refuses from there on; only then the target's mark goes. Cut off anywhere, the same
copy can be made again.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from paceline.engine import installation as places
from paceline.engine.installation import Installation, Moved, Unfinished
from paceline.model.errors import ConflictError, NotFoundError, PacelineError
from paceline.stores.transfer import TABLES, Moving, Row

Advance = Callable[[int], None]
Verify = Callable[[], Awaitable[Sequence[str]]]
"""Looks at the target as an audit does; answers which promises are broken in it."""

_TWICE: Final = 2
_REPLACEMENT: Final = "\ufffd"
_encode = msgspec.json.Encoder().encode


class Copied(msgspec.Struct, frozen=True):
    """What was copied: rows of each table, and how many texts had a NUL character that the target cannot keep.

    `broken` are the promises that the audit found broken, there as in the source.
    """

    rows: dict[str, int]
    replaced: int
    broken: Sequence[str]


class _Sum:
    """How many rows there were, and what they said, in order."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, rows: Sequence[Row]) -> None:
        self.count += len(rows)
        for row in rows:
            self._digest.update(_encode(row))

    @property
    def found(self) -> tuple[int, str]:
        return self.count, self._digest.hexdigest()


class StoreCopy:
    """One copy of one store."""

    def __init__(self, source: Moving, target: Moving, *, keep: bool, now: int) -> None:
        """With `keep` the source stays as it is, and the target begins on hold as any copy does."""
        self._source, self._target = source, target
        self._keep, self._now = keep, now
        self._replaced = 0

    async def run(self, begin: Callable[[int], Advance], verify: Verify, broken_before: Verify) -> Copied:
        """Copy, read everything back, and make the target the one that may be started.

        `begin` is told how many rows there are and gives what counts them. `broken_before` is asked only when `verify`
        finds something: what the source breaks already is no reason against the copy.

        Raises:
            NotFoundError: there is no source.
            ConflictError: the target is not empty, or the source was moved elsewhere before.
            OccupiedError: a server runs on one of them.
            PacelineError: what was read back is not what was written.
        """
        source, target = self._source, self._target
        if source.name == target.name:
            raise ConflictError(f"{source.name} cannot be copied into itself")
        if not await source.exists():
            raise NotFoundError(f"there is no store at {source.name}")
        try:
            await source.open(self._now)
            known = places.read(await source.installation())
            self._check_source(known)
            await target.open(self._now)
            await self._prepare(known)
            done = await self._copy(begin, verify, broken_before)
            await self._finish(known)
        finally:
            await target.close()
            await source.close()
        return done

    def _check_source(self, known: Installation) -> None:
        if known.unfinished is not None:
            places.check_usable(known)
        if known.moved is not None and known.moved.to != self._target.name and not self._keep:
            raise ConflictError(
                f"{self._source.name} was moved to {known.moved.to} before; move that one on, or take a copy of what is"
                " left here with --keep"
            )

    async def _prepare(self, known: Installation) -> None:
        """Find the target empty, or make it so, and mark it before anything is in it."""
        target = self._target
        there = places.read(await target.installation())
        if there.unfinished is None and not await target.is_empty():
            raise ConflictError(f"{target.name} is not empty: name a new folder, database or schema")
        mark = Installation(known.id, unfinished=Unfinished(self._source.name, self._now))
        await target.put(places.to_document(mark, self._now))
        if there.unfinished is not None:
            await target.empty()

    async def _copy(self, begin: Callable[[int], Advance], verify: Verify, broken_before: Verify) -> Copied:
        source, target = self._source, self._target
        rows: dict[str, int] = {}
        sums: dict[str, tuple[int, str]] = {}
        async with source.moment():
            sizes = await source.sizes()
            advance = begin(_TWICE * sum(sizes.values()))
            for table in TABLES:
                sums[table] = await self._table(table, advance)
                rows[table] = sums[table][0]
        if rows != sizes:
            raise PacelineError(f"{source.name} said that it has {sizes} rows, and {rows} were read")
        await target.keep_greatest_id(await source.greatest_id())
        await target.flush()
        await self._read_back(sums, advance)
        broken = await verify()
        if broken and sorted(broken) != sorted(await broken_before()):
            raise PacelineError(f"the audit of the copy finds broken: {', '.join(broken)}")
        return Copied(rows, self._replaced, broken)

    async def _table(self, table: str, advance: Advance) -> tuple[int, str]:
        seen = _Sum()
        async for page in self._source.read(table):
            rows = page if self._target.keeps_nul else [self._without_nul(row) for row in page]
            await self._target.write(table, rows)
            seen.add(rows)
            advance(len(rows))
        return seen.found

    async def _read_back(self, sums: dict[str, tuple[int, str]], advance: Advance) -> None:
        """Everything is in the target, every value of it."""
        async with self._target.moment():
            for table in TABLES:
                seen = _Sum()
                async for page in self._target.read(table):
                    seen.add(page)
                    advance(len(page))
                if seen.found != sums[table]:
                    raise PacelineError(
                        f"what was written to {self._target.name} and read back differs: {table}, {seen.count:,} rows"
                        f" of {sums[table][0]:,}; nothing was changed in {self._source.name}"
                    )

    async def _finish(self, known: Installation) -> None:
        """The source first: between the two writes neither can be started, and the copy can be made again."""
        final = msgspec.structs.replace(known, place=None, moved=None)
        documents = [places.to_document(final, self._now)]
        if self._keep:
            documents = places.mark_copy(documents, self._now)
        else:
            moved = msgspec.structs.replace(known, moved=Moved(self._target.name, self._now))
            await self._source.put(places.to_document(moved, self._now))
        for document in documents:
            await self._target.put(document)

    def _without_nul(self, row: Row) -> Row:
        if not any(isinstance(value, str) and "\0" in value for value in row):
            return row
        self._replaced += 1
        return tuple(v.replace("\0", _REPLACEMENT) if isinstance(v, str) else v for v in row)
