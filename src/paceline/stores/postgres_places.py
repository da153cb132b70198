"""Places of wide limits: taken with a hand-over, all of a message or none, and given back when it is settled.

The statements are in ``sql/postgres/places.sql``. All of this runs inside a transaction of the writer.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from msgspec import structs

from paceline.model.messages import HandedOver, Mark, Settlement
from paceline.model.wide import Need, Told
from paceline.stores.calls import HandOver
from paceline.stores.nodes import Handed
from paceline.stores.postgres_session import Session, columns

_AHEAD: Final = 4
"""So many times what is missing is made at once, so that making them does not go on for long."""
_MOST_AHEAD: Final = 2000
_MOST_REFUSALS: Final = 1000
"""So many limits and keys that refused are remembered before those that everybody heard of are forgotten."""
_MOST_TOLD: Final = 64
"""Limits of which a refused hand-over is told more than that they are closed."""
_WITHHELD: Final = "Withheld"

_Key = tuple[int, bytes]
_Place = tuple[int, int, int]  # its number, when it was free, who used it last


class Book:
    """The wide limits as of one revision: number, maximum and window of each by name."""

    def __init__(self, revision: int, limits: dict[str, tuple[int, int, int]]) -> None:
        """What the store had at that revision."""
        self.revision, self.limits = revision, limits


async def book_of(session: Session) -> Book:
    """The wide limits as they are in this transaction: nobody changes them while a node commits."""
    newest: int = await session.value("wide_revision")
    if session.book is None or session.book.revision != newest:
        rows = await session.rows("wide")
        session.book = Book(newest, {name: (number, most, span) for name, number, most, span in rows})
    return session.book


def key_bytes(key: str) -> bytes:
    """A key as it is stored: short however long it is. The statement `seed_places` makes the same."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()[:16] if key else b""


class Taking:
    """One batch of hand-overs and the places that it found."""

    def __init__(self, session: Session, book: Book, calls: Sequence[HandOver]) -> None:
        """`calls` are those that know the limits as they are."""
        self._session, self._book = session, book
        self._now = max(call.now for call in calls)
        self._before = self._now - max(call.apart for call in calls)
        self._wanted: defaultdict[_Key, int] = defaultdict(int)
        self._found: defaultdict[_Key, deque[_Place]] = defaultdict(deque)
        self._names: dict[_Key, Need] = {}
        self._keys: dict[Need, _Key] = {}
        self.refused: dict[Need, None] = {}
        for call in calls:
            for needs in call.needs:
                for need in needs:
                    self._wanted[self._key(need)] += 1

    def _key(self, need: Need) -> _Key:
        key = self._keys.get(need)
        if key is None:
            name, text = need
            key = self._keys[need] = (self._book.limits[name][0], key_bytes(text))
            self._names[key] = need
        return key

    async def find(self) -> None:
        """Take the places out, as many as there are."""
        keys = sorted(self._wanted)
        found = await self._session.rows(
            "take_places", *_split(keys), [self._wanted[key] for key in keys], self._now, self._before,
            self._session.number,
        )  # fmt: skip
        for at, *place in sorted(found, key=lambda row: row[2]):
            self._found[keys[at - 1]].append(tuple(place))
        short = [key for key in keys if len(self._found[key]) < self._wanted[key]]
        if short:
            await self._make(short)

    async def _make(self, keys: list[_Key]) -> None:
        known = {keys[at - 1] for (at,) in await self._session.rows("known_places", *_split(keys))}
        fresh = [key for key in keys if key not in known]
        if fresh:
            many = {key: min(self._wish(key), self._most(key)) for key in fresh}
            made = await self._session.rows("first_places", *_split(fresh), list(many.values()))
            for rule, key in made:
                self._found[rule, key].extend((place, 0, 0) for place in range(many[rule, key]))
        old = [key for key in keys if key in known]
        if old:
            wish = [self._wish(key) for key in old]
            for at, first, end in await self._session.rows("more_places", *_split(old), wish):
                self._found[old[at - 1]].extend((place, 0, 0) for place in range(first, end))

    def _wish(self, key: _Key) -> int:
        missing = self._wanted[key] - len(self._found[key])
        return missing if key[1] else max(missing, min(_AHEAD * missing, _MOST_AHEAD))

    def _most(self, key: _Key) -> int:
        return self._book.limits[self._names[key][0]][1]

    def assign(self, needs: Sequence[Need], heard: int) -> list[tuple[_Key, _Place]] | None:
        """Places for one message, or None where one of them is not there; then it takes none.

        One that was chosen before its node heard of a refusal would overtake what was refused: it goes back too.
        """
        keys, refusals = [self._keys[need] for need in needs], self._session.refusals
        missing = [
            need
            for need, key in zip(needs, keys, strict=True)
            if not self._found[key] or refusals.get(need, 0) > heard
        ]
        if missing:
            self.refused |= dict.fromkeys(missing)
            return None
        return [(key, self._found[key].popleft()) for key in keys]

    def give_back(self, places: list[tuple[_Key, _Place]]) -> None:
        """The message was not there any more."""
        for key, place in places:
            self._found[key].appendleft(place)

    async def keep(self, held: dict[int, list[tuple[_Key, _Place]]]) -> None:
        """Write which message holds what, and put back what nobody took."""
        rows = [(message, *key, place[0]) for message, places in held.items() for key, place in places]
        if rows:
            await self._session.run("hold_places", *map(list, zip(*rows, strict=True)))
        left = [(*key, at, place, node) for key, found in self._found.items() for place, at, node in found]
        if left:
            await self._session.run("put_places", *map(list, zip(*left, strict=True)))

    def note(self, heard: int) -> int:
        """Remember what was refused, and forget what every caller has heard of; answers the number of this commit."""
        session = self._session
        if self.refused:
            session.refused += 1
            session.refusals |= dict.fromkeys(self.refused, session.refused)
        if len(session.refusals) > _MOST_REFUSALS:
            session.refusals = {need: at for need, at in session.refusals.items() if at > heard}
        return session.refused

    async def tell(self) -> list[Told]:
        """What there is to know about the limits that refused something."""
        told = {need: Told(*need, []) for need in self.refused}
        asked = list(told)[:_MOST_TOLD]
        if asked:
            keys = [self._keys[need] for need in asked]
            for at, moment in await self._session.rows(
                "next_places", *_split(keys), self._before, self._session.number
            ):
                told[asked[at - 1]].moments.append(moment + self._now - self._before)
        return list(told.values())


