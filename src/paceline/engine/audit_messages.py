"""Whether the journal tells one possible life of each message: hand-overs, endings, times.

What cannot be known is not judged. A revival leaves no line of its own; that there was one shows in the count of
attempts, which begins anew with it. Old lines go with time: the oldest ones of a message may be missing, unless
the cleaning would have taken older ones of earlier messages first.
"""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

from paceline.engine.audit_clock import Steps
from paceline.engine.audit_order import FlowOrder
from paceline.engine.audit_report import Check
from paceline.model.journal import Standing
from paceline.model.states import State
from paceline.stores.base import Attempt

Lines = Sequence[Attempt]
NONE: Lines = ()

GRAIN_MS = 1
"""A start is rounded down and a finish up: one may seem to lie this much before the other."""
LATE_MS = 1000
"""What expires is ended when its moment comes; a hand-over in between may still be on its way."""

_COUNTING = frozenset({"Accepted", "Temporary", "Permanent", "Moved", "Unknown"})
_FOR_GOOD = frozenset({"Accepted", "confirm"})
_UNTIL_REVIVED = frozenset({"Permanent", "cancel", "expire", "deny"})
_ENDINGS: dict[int, frozenset[str]] = {
    State.RETRYING: frozenset({"Temporary", "Unknown"}),
    State.COMPLETED: _FOR_GOOD,
    State.FAILED: frozenset({"Permanent", "Temporary", "Unknown", "Moved", "deny"}),
    State.CANCELLED: frozenset({"cancel"}),
    State.EXPIRED: frozenset({"expire", "Temporary", "Unknown"}),
    State.UNCERTAIN: frozenset({"Unknown"}),
}
_CLEANABLE = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.EXPIRED})


async def histories(
    standings: AsyncIterator[list[Standing]], lines: AsyncIterator[list[Attempt]]
) -> AsyncIterator[list[tuple[Standing | None, Lines]]]:
    """Messages with their lines, in pages by id; lines of a message that is gone come without it."""
    grouped = _grouped(lines)
    stands: list[Standing] = await anext(standings, [])
    groups: list[Lines] = await anext(grouped, [])
    i = j = 0
    while stands or groups:
        page: list[tuple[Standing | None, Lines]] = []
        while i < len(stands) and j < len(groups):
            standing, group = stands[i], groups[j]
            if standing.id == group[0].message:
                page.append((standing, group))
                i, j = i + 1, j + 1
            elif standing.id < group[0].message:
                page.append((standing, NONE))
                i += 1
            else:
                page.append((None, group))
                j += 1
        if not groups:
            page += [(standing, NONE) for standing in stands[i:]]
            i = len(stands)
        if not stands:
            page += [(None, group) for group in groups[j:]]
            j = len(groups)
        yield page
        if stands and i == len(stands):
            stands, i = await anext(standings, []), 0
        if groups and j == len(groups):
            groups, j = await anext(grouped, []), 0


async def _grouped(pages: AsyncIterator[list[Attempt]]) -> AsyncIterator[list[Lines]]:
    """The lines of each message together."""
    group: list[Attempt] = []
    async for page in pages:
        made: list[Lines] = []
        for line in page:
            if group and line.message != group[0].message:
                made.append(group)
                group = []
            group.append(line)
        if made:
            yield made
    if group:
        yield [group]


