"""Who watches: every rule of docs/invariants.md that can be judged while things happen, under its number there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paceline.model.ids import from_text, to_text
from paceline.model.messages import Settlement
from paceline.model.outcomes import Outcome
from paceline.model.states import State
from paceline.pacing.quotas import Quota
from paceline.pacing.windows import Window
from paceline.stores.calls import Kind
from tests.simulation.pacecheck import PaceCheck
from tests.simulation.provider import Arrival, Provider, Watch
from tests.simulation.provider import Call as ProviderCall
from tests.simulation.store import Call
from tests.simulation.tables import Kept, Tables
from tests.simulation.world import EPOCH_MS, World

if TYPE_CHECKING:
    from tests.simulation.node import Node

PROMPT_MS = 5000
"""So soon after the wall clock shows its moment a scheduled message stands in line, however the clock was set."""
LOOK_EVERY = 64
"""Callbacks between two looks at what is in memory."""


class Referee(Watch):
    """Sees all of the disk and all of the provider; of the process only what it says."""

    def __init__(self, world: World, tables: Tables, provider: Provider) -> None:
        """Nothing has happened."""
        self.world, self.tables = world, tables
        self.provider = provider
        self.pace = PaceCheck(world)
        self.node: Node
        self.acknowledged: dict[int, str] = {}  # id -> what was said
        self.deleted: set[int] = set()
        self.allowed: dict[int, int] = {}  # how often each message may be carried out
        self.taken: dict[int, int] = {}
        self.revived: set[int] = set()
        self.settled: list[Settlement] = []
        self.version = (
            0  # grows with everything people do and every crash: what was foretold does not bind then
        )
        self.named: dict[int, tuple[int, int, int]] = {}  # id -> number, moment (true us), version
        self.order_of: dict[str, list[int]] = {}  # messages by account, as they were handed over
        self.scheduled: dict[
            int, tuple[int, int]
        ] = {}  # id -> the wall's moment it waits for, since when (true us)
        self.crashes = 0
        self.anchor_us = 0  # how the wall clock stood at the last start that was completed
        self.boot = world.boot
        self._marked: dict[int, int] = {}
        self._in_hand: dict[int, str] = {}  # by which account
        self._waiting: dict[int, tuple[int, int]] = {}
        self._hands: dict[int, int] = {}  # calls under way by message
        self._look = 0
        provider.watch = self

    # -- rule 1

    def acknowledge(self, id_: str) -> None:
        """Somebody was told 'yes'."""
        number = from_text(id_) or 0
        self.acknowledged[number] = id_
        if number not in self.tables.messages and number not in self.deleted:
            self.world.wrong(1, f"{id_} was acknowledged and is not on disk")

    # -- what the provider sees: rules 2, 3, 4, 13

    def began(self, call: ProviderCall) -> None:
        id_ = from_text(call.message.id) or 0
        kept = self.tables.messages.get(id_)
        if self._hands.get(id_):
            self.world.wrong(2, f"{call.message.id} is in two hands")
        self._hands[id_] = self._hands.get(id_, 0) + 1
        if kept is None or (kept.state, kept.number, kept.sender) != (
            State.PROCESSING, call.message.number, call.account,
        ):  # fmt: skip
            self.world.wrong(3, f"{call.message.id} is called for and its hand-over is not on disk")
            return
        self._check_named(id_, kept)
        moment, since = self.scheduled.get(id_, (0, 0))
        if moment > self.world.latest_ms(since):
            text = f"{call.message.id} goes before the wall clock has shown the moment it is scheduled for"
            self.world.wrong(13, text)
        self.pace.begins(self.node, call, kept)

    def _check_named(self, id_: int, kept: Kept) -> None:
        number, moment, version = self.named.pop(id_, (0, 0, 0))
        if version == self.version and number == kept.number - 1 and moment > self.world.time.us + 1000:
            early = (moment - self.world.time.us) / 1000
            self.world.wrong(13, f"{to_text(id_)} goes {early:.1f} ms before the moment that was named")

    def arrived(self, call: ProviderCall, arrival: Arrival) -> None:
        id_ = from_text(arrival.message) or 0
        kept = self.tables.messages.get(id_)
        if kept is None:
            self.world.wrong(1, f"{arrival.message} arrived and is not on disk")
            return
        if arrival.taken:
            taken = self.taken[id_] = self.taken.get(id_, 0) + 1
            if taken > self.allowed.get(id_, 0) + 1:
                self.world.wrong(
                    4, f"{arrival.message} was carried out {taken} times without anybody being told"
                )
        self.pace.arrived(arrival, kept)

    def ended(self, call: ProviderCall, outcome: Outcome | None) -> None:
        if self.node.state == "dead":
            return
        id_ = from_text(call.message.id) or 0
        self._hands[id_] -= 1
        kept = self.tables.messages.get(id_)
        if kept is not None:
            self.pace.answered(self.node, call, kept, outcome)

    # -- what becomes durable: rules 2, 3, 4, 7

    def committed(self, calls: Sequence[Call]) -> None:
        """These writes are on disk."""
        for call in sorted(calls, key=lambda each: each.kind):
            _WRITTEN.get(call.kind, _nothing)(self, call)

    def _handed_over(self, call: Call) -> None:
        marks = {mark.id: mark for mark in call.args[0]}
        for handed in call.answer:
            mark = marks[handed.id]
            self.pace.released[handed.id, handed.number] = self.node.clock.true_us(mark.started)
            self.order_of.setdefault(mark.account, []).append(handed.id)
            self.world.note("marked", f"{to_text(handed.id)} #{handed.number} to {mark.account}")
            if self._hands.get(handed.id):
                self.world.wrong(2, f"{to_text(handed.id)} is handed over while a call of it is under way")

    def _ended(self, call: Call) -> None:
        stale = set(call.answer)
        for id_ in stale:
            self.world.wrong(2, f"{to_text(id_)} was settled by somebody who does not hold it")
        for made in call.args[0]:
            if made.id not in stale:
                self._settlement(made)
        for note in call.args[1]:
            if note.flood_until is not None:
                kind = "recipient" if note.recipient else "group" if note.group else ""
                key = (note.account, kind, note.recipient or note.group)
                known = self.pace.durable_floods.get(key, 0)
                self.pace.durable_floods[key] = max(known, self.node.clock.true_us(note.flood_until))

    def _settlement(self, made: Settlement) -> None:
        self.world.note(
            "settled", f"{to_text(made.id)} #{made.number} {made.outcome} {State(made.state).label}"
        )
        self.settled.append(made)
        self.pace.circuits.settled(made)
        kept = self.tables.messages[made.id]
        if self._hands.get(made.id):
            self.world.wrong(2, f"{to_text(made.id)} is settled while its call is under way")
        if not any(line.number == made.number for line in self.tables.journal.get(made.id, ())):
            self.world.wrong(3, f"{to_text(made.id)} ended without a line in the journal")
        if made.outcome == "Unknown" and kept.row.channel != "once":
            self.allowed[made.id] = self.allowed.get(made.id, 0) + 1
        if made.outcome == "RateLimited":
            counted = sum(
                1 for line in self.tables.journal[made.id] if line.outcome not in ("RateLimited", "Withheld", "AccountStopped")
                and line.account
            )  # fmt: skip
            if made.attempts > counted or made.state != State.PENDING:
                self.world.wrong(7, f"a flood wait cost {to_text(made.id)} an attempt")
        if made.outcome == "Withheld":
            self.version += 1
        self.pace.eligible.pop(made.id, None)
        if made.state == State.PENDING:
            self.pace.eligible[made.id] = self.world.time.us

    def _added(self, call: Call) -> None:
        for row, added in zip(call.args[0], call.answer, strict=True):
            if not added.duplicate:
                self.world.note(
                    "stored",
                    f"{to_text(row.id)} {State(row.state).label} {row.channel} {row.account or row.pool}",
                )
                if row.state == State.PENDING:
                    self.pace.eligible[row.id] = self.world.time.us
                elif row.state == State.SCHEDULED:
                    self.scheduled[row.id] = (row.due_at, self.world.time.us)

    def _promoted(self, call: Call) -> None:
        for _, entry in call.answer.entries:
            self.pace.eligible[entry.id] = self.world.time.us

    def stalled(self) -> None:
        """What is scheduled stands in line soon after the wall clock shows its moment; asked in calm."""
        world = self.world
        set_us = max(self.pace.calm_since or 0, *(until for _, until in world.stretches[-1:]), 0)
        for id_, (moment, _) in self.scheduled.items():
            kept = self.tables.messages.get(id_)
            since = max(set_us, (moment - EPOCH_MS) * 1000 - world.wall_us)
            if (
                kept is not None
                and kept.state == State.SCHEDULED
                and world.time.us > since + PROMPT_MS * 1000
            ):
                world.wrong(6, f"{to_text(id_)} is still scheduled {PROMPT_MS} ms after its moment")

    def _revised(self, call: Call) -> None:
        self.version += 1
        changed = set(call.answer)
        for made in call.args[0]:
            if made.id not in changed:
                continue
            self.world.note("revised", f"{to_text(made.id)} {made.event} {made.from_state}->{made.to_state}")
            self.pace.eligible.pop(made.id, None)
            self.scheduled.pop(made.id, None)
            if made.to_state == State.SCHEDULED:
                self.scheduled[made.id] = (made.due_at, self.world.time.us)
            if made.to_state is None:
                self.deleted.add(made.id)
            elif made.event == "revive" and made.from_state in (6, 7, 8, 9):
                self.allowed[made.id] = self.allowed.get(made.id, 0) + 1
                self.revived.add(made.id)
            if made.to_state == State.PENDING:
                self.pace.eligible[made.id] = self.world.time.us

    # -- the life of a process: rule 4

    def died(self, *, graceful: bool) -> None:
        """The process is gone; what is on disk is what the next one has."""
        if not graceful:
            self.crashes += 1
        self._check_recovered(whole=False)
        self._hands.clear()
        self.version += 1
        self.pace.unsettle()
        self.pace.died()
        for id_, kept in self.tables.messages.items():
            if kept.state == State.PROCESSING:
                self._marked[id_] = kept.number
                self._in_hand[id_] = kept.sender
        self._waiting = {
            id_: (kept.state, kept.number)
            for id_, kept in self.tables.messages.items()
            if kept.state in (1, 2, 4)
        }
        self._check_kept()

    def started(self) -> None:
        """The next process says that it has recovered."""
        self.anchor_us, self.boot = self.node.clock.anchor_us, self.world.boot
        self._check_recovered(whole=True)
        self.pace.started(self.world.time.us, self._in_hand.values())
        self._in_hand.clear()
        self._marked.clear()
        self._waiting.clear()
        self.pace.force(self.node)

    def stopped(self) -> None:
        """The process says that it has stopped in good order."""
        for id_, kept in self.tables.messages.items():
            if kept.state == State.PROCESSING:
                self.world.wrong(
                    4, f"{to_text(id_)} was left in hand by a process that stopped in good order"
                )

    def _check_recovered(self, *, whole: bool) -> None:
        for id_, number in self._marked.items():
            kept = self.tables.messages.get(id_)
            if kept is None:
                self.world.wrong(1, f"{to_text(id_)} was in hand at the crash and is gone")
            elif kept.state != State.PROCESSING:
                self._check_settled_by_recovery(kept, number)
            elif whole:
                self.world.wrong(4, f"{to_text(id_)} was in hand at the crash and still is")
        if not whole:
            return
        for id_, place in self._waiting.items():
            kept = self.tables.messages.get(id_)
            if kept is None or (kept.state, kept.number) != place:
                self.world.wrong(
                    4, f"{to_text(id_)} was not in hand at the crash and was touched by recovery"
                )

    def _check_settled_by_recovery(self, kept: Kept, number: int) -> None:
        line = next(
            (each for each in self.tables.journal.get(kept.row.id, ()) if each.number == number), None
        )
        if line is None or kept.number != number:
            return  # its last commit was on its way and was written after all
        if line.code != "crash":
            return
        again = kept.row.channel != "once"
        states = (State.PENDING, State.FAILED) if again else (State.UNCERTAIN,)
        if kept.state not in states:
            self.world.wrong(
                4, f"{to_text(kept.row.id)} was in hand at the crash and is {State(kept.state).label} now"
            )

    def _check_kept(self) -> None:
        for number, id_ in self.acknowledged.items():
            if number not in self.tables.messages and number not in self.deleted:
                self.world.wrong(1, f"{id_} was acknowledged and is lost")

    # -- memory: rule 11, and the books of places: rule 9

    def stepped(self) -> None:
        """A callback ran."""
        self._look += 1
        if self._look % LOOK_EVERY:
            return
        agenda = self.node.core.agenda
        prefetch = agenda.prefetch
        held = sum(len(flow.ready) for lane in agenda.lanes.values() for flow in lane.flows.values())
        most = 2 * prefetch.budget + 2 * prefetch.LEAST * prefetch.flows + self._aside()
        if held > most:
            self.world.wrong(11, f"{held} entries are in memory, {most} are allowed")
        flying: dict[str, int] = {}
        for release in agenda.out.values():
            flying[release.account.id] = flying.get(release.account.id, 0) + 1
        for lane in agenda.lanes.values():
            for account in lane.accounts.values():
                counters: list[Window | Quota] = [*account.windows, *account.quotas]
                wrong = [each for each in counters if each.flying != account.flying]
                if account.flying != flying.get(account.id, 0) or wrong:
                    self.world.wrong(9, f"the books of {account.id} do not agree with the calls under way")

    def _aside(self) -> int:
        from paceline.pacing import agenda

        return agenda.ASIDE

    # -- at the very end

    def finish(self) -> None:
        """Everything is over: compare what was said, what is on disk and what the provider has."""
        self._check_kept()
        confirmed = {
            line.message
            for lines in self.tables.journal.values()
            for line in lines
            if line.outcome == "confirm"
        }
        for id_, kept in self.tables.messages.items():
            text, state = to_text(id_), State(kept.state)
            taken = self.taken.get(id_, 0)
            if state is State.COMPLETED and not taken and id_ not in confirmed:
                self.world.wrong(1, f"{text} is completed and never arrived")
            told = (
                state in (State.COMPLETED, State.UNCERTAIN)
                or id_ in self.revived
                or kept.row.channel != "once"
            )
            denied = any(line.outcome in ("deny", "Unknown") for line in self.tables.journal.get(id_, ()))
            if taken and not told and not denied:
                self.world.wrong(4, f"{text} was carried out and is {state.label}")
            if state not in (1, 2, 3, 4) and not any(
                line.number == kept.number for line in self.tables.journal.get(id_, ())
            ):
                self.world.wrong(3, f"{text} is {state.label} without a line in the journal")

    def quotas(self) -> None:
        """Nothing is under way: the ledger of each quota is what the journal has of its period."""
        if self.node.state != "up" or self.node.core.agenda.out:
            return
        for lane in self.node.core.agenda.lanes.values():
            for account in lane.accounts.values():
                for quota in account.quotas:
                    quota.left(self.node.clock.now())
                    first = quota.resets_at - 86_400_000
                    lines = self.tables.by_account.get(account.id, [])
                    spent = sum(
                        each.finished > first and each.outcome in ("Accepted", "Unknown") for each in lines
                    )
                    if quota.used != spent:
                        self.world.wrong(
                            9, f"{account.id} has {quota.used} units used and {spent} in its journal"
                        )


def _nothing(_referee: Referee, _call: Call) -> None:
    pass


_WRITTEN: dict[Kind, Any] = {
    Kind.SETTLE: Referee._ended, Kind.ADD: Referee._added, Kind.PROMOTE: Referee._promoted,
    Kind.REVISE: Referee._revised, Kind.HAND_OVER: Referee._handed_over,
}  # fmt: skip