async def hand_over(session: Session, calls: Sequence[HandOver]) -> list[Handed]:
    """Hand over what gets all of its places; answers each call."""
    book = await book_of(session)
    known = [
        call
        for call in calls
        if call.revision in (None, book.revision) and _names(call) <= book.limits.keys()
    ]
    answers = {id(call): Handed([], [], [], stale=True) for call in calls}
    if known:
        await _hand_over(session, book, known, answers)
    return [answers[id(call)] for call in calls]


def _names(call: HandOver) -> set[str]:
    return {name for needs in call.needs for name, _ in needs}


async def _hand_over(
    session: Session, book: Book, calls: Sequence[HandOver], answers: dict[int, Handed]
) -> None:
    taking = Taking(session, book, calls)
    await taking.find()
    able: list[tuple[Handed, Mark]] = []
    held: dict[int, list[tuple[_Key, _Place]]] = {}
    for call in calls:
        answer = answers[id(call)] = Handed([], [], [], stale=False)
        for mark, needs in zip(call.marks, call.needs or [()] * len(call.marks), strict=True):
            if mark.id in held:
                continue  # asked for twice
            places = taking.assign(needs, call.heard)
            if places is None:
                answer.refused.append(mark.id)
            else:
                held[mark.id] = places
                able.append((answer, mark))
    gone = set(held)
    if able:
        marks = columns([mark for _, mark in able], 4)
        for place, *given in await session.rows("hand_over", *marks, session.slot, None):
            message = HandedOver(*given)
            able[place - 1][0].handed.append(message)
            gone.discard(message.id)
    for id_ in gone:
        taking.give_back(held.pop(id_))
    await taking.keep(held)
    told = await taking.tell()
    number = taking.note(min(call.heard for call in calls))
    for call in calls:
        answer = answers[id(call)]
        if answer.refused:
            answer.told.extend(told)
            answers[id(call)] = structs.replace(answer, number=number)


async def settle(session: Session, rows: Sequence[Settlement]) -> None:
    """The hand-overs ended: free their places when the time comes."""
    moments = [None if row.outcome == _WITHHELD else row.finished for row in rows]
    if await session.value("end_places", [row.id for row in rows], moments, session.number):
        await _cut(session)


async def _cut(session: Session) -> None:
    """Limits that were made smaller lose the places that are too many, those that are free first.

    Nodes may settle in another order than their calls ended in: what comes later is free no sooner than what went.
    """
    for rule, key, surplus, floor in await session.rows("surplus_places"):
        if floor:
            await session.run("lift_places", rule, key, floor)
        if surplus > 0:
            await session.run("cut_places", rule, key, surplus)


def _split(keys: Sequence[_Key]) -> tuple[list[int], list[bytes]]:
    return [rule for rule, _ in keys], [key for _, key in keys]