class Histories:
    """Messages by id, each with its lines."""

    def __init__(self, repeat_is_safe: frozenset[str], steps: Steps, order: FlowOrder) -> None:
        """`repeat_is_safe` names the channels that may be asked again when nobody knows the answer."""
        self._safe, self._steps, self._order = repeat_is_safe, steps, order
        self.handed = Check("hand-overs", "no message is handed over twice without a reason")
        self.endings = Check("endings", "every ending has its attempt, and every attempt its place")
        self.times = Check("times", "nothing happens before its time, or after it")
        self.oldest_ending: int | None = None
        self.newest_cleaned = 0

    @property
    def whole_from(self) -> int | None:
        """The moment from which the journal is whole: cleaning takes the oldest endings first. None: not known."""
        if self.oldest_ending is None:
            return None
        return max(self.oldest_ending, self.newest_cleaned + 1)

    def feed(self, page: Sequence[tuple[Standing | None, Lines]]) -> None:
        """The next messages."""
        for standing, lines in page:
            if standing is not None and self._usual(standing, lines):
                continue
            if standing is None:
                self.handed.looked["messages that are gone"] += 1
                self._numbers(lines[-1].number, None, lines)
                self._twice(None, lines)
            else:
                self._kept(standing, lines)
            self._times(standing, lines)
        for check in (self.handed, self.endings, self.times):
            check.looked["messages"] += len(page)
            check.looked["journal lines"] += sum(len(lines) for _, lines in page)

    def _usual(self, standing: Standing, lines: Lines) -> bool:
        """Sent at the first attempt and all in order: most messages are, and need no closer look."""
        if len(lines) != 1 or standing.state != State.COMPLETED or standing.created_at is None:
            return False
        line = lines[0]
        finished, started = line.finished, line.started
        usual = (
            line.outcome == "Accepted"
            and line.number == standing.number == standing.attempts == 1
            and started is not None
            and finished is not None
            and standing.created_at <= line.handed_over <= started <= finished
            and standing.due_at <= line.handed_over
            and standing.expires_at is None
            and standing.finished_at == finished
            and standing.started_at == started
            and standing.sender == line.account != ""
        )
        if usual:
            self._order.first(standing, line)
            if self.oldest_ending is None or finished < self.oldest_ending:  # type: ignore[operator]  # not None if usual
                self.oldest_ending = finished
        return usual

    def _kept(self, standing: Standing, lines: Lines) -> None:
        under_way = standing.state == State.PROCESSING
        self._numbers(standing.number - under_way, standing, lines)
        self._twice(standing, lines)
        self._ending(standing, lines)
        if lines and lines[0].number == 1 and lines[0].account:
            self._order.first(standing, lines[0])

    # -- numbers

    def _numbers(self, greatest: int, standing: Standing | None, lines: Lines) -> None:
        """1, 2, 3 ... up to the number of the message; where the oldest are missing they were cleaned."""
        if not lines:
            return
        for one, two in pairwise(lines):
            if two.number != one.number + 1:
                self.handed.fault(
                    f"attempt {one.number} is followed by attempt {two.number}",
                    (one.message,),
                    two.handed_over,
                )
            if (one.finished or 0) > two.handed_over + GRAIN_MS and not self._unsure(one, two):
                self.handed.fault(
                    f"attempt {two.number} was handed over before attempt {one.number} had ended", (one.message,),
                    two.handed_over,
                )  # fmt: skip
        if lines[-1].number > greatest:
            self.endings.fault(
                f"the journal has attempt {lines[-1].number}, the message knows of {greatest}", (lines[-1].message,),
                lines[-1].handed_over,
            )  # fmt: skip
        if lines[0].number > 1:
            self._begins_late(standing, lines[0])

    def _begins_late(self, standing: Standing | None, first: Attempt) -> None:
        created = standing.created_at if standing else None
        if created is not None and self.oldest_ending is not None and created > self.oldest_ending:
            self.handed.fault(
                f"attempts before {first.number} are missing, though older ones of other messages are kept",
                (first.message,), first.handed_over,
            )  # fmt: skip
            return
        self.handed.looked["messages whose oldest attempts were cleaned"] += 1
        self.newest_cleaned = max(self.newest_cleaned, first.handed_over)

    # -- repeats

    def _twice(self, standing: Standing | None, lines: Lines) -> None:
        """After an ending there is another hand-over only if somebody revived the message; after 'sent' never."""
        under_way = standing is not None and standing.state == State.PROCESSING
        last = len(lines) - 1
        closing = -1
        for place, line in enumerate(lines):
            if place == last and not under_way:
                break
            if line.outcome in _FOR_GOOD:
                self.handed.fault(
                    f"went on after attempt {line.number}, by which it was sent",
                    (line.message,),
                    line.finished,
                )
            elif line.outcome in _UNTIL_REVIVED or (line.outcome == "Unknown" and self._is_unsafe(standing)):
                closing = place
        if standing is None or closing < 0:
            return
        following = lines[closing + 1 :]
        again = under_way or any(line.account for line in following)
        counted = sum(line.outcome in _COUNTING for line in following)
        if again and standing.attempts > counted:
            line = lines[closing]
            self.handed.fault(
                f"was handed over again after attempt {line.number} ({line.outcome}), and nobody asked for it",
                (line.message,), line.finished,
            )  # fmt: skip
        elif again:
            self.handed.looked["messages that a person revived"] += 1

    def _is_unsafe(self, standing: Standing | None) -> bool:
        return standing is not None and standing.channel is not None and standing.channel not in self._safe

    # -- endings

    def _ending(self, standing: Standing, lines: Lines) -> None:
        if standing.created_at is None:
            return  # a leftover, and told as such
        state = standing.state
        last = lines[-1] if lines else None
        has_ended = state >= State.COMPLETED
        name = State(state).label
        if state == State.PROCESSING:
            self.endings.looked["messages under way"] += 1
            if standing.started_at is None or not standing.sender:
                self.endings.fault("is under way, but nobody has it", (standing.id,))
        if last is None or last.number < standing.number - (state == State.PROCESSING):
            self._without_line(standing, name)
            return
        if state == State.PROCESSING:
            return
        allowed = _ENDINGS.get(state)
        if allowed is not None and last.outcome not in allowed:
            self.endings.fault(
                f"is {name}, but its last attempt ended as {last.outcome}", (standing.id,), last.finished
            )
        if not has_ended:
            return
        if standing.finished_at != last.finished:
            self.endings.fault(
                f"is {name} at another moment than its last attempt", (standing.id,), last.finished
            )
        elif last.account and (standing.started_at != last.started or standing.sender != last.account):
            self.endings.fault(
                f"is {name}, but by another attempt than its last", (standing.id,), last.finished
            )
        if lines[0].number == 1 and standing.attempts > sum(line.outcome in _COUNTING for line in lines):
            self.endings.fault("counts more attempts than the journal has", (standing.id,), last.finished)
        if state in _CLEANABLE and last.finished is not None:
            oldest = self.oldest_ending
            self.oldest_ending = last.finished if oldest is None else min(oldest, last.finished)

    def _without_line(self, standing: Standing, name: str) -> None:
        """The last line is missing: it was cleaned if the message took over how it ended."""
        state = standing.state
        untried = standing.number - (state == State.PROCESSING) <= 0
        if untried and state < State.COMPLETED:
            return
        if standing.ending is None or state == State.UNCERTAIN:
            self.endings.fault(
                f"is {name}, and attempt {standing.number} is missing", (standing.id,), standing.finished_at
            )
            return
        if standing.ending not in _ENDINGS.get(state, frozenset({standing.ending})):
            self.endings.fault(
                f"is {name}, but ended as {standing.ending}", (standing.id,), standing.finished_at
            )
        self.endings.looked["endings whose attempt was cleaned"] += 1
        self.newest_cleaned = max(self.newest_cleaned, standing.finished_at or 0)

    # -- times

    def _times(self, standing: Standing | None, lines: Lines) -> None:
        for line in lines:
            moments = [line.handed_over, line.started, line.finished]
            known = [moment for moment in moments if moment is not None]
            if known != sorted(known) and not self._steps.unsure(min(known), max(known)):
                self.times.fault(
                    f"attempt {line.number} ended before it began", (line.message,), line.handed_over
                )
        if standing is None:
            return
        created = standing.created_at
        if lines and created is not None and lines[0].handed_over < created:
            self._too_early("was handed over before it was taken in", standing, lines[0].handed_over, created)
        handed = _last_hand_over(standing, lines)
        if handed is None:
            return
        if handed < standing.due_at:
            self._too_early("was handed over before it was due", standing, handed, standing.due_at)
        late = LATE_MS + self._steps.behind(handed)
        if standing.expires_at is not None and handed >= standing.expires_at + late:
            self._too_early("was handed over after it had expired", standing, standing.expires_at, handed)

    def _too_early(self, what: str, standing: Standing, low: int, high: int) -> None:
        if not self._steps.unsure(low, high):
            self.times.fault(what, (standing.id,), low)

    def _unsure(self, one: Attempt, two: Attempt) -> bool:
        return self._steps.unsure(two.handed_over, one.finished or two.handed_over)


def _last_hand_over(standing: Standing, lines: Lines) -> int | None:
    """When a message was handed over last, if due moment and expiry on it are still those of that hand-over."""
    if standing.state == State.PROCESSING:
        return standing.started_at
    if not lines or lines[-1].number != standing.number:
        return None
    if lines[-1].outcome in {"confirm", "deny"}:
        return lines[-2].handed_over if len(lines) > 1 and lines[-2].account else None
    if standing.state in _CLEANABLE or standing.state == State.UNCERTAIN:
        return lines[-1].handed_over if lines[-1].account else None
    return None
